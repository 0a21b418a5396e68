"""Reads data sets from the files people have, and trusts none of them.

Nothing is extracted to disk, members of archives are read as streams of bounded size, numpy files
are read without pickles, and what can only be unpickled is hashed first.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from pathlib import Path

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


def mnist(folder: Path) -> Arrays | None:
    """MNIST from idx files, plain or .gz, in FOLDER/MNIST/raw (torchvision's place) or FOLDER.

    None if none of the four is there. Raises DataError unless all four are, bit for bit.
    """
    found = {name: _find(folder, file) for name, (file, _) in MNIST.items()}
    if not any(found.values()):
        return None
    arrays = {}
    for name, (file, shape) in MNIST.items():
        path = found[name]
        if path is None:
            raise DataError(f"MNIST in {folder} is incomplete: {file}[.gz] is missing")
        values = _idx(path, shape)
        array = values[:, None] if len(shape) == 3 else values.astype(np.int64)
        if sha256(array) != MNIST_SHA256[name]:
            raise DataError(
                f"{path} is not the file of MNIST it is named after (another SHA-256): damaged, "
                "or another data set of the same layout; delete it, or give another --data"
            )
        arrays[name] = array
    return arrays


def _find(folder: Path, file: str) -> Path | None:
    for place in (folder / "MNIST" / "raw", folder / "raw", folder):
        for path in (place / file, place / f"{file}.gz"):
            if path.is_file():
                return path
    return None


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an idx file, which must have this shape; the format is on MNIST's page."""
    header = np.array([0x800 + len(shape), *shape], dtype=">i4").tobytes()
    size = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    if len(content) != size or not content.startswith(header):
        raise DataError(f"{path} is damaged: not {size} bytes of idx data of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


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


def bits(folder: Path) -> np.ndarray | None:
    """The test set of statically binarized MNIST from FOLDER/binarized_mnist.npz (`test`) or
    FOLDER/binarized_mnist_test.amat; None if neither is there, DataError if it is damaged.
    """
    packed, text = folder / "binarized_mnist.npz", folder / "binarized_mnist_test.amat"
    if packed.is_file():
        path, array = packed, npz(packed, "test")["test"]
    elif text.is_file():
        path, array = text, amat(text)
    else:
        return None
    check_bits(path, array)
    return array.astype(np.uint8, copy=False)


def amat(path: Path) -> np.ndarray:
    """Rows of 784 figures, 0 or 1, as uint8 (10000, 784); raises DataError for anything else."""
    with open(path, "rb") as file:
        content = np.frombuffer(file.read(4 * BITS[0] * BITS[1]), np.uint8)
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


def npz(path: Path, *names: str, optional: tuple[str, ...] = ()) -> Arrays:
    """Arrays of an .npz file, never unpickled; raises DataError if one is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > NPZ_LIMIT:
                raise DataError(f"{path} would unpack to more than {NPZ_LIMIT >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DataError(f"{path} has no array {missing[0]}, only {', '.join(file.files)}")
            wanted = [*names, *(name for name in optional if name in file.files)]
            return {name: file[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, or not an .npz file of arrays: {error}") from None
