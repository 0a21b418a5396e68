"""Reads the files of data sets, and trusts none of them.

numpy reads no pickles here, and no member of an archive is written outside a temporary folder.
CIFAR-10's pickles are hashed before torchvision unpickles them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from bench.cli import UsageError

Arrays = dict[str, np.ndarray]
"""Images `train` and `test`, uint8 (n, c, h, w), and if known their `*_labels`, int64 (n,)."""


class DataError(UsageError):
    """A data set is missing, damaged or the wrong data; the message says what to do."""


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None


def mnist_files(folder: Path) -> dict[str, Path]:
    """Finds the four idx files, plain or .gz, in the folder, in raw/ or in MNIST/raw/ below it."""
    found: dict[str, Path] = {}
    for name, file in MNIST.items():
        for place in (folder / "MNIST" / "raw", folder / "raw", folder):
            for path in (place / file, place / f"{file}.gz"):
                if path.is_file():
                    found.setdefault(name, path)
    return found


def mnist(files: dict[str, Path]) -> Arrays:
    """Reads what `mnist_files` found. Raises DataError unless it is MNIST, bit for bit."""
    from torchvision.datasets.mnist import read_image_file, read_label_file  # costs a second

    arrays: Arrays = {}
    for name, path in files.items():
        content = _read(path)
        try:
            if content.startswith(b"\x1f\x8b"):
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(IDX_LIMIT)
            with TemporaryDirectory() as folder:  # torchvision gets a copy: it reads no .gz
                plain = Path(folder) / "idx"
                plain.write_bytes(content)
                if "labels" in name:
                    arrays[name] = read_label_file(str(plain)).numpy()
                else:
                    arrays[name] = read_image_file(str(plain)).numpy().reshape(-1, 1, 28, 28)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} can't be read: {error}") from None
        except Exception:  # torchvision asserts, casts and reshapes
            raise DataError(f"{path} is damaged: it can't be read as idx data") from None
        if sha256(arrays[name]) != MNIST_SHA256[name]:
            raise DataError(
                f"{path} is not the file of MNIST it is named after (another SHA-256): "
                "damaged, or another data set of the same layout; delete it, or give another --data"
            )
    return arrays


CIFAR10 = ("cifar-10-batches-py", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
"""The folder in the archive, and its files."""
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""SHA-256 of cifar-10-python.tar.gz, as Keras and torchvision's prototypes pin it."""


def cifar10_archive(path: Path) -> Arrays:
    """Reads cifar-10-python.tar.gz. Raises DataError for any other file."""
    if hashlib.sha256(_read(path)).hexdigest() != CIFAR10_SHA256:
        raise DataError(
            f"{path} is not cifar-10-python.tar.gz (another SHA-256): damaged or incomplete; "
            "delete it and get it again"
        )
    with TemporaryDirectory() as folder:
        shutil.unpack_archive(path, folder, "gztar", filter="data")
        return cifar10_batches(Path(folder) / CIFAR10[0])


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
            f"CIFAR-10 in {folder} lacks a batch, or one is damaged (another MD5): get it again"
        ) from None
    return arrays


