"""Trains the suite's own classifiers of MNIST and CIFAR-10 images, and measures them.

    python -m bench.scores.train_classifier train mnist|cifar10 --data DIR [--out FILE]

trains one classifier, prints a line per epoch and the test accuracy, and writes FILE (default:
results/classifiers/NAME.safetensors). After a stop, the same command goes on from the last finished
epoch.

    python -m bench.scores.train_classifier measure mnist|cifar10 --data DIR

prints the committed classifier's accuracy, inception score and Fréchet distance on real images.
bench/scores/weights/real.json has what it printed. New weights replace the file
bench/scores/weights/NAME.safetensors, its SHA-256 in `PINNED` and the numbers in real.json.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from bench.cli import Parser, UsageError, complain, positive, to_path
from bench.data.load import load as load_images
from bench.process import command
from bench.scores.classifiers import Classifier, own
from bench.scores.metrics import frechet_distance, inception_score
from bench.store import checkpoint, provenance
from bench.store.atomic import write_atomically
from models.classifiers import Classifier as Network
from models.classifiers import network

BATCH = 250
PEAK, WARM_UP = 0.2, 0.2
"""The largest learning rate, and the share of training after which it is reached."""
MOMENTUM, DECAY, SMOOTHING = 0.9, 5e-4, 0.1


@dataclass(frozen=True)
class Recipe:
    """Says how one classifier is trained: epochs, and the ranges of its images' variations."""

    epochs: int
    shift: int  # pixels, along each axis
    degrees: float
    zoom: float
    flip: bool


RECIPES = {
    "mnist": Recipe(epochs=10, shift=2, degrees=15, zoom=0.1, flip=False),
    "cifar10": Recipe(epochs=24, shift=3, degrees=0, zoom=0, flip=True),
}


def measure(name: str, data: Path) -> dict[str, float | int | str]:
    """Returns the classifier's accuracy and its scores of real images, by the suite's protocol.

    `inception_score` (10 splits) is that of the 10,000 test images. `frechet_distance` is the
    distance of 10,000 random training images to them, which a perfect generator would reach.
    """
    classifier = own(name)
    images, _, test_images, test_labels = _read(name, data)
    rows = np.random.default_rng(0).permutation(len(images))[: len(test_images)]
    logits, features = classifier(test_images)
    score, sd = inception_score(logits, splits=10)
    return {
        "sha256": classifier.sha256,
        "accuracy": float((logits.argmax(1) == test_labels).mean()),
        "inception_score": score,
        "inception_score_sd": sd,
        "frechet_distance": frechet_distance(classifier(images[rows])[1], features),
        "n_samples": len(test_images),
    }


