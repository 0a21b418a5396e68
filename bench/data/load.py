"""The images of the suite: the data sets of `bench.data.sources`, found, downloaded or drawn.

    python -m bench.data prepare mnist|cifar10|celeba|NAME [--from DIR|FILE] [--cache DIR]

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
from bench.data import download, files, prepared
from bench.data.files import DataError
from bench.data.sources import DATASETS, Dataset, find

__all__ = ["DATASETS", "DataError", "Images", "cache", "load", "static_bits", "static_labels"]


@dataclass(frozen=True)
class Images:
    """One data set.

    train (n, c, h, w) and test (m, c, h, w) are uint8, and perhaps memory-mapped. The labels are
    int64 or None. `name` says what they are: "folder" for images of your own, in the place of a
    known data set or not. `sha256` is over names, types, shapes and bytes of all arrays, however
    they came. `stand_in` is whether the suite drew them, as in the column of this name.
    """

    name: str
    sha256: str
    stand_in: bool
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None


def cache() -> Path:
    """Where downloads and prepared arrays are kept: $SVAE_BENCH_DATA or ~/.cache/svae-bench."""
    return Path(os.environ.get("SVAE_BENCH_DATA") or Path.home() / ".cache" / "svae-bench")


def load(name: str, data: Path | None = None) -> Images:
    """The data set of this name, one of DATASETS.

    With `data`, a folder or file, from there and nowhere else: prepared arrays, or files that
    are prepared in the cache at first use. Without, from the entry's own path or the cache;
    others are downloaded to it if need be (CelebA with gdown). Raises DataError with what to do.
    """
    entry = _entry(name)
    if entry.draw:
        arrays = entry.draw()
        return Images(name, files.fingerprint(arrays)[0], True, **arrays)
    if data is None:
        return prepare(name)
    place = _existing(data)
    key = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    found = _found(_folder(place, name))
    return found or _prepare(name, place, _folder(cache(), f"{name}-{key}"))


def prepare(name: str, data: Path | None = None) -> Images:
    """Prepares the data set in the cache, from `data`, or from the cache or a download.

    From then on `load(name)` gives it. Raises DataError.
    """
    entry, folder = _entry(name), _folder(cache(), name)
    if data is None and entry.path:
        data = Path(entry.path).expanduser()
    if data is None:
        if found := _found(folder):
            return found
        source = entry.locate(cache())
        if entry.download and (source is None or source.missing):
            entry.download(cache())
    return _prepare(name, _existing(data or cache()), folder)


def _prepare(name: str, place: Path, folder: Path) -> Images:
    source = find(name, place)
    about = {"name": source.name, "origin": str(source.place), "stamp": source.stamp()}
    prepared.write(folder, about, source.read)
    if found := _found(folder):
        return found
    raise DataError(f"{folder} was taken away while it was prepared")


def _found(folder: Path) -> Images | None:
    found = prepared.read(folder)
    return found and Images(found[0]["name"], found[0]["sha256"], False, **found[1])


def _entry(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"no data set {name}, only {', '.join(DATASETS)}")
    return DATASETS[name]


def _folder(place: Path, name: str) -> Path:
    return place / "prepared" / name


def _existing(data: Path) -> Path:
    if not data.exists():
        raise DataError(f"{data} does not exist")
    return data.resolve()


def static_bits(data: Path | None = None) -> np.ndarray:
    """The test set of statically binarized MNIST, uint8 0 or 1, (10000, 784), sorted by class.

    From `data`, or the cache and downloaded if need be (Salakhutdinov and Murray 2008, the files
    of Larochelle). Raises DataError.
    """
    place = cache() if data is None else _existing(data)
    if data is None and files.bits_file(place) is None:
        download.bits(place)
    path = files.bits_file(place)
    if path is None:
        raise DataError(
            f"no statically binarized MNIST in {place}: looked for binarized_mnist.npz and "
            "binarized_mnist_test.amat; without --data it is downloaded"
        )
    return files.bits(path)


def static_labels() -> np.ndarray:
    """The classes of `static_bits`, int64 (10000,).

    The bits are those of MNIST's test set in stable order of class, so the classes follow from
    their numbers there. Of 6,385,616 pixels that are 0 or 255 in MNIST none contradicts its bit
    in this order, and the likeliest of all 10,000 images for each row of bits is of its class.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `python -m bench.data`: 0, or 2 after one line on standard error."""
    names = [name for name, entry in DATASETS.items() if not entry.draw]
    p = Parser(
        prog="python -m bench.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("command", choices=["prepare"])
    p.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
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
