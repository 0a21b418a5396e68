"""Decodes images of a folder, zip or tar, and keeps what their pixels mean.

16-bit greys are divided by 65,535, and floats are taken in [0, 1]. Tags of orientation are applied.
Transparency lies on white. An image of several frames gives its first. What is none of these, or
can't be read whole, is refused by name.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import tempfile
import warnings
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from bench.data.choose import Chosen, choose
from bench.data.files import BYTES_LIMIT, DataError, no_room, reason, to_uint8
from bench.data.own import Pixels, Target, recoloured, square

RULES = "pixels 4"
"""Images that were prepared under other rules are prepared again."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
PIXELS_LIMIT, CHUNK = 2**26, 1000
RATIO = 100
"""A longer image would be scaled to hundreds of megabytes, of which the middle square is used."""
WHITE = "with transparency, composited on white"
_MODES = frozenset(("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"))
_GREY = frozenset(("1", "L", "LA", "La", "I", "F"))
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF's tag of orientation asks for."""


@dataclass(frozen=True)
class Pictures:
    """Decodes chosen images when their turn comes, each uint8 (channels, size, size).

    Images are RGB for three channels and grey for one. The shorter side is resized to `size` by
    Lanczos, then the middle square is cut out. Fuel made the file that the paper's authors trained
    on, `celeba_64.hdf5`, in this way. Iteration raises DataError for an image that is refused.
    """

    chosen: Chosen
    names: Sequence[str]
    channels: int
    size: int
    split: str  # how images were parted into training and test, in words
    scaled: str = ""  # what became of their size, in words

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        console = Console(stderr=True)
        quiet = len(self) <= CHUNK or not console.is_terminal
        chunks = [self.names[at : at + CHUNK] for at in range(0, len(self), CHUNK)]
        label = f"{len(self)} images"
        with (
            warnings.catch_warnings(),
            _archive(self.chosen.place) as archive,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        ):
            # What matters of pillow's warnings is refused or said, in one line.
            warnings.simplefilter("ignore")
            logging.getLogger("PIL").setLevel("CRITICAL")
            decode = partial(_decode, archive, self)
            for chunk in track(chunks, label, console=console, transient=True, disable=quiet):
                for square, notes in pool.map(decode, chunk):
                    self.chosen.notes.update(notes)
                    yield square

    def said(self) -> str:
        """Returns one line: files taken and left out, the split, what became of pixels."""
        notes = [f"{n} {note}" for note, n in sorted(self.chosen.notes.items())]
        scaled = [self.scaled] if self.scaled else []
        return "; ".join([self.chosen.counted(), self.split, *scaled, *notes])


Rows = np.ndarray | Pictures | Pixels
"""Images in an array, or images that are decoded or converted when their turn comes."""


def _archive(place: Path) -> zipfile.ZipFile | nullcontext[None]:
    try:
        return zipfile.ZipFile(place) if place.is_file() else nullcontext()
    except Exception as error:  # it was chosen from before, so it has changed
        raise DataError(f"{place} can't be read: {reason(error)}") from None


def _decode(
    archive: zipfile.ZipFile | None, pictures: Pictures, name: str
) -> tuple[np.ndarray, list[str]]:
    """Returns an image and notes of what became of its pixels."""
    chosen, size = pictures.chosen, pictures.size
    where = f"{name} in {chosen.given}"
    try:
        if chosen.size(name, archive) > BYTES_LIMIT:
            raise DataError(f"{where} is larger than {BYTES_LIMIT >> 20} MiB: refused")
        content = chosen.read(name, archive)
    except DataError:
        raise
    except Exception as error:  # of zipfile, many kinds
        hint = "; unpack the zip, and give the folder with --data" if archive else ""
        raise DataError(f"{where} can't be read: {reason(error)}{hint}") from None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_LIMIT:
                raise DataError(f"{where} has {width} x {height} pixels: refused")
            if max(width, height) > RATIO * min(width, height):
                raise DataError(
                    f"{where} has {width} x {height} pixels: its longer side may have at most "
                    f"{RATIO} times the shorter side"
                )
            with _silence() if image.format == "TIFF" else nullcontext():
                pixels, notes = _converted(image, content, "RGB" if pictures.channels == 3 else "L")
                given = 1 if image.mode in _GREY or image.mode.startswith("I;16") else 3
                notes += [recoloured(given)] if given != pictures.channels else []
        found = np.asarray(square(pixels, size))
        return found.reshape(size, size, -1).transpose(2, 0, 1), notes
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{where} has more than {PIXELS_LIMIT:,} pixels: refused") from None
    except UnidentifiedImageError:
        what = f"is {_of(content)}" if content else "is empty"
        allowed = "allowed: JPEG, PNG, WebP, BMP, TIFF and PPM of 8 bits or 16-bit grey"
        raise DataError(f"{where} {what}; {allowed}") from None
    except _Refused as error:
        allowed = "allowed: 8 bits a channel or fewer, 16-bit grey, floats in [0, 1]"
        raise DataError(f"{where} has {error}; {allowed}") from None
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{where} is not a whole image: {reason(error)}") from None


