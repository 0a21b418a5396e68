"""Makes images that no model made, whose scores tell what a model's scores are worth."""

from collections.abc import Iterator

import numpy as np

from bench.data.load import Images

CHUNK = 500  # images in one pass


def anchors(images: Images, used: int, n: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields kinds of images, each with what it stands for, "x_rec" or "samples", and the images.

    They are float32 (m, c, h, w) in [0, 1]. Those for "x_rec" are one for each test image:

        mean image          the mean of the first `used` (0: all) training images
        class mean          the mean of those of the test image's class, where there are labels
        unrelated images    another test image at random, where there are two

    Those for "samples" are n. They begin anew with the first training image where there are fewer:

        phase-randomised    training images at random, see `phase_randomised`
        noise               independent pixels, uniform on [0, 1)
        real images         the same training images as they are
    """
    test, train = images.test, images.train[: used or None]
    mean = train.mean(0)
    yield "mean image", "x_rec", _unit(np.broadcast_to(mean, test.shape))
    if images.train_labels is not None and images.test_labels is not None:
        labels = images.train_labels[: used or None]
        of_class = {label: train[labels == label].mean(0) for label in np.unique(labels)}
        means = [of_class.get(label, mean) for label in images.test_labels]
        yield "class mean", "x_rec", _unit(np.stack(means))
    rng = np.random.default_rng(0)
    if len(test) > 1:
        order = rng.permutation(len(test))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # a cycle through all images, so none is its own
        yield "unrelated images", "x_rec", _unit(test[other])
    real = _unit(images.train[np.resize(rng.permutation(len(images.train)), n)])
    yield "phase-randomised", "samples", phase_randomised(real, rng)
    yield "noise", "samples", rng.random(real.shape, np.float32)
    yield "real images", "samples", real


def phase_randomised(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns images (n, c, h, w) of the amplitudes of x and of random phases, cut to [0, 1].

    An image's phases are those of white noise, the same for all channels. Before the cut an image
    keeps the mean of each channel and its spectrum, and so how alike pixels are at each distance.
    Edges, shapes and whatever else makes an object of pixels are gone.
    """
    found = np.empty(x.shape, np.float32)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        white = np.fft.rfft2(rng.standard_normal((len(part), 1, *part.shape[2:])))
        amplitudes = np.fft.rfft2(part.astype(np.float64))
        turned = np.abs(amplitudes) * np.exp(1j * np.angle(white))
        turned[..., 0, 0] = amplitudes[..., 0, 0]
        found[start : start + CHUNK] = np.fft.irfft2(turned, s=part.shape[2:])
    return found.clip(0, 1, out=found)


def _unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
