"""Image files, in a folder or a zip, as uint8 arrays of one size."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from bench.data.files import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
BYTES_LIMIT = 2**26
PIXELS_LIMIT = 2**26
COUNT_LIMIT = 10**6
CHUNK = 1000


def in_folder(folder: Path) -> list[str]:
    """Paths below the folder of its image files, sorted."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def in_zip(path: Path) -> list[str]:
    """Names of the image files in a zip, sorted. They are never used as paths."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(set(archive.namelist()))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read as a zip: {error}") from None
    paths = {name: PurePosixPath(name) for name in names if not name.startswith("__MACOSX/")}
    return [name for name, path in paths.items() if path.suffix.lower() in SUFFIXES]


def read(place: Path, names: list[str], size: int) -> Iterator[np.ndarray]:
    """The images of these names in a folder or zip, in chunks (k, 3, size, size), uint8 RGB.

    The shorter side is resized to `size` (Lanczos), then the middle square is cut out: what
    Fuel's `celeba_64.hdf5`, the file the paper's authors trained on, was made by (178 x 218 to
    64 x 78, rows 7 to 70). Raises DataError for a file that is not a whole, sane image.
    """
    if len(names) > COUNT_LIMIT:
        raise DataError(f"{place} holds {len(names)} images, more than {COUNT_LIMIT}")
    archive = zipfile.ZipFile(place) if place.is_file() else None

    def image(name: str) -> np.ndarray:
        return _decode(_content(archive, place, name), f"{name} in {place}", size)

    quiet = len(names) <= CHUNK or not Console(stderr=True).is_terminal
    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for chunk in track(
                [names[at : at + CHUNK] for at in range(0, len(names), CHUNK)],
                f"{len(names)} images",
                console=Console(stderr=True),
                transient=True,
                disable=quiet,
            ):
                yield np.stack(list(pool.map(image, chunk)))
    finally:
        if archive:
            archive.close()


def _content(archive: zipfile.ZipFile | None, place: Path, name: str) -> bytes:
    try:
        if archive is None and (place / name).stat().st_size <= BYTES_LIMIT:
            return (place / name).read_bytes()
        if archive and archive.getinfo(name).file_size <= BYTES_LIMIT:
            return archive.read(name)  # never gives more than that size
    except Exception as error:  # a damaged or encrypted member may raise anything
        raise DataError(f"{name} in {place} can't be read: {error}") from None
    raise DataError(f"{name} in {place} is larger than {BYTES_LIMIT >> 20} MiB: no image")


def _decode(content: bytes, where: str, size: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_LIMIT:
                raise DataError(f"{where} has {width} x {height} pixels: refused")
            rgb = image.convert("RGB")
        short = min(width, height)
        sides = [max(size, round(side * size / short)) for side in (width, height)]
        left, top = ((side - size) // 2 for side in sides)
        scaled = rgb.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        square = scaled.crop((left, top, left + size, top + size))
        return np.asarray(square).transpose(2, 0, 1)
    except DataError:
        raise
    except Exception as error:  # a damaged image may raise anything
        raise DataError(f"{where} is not a whole image: {error}") from None


def partition(path: Path) -> dict[str, int]:
    """CelebA's official split, {file name: 0 train, 1 validation, 2 test}, from the list of its
    authors or the .csv of its copies."""
    lines = path.read_text(errors="replace").replace(",", " ").splitlines()
    pairs = [line.split() for line in lines if line.strip()]
    pairs = pairs[1:] if pairs and pairs[0][-1] == "partition" else pairs
    if not all(len(pair) == 2 and pair[1] in ("0", "1", "2") for pair in pairs):
        raise DataError(f"{path} is damaged: not lines of FILE 0, 1 or 2")
    return {name: int(part) for name, part in pairs}


def split(names: list[str], parts: dict[str, int] | None) -> tuple[list[str], list[str]]:
    """Train and test names: the official parts 0 and 2, or else every tenth is for the test."""
    if parts is not None:
        unknown = [name for name in names if PurePosixPath(name).name not in parts]
        if unknown:
            raise DataError(f"{unknown[0]} is not in list_eval_partition: another data set?")
        train, test = ([n for n in names if parts[PurePosixPath(n).name] == p] for p in (0, 2))
        if train and test:
            return train, test
    return [n for i, n in enumerate(names) if i % 10 != 9], names[9::10]