class _Refused(Exception):
    """Pixels whose meaning is not known; the message says what they are."""


_ALONE = Lock()


@contextmanager
def _silence() -> Iterator[None]:
    """Drops what libtiff prints about a damaged file, past Python, to standard error.

    pillow raises an error as well, which becomes the one line.
    """
    with _ALONE:
        try:
            kept = os.dup(2)
        except OSError:  # standard error is closed
            yield
            return
        try:
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _of(content: bytes) -> str:
    """Returns in words what a file is that pillow does not open as one of FORMATS."""
    start = content[:256].lstrip().lower()
    pointer = "a pointer of Git LFS (git lfs pull fetches the file)"
    named = {b"gif8": "a GIF", b"%pdf": "a PDF", b"<": "HTML or XML", b"version https:": pointer}
    for known, name in named.items():
        if start.startswith(known):
            return name
    if start[4:8] == b"ftyp":
        return "HEIC, AVIF or a film"
    known = (b"\xff\xd8", b"\x89png", b"riff", b"bm", b"ii*\0", b"mm\0*", b"p")
    return "damaged, or of a kind that is not read" if start.startswith(known) else "no image"


_GREYS = {"L;2": 3, "L;4": 15, "L": 255}
"""White in greys of PNG, by pillow's name of their depth."""


