"""Reads the files that carry data sets, and trusts none of them.

Numpy files are read without pickles, members of archives never become paths outside a temporary
folder, and CIFAR-10's pickles are hashed before torchvision unpickles them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from bench.cli import UsageError

Arrays = dict[str, np.ndarray]
"""`train` and `test`, uint8 (n, c, h, w), and where there are labels `train_labels` and
`test_labels`, int64 (n,)."""


class Rows(Protocol):
    """An array, or images that are decoded when their turn comes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class DataError(UsageError):
    """A data set is missing, damaged or not what it should be; one line says what to do."""


def sha256(array: np.ndarray) -> str:
    """The SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def fingerprint(arrays: Arrays) -> tuple[str, dict[str, str]]:
    """One SHA-256 over names, types, shapes and bytes of the arrays, and the `sha256` of each."""
    hashes = {name: sha256(array) for name, array in arrays.items()}
    lines = [f"{n} {arrays[n].dtype} {arrays[n].shape} {hashes[n]}\n" for n in sorted(arrays)]
    return hashlib.sha256("".join(lines).encode()).hexdigest(), hashes


MNIST = {
    "train": "train-images-idx3-ubyte",
    "test": "t10k-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
MNIST_SHA256 = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "train_labels": "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
    "test_labels": "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
}
"""Of the arrays' bytes, images uint8 and labels int64, as read from the four files whose MD5s
torchvision publishes. torchvision checks those of its downloads alone, not of files at hand."""
IDX_LIMIT = 2**26


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None


def mnist_files(folder: Path) -> dict[str, Path]:
    """Which of the four idx files, plain or .gz, are in FOLDER/MNIST/raw (torchvision's place),
    FOLDER/raw or FOLDER."""
    found: dict[str, Path] = {}
    for name, file in MNIST.items():
        for place in (folder / "MNIST" / "raw", folder / "raw", folder):
            for path in (place / file, place / f"{file}.gz"):
                if path.is_file():
                    found.setdefault(name, path)
    return found


def mnist(files: dict[str, Path]) -> Arrays:
    """MNIST from its four `mnist_files`; raises DataError unless they are right, bit for bit."""
    arrays: Arrays = {}
    for name, path in files.items():
        array = _idx(path)
        if sha256(array) != MNIST_SHA256[name]:
            raise DataError(
                f"{path} is not the file of MNIST it is named after (another SHA-256): "
                "damaged, or another data set of the same layout; delete it, or give another --data"
            )
        arrays[name] = array
    return arrays


def _idx(path: Path) -> np.ndarray:
    """Images uint8 (n, 1, 28, 28) or labels int64 (n,) of an idx file, plain or .gz.

    torchvision, which reads them, knows no .gz: it gets a copy in a temporary folder.
    """
    from torchvision.datasets import mnist  # costs a second

    read = mnist.read_label_file if "labels" in path.name else mnist.read_image_file
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(IDX_LIMIT)
        with TemporaryDirectory() as folder:
            plain = Path(folder) / "idx"
            plain.write_bytes(content)
            array = read(str(plain)).numpy()
        return array.reshape(-1, 1, 28, 28) if array.ndim == 3 else array
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    except Exception:  # torchvision asserts, casts and reshapes
        raise DataError(f"{path} is damaged: not the idx file it is named after") from None


CIFAR10 = ("cifar-10-batches-py", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
"""The folder in the archive and its batches."""
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""Of cifar-10-python.tar.gz, as Keras and torchvision's prototypes pin it; torchvision itself has
an MD5 of the archive alone."""


def cifar10_archive(path: Path) -> Arrays:
    """CIFAR-10 from cifar-10-python.tar.gz; raises DataError unless it is that file."""
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != CIFAR10_SHA256:
        raise DataError(
            f"{path} is not cifar-10-python.tar.gz (another SHA-256): damaged or incomplete; "
            "delete it and get it again"
        )
    batches = {f"{CIFAR10[0]}/{name}" for name in CIFAR10[1:]}
    with TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [file for file in archive if file.isfile() and file.name in batches]
        archive.extractall(folder, members, filter="data")
        return cifar10_batches(Path(folder) / CIFAR10[0], path)


def cifar10_batches(folder: Path, origin: Path | None = None) -> Arrays:
    """CIFAR-10 from the unpacked archive's six batches, by torchvision.

    Raises DataError, which names `origin` or the folder, if a batch is missing or has another MD5
    than torchvision publishes.
    """
    from torchvision.datasets import CIFAR10 as Published  # costs a second
    from torchvision.datasets.utils import check_integrity

    class Batches(Published):
        base_folder = ""  # the batches are in `folder` itself

        def _load_meta(self) -> None:
            """Reads no names of classes: their file may be missing."""

    for name, md5 in [*Batches.train_list, *Batches.test_list]:
        if not check_integrity(folder / name, md5):
            raise DataError(
                f"{name} is missing in CIFAR-10 in {origin or folder}, or it is not CIFAR-10's "
                "(another MD5): get it again"
            )
    arrays: Arrays = {}
    for part in ("train", "test"):
        batches = Batches(folder, train=part == "train")
        arrays[part] = np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2))
        arrays[f"{part}_labels"] = np.asarray(batches.targets, np.int64)
    return arrays


