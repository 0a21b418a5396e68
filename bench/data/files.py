"""Reads the files of data sets, and trusts none of them.

numpy reads no pickles here, and no member of an archive is written outside a temporary folder.
CIFAR-10's pickles are hashed before torchvision unpickles them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.cli import UsageError, one_line

Arrays = dict[str, np.ndarray]
"""Images `train` and `test`, uint8 (n, c, h, w), and if known their `*_labels`, int64 (n,)."""


def reason(error: BaseException) -> str:
    """Returns why something failed, without addresses of Python's objects."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = f"{text} is missing" if isinstance(error, KeyError) else text
    return re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the content", text)


class DataError(UsageError):
    """A data set is missing, damaged or the wrong data; the message says what to do.

    A message names the option `--data`. The command `bench.data` has `--from` instead, and says so.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class Lacking(DataError):
    """Files of a data set are missing, some or all."""


def sha256(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def fingerprint(arrays: Arrays, hashes: dict[str, str] | None = None) -> tuple[str, dict[str, str]]:
    """Returns one SHA-256 over names, types, shapes and bytes, and the `sha256` of each array.

    With known `hashes` no byte is read.
    """
    hashes = hashes or {name: sha256(array) for name, array in arrays.items()}
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
"""SHA-256s of the arrays, images uint8 and labels int64, read from the files whose MD5s torchvision
publishes. torchvision checks its own downloads only."""
IDX_LIMIT, NPZ_LIMIT = 2**26, 2**33
BYTES_LIMIT = 2**26
"""Bytes of the file of an image."""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason(error)}") from None


def within(place: Path, *parts: str) -> Path | None:
    """Returns a path below `place`, each part in capitals or not, or None. Raises DataError."""
    for part in parts:
        if not os.path.lexists(place / part):
            part = min((name for name in names(place) if name.lower() == part.lower()), default="")
        if not part:
            return None
        place /= part
    return place


def names(place: Path) -> list[str]:
    """Returns the names in a folder, none of what is no folder. Raises DataError."""
    try:
        return os.listdir(place)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{place} can't be read: {reason(error)}") from None


def mnist_files(folder: Path) -> dict[str, Path]:
    """Finds the four idx files, plain or .gz, in the folder, in raw/ or in MNIST/raw/ below it.

    Programs that unpack write `.idx3` for `-idx3`, or put a file into a folder of its name.
    """
    found: dict[str, Path] = {}
    for place in (within(folder, *parts) for parts in (("MNIST", "raw"), ("raw",), ())):
        paths = [place / name for name in sorted(names(place))] if place else []
        inner = [path for path in paths if _idx(path) and path.is_dir()]
        paths += [path / name for path in inner for name in sorted(names(path))]
        there = {_idx(path): path for path in reversed(paths) if _idx(path) and path.is_file()}
        for name, file in MNIST.items():
            for wanted in (file, f"{file}.gz"):
                if wanted in there:
                    found.setdefault(name, there[wanted])
    return found


def _idx(path: Path) -> str:
    """Returns the published name of an idx file, or ""."""
    name = path.name.lower().replace(".idx", "-idx")
    return name if name.removesuffix(".gz") in MNIST.values() else ""


def is_mnist(hashes: Mapping[str, str]) -> bool:
    """Returns whether arrays of these SHA-256s, by name, are MNIST."""
    return dict(hashes) == MNIST_SHA256


def mnist(files: dict[str, Path]) -> Arrays:
    """Reads what `mnist_files` found. Raises DataError unless it is MNIST, bit for bit."""
    from torchvision.datasets.mnist import read_image_file, read_label_file  # costs a second

    arrays: Arrays = {}
    for name, path in files.items():
        content = _read(path)
        try:
            if content.startswith(b"\x1f\x8b"):
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(IDX_LIMIT)
        except Exception as error:
            raise DataError(f"{path} can't be read as a .gz: {reason(error)}") from None
        try:
            with TemporaryDirectory() as folder:  # torchvision gets a copy: it reads no .gz
                plain = Path(folder) / "idx"
                plain.write_bytes(content)
                if "labels" in name:
                    arrays[name] = read_label_file(str(plain)).numpy()
                else:
                    arrays[name] = read_image_file(str(plain)).numpy().reshape(-1, 1, 28, 28)
        except OSError as error:
            raise no_room(error) from None
        except Exception:  # torchvision asserts, casts and reshapes
            raise DataError(
                f"{path} is damaged, or not MNIST's: it can't be read as idx data; {_ELSEWHERE}"
            ) from None
        if sha256(arrays[name]) != MNIST_SHA256[name]:
            raise DataError(
                f"{path} is not MNIST's {MNIST[name]} (another SHA-256): damaged, or another data "
                f"set of the same layout; {_ELSEWHERE}"
            )
    return arrays


_ELSEWHERE = "allowed: the published files; give their folder with --data, or move this file away"


def no_room(error: OSError) -> DataError:
    """Returns what to say where no temporary file can be written."""
    return DataError(f"no temporary folder can be written ({reason(error)}): name one in $TMPDIR")


CIFAR10 = ("cifar-10-batches-py", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
"""The folder in the archive, and its files."""
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""SHA-256 of cifar-10-python.tar.gz, as Keras and torchvision's prototypes pin it."""
CIFAR10_LABELS = {
    "train_labels": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
    "test_labels": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
}
"""SHA-256s of CIFAR-10's labels in the published order, int64. Copies of its images differ."""


