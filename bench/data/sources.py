"""What there is in a folder, or a file, that a data set can be made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.data import files as datafiles
from bench.data import pictures
from bench.data.files import Arrays, DataError
from bench.data.prepared import Content, content

SIZES = {"mnist": 28, "cifar10": 32, "celeba": 64}
"""Height and width of the images by name of the data set."""


@dataclass(frozen=True)
class Source:
    """A data set in `place`: the files it is made from, and how to read them.

    `name` is that of the data set, or "folder" for images that only stand in for it.
    """

    name: str
    place: Path
    files: Sequence[Path]
    read: Callable[[], Content]

    def stamp(self) -> str:
        """Another one if a file is added, taken away, resized or written."""
        digest = hashlib.sha256()
        for file in self.files:
            stat = file.stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def known(name: str, place: Path) -> Source | None:
    """The first thing in `place`, or `place` itself, that is a copy of the data set."""
    return {"mnist": _mnist, "cifar10": _cifar10, "celeba": _celeba}[name](place)


def find(name: str, place: Path) -> Source:
    """A copy of the data set in `place`, or images that can stand in for it.

    Raises DataError, with what was looked for, if there is nothing.
    """
    source = known(name, place)
    if source is None and name != "mnist":
        source = _pictures("folder", place, SIZES[name])
    if source:
        return source
    looked = {
        "mnist": "the four idx files, plain or .gz, there and in MNIST/raw",
        "cifar10": "cifar10.npz, cifar-10-batches-py, cifar-10-python.tar.gz or images",
        "celeba": "celeba64.npz, img_align_celeba (a folder or .zip) or images",
    }
    raise DataError(f"no {name} in {place}: looked for {looked[name]}")


def _arrays(name: str, place: Path, files: Sequence[Path], read: Callable[[], Arrays]) -> Source:
    return Source(name, place, files, lambda: content(read()))


def _mnist(place: Path) -> Source | None:
    files = list(datafiles.mnist_files(place).values())
    read = partial(datafiles.mnist, place)
    return _arrays("mnist", place, files, read) if files else None


def _cifar10(place: Path) -> Source | None:
    given = place.is_file()
    npz = place if given and place.suffix == ".npz" else place / "cifar10.npz"
    packed = given and place.name.endswith((".tar.gz", ".tgz"))
    archive = place if packed else place / "cifar-10-python.tar.gz"
    if npz.is_file():
        return _arrays("cifar10", npz, [npz], partial(datafiles.cifar10_npz, npz))
    for folder in (place, place / datafiles.CIFAR10_FOLDER):
        files = [folder / name for name in datafiles.CIFAR10_MD5 if (folder / name).is_file()]
        if files:
            read = partial(datafiles.cifar10_batches, folder)
            return _arrays("cifar10", folder, files, read)
    if archive.is_file():
        return _arrays("cifar10", archive, [archive], partial(datafiles.cifar10_archive, archive))
    return None


def _celeba(place: Path) -> Source | None:
    npz = place if place.is_file() and place.suffix == ".npz" else place / "celeba64.npz"
    if npz.is_file():
        return Source("celeba", npz, [npz], partial(_celeba_npz, npz))
    name = "img_align_celeba"
    inside = [
        folder / f"{name}{end}" for folder in (place / "celeba", place) for end in ("", ".zip")
    ]
    for path in [place, *inside] if place.stem == name else inside:
        source = _pictures("celeba", path, SIZES["celeba"]) if path.exists() else None
        if source:
            return source
    return None


def _celeba_npz(path: Path) -> Content:
    images = datafiles.npz(path, "images")["images"]
    if images.dtype != np.uint8 or images.shape[1:] != (64, 64, 3):
        raise DataError(
            f"{path}: images is {images.dtype} {images.shape}, not uint8 (n, 64, 64, 3)"
        )
    test = np.arange(len(images)) % 10 == 9
    chunks = (images[part].transpose(0, 3, 1, 2) for part in (~test, test))
    return Content(int((~test).sum()), int(test.sum()), chunks)


def _pictures(name: str, place: Path, size: int) -> Source | None:
    if place.is_file() and place.suffix != ".zip":
        raise DataError(f"{place} is neither a folder nor a file of a kind that can be read")
    names = pictures.in_zip(place) if place.is_file() else pictures.in_folder(place)
    if not names:
        return None
    lists = [place.parent / f"list_eval_partition{end}" for end in (".txt", ".csv")]
    official = [path for path in lists if name == "celeba" and path.is_file()][:1]

    def read() -> Content:
        parts = pictures.partition(official[0]) if official else None
        train, test = pictures.split(names, parts)
        return Content(len(train), len(test), pictures.read(place, [*train, *test], size))

    files = [place] if place.is_file() else [place / file for file in names]
    return Source(name, place, [*files, *official], read)