def varied(images: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Returns images (n, c, h, w), moved, turned, zoomed and flipped at random by the recipe."""
    n, _, height, width = images.shape

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(n, generator=rng) - 1)

    angle, scale = uniform(math.radians(recipe.degrees)), 1 + uniform(recipe.zoom)
    sign = 1.0 - 2.0 * torch.randint(2, (n,), generator=rng) if recipe.flip else torch.ones(n)
    shift = torch.randint(-recipe.shift, recipe.shift + 1, (2, n), generator=rng)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [sign * cos, -sin, 2 * shift[0] / width, sign * sin, cos, 2 * shift[1] / height]
    grid = affine_grid(torch.stack(rows, -1).view(n, 2, 3), list(images.shape), False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def train(name: str, data: Path, out: Path, epochs: int | None = None, seed: int = 0) -> float:
    """Trains the classifier of `name`, writes it to `out` and returns its test accuracy.

    The optimiser is SGD with Nesterov momentum. The learning rate rises and then falls linearly to
    0. Labels are smoothed (see `sharpen`), and products are in bfloat16. An epoch's random numbers
    depend on seed and epoch alone, so a resumed training equals an uninterrupted one. The accuracy
    is that of the stored weights. Raises UsageError for data that can't be used.
    """
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    images, labels, test_images, test_labels = _read(name, data)
    classes = torch.from_numpy(labels).long()
    torch.manual_seed(seed)
    net = network(name)
    net.whiten(_scaled(images[:5000]))
    net = net.to(memory_format=torch.channels_last)
    learned = {key: p for key, p in net.named_parameters() if p.requires_grad}
    settings = {"momentum": MOMENTUM, "weight_decay": DECAY, "nesterov": True}
    sgd = torch.optim.SGD(learned.values(), lr=PEAK, **settings)
    # The rest of a training depends on these tensors, which change in place.
    live = {f"network.{key}": each for key, each in net.state_dict().items()}
    for key, parameter in learned.items():
        live[f"momentum.{key}"] = momentum = torch.zeros_like(parameter)
        sgd.state[parameter]["momentum_buffer"] = momentum
    live["epoch"] = torch.tensor(0)
    kept = out.with_name(f".{out.name}.{name}-{epochs}-{seed}.checkpoint")
    state = checkpoint.load(kept) or {}
    if live.keys() <= state.keys():  # another network's checkpoint lacks some
        for key, each in live.items():
            each.copy_(state[key])
    steps = math.ceil(len(images) / BATCH)
    net.train()
    for epoch in range(int(live["epoch"]), epochs):
        start, losses, rng = time.perf_counter(), 0.0, _generator(seed, epoch)
        for step, rows in enumerate(torch.randperm(len(images), generator=rng).split(BATCH)):
            share = (epoch + step / steps) / epochs
            sgd.param_groups[0]["lr"] = PEAK * min(
                (share + 1 / (steps * epochs)) / WARM_UP, (1 - share) / (1 - WARM_UP)
            )
            batch = varied(_scaled(images[rows.numpy()]), recipe, rng)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch.contiguous(memory_format=torch.channels_last))[0]
            loss = cross_entropy(logits.float(), classes[rows], label_smoothing=SMOOTHING)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses += loss.item()
        live["epoch"] += 1
        checkpoint.save(kept, live)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {losses / steps:.4f}, {seconds:.0f} s", flush=True)
    some = varied(_scaled(images[:10_000]), recipe, _generator(seed, epochs))
    sharpen(net, some, classes[:10_000])
    # float16 halves the file; statistics of channels stay exact.
    halved = {k: each.half() if each.ndim > 1 else each for k, each in net.state_dict().items()}
    stored = {key: each.contiguous() for key, each in halved.items()}
    final = network(name)
    final.load_state_dict(stored)
    found = Classifier(name, "", final.eval(), final.shape)(test_images)[0].argmax(1)
    accuracy = float((found == test_labels).mean())
    about = {"data": name, "accuracy": accuracy, "seed": seed, "epochs": epochs}
    about |= {"suite": provenance.versions()["suite"]}
    content = save(stored, {key: str(value) for key, value in about.items()})
    write_atomically(out, content, out.parent)
    kept.unlink()
    print(f"test accuracy {accuracy:.2%}; SHA-256 {hashlib.sha256(content).hexdigest()}; {out}")
    return accuracy


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + epoch)


@torch.inference_mode()
def sharpen(net: Network, images: Tensor, labels: Tensor) -> None:
    """Scales the last layer so that `images` (n, c, h, w) get `labels` with the highest likelihood.

    Smoothed labels cap a class's probability at about .91, and so the inception score of perfect
    images at 6 of 10. Temperature scaling (Guo et al. 2017) undoes this cap and keeps decisions.
    """
    net.eval()
    logits = torch.cat([net(part)[0] for part in images.split(500)]).double()

    def loss(log_scale: float) -> float:
        return cross_entropy(math.exp(log_scale) * logits, labels).item()

    scale = math.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x)
    net.head.weight.mul_(scale)
    net.head.bias.mul_(scale)


def _scaled(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _read(name: str, folder: Path) -> tuple[np.ndarray, ...]:
    """Returns training images uint8 (n, c, h, w) and labels (n,), test images and labels."""
    images = load_images(name, folder)
    if images.train_labels is None or images.test_labels is None:
        raise UsageError(f"--data {folder} has no labels; allowed: {name} itself")
    return images.train, images.train_labels, images.test, images.test_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser("python -m bench.scores.train_classifier", __doc__)
    parser.add_argument("command", choices=("train", "measure"))
    parser.add_argument("name", choices=sorted(RECIPES), help="the data set")
    parser.add_argument("--data", type=to_path, required=True, metavar="DIR", help="where it lies")
    default = "results/classifiers/NAME.safetensors"
    parser.add_argument("--out", type=to_path, metavar="FILE", help=default)
    parser.add_argument("--epochs", type=positive, metavar="N", help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if args.command == "measure":
            print(json.dumps(measure(args.name, args.data), indent=4))
            return 0
        out = args.out or Path("results") / "classifiers" / f"{args.name}.safetensors"
        out.parent.mkdir(parents=True, exist_ok=True)
        train(args.name, args.data, out, args.epochs, args.seed)
    except (UsageError, OSError) as error:
        return complain("bench.scores.train_classifier", error)
    except KeyboardInterrupt:
        stopped = UsageError("stopped; the same command goes on")
        return complain("bench.scores.train_classifier", stopped, 130)
    return 0


if __name__ == "__main__":
    command(main)