def _clear(image: ImageFile.ImageFile, content: bytes) -> np.ndarray | None:
    """Returns where a 16-bit colour PNG that names a transparent colour has it, (h, w), or None.

    A PNG names that colour in its own depth, but pillow compares it with 8 bits. So this function
    scales the colour of an image of fewer bits, and compares all 16 bits of others itself.
    """
    clear = image.info.get("transparency")
    depth = image.tile[0].args if image.format == "PNG" and image.tile else ""
    if isinstance(clear, int) and depth in _GREYS:
        top = _GREYS[str(depth)]
        image.info["transparency"] = (clear & top) * (255 // top)
    if not isinstance(clear, tuple) or depth != "RGB;16B":
        return None
    del image.info["transparency"]
    with Image.open(io.BytesIO(content), formats=["PNG"]) as lower:
        lower.tile = [lower.tile[0]._replace(args="RGB;16L")]  # the bytes that "RGB;16B" drops
        low = np.asarray(lower)
    return (np.asarray(image) * np.uint16(256) + low == clear).all(-1)


def _converted(
    image: ImageFile.ImageFile, content: bytes, mode: str
) -> tuple[Image.Image, list[str]]:
    """Returns an opened image as 8-bit `mode`, "RGB" or "L", upright, and notes about it.

    `content` is its file. Raises _Refused for pixels whose meaning is not known.
    """
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's photo is its first
        notes.append("with several frames, of which the first is taken")
    clear_colours = _clear(image, content)
    image.load()
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    wide = image.mode == "I" and image.format in ("PNG", "PPM")  # 16 bits, as some versions open it
    if image.mode.startswith("I;16") or wide:
        if tags and tags.get(258, (16,)) != (16,):
            raise _Refused(f"{tags.get(258)} bits a channel")
        grey = np.asarray(image).astype(np.uint16)
        grey = 65535 - grey if tags.get(262) == 0 else grey  # a TIFF whose 0 is white
        clear = image.info.get("transparency")
        if isinstance(clear, int) and (grey == clear).any():
            grey = np.where(grey == clear, np.uint16(65535), grey)
            notes.append(WHITE)
        found = Image.fromarray(to_uint8(grey)).convert(mode)
    elif image.mode == "F":
        try:
            found = Image.fromarray(to_uint8(np.asarray(image))).convert(mode)
        except ValueError as error:
            raise _Refused(str(error)) from None
    elif clear_colours is not None and clear_colours.any():
        white = Image.new("RGB", image.size, "white")
        found = Image.composite(white, image, Image.fromarray(clear_colours)).convert(mode)
        notes.append(WHITE)
    elif image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        clear = straight.convert("RGBA")
        if clear.getchannel("A").getextrema()[0] == 255:
            found = straight.convert(mode)
        else:
            white = Image.new("RGBA", clear.size, "white")
            found = Image.alpha_composite(white, clear).convert(mode)
            notes.append(WHITE)
    elif image.mode in _MODES:
        found = (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)
    else:
        raise _Refused(f"pixels of mode {image.mode}")
    try:
        turn = _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged tags say nothing, and the pixels are whole
        turn = None
    if turn is None:
        return found, notes
    return found.transpose(turn), [*notes, "turned as their tags of orientation say"]


def pictures(chosen: Chosen, partition: Path | str | None, target: Target) -> dict[str, Pictures]:
    """Returns training and test images: parts 0 and 2 of CelebA's official `partition`.

    The partition is the authors' list or a .csv copy: a file, or by a string a member of the chosen
    zip. Every tenth image is for the test without a partition, and where a part has no image.
    Raises DataError for a damaged list, and for a name that it lacks.
    """
    names = list(chosen.files)
    train, test = [name for i, name in enumerate(names) if i % 10 != 9], names[9::10]
    split = "every tenth is for the test"
    if partition is not None:
        parts = _parts(chosen, partition)
        if unknown := [name for name in names if _stem(name) not in parts]:
            raise DataError(
                f"{unknown[0]} in {chosen.place} is not in {partition}; allowed: images that the "
                "list names, or a folder of another name and without the list"
            )
        official = [[name for name in names if parts[_stem(name)] == part] for part in "012"]
        if official[0] and official[2]:
            train, unused, test = official
            split = f"parted by {partition}; the {len(unused)} of its validation part are not used"
        else:
            lacking = "test" if official[0] else "training"
            split = f"{split}, because {partition} puts no image into the {lacking} part"
    size, scaled = target.size, ""
    if len(target.sizes) > 1 and names:
        size, scaled = target.of(_sides(chosen))
    parted, how = {"train": train, "test": test}, (target.channels, size)
    return {part: Pictures(chosen, each, *how, split, scaled) for part, each in parted.items()}


def of_tar(place: Path, target: Target) -> dict[str, Pictures]:
    """Returns training and test images of a tar, which is unpacked while they are in use.

    Raises DataError for a tar that can't be read.
    """
    try:
        folder = tempfile.mkdtemp()
    except OSError as error:
        raise no_room(error) from None
    try:
        chosen = choose(place, Path(folder))
        found = pictures(chosen, None, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(chosen, shutil.rmtree, folder, ignore_errors=True)
    return found


def _sides(chosen: Chosen) -> tuple[int, int] | None:
    """Returns height and width of the images if all have the same, by the heads of their files.

    An image whose head can't be read has none: it is refused when it is decoded.
    """
    found: set[tuple[int, int]] = set()
    with _archive(chosen.place) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in chosen.files.values():
            with suppress(Exception):  # a damaged file may raise anything
                source = archive.open(file) if archive else (chosen.place / file).open("rb")
                with source, Image.open(source, formats=FORMATS) as image:
                    found.add((image.height, image.width))
            if len(found) > 1:
                return None
    return next(iter(found), None)


def _stem(name: str) -> str:
    """Returns what names an image in the list: the official copies are .jpg and .png."""
    return PurePosixPath(name.replace("\\", "/")).stem.lower()


def _parts(chosen: Chosen, partition: Path | str) -> dict[str, str]:
    """Returns the part of each image of the list, by `_stem`. Raises DataError."""
    try:
        if isinstance(partition, str):
            with zipfile.ZipFile(chosen.place) as archive:
                content = archive.read(partition)
        else:
            content = partition.read_bytes()
    except Exception as error:  # of zipfile, many kinds
        raise DataError(f"{partition} can't be read: {reason(error)}") from None
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    lines = [re.sub(r"[,;\"']", " ", line).split() for line in text.splitlines()]
    lines = [line for line in lines if line]
    lines = lines[1:] if lines and lines[0][-1].lower() == "partition" else lines
    if not lines or not all(len(line) in (2, 3) and line[-1] in ("0", "1", "2") for line in lines):
        raise DataError(
            f"{partition} is damaged: not lines of FILE 0, 1 or 2; allowed: CelebA's list as "
            "published, or none beside the images"
        )
    parts: dict[str, str] = {}
    for line in lines:
        if parts.setdefault(_stem(line[-2]), line[-1]) != line[-1]:
            raise DataError(
                f"{partition} is damaged: it puts {line[-2]} into two parts; allowed: one part for "
                "each image, as in the published list"
            )
    return parts
