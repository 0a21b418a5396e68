"""Each data set is one entry of `DATASETS`, which finds its files in a folder or a file.

A data set of your own is one entry more:

    "flowers": images_in("~/flowers", channels=3, size=128),
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from bench.data import choose, download, files, own, pictures, synthetic
from bench.data.files import Arrays, DataError, Lacking
from bench.data.own import Target
from bench.data.pictures import Rows


@dataclass(frozen=True)
class Source:
    """A source is a data set at a place: its files, and a function that reads them."""

    name: str  # of the data set, or "folder" for images that their digest tells apart
    place: Path
    files: Sequence[Path]
    read: Callable[[], Mapping[str, Rows]]
    rules: str = ""  # of what the function makes of the files

    def stamp(self) -> str:
        """Returns a hash that changes if a file is added, removed, resized or written.

        Raises OSError for a file that can't be read.
        """
        stats = [(file, file.stat()) for file in self.files]
        lines = [f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for file, stat in stats]
        return hashlib.sha256(os.fsencode("".join([self.rules, *lines]))).hexdigest()


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
    allowed: str = ""  # what an error names, beside a user's own images
    download: Callable[[Path], None] | None = None
    draw: Callable[[], Arrays] | None = None
    classifier: str = ""  # of bench.scores, trained on these images
    path: str = ""  # where the images are without --data; "": in the cache
    real: str = ""  # the data set that a synthetic data set stands for, which --data replaces
    known: Callable[[Mapping[str, str]], bool] = lambda hashes: False
    """Whether arrays of these SHA-256s, by name, are this data set."""
    by_name: bool = True  # whether names of files tell the data set, or their content alone

    @property
    def networks(self) -> str:
        """Whose networks the images take: "mnist" or "colour" of `models`."""
        return "mnist" if self.channels == 1 else "colour"

    def target(self) -> Target:
        """Returns what other images become that take this data set's place.

        They keep their size if the networks take it. An entry for one's own images has one size.
        """
        if self.path:
            return Target(self.channels, self.size, (self.size,))
        from models import colour, mnist  # they import torch

        sizes = mnist.SIZES if self.networks == "mnist" else colour.SIZES
        return Target(self.channels, self.size, sizes)


def images_in(
    path: str, *, channels: int, size: int, train: int = 10_000, d_z: int = 64
) -> Dataset:
    """Returns an entry for your own images: all that --data takes, see `own.FORMS`.

    `channels` is 1 (grey) or 3; `size` is height and width, from 16 to 256, which all images
    become. Specs and rows name these images with their digest.
    """
    return Dataset(channels, size, train, d_z, path=path)


def find(name: str, place: Path, other: bool = True) -> Source:
    """Returns the data set of this name in `place`, or `other` images in its place.

    Raises DataError.
    """
    entry = DATASETS[name]
    source = entry.locate(place) if entry.by_name or not other else None
    source = source or (_own(place, entry) if other else None)
    if source is None:
        archives = [each for each in files.names(place) if each.lower().endswith(_ARCHIVES)]
        there = place / min(archives) if archives else "another place"
        raise DataError(
            f"no {name} in {place}: {choose.choose(place).counted()}; allowed: "
            f"{entry.allowed}{own.FORMS} ({choose.ALLOWED}); give {there} with --data"
        )
    return source


_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ARCHIVES = (*_TAR, ".zip", ".npz", ".npy")


def _own(place: Path, entry: Dataset) -> Source | None:
    """Returns a user's own images, None for a folder without any."""
    named, rules = place.name.lower(), f"{pictures.RULES} {entry.size}"
    paths, read = [place], None
    if place.is_file() and named.endswith((".npz", ".npy")):
        read = partial(own.from_numpy, place)
    elif place.is_file() and named.endswith(_TAR):
        read = partial(pictures.of_tar, place)
    elif not named.endswith(".zip"):
        found = own.idx_files(place)
        if any(len(each.shape) > 1 for each in found):
            paths, read = [each.path for each in found], partial(own.from_idx, place, found)
    if read is None:
        return _images("folder", place, entry.target)
    return Source("folder", place, paths, partial(_converted, read, entry), rules)


def _converted(read: Callable[[Target], Mapping[str, Rows]], entry: Dataset) -> Mapping[str, Rows]:
    return read(entry.target())


def _named(place: Path, name: str) -> Path | None:
    """Returns `place` if it is the file of this name, and else the file `name` in it."""
    if place.is_file():
        return place if place.name.lower() == name else None
    found = files.within(place, name)
    return found if found and found.is_file() else None


def _mnist(place: Path) -> Source:
    found = files.mnist_files(place)
    if lacking := [f"{file}[.gz]" for name, file in files.MNIST.items() if name not in found]:
        raise Lacking(
            f"no MNIST in {place}: {', '.join(lacking)} missing; allowed: a folder of the four idx "
            "files as published, there or in MNIST/raw; without --data it is downloaded"
        )
    return Source("mnist", place, list(found.values()), partial(files.mnist, found))


