"""Image files, in a folder or a zip, as uint8 arrays of one size."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
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
CHUNK = 1000


def names(place: Path) -> list[str]:
    """The image files in a folder (paths below it) or a zip (names, never used as paths), sorted.

    Raises DataError for a file that is no zip.
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
    """The images of these names in a folder or zip, each uint8 (channels, size, size).

    Three channels are RGB, one is grey. The shorter side is resized to `size` (Lanczos), then the
    middle square is cut out: what Fuel's `celeba_64.hdf5`, the file the paper's authors trained
    on, was made by (178 x 218 to 64 x 78, rows 7 to 70). Iteration raises DataError for a file
    that is not a whole, sane image.
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
            raise DataError(f"{where} is larger than {BYTES_LIMIT >> 20} MiB: no image")
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
    except Exception as error:  # a damaged file, or member of a zip, may raise anything
        raise DataError(f"{where} is not a whole image: {error}") from None


def split(names: list[str], partition: Path | None) -> tuple[list[str], list[str]]:
    """Names of training and test images: parts 0 and 2 of CelebA's official `partition`, the list
    of its authors or the .csv of its copies; every tenth is for the test without one.

    Raises DataError for a damaged list, or a name that is not in it.
    """
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
        train, test = ([n for n in names if parts[files[n]] == part] for part in "02")
        if train and test:
            return train, test
    return [name for i, name in enumerate(names) if i % 10 != 9], names[9::10]
