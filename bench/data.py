"""The images of the suite: MNIST, CIFAR-10, CelebA, a folder of images, and drawn stand-ins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import datafiles, download, standin
from bench.datafiles import Arrays, DataError

__all__ = ["NAMES", "DataError", "Images", "cache", "load", "static_bits", "static_labels"]

NAMES = ("mnist", "stand-in digits", "stand-in photos")


@dataclass(frozen=True)
class Images:
    """One data set.

    train (n, c, h, w) and test (m, c, h, w) are uint8 and perhaps memory-mapped: copy before you
    write. The labels are int64 or None. `sha256` is over shapes and bytes of all of them.
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


def load(name: str, data: Path | None = None, *, size: int | None = None) -> Images:
    """The data set of this name, one of NAMES, from the files in `data`.

    Without `data`, MNIST is read from the cache and downloaded to it first if need be. `size` is
    the height and width of "stand-in photos" (32). Raises DataError with what to do about it.
    """
    if name == "stand-in digits":
        return _images(name, _standin(*standin.digits()), stand_in=True)
    if name == "stand-in photos":
        return _images(name, _standin(*standin.photos(size or 32)), stand_in=True)
    if name == "mnist":
        folder = _folder(data)
        arrays = datafiles.mnist(folder)
        if arrays is None and data is None:
            download.mnist(folder)
            arrays = datafiles.mnist(folder)
        if arrays is None:
            raise DataError(
                f"no MNIST in {folder}: looked for {datafiles.MNIST['train'][0]}[.gz] and the "
                "other three there and in MNIST/raw; without --data it is downloaded"
            )
        return _images(name, arrays, datafiles.MNIST_SHA256)
    raise DataError(f"no data set {name}, only {', '.join(NAMES)}")


def _folder(data: Path | None) -> Path:
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is not a folder")
    return data or cache()


def _standin(train: standin.Set, test: standin.Set) -> Arrays:
    return {"train": train[0], "train_labels": train[1], "test": test[0], "test_labels": test[1]}


def _images(
    name: str, arrays: Arrays, hashes: dict[str, str] | None = None, stand_in: bool = False
) -> Images:
    hashes = hashes or {key: datafiles.sha256(array) for key, array in arrays.items()}
    return Images(
        name,
        arrays["train"],
        arrays["test"],
        arrays.get("train_labels"),
        arrays.get("test_labels"),
        datafiles.fingerprint(arrays, hashes),
        stand_in,
    )


def static_bits(data: Path | None = None) -> np.ndarray:
    """The test set of statically binarized MNIST, uint8 0 or 1, (10000, 784), sorted by class.

    From `data`, or the cache and downloaded if need be (Salakhutdinov and Murray 2008, the files
    of Larochelle). Raises DataError.
    """
    folder = _folder(data)
    bits = datafiles.bits(folder)
    if bits is None and data is None:
        download.bits(folder)
        bits = datafiles.bits(folder)
    if bits is None:
        raise DataError(
            f"no statically binarized MNIST in {folder}: looked for binarized_mnist.npz and "
            "binarized_mnist_test.amat; without --data it is downloaded"
        )
    return bits


def static_labels() -> np.ndarray:
    """The classes of `static_bits`, int64 (10000,).

    The bits are those of MNIST's test set in stable order of class, so the classes follow from
    their numbers there. Of 6,385,616 pixels that are 0 or 255 in MNIST none contradicts its bit
    in this order, and the likeliest of all 10,000 images for each row of bits is of its class.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
