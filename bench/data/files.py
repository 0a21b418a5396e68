"""Reads data sets from the files people have, and trusts none of them.

Nothing is extracted to disk, members of archives are read as streams of bounded size, numpy files
are read without pickles, and what can only be unpickled is hashed first.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bench.cli import UsageError

Arrays = dict[str, np.ndarray]
"""`train` and `test`, uint8 (n, c, h, w), and where there are labels `train_labels` and
`test_labels`, int64 (n,)."""


class DataError(UsageError):
    """A data set is missing, damaged or not what it should be; one line says what to do."""


MNIST = {
    "train": ("train-images-idx3-ubyte", (60000, 28, 28)),
    "test": ("t10k-images-idx3-ubyte", (10000, 28, 28)),
    "train_labels": ("train-labels-idx1-ubyte", (60000,)),
    "test_labels": ("t10k-labels-idx1-ubyte", (10000,)),
}
MNIST_SHA256 = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "train_labels": "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
    "test_labels": "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
}
"""Of the arrays' bytes, images uint8 and labels int64, as read from the four files whose MD5s
torchvision publishes."""


def mnist_files(folder: Path) -> dict[str, Path]:
    """Which of the four idx files, plain or .gz, are in FOLDER/MNIST/raw (torchvision's place),
    FOLDER/raw or FOLDER."""
    found = {}
    for name, (file, _) in MNIST.items():
        for place in (folder / "MNIST" / "raw", folder / "raw", folder):
            for path in (place / file, place / f"{file}.gz"):
                if path.is_file():
                    found.setdefault(name, path)
    return found


def mnist(folder: Path) -> Arrays:
    """MNIST from idx files; raises DataError unless all four are there and right, bit for bit."""
    found = mnist_files(folder)
    arrays = {}
    for name, (file, shape) in MNIST.items():
        if name not in found:
            raise DataError(
                f"no MNIST in {folder}: looked for {file}[.gz] there and in MNIST/raw; without "
                "--data it is downloaded"
            )
        values = _idx(found[name], shape)
        array = values[:, None] if len(shape) == 3 else values.astype(np.int64)
        if sha256(array) != MNIST_SHA256[name]:
            raise DataError(
                f"{found[name]} is not the file of MNIST it is named after (another SHA-256): "
                "damaged, or another data set of the same layout; delete it, or give another --data"
            )
        arrays[name] = array
    return arrays


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an idx file, which must have this shape; the format is on MNIST's page."""
    header = np.array([0x800 + len(shape), *shape], dtype=">i4").tobytes()
    size = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytearray(file.read(size + 1))  # writable, as torch.from_numpy wants it
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    if len(content) != size or not content.startswith(header):
        raise DataError(f"{path} is damaged: not {size} bytes of idx data of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _read(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None


def sha256(array: np.ndarray) -> str:
    """Of the bytes of a C-contiguous array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def fingerprint(arrays: Arrays, hashes: dict[str, str]) -> str:
    """One SHA-256 over names, types and shapes of the arrays and the `sha256` of each."""
    lines = [f"{n} {arrays[n].dtype} {arrays[n].shape} {hashes[n]}\n" for n in sorted(arrays)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


BITS = (10000, 784)
BITS_SHA256 = "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"
"""Of the test bits, a byte each, as carried by a public repository; they agree with MNIST's grey
values in every pixel (no bit is 1 where the image is 0, none is 0 where it is 255), but that they
are the original files' could not be checked."""


def bits_file(folder: Path) -> Path | None:
    """FOLDER/binarized_mnist.npz or FOLDER/binarized_mnist_test.amat."""
    paths = (folder / "binarized_mnist.npz", folder / "binarized_mnist_test.amat")
    return next((path for path in paths if path.is_file()), None)


def bits(folder: Path) -> np.ndarray:
    """The test set of statically binarized MNIST, uint8 (10000, 784); DataError if it is missing
    or damaged."""
    path = bits_file(folder)
    if path is None:
        raise DataError(
            f"no statically binarized MNIST in {folder}: looked for binarized_mnist.npz and "
            "binarized_mnist_test.amat; without --data it is downloaded"
        )
    array = amat(path) if path.suffix == ".amat" else npz(path, "test")["test"]
    check_bits(path, array)
    return array.astype(np.uint8, copy=False)


def amat(path: Path) -> np.ndarray:
    """Rows of 784 figures, 0 or 1, as uint8 (10000, 784); raises DataError for anything else."""
    content = np.frombuffer(_read(path, 4 * BITS[0] * BITS[1]), np.uint8)
    figures = content[(content == ord("0")) | (content == ord("1"))] - ord("0")
    if figures.size != BITS[0] * BITS[1]:
        raise DataError(f"{path} is damaged: not {BITS[0]} rows of {BITS[1]} bits")
    return figures.reshape(BITS)


def check_bits(path: Path, array: np.ndarray) -> None:
    if array.shape != BITS or sha256(array.astype(np.uint8)) != BITS_SHA256:
        raise DataError(
            f"{path} does not hold the test set of statically binarized MNIST (Larochelle's "
            "binarized_mnist_test): damaged, or binarized otherwise"
        )


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


CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""Of cifar-10-python.tar.gz, as Keras and torchvision's prototypes pin it."""
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Of the files in the archive, as torchvision publishes them."""
ARCHIVE_LIMIT, BATCH_LIMIT = 2**28, 2**26


def cifar10_archive(path: Path) -> Arrays:
    """CIFAR-10 from cifar-10-python.tar.gz, read in place; DataError unless it is that file."""
    content = _read(path, ARCHIVE_LIMIT)
    if hashlib.sha256(content).hexdigest() != CIFAR10_SHA256:
        raise DataError(
            f"{path} is not cifar-10-python.tar.gz (another SHA-256): damaged or incomplete; "
            "delete it and get it again"
        )
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:  # the very bytes that were hashed
        for member in archive:
            place = member.name.split("/")
            if member.isfile() and len(place) == 2 and place[0] == CIFAR10_FOLDER:
                file = archive.extractfile(member)
                if file and place[1] in CIFAR10_MD5:
                    contents[place[1]] = file.read(BATCH_LIMIT)
    return _batches(contents, path)


def cifar10_batches(folder: Path) -> Arrays:
    """CIFAR-10 from the unpacked archive's six batches."""
    contents = {}
    for name in CIFAR10_MD5:
        if (folder / name).is_file():
            contents[name] = _read(folder / name, BATCH_LIMIT)
    return _batches(contents, folder)


def _batches(contents: dict[str, bytes], where: Path) -> Arrays:
    """Nothing is unpickled before all six files have proved to be the published ones."""
    for name, md5 in CIFAR10_MD5.items():
        if name not in contents:
            raise DataError(f"CIFAR-10 in {where} is incomplete: {name} is missing")
        if hashlib.md5(contents[name], usedforsecurity=False).hexdigest() != md5:
            raise DataError(f"{name} in {where} is not CIFAR-10's (another MD5): get it again")
    images, labels = {}, {}
    for name, content in contents.items():
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images[name] = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
        labels[name] = np.asarray(batch["labels"], np.int64)
    train = [name for name in CIFAR10_MD5 if name != "test_batch"]
    return {
        "train": np.concatenate([images[name] for name in train]),
        "train_labels": np.concatenate([labels[name] for name in train]),
        "test": images["test_batch"],
        "test_labels": labels["test_batch"],
    }


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and Python's own containers and calls nothing else: a second wall,
    since for an unpacked batch only an MD5 is published."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise DataError(f"a batch of CIFAR-10 wants to run {module}.{name}: refused")


def cifar10_npz(path: Path) -> Arrays:
    """CIFAR-10 from train_images (n, 32, 32, 3) and test_images, uint8, and *_labels."""
    names = ("train_images", "train_labels", "test_images", "test_labels")
    file = npz(path, *names)
    arrays = {}
    for part in ("train", "test"):
        images, labels = file[f"{part}_images"], file[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
            raise DataError(
                f"{path}: {part}_images is {images.dtype} {images.shape}, not uint8 (n, 32, 32, 3)"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(f"{path}: {part}_labels are not {len(images)} whole numbers")
        if labels.min() < 0 or labels.max() > 9:
            raise DataError(f"{path}: {part}_labels are not classes from 0 to 9")
        arrays[part] = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    return arrays
