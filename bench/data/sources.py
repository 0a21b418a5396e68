"""Each data set is one entry of `DATASETS`, which finds its files in a folder or a file.

A data set of your own is one entry more:

    "flowers": images_in("~/flowers", channels=3, size=128),
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.data import download, files, synthetic
from bench.data.files import Arrays, DataError, Lacking, Rows


@dataclass(frozen=True)
class Source:
    """A source is a data set at a place: its files, and a function that reads them."""

    name: str  # of the data set, or "folder" for images that their digest tells apart
    place: Path
    files: Sequence[Path]
    read: Callable[[], Mapping[str, Rows]]

    def stamp(self) -> str:
        """Returns a hash that changes if a file is added, removed, resized or written."""
        stats = [(file, file.stat()) for file in self.files]
        lines = [f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for file, stat in stats]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set has images (channels, size, size).

    `locate(place)` returns the data set in a folder or file. A missing data set raises DataError,
    or gives None if other images, named by their digest, may replace it. `download(cache)` fetches
    what the cache lacks. `draw()` makes a synthetic data set.
    """

    channels: int
    size: int
    train: int  # images for training, for estimates of how long a training takes
    d_z: int  # dimension of codes
    locate: Callable[[Path], Source | None] = lambda place: None
    looked: str = "images"  # what an error says that it looked for
    download: Callable[[Path], None] | None = None
    draw: Callable[[], Arrays] | None = None
    classifier: str = ""  # of bench.scores, trained on these images
    path: str = ""  # where the images are without --data; "": in the cache

    @property
    def networks(self) -> str:
        """Whose networks the images take: "mnist" or "colour" of `models`."""
        return "mnist" if self.channels == 1 else "colour"


def images_in(
    path: str, *, channels: int, size: int, train: int = 10_000, d_z: int = 64
) -> Dataset:
    """Returns an entry for your own images: a folder or zip of images of any size, or an .npz.

    `channels` is 1 (grey) or 3; `size` is height and width, from 16 to 256. An .npz has `images`,
    uint8 (n, size, size, channels), or (n, size, size) if grey. Every tenth image is for the test.
    Specs and rows name these images with their digest.
    """
    return Dataset(channels, size, train, d_z, path=path)


def find(name: str, place: Path) -> Source:
    """Returns the data set of this name in `place`, or images in its place. Raises DataError."""
    entry = DATASETS[name]
    source = entry.locate(place) or _images("folder", place, entry.channels, entry.size)
    if source is None:
        raise DataError(f"no {name} in {place}: looked for {entry.looked}")
    return source


def _named(place: Path, name: str, *ends: str) -> Path:
    """Returns `place` if it is a file with one of these endings, and else the file `name` in it."""
    return place if place.is_file() and place.name.endswith(ends) else place / name


def _mnist(place: Path) -> Source:
    found = files.mnist_files(place)
    if lacking := [f"{file}[.gz]" for name, file in files.MNIST.items() if name not in found]:
        looked = f"looked for {', '.join(lacking)} there and in MNIST/raw"
        raise Lacking(f"no MNIST in {place}: {looked}; without --data it is downloaded")
    return Source("mnist", place, list(found.values()), partial(files.mnist, found))


def _cifar10(place: Path) -> Source | None:
    npz = _named(place, "cifar10.npz", ".npz")
    if npz.is_file():
        return Source("cifar10", npz, [npz], partial(files.cifar10_npz, npz))
    for folder in (place, place / files.CIFAR10[0]):
        found = [folder / name for name in files.CIFAR10[1:] if (folder / name).is_file()]
        if found:
            return Source("cifar10", folder, found, partial(files.cifar10_batches, folder))
    archive = _named(place, "cifar-10-python.tar.gz", ".tar.gz", ".tgz")
    if archive.is_file():
        return Source("cifar10", archive, [archive], partial(files.cifar10_archive, archive))
    return None


def _celeba(place: Path) -> Source | None:
    npz = _named(place, "celeba64.npz", ".npz")
    if npz.is_file():
        return _images("celeba", npz, 3, 64)
    name = "img_align_celeba"
    paths = [place / inside / f"{name}{end}" for inside in ("celeba", "") for end in ("", ".zip")]
    paths = [place, *paths] if place.stem == name else paths
    sources = (_images("celeba", path, 3, 64) for path in paths if path.exists())
    return next(filter(None, sources), None)


def _images(name: str, place: Path, channels: int, size: int) -> Source | None:
    """Returns images without labels in an .npz, a folder or a zip; CelebA's have a partition."""
    if place.is_file() and place.suffix == ".npz":
        return Source(name, place, [place], partial(files.unlabelled_npz, place, channels, size))
    if place.is_file() and place.suffix != ".zip":
        raise DataError(f"{place} is no file of images; allowed: a folder, a .zip or an .npz")
    names = files.picture_names(place)
    lists = [place.parent / f"list_eval_partition{end}" for end in (".txt", ".csv")]
    official = [path for path in lists if name == "celeba" and path.is_file()][:1]
    inside = [place] if place.is_file() else [place / file for file in names]
    partition = official[0] if official else None
    read = partial(files.pictures, place, names, partition, channels, size)
    return Source(name, place, [*inside, *official], read) if names else None


_MNIST = Dataset(
    channels=1,
    size=28,
    train=60_000,
    d_z=64,
    locate=_mnist,
    download=download.mnist,
    classifier="mnist",
)
_CIFAR10 = Dataset(
    channels=3,
    size=32,
    train=50_000,
    d_z=256,
    locate=_cifar10,
    looked="cifar10.npz, cifar-10-batches-py, cifar-10-python.tar.gz or images",
    download=download.cifar10,
    classifier="cifar10",
)
_CELEBA = Dataset(
    channels=3,
    size=64,
    train=162_770,
    d_z=64,
    locate=_celeba,
    looked="celeba64.npz, img_align_celeba (a folder or .zip) or images",
    download=download.celeba,
)
DATASETS: dict[str, Dataset] = {
    "mnist": _MNIST,
    "cifar10": _CIFAR10,
    "celeba": _CELEBA,
    "stand-in digits": replace(_MNIST, train=synthetic.N_TRAIN, draw=synthetic.digits),
    "stand-in photos": replace(_CIFAR10, train=synthetic.N_TRAIN, draw=synthetic.photos),
    "stand-in faces": replace(_CELEBA, train=synthetic.N_TRAIN, draw=partial(synthetic.photos, 64)),
}
"""Data sets by the name that specs and rows carry."""