NPZ_LIMIT = 8 * 2**30


def npz(path: Path, *names: str) -> Arrays:
    """Arrays of an .npz file, never unpickled; raises DataError if one is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > NPZ_LIMIT:
                raise DataError(f"{path} would unpack to more than {NPZ_LIMIT >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DataError(f"{path} has no array {missing[0]}, only {', '.join(file.files)}")
            return {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, or not an .npz file of arrays: {error}") from None


def unlabelled_npz(path: Path, channels: int, size: int) -> Arrays:
    """The array `images` of an .npz file, uint8 (n, size, size, channels), or (n, size, size) of
    grey images; every tenth image is for the test. Raises DataError for anything else."""
    images = _planes(path, "images", npz(path, "images")["images"], channels, size)
    test = np.arange(len(images)) % 10 == 9
    return {"train": images[~test], "test": images[test]}


def cifar10_npz(path: Path) -> Arrays:
    """CIFAR-10 from train_images (n, 32, 32, 3) and test_images, uint8, and *_labels, whole
    numbers from 0 to 9. Raises DataError for anything else."""
    file = npz(path, "train_images", "train_labels", "test_images", "test_labels")
    arrays: Arrays = {}
    for part in ("train", "test"):
        images, labels = file[f"{part}_images"], file[f"{part}_labels"]
        arrays[part] = _planes(path, f"{part}_images", images, 3, 32)
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(f"{path}: {part}_labels are not {len(images)} whole numbers")
        if labels.min() < 0 or labels.max() > 9:
            raise DataError(f"{path}: {part}_labels are not classes from 0 to 9")
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    return arrays


def _planes(path: Path, name: str, images: np.ndarray, channels: int, size: int) -> np.ndarray:
    """Images (n, h, w, c) as (n, c, h, w)."""
    wide = images[..., None] if channels == 1 and images.ndim == 3 else images
    if wide.dtype != np.uint8 or wide.shape[1:] != (size, size, channels) or not len(wide):
        raise DataError(
            f"{path}: {name} is {images.dtype} {images.shape}, "
            f"not uint8 (n, {size}, {size}, {channels})"
        )
    return np.ascontiguousarray(wide.transpose(0, 3, 1, 2))


BITS = (10000, 784)
BITS_SHA256 = "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"
"""Of the test bits, a byte each, as carried by a public repository; they agree with MNIST's grey
values in every pixel (no bit is 1 where the image is 0, none is 0 where it is 255), but that they
are the original files' could not be checked."""


def bits_file(folder: Path) -> Path | None:
    """FOLDER/binarized_mnist.npz or FOLDER/binarized_mnist_test.amat."""
    paths = (folder / "binarized_mnist.npz", folder / "binarized_mnist_test.amat")
    return next((path for path in paths if path.is_file()), None)


def bits(path: Path) -> np.ndarray:
    """The test set of statically binarized MNIST from a `bits_file`, uint8 (10000, 784): an .npz
    with `test`, or else rows of figures 0 or 1. Raises DataError if the file holds other bits."""
    if path.suffix == ".npz":
        array = npz(path, "test")["test"].astype(np.uint8, copy=False)
    else:
        content = np.frombuffer(_read(path), np.uint8)
        array = content[(content == ord("0")) | (content == ord("1"))] - ord("0")
        array = array.reshape(BITS) if array.size == np.prod(BITS) else array
    if array.shape != BITS or sha256(array) != BITS_SHA256:
        raise DataError(
            f"{path} does not hold the test set of statically binarized MNIST (Larochelle's "
            "binarized_mnist_test): damaged, or binarized otherwise"
        )
    return array
