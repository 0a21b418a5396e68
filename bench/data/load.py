"""The images of the suite: MNIST, CIFAR-10, CelebA, a folder of images, and drawn stand-ins.

    python -m bench.data prepare mnist|cifar10|celeba [--from DIR|FILE] [--cache DIR]

turns torchvision's files, an .npz or any folder or zip of images (the middle square of each, in
the size of the data set, every tenth for the test) into one memory-mapped array in the cache;
without --from from files already in the cache, or downloaded to it. With --check it compares
every byte of what was prepared with its SHA-256 instead.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cli import Parser, complain
from bench.data import download, prepared, sources
from bench.data import files as datafiles
from bench.data import synthetic as standin
from bench.data.files import Arrays, DataError
from bench.data.sources import SIZES

__all__ = ["NAMES", "DataError", "Images", "cache", "load", "static_bits", "static_labels"]

NAMES = (*SIZES, "stand-in digits", "stand-in photos", "stand-in faces")


@dataclass(frozen=True)
class Images:
    """One data set.

    train (n, c, h, w) and test (m, c, h, w) are uint8, and perhaps memory-mapped. The labels are
    int64 or None. `name` says what they are: "folder" for images that only stand in for CIFAR-10
    or CelebA. `sha256` is over names, types, shapes and bytes of all arrays, however they came.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    sha256: str
    stand_in: bool


def cache() -> Path:
    """Where downloads and prepared arrays are kept: $SVAE_BENCH_DATA or ~/.cache/svae-bench."""
    return Path(os.environ.get("SVAE_BENCH_DATA") or Path.home() / ".cache" / "svae-bench")


def load(name: str, data: Path | None = None) -> Images:
    """The data set of this name, one of NAMES; "stand-in faces" are photos of CelebA's size.

    With `data`, a folder or file, from there and nowhere else: prepared arrays, or files that
    are prepared in the cache at first use (MNIST is read as it is). Without, from the cache;
    others are downloaded to it if need be (CelebA with gdown). Raises DataError with what to do.
    """
    if name == "stand-in digits":
        return _stand_in(name, *standin.digits())
    if name == "stand-in photos":
        return _stand_in(name, *standin.photos(32))
    if name == "stand-in faces":
        return _stand_in(name, *standin.photos(64))
    _known(name)
    place = _place(data)
    found = prepared.read(_folder(place, name))
    if found:
        return _images(*found)
    if name == "mnist":
        if data is None:
            download.mnist(place)
        arrays = datafiles.mnist(place)
        sha256 = datafiles.fingerprint(arrays, datafiles.MNIST_SHA256)
        return _images({"name": name, "sha256": sha256}, arrays)
    if data is None:
        return prepare(name)
    key = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    return _prepare(sources.find(name, place), _folder(cache(), f"{name}-{key}"))


def prepare(name: str, data: Path | None = None) -> Images:
    """Prepares the data set in the cache, from `data`, or from the cache or a download.

    From then on `load(name)` gives it. Raises DataError.
    """
    _known(name)
    folder = _folder(cache(), name)
    if data is not None:
        return _prepare(sources.find(name, _place(data)), folder)
    found = prepared.read(folder)
    if found:
        return _images(*found)
    if name == "mnist" or sources.known(name, cache()) is None:  # of MNIST, what is missing
        getattr(download, name)(cache())
    return _prepare(sources.find(name, cache()), folder)


def _known(name: str) -> None:
    if name not in SIZES:
        raise DataError(f"no data set {name}, only {', '.join(NAMES)}")


def _folder(place: Path, name: str) -> Path:
    return place / "prepared" / name


def _place(data: Path | None) -> Path:
    if data is not None and not data.exists():
        raise DataError(f"{data} does not exist")
    return (data or cache()).resolve()


def _stand_in(name: str, train: standin.Set, test: standin.Set) -> Images:
    arrays = {"train": train[0], "test": test[0]}
    arrays |= {"train_labels": train[1], "test_labels": test[1]}
    hashes = {key: datafiles.sha256(array) for key, array in arrays.items()}
    sha256 = datafiles.fingerprint(arrays, hashes)
    return _images({"name": name, "sha256": sha256}, arrays, stand_in=True)


def _images(about: dict[str, str], arrays: Arrays, stand_in: bool = False) -> Images:
    return Images(
        about["name"],
        arrays["train"],
        arrays["test"],
        arrays.get("train_labels"),
        arrays.get("test_labels"),
        about["sha256"],
        stand_in,
    )


def _prepare(source: sources.Source, folder: Path) -> Images:
    prepared.write(folder, source.name, str(source.place), source.stamp(), source.read)
    found = prepared.read(folder)
    if found is None:
        raise DataError(f"{folder} was taken away while it was prepared")
    return _images(*found)


def static_bits(data: Path | None = None) -> np.ndarray:
    """The test set of statically binarized MNIST, uint8 0 or 1, (10000, 784), sorted by class.

    From `data`, or the cache and downloaded if need be (Salakhutdinov and Murray 2008, the files
    of Larochelle). Raises DataError.
    """
    place = _place(data)
    if data is None and datafiles.bits_file(place) is None:
        download.bits(place)
    return datafiles.bits(place)


def static_labels() -> np.ndarray:
    """The classes of `static_bits`, int64 (10000,).

    The bits are those of MNIST's test set in stable order of class, so the classes follow from
    their numbers there. Of 6,385,616 pixels that are 0 or 255 in MNIST none contradicts its bit
    in this order, and the likeliest of all 10,000 images for each row of bits is of its class.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])


def main(arguments: Sequence[str] | None = None) -> int:
    p = Parser(
        prog="python -m bench.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("command", choices=["prepare"])
    p.add_argument("name", choices=list(SIZES), metavar="NAME", help=", ".join(SIZES))
    p.add_argument("--from", dest="data", type=Path, metavar="PATH", help="files you have")
    p.add_argument("--cache", type=Path, metavar="DIR", help=f"default: {cache()}")
    p.add_argument("--check", action="store_true", help="compare what was prepared to its SHA-256")
    a = p.parse_args(arguments)
    if a.cache:
        os.environ["SVAE_BENCH_DATA"] = str(a.cache)
    folder = _folder(cache(), a.name)
    try:
        if not a.check:
            prepare(a.name, a.data)
        found = prepared.read(folder, check=a.check)
        if found is None:
            raise DataError(f"no {a.name} has been prepared in {cache()}")
    except DataError as error:
        return complain("bench.data", error)
    about = found[0]
    shape = " x ".join(map(str, about["shape"]))
    print(
        f"{a.name}: {about['train']} + {about['test']} images ({about['name']}) of {shape}, "
        f"SHA-256 {about['sha256']}{' verified' if a.check else ''}, from {about['origin']}, "
        f"in {folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