def npz(path: Path, *names: str) -> Arrays:
    """Reads arrays of an .npz file without pickles. Raises DataError if an array can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > NPZ_LIMIT:
                raise DataError(f"{path} would unpack to more than {NPZ_LIMIT >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in names if name not in file.files]:
                raise DataError(f"{path} has no array {missing[0]}, only {', '.join(file.files)}")
            return {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, or not an .npz file of arrays: {error}") from None


def unlabelled_npz(path: Path, channels: int, size: int) -> Arrays:
    """Reads `images` of an .npz file: uint8 (n, size, size, channels), or (n, size, size) if grey.

    Every tenth image is for the test. Raises DataError for anything else.
    """
    images = _planes(path, "images", npz(path, "images")["images"], channels, size)
    return {"train": np.delete(images, np.s_[9::10], axis=0), "test": images[9::10]}


def cifar10_npz(path: Path) -> Arrays:
    """Reads CIFAR-10 from an .npz file. Raises DataError for anything else.

    The arrays are train_images and test_images, uint8 (n, 32, 32, 3), and train_labels and
    test_labels, whole numbers from 0 to 9.
    """
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
    """Returns images (n, size, size, channels), or grey (n, size, size), as (n, channels, …)."""
    wide = images[..., None] if channels == 1 and images.ndim == 3 else images
    if wide.dtype != np.uint8 or wide.shape[1:] != (size, size, channels) or not len(wide):
        raise DataError(
            f"{path}: {name} is {images.dtype} {images.shape}, "
            f"not uint8 (n, {size}, {size}, {channels})"
        )
    return np.ascontiguousarray(wide.transpose(0, 3, 1, 2))


BITS = (10000, 784)
BITS_SHA256 = "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"
"""SHA-256 of the test bits, a byte each, from a public repository. They agree with MNIST in every
pixel: no bit is 1 where the image is 0, none is 0 where it is 255. Nobody has compared them with
the original files."""


def bits(path: Path) -> np.ndarray:
    """Reads the test set of statically binarized MNIST, uint8 (10000, 784).

    The file is an .npz with `test`, or text of 0s and 1s. Raises DataError if it holds other bits.
    """
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


SUFFIXES, FORMATS = (".jpg", ".jpeg", ".png", ".webp"), ("JPEG", "PNG", "WEBP")
BYTES_LIMIT, PIXELS_LIMIT, CHUNK = 2**26, 2**26, 1000


def picture_names(place: Path) -> list[str]:
    """Returns the sorted names of image files in a folder or zip.

    Names in a folder are paths below it; names in a zip are never used as paths. Raises DataError
    for a file that is no zip.
    """
    if place.is_dir():
        files = (path for path in place.rglob("*") if path.is_file())
        found = {path.relative_to(place).as_posix() for path in files}
    else:
        try:
            with zipfile.ZipFile(place) as archive:
                found = {n for n in archive.namelist() if not n.startswith("__MACOSX/")}
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{place} can't be read as a zip: {error}") from None
    return sorted(name for name in found if PurePosixPath(name).suffix.lower() in SUFFIXES)


@dataclass(frozen=True)
class Pictures:
    """Decodes images of a folder or zip when their turn comes, each uint8 (channels, size, size).

    Images are RGB for three channels and grey for one. The shorter side is resized to `size` by
    Lanczos, then the middle square is cut out. Fuel made the file that the paper's authors trained
    on, `celeba_64.hdf5`, in this way. Iteration raises DataError for a damaged or huge image.
    """

    place: Path
    names: Sequence[str]
    channels: int
    size: int

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        console = Console(stderr=True)
        quiet = len(self) <= CHUNK or not console.is_terminal
        chunks = [self.names[at : at + CHUNK] for at in range(0, len(self), CHUNK)]
        label = f"{len(self)} images"
        zipped = zipfile.ZipFile(self.place) if self.place.is_file() else nullcontext()
        with zipped as archive, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            decode = partial(_decode, archive, self)
            for chunk in track(chunks, label, console=console, transient=True, disable=quiet):
                yield from pool.map(decode, chunk)


def _decode(archive: zipfile.ZipFile | None, pictures: Pictures, name: str) -> np.ndarray:
    where, size = f"{name} in {pictures.place}", pictures.size
    try:
        path = pictures.place / name
        length = archive.getinfo(name).file_size if archive else path.stat().st_size
        if length > BYTES_LIMIT:
            raise DataError(f"{where} is larger than {BYTES_LIMIT >> 20} MiB: refused")
        content = archive.read(name) if archive else path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_LIMIT:
                raise DataError(f"{where} has {width} x {height} pixels: refused")
            pixels = image.convert("RGB" if pictures.channels == 3 else "L")
        short = min(width, height)
        sides = [max(size, round(side * size / short)) for side in (width, height)]
        left, top = ((side - size) // 2 for side in sides)
        scaled = pixels.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        square = scaled.crop((left, top, left + size, top + size))
        return np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1)
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{where} is not a whole image: {error}") from None


def pictures(
    place: Path, names: list[str], partition: Path | None, channels: int, size: int
) -> dict[str, Pictures]:
    """Returns training and test images: parts 0 and 2 of CelebA's official `partition`.

    The partition is the authors' list or the .csv of copies. Every tenth image is for the test
    without a partition. Raises DataError for a damaged list, and for a name that it lacks.
    """
    train, test = [name for i, name in enumerate(names) if i % 10 != 9], names[9::10]
    if partition is not None:
        lines = partition.read_text(errors="replace").replace(",", " ").splitlines()
        pairs = [line.split() for line in lines if line.strip()]
        pairs = pairs[1:] if pairs and pairs[0][-1] == "partition" else pairs
        if not all(len(pair) == 2 and pair[1] in ("0", "1", "2") for pair in pairs):
            raise DataError(f"{partition} is damaged: not lines of FILE 0, 1 or 2")
        parts: dict[str, str] = dict(pairs)
        files = {name: PurePosixPath(name).name for name in names}
        if unknown := [name for name in names if files[name] not in parts]:
            raise DataError(f"{unknown[0]} is not in list_eval_partition: another data set?")
        official = [[n for n in names if parts[files[n]] == part] for part in "02"]
        train, test = official if all(official) else (train, test)
    parted = {"train": train, "test": test}
    return {part: Pictures(place, each, channels, size) for part, each in parted.items()}


Rows = np.ndarray | Pictures
"""Images in an array, or images that are decoded when their turn comes."""