def is_cifar10(hashes: Mapping[str, str]) -> bool:
    """Returns whether arrays of these SHA-256s, by name, are CIFAR-10, by its labels."""
    return CIFAR10_LABELS.items() <= hashes.items()


def cifar10_archive(path: Path) -> Arrays:
    """Reads cifar-10-python.tar.gz. Raises DataError for any other file."""
    if hashlib.sha256(_read(path)).hexdigest() != CIFAR10_SHA256:
        raise DataError(
            f"{path} is not CIFAR-10's python archive (another SHA-256): incomplete, or another "
            "archive; allowed: cifar-10-python.tar.gz as published, an .npz, a folder or .zip of "
            "images; unpack an archive of your own, and give its folder with --data"
        )
    try:
        with TemporaryDirectory() as folder:
            shutil.unpack_archive(path, folder, "gztar", filter="data")
            return cifar10_batches(Path(folder) / CIFAR10[0])
    except OSError as error:
        raise no_room(error) from None


def cifar10_batches(folder: Path) -> Arrays:
    """Reads the six batches of CIFAR-10's unpacked archive by torchvision.

    Raises DataError if a batch is missing or has another MD5 than torchvision publishes.
    """
    from torchvision.datasets import CIFAR10 as Published  # costs a second

    class Batches(Published):
        base_folder = folder.name

        def _load_meta(self) -> None:
            """Reads no names of classes, because their file may be missing."""

    arrays: Arrays = {}
    try:
        for part in ("train", "test"):
            batches = Batches(folder.parent, train=part == "train")
            arrays[part] = np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2))
            arrays[f"{part}_labels"] = np.asarray(batches.targets, np.int64)
    except RuntimeError:  # torchvision compares every MD5 before it unpickles anything
        raise DataError(
            f"CIFAR-10 in {folder} lacks a batch, or one is damaged (another MD5); allowed: all "
            "six files as published; give another place with --data"
        ) from None
    except OSError as error:
        raise DataError(f"CIFAR-10 in {folder} can't be read: {reason(error)}") from None
    return arrays


