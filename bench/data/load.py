"""The images of the suite: the data sets of `bench.data.sources`, found, downloaded or drawn."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data import download, files, prepared
from bench.data.files import DataError
from bench.data.sources import DATASETS, Dataset, find


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
    found = _found(place / "prepared" / name)
    return found or _prepare(name, place, cache() / "prepared" / f"{name}-{key}")


def prepare(name: str, data: Path | None = None) -> Images:
    """Prepares the data set in the cache, from `data`, or from the cache or a download.

    From then on `load(name)` gives it. Raises DataError.
    """
    entry, folder = _entry(name), cache() / "prepared" / name
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