def _cifar10(place: Path) -> Source | None:
    npz = _named(place, "cifar10.npz")
    if npz:
        return Source("cifar10", npz, [npz], partial(files.cifar10_npz, npz))
    for folder in (place, files.within(place, files.CIFAR10[0])):
        names = files.CIFAR10[1:] if folder else ()
        found = [folder / name for name in names if folder and (folder / name).is_file()]
        if folder and found:
            return Source("cifar10", folder, found, partial(files.cifar10_batches, folder))
    archive = _named(place, "cifar-10-python.tar.gz")
    if archive:
        return Source("cifar10", archive, [archive], partial(files.cifar10_archive, archive))
    return None


_CELEBA_NAME = re.compile(r"(?i)img_align_celeba(_png)?")
_CELEBA_PLACES = [
    (*inside, f"img_align_celeba{end}")
    for inside in (("celeba",), (), ("celeba", "Img"), ("Img",))
    for end in ("", ".zip", "_png", "_png.zip")
]
"""Where a folder holds the images: torchvision's layout, and that of the official download."""


def _celeba(place: Path) -> Source | None:
    npz = _named(place, "celeba64.npz")
    if npz:
        return Source("celeba", npz, [npz], partial(files.unlabelled_npz, npz, 3, 64))
    below = (files.within(place, *parts) for parts in _CELEBA_PLACES)
    paths = chain([place] if _CELEBA_NAME.fullmatch(place.stem) else [], below)
    sources = (_images("celeba", path, _faces) for path in paths if path)
    if found := next(filter(None, sources), None):
        return found
    is_zip = place.is_file() and place.suffix.lower() == ".zip"
    if is_zip or (place.is_dir() and any(map(choose.may_be_partition, files.names(place)))):
        chosen = choose.choose(place)
        if chosen.lists:  # they tell what the images are
            return _images("celeba", place, _faces, chosen)
    return None


def _faces() -> Target:
    return Target(3, 64, (64,))


def _images(
    name: str, place: Path, target: Callable[[], Target], chosen: choose.Chosen | None = None
) -> Source | None:
    """Returns images of a folder or a zip, None without any; CelebA's have a partition."""
    if not place.is_dir() and not (place.is_file() and place.suffix.lower() == ".zip"):
        what = "no file of images" if place.is_file() else "neither a folder nor a file"
        raise DataError(
            f"{place} is {what}; allowed: {own.FORMS}; unpack another archive, and give its folder "
            "with --data"
        )
    chosen = chosen or choose.choose(place)
    official = _partition(chosen) if name == "celeba" else None
    inside = [place] if place.is_file() else [place / file for file in chosen.files.values()]
    lists = [official] if isinstance(official, Path) else []
    if not chosen.files:
        return None

    def read() -> Mapping[str, Rows]:
        return pictures.pictures(chosen, official, target())

    return Source(name, place, [*inside, *lists], read, pictures.RULES)


def _partition(chosen: choose.Chosen) -> Path | str | None:
    """Returns CelebA's list of parts: within its images' place, or beside it, or in Eval/ there.

    A string is a member of a zip. Raises DataError for several copies of the list.
    """
    place = chosen.place
    if inside := choose.partition(chosen.lists):
        return inside if place.is_file() else place / inside
    lists: list[Path] = []
    for folder in list(place.parents)[:2]:
        for parts in ((), ("Eval",), ("Anno",)):
            with suppress(DataError, OSError):  # the list's place need not be readable
                if found := files.within(folder, *parts):
                    names = filter(choose.may_be_partition, files.names(found))
                    paths = [found / name for name in sorted(names, reverse=True)]  # .txt first
                    lists += filter(Path.is_file, paths)
    return choose.partition(lists)


_MNIST = Dataset(
    channels=1,
    size=28,
    train=60_000,
    d_z=64,
    locate=_mnist,
    download=download.mnist,
    classifier="mnist",
    known=files.is_mnist,
    by_name=False,
)
_CIFAR10 = Dataset(
    channels=3,
    size=32,
    train=50_000,
    d_z=256,
    locate=_cifar10,
    allowed="cifar10.npz, cifar-10-batches-py, cifar-10-python.tar.gz, ",
    download=download.cifar10,
    classifier="cifar10",
    known=files.is_cifar10,
)
_CELEBA = Dataset(
    channels=3,
    size=64,
    train=162_770,
    d_z=64,
    locate=_celeba,
    allowed="celeba64.npz, img_align_celeba (a folder or .zip), ",
    download=download.celeba,
)


def _drawn(real: str, entry: Dataset, draw: Callable[[], Arrays]) -> Dataset:
    return replace(entry, train=synthetic.N_TRAIN, draw=draw, real=real)


DATASETS: dict[str, Dataset] = {
    "mnist": _MNIST,
    "cifar10": _CIFAR10,
    "celeba": _CELEBA,
    "stand-in digits": _drawn("mnist", _MNIST, synthetic.digits),
    "stand-in photos": _drawn("cifar10", _CIFAR10, synthetic.photos),
    "stand-in faces": _drawn("celeba", _CELEBA, partial(synthetic.photos, 64)),
}
"""Data sets by the name that specs and rows carry."""