def npz(path: Path, *names: str) -> Arrays:
    """Reads arrays of an .npz file without pickles. Raises DataError if an array can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > NPZ_LIMIT:
                raise DataError(f"{path} would unpack to more than {NPZ_LIMIT >> 30} GiB")
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as file:
            warnings.simplefilter("ignore")  # about files that Python 2 wrote
            if missing := [name for name in names if name not in file.files]:
                raise DataError(
                    f"{path} has no array {missing[0]}, only {', '.join(file.files) or 'none'}; "
                    f"allowed: an .npz of {', '.join(names)}"
                )
            return {name: np.asarray(file[name]) for name in names}
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise DataError(
            f"{path} is damaged, or not an .npz file of numbers: {reason(error)}; allowed: an .npz "
            f"of {', '.join(names)}, without Python's objects; give another place with --data"
        ) from None


def unlabelled_npz(path: Path, channels: int, size: int) -> Arrays:
    """Reads `images` of an .npz file, as `_planes` takes them.

    Every tenth image is for the test. Raises DataError for anything else.
    """
    images = _planes(path, "images", npz(path, "images")["images"], channels, size)
    return {"train": np.delete(images, np.s_[9::10], axis=0), "test": images[9::10]}


def cifar10_npz(path: Path) -> Arrays:
    """Reads CIFAR-10 from an .npz file. Raises DataError for anything else.

    The arrays are train_images and test_images, as `_planes` takes them, and train_labels and
    test_labels, whole numbers from 0 to 9.
    """
    file = npz(path, "train_images", "train_labels", "test_images", "test_labels")
    arrays: Arrays = {}
    for part in ("train", "test"):
        images, labels = file[f"{part}_images"], file[f"{part}_labels"]
        arrays[part] = _planes(path, f"{part}_images", images, 3, 32)
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(
                f"{path}: {part}_labels is {labels.dtype} {labels.shape}; allowed: whole numbers "
                f"of shape ({len(images)},), the classes from 0 to 9, of type int64 or uint8"
            )
        if labels.min() < 0 or labels.max() > 9:
            raise DataError(
                f"{path}: {part}_labels are from {labels.min()} to {labels.max()}; allowed: the "
                "classes from 0 to 9"
            )
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    return arrays


def _planes(path: Path, name: str, images: np.ndarray, channels: int, size: int) -> np.ndarray:
    """Returns images (n, size, size, channels), or grey (n, size, size), as (n, channels, …).

    Pixels become uint8 as `to_uint8` says. Raises DataError for other shapes and types.
    """
    wide = images[..., None] if channels == 1 and images.ndim == 3 else images
    given, allowed = f"{path}: {name} is {images.dtype} {images.shape}", "uint8, uint16 or floats"
    if wide.shape[1:] != (size, size, channels) or not len(wide):
        turned = wide.ndim == 4 and wide.shape[1:] == (channels, size, size)
        hint = "; images.transpose(0, 2, 3, 1) has this shape" if turned and len(wide) else ""
        raise DataError(f"{given}; allowed: {allowed} (n, {size}, {size}, {channels}){hint}")
    if is_uint16(wide) and wide.max() < 256:
        raise DataError(f"{given}, but no value is above 255; allowed: uint8 for such values")
    pixels = np.empty((len(wide), channels, size, size), np.uint8)
    try:
        for at in range(0, len(wide), 1000):  # floats need memory
            pixels[at : at + 1000] = to_uint8(wide[at : at + 1000]).transpose(0, 3, 1, 2)
    except ValueError as error:
        raise DataError(f"{given}, with {error}; allowed: {PIXELS}") from None
    return pixels


PIXELS = "uint8, uint16 (divided by 65,535), floats in [0, 1], bool"


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Returns pixels as uint8, rounded to the nearest value.

    uint8 stays as it is, uint16 is divided by 65,535, floats are in [0, 1], and True is white.
    Raises ValueError, which says what the pixels are, for anything else.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    if is_uint16(values):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f":
        raise ValueError(f"pixels of type {values.dtype}")
    if np.isnan(values).any():
        raise ValueError("pixels that are no number (NaN)")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"floats from {values.min():.4g} to {values.max():.4g}")
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def is_uint16(values: np.ndarray) -> bool:
    """Returns whether numbers are 16 bits without a sign."""
    return values.dtype.kind == "u" and values.dtype.itemsize == 2  # of either byte order


BITS = (10000, 784)
BITS_SHA256 = "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"
"""SHA-256 of the test bits, a byte each, from a public repository. They agree with MNIST in every
pixel: no bit is 1 where the image is 0, none is 0 where it is 255. Nobody has compared them with
the original files."""


def bits(path: Path) -> np.ndarray:
    """Reads the test set of statically binarized MNIST, uint8 (10000, 784).

    The file is an .npz with `test`, or text of 0s and 1s. Raises DataError if it holds other bits.
    """
    if path.suffix.lower() == ".npz":
        array = npz(path, "test")["test"]
        binary = array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()
        array = array.astype(np.uint8) if binary else np.empty(0, np.uint8)
    else:
        content = np.frombuffer(_read(path), np.uint8)
        array = content[(content == ord("0")) | (content == ord("1"))] - ord("0")
        array = array.reshape(BITS) if array.size == np.prod(BITS) else array
    if array.shape != BITS or sha256(array) != BITS_SHA256:
        raise DataError(
            f"{path} does not hold the test set of statically binarized MNIST (Larochelle's "
            "binarized_mnist_test): damaged, or binarized otherwise; give another place with --data"
        )
    return array
