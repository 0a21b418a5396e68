"""Reads a user's own images: idx files, an .npz or .npy, and folders or archives of images.

Images become grey or colour as a study has them, and square, of a size that its networks take.
One line says what became of them.
"""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from bench.data.choose import is_image
from bench.data.files import (
    NPZ_LIMIT,
    PIXELS,
    DataError,
    is_uint16,
    names,
    reason,
    to_uint8,
    within,
)

LEAST, MOST = 8, 256
"""Sides of images in arrays that are taken as they are, in pixels."""
FORMS = (
    "idx files, an .npz or .npy of images (n, h, w), (n, h, w, c) or (n, c, h, w), or a folder, "
    ".zip or .tar of images"
)
"""What a message allows."""
_KINDS = {
    0x08: "u1",
    0x09: "i1",
    0x0B: ">i2",
    0x0C: ">i4",
    0x0D: ">f4",
    0x0E: ">f8",
}
"""Types of numbers by the third byte of an idx file."""
_X = frozenset(("x", "image", "images", "img", "imgs", "data", "pixels", "arr"))
_Y = frozenset(("y", "label", "labels", "target", "targets", "class", "classes"))
"""Words in the names of arrays of images, and of labels."""
_NAMED = re.compile(r"idx[1-4]-ubyte(\.gz)?$")
_PART = re.compile(r"t10k|train(?:ing)?|test(?:ing)?|val(?:id|idation)?")
_PARTS = {"tr": "train", "te": "test", "t1": "test", "va": "validation"}


@dataclass(frozen=True)
class Target:
    """Says what images shall become: channels, and one of these sizes of the networks.

    `size` is the study's own, which images of several sizes or of no square become.
    """

    channels: int
    size: int
    sizes: Collection[int]

    def of(self, sides: tuple[int, int] | None) -> tuple[int, str]:
        """Returns the size for images of this height and width, and what that is in words.

        None stands for images of several sizes. The words are empty where nothing changes.
        """
        own = f"scaled to {self.size} x {self.size} pixels"
        if sides is None:
            return self.size, f"{own}, because they are of several sizes"
        height, width = sides
        given = f"from {height} x {width}"
        if height != width:
            return self.size, f"{own} {given}, and cut to the middle square"
        if height > MOST:
            return self.size, f"{own} {given}"
        near = min(self.sizes, key=lambda size: (abs(size - height), -size))
        words = f"scaled to {near} x {near} pixels {given}"
        words += ", the nearest size that the networks take" if len(self.sizes) > 1 else ""
        return near, words if near != height else ""


@dataclass(frozen=True)
class Pixels:
    """Converts images of an array when their turn comes, each to uint8 (channels, size, size)."""

    images: np.ndarray  # (n, h, w, 1 or 3)
    channels: int
    size: int
    words: Sequence[str]  # of the whole data set

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.images), 1000):  # floats need memory
            for image in to_uint8(self.images[start : start + 1000]):
                yield self._square(image).transpose(2, 0, 1)

    def _square(self, image: np.ndarray) -> np.ndarray:
        """Returns a uint8 image (h, w, 1 or 3) as (size, size, channels)."""
        if image.shape == (self.size, self.size, self.channels):
            return image
        mode = "RGB" if self.channels == 3 else "L"
        found = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert(mode)
        return np.asarray(square(found, self.size)).reshape(self.size, self.size, self.channels)

    def said(self) -> str:
        """Returns one line: what was taken, the split, what became of the images."""
        return "; ".join(self.words)


def square(image: Image.Image, size: int) -> Image.Image:
    """Returns an image whose shorter side became `size` by Lanczos, cut to its middle square."""
    width, height = image.size
    short = min(width, height)
    sides = [max(size, round(side * size / short)) for side in (width, height)]
    left, top = ((side - size) // 2 for side in sides)
    scaled = image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    return scaled.crop((left, top, left + size, top + size))


def _rows(
    place: Path, parts: Mapping[str, np.ndarray], labels: Mapping[str, Any], target: Target
) -> dict[str, Any]:
    """Returns rows of training and test images from arrays by part, "" for all.

    `labels` are those of each part, perhaps of none. Without a split every tenth image is for the
    test. Raises DataError for images of no known shape or meaning.
    """
    whole = {part: _channels_last(place, images) for part, images in parts.items()}
    words = [f"{sum(map(len, whole.values()))} images taken from {place}"]
    kept = {part: labels[part] for part in parts if labels.get(part) is not None}
    for part, found in kept.items():
        if len(found) != len(whole[part]):
            what = f"{len(found)} labels and {len(whole[part])} images"
            raise DataError(f"{place} has {what}; allowed: a label for each image, or no labels")
    if len({images.shape[1:] for images in whole.values()}) > 1:
        shapes = " and ".join(str(images.shape) for images in whole.values())
        raise DataError(f"{place} has images of shapes {shapes}; allowed: one shape")
    if len(whole) == 1:
        ((_, images),) = whole.items()
        whole = {"train": np.delete(images, np.s_[9::10], axis=0), "test": images[9::10]}
        words.append("every tenth is for the test")
        for found in list(kept.values()):
            kept = {"train": np.delete(found, np.s_[9::10]), "test": found[9::10]}
    else:
        words.append(f"{len(whole['test'])} of them are for the test")
    given = whole["train"].shape[-1]
    if given != target.channels:
        words.append(recoloured(given))
    size, scaled = target.of(whole["train"].shape[1:3])
    words += [scaled] if scaled else []
    rows: dict[str, Any] = {
        part: Pixels(images, target.channels, size, words) for part, images in whole.items()
    }
    if len(kept) == 2:
        rows |= {f"{part}_labels": each.astype(np.int64) for part, each in kept.items()}
    return rows


def recoloured(channels: int) -> str:
    """Returns in words what became of the colours of images that had so many channels."""
    return "converted from grey to colour" if channels == 1 else "converted from colour to grey"


def _channels_last(place: Path, images: np.ndarray) -> np.ndarray:
    """Returns images (n, h, w, 1 or 3) whose pixels have a meaning. Raises DataError for others."""
    given = f"{place} has images {images.dtype} {images.shape}"
    found = images[..., None] if images.ndim == 3 else images
    if found.shape[-1] not in (1, 3) and found.shape[1] in (1, 3):
        found = found.transpose(0, 2, 3, 1)
    sides = found.shape[1:3]
    if found.shape[-1] not in (1, 3) or min(sides) < LEAST:
        raise DataError(
            f"{given}; allowed: (n, h, w), (n, h, w, c) or (n, c, h, w) of {LEAST} pixels or more "
            "a side and 1 or 3 channels"
        )
    if is_uint16(found) and len(found) and found.max() < 256:
        raise DataError(f"{given}, but no value is above 255; allowed: uint8 for such values")
    try:
        for start in range(0, len(found), 1000):
            to_uint8(found[start : start + 1000])
    except ValueError as error:
        raise DataError(f"{given}, with {error}; allowed: {PIXELS}") from None
    return found


# idx files


@dataclass(frozen=True)
class Idx:
    """An idx file: its shape and the type of its numbers."""

    path: Path
    shape: tuple[int, ...]
    kind: np.dtype[Any]

    def read(self) -> np.ndarray:
        """Returns the array. Raises DataError for a file that is shorter or longer."""
        expected = int(np.prod(self.shape)) * self.kind.itemsize
        shape = " x ".join(map(str, self.shape))
        if expected > NPZ_LIMIT:
            raise DataError(f"{self.path} would unpack to more than {NPZ_LIMIT >> 30} GiB")
        try:
            with _opened(self.path) as file:
                file.read(4 + 4 * len(self.shape))
                content = file.read(expected + 1)
        except Exception as error:  # of gzip, several kinds
            raise DataError(f"{self.path} can't be read: {reason(error)}") from None
        if len(content) != expected:
            less = "less" if len(content) < expected else "more"
            raise DataError(
                f"{self.path} is damaged: it has {less} than the {shape} numbers of its header; "
                "allowed: the whole file; give another place with --data"
            )
        return np.frombuffer(content, self.kind).reshape(self.shape)


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _idx(path: Path) -> Idx | None:
    """Returns what the header of an idx file says, None for any other file. Raises OSError."""
    try:
        with _opened(path) as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _KINDS or head[3] > 4:
                return None
            shape = tuple(np.frombuffer(file.read(4 * head[3]), ">u4").tolist())
    except (EOFError, gzip.BadGzipFile, ValueError):  # cut off in its header
        return None
    return Idx(path, shape, np.dtype(_KINDS[head[2]])) if len(shape) == head[3] else None


def idx_files(place: Path) -> list[Idx]:
    """Returns the idx files at a place, by their first bytes: a file, or files in a folder.

    In a folder they may lie in raw/, in NAME/raw/ as torchvision has them, or in a folder of their
    own. Raises OSError or DataError for what can't be read.
    """
    paths = [place]
    if place.is_dir():
        paths = [place / name for name in sorted(names(place))]
        others = [path for path in paths if not (is_image(path.name) or path.name[0] == ".")]
        inner = [path for path in others if path.is_dir()]
        raw = [found for path in (place, *inner) if (found := within(path, "raw"))]
        inner = [path for path in inner if "idx" in path.name.lower()]
        paths += [path / name for path in (*raw, *inner) for name in sorted(names(path))]
    taken = [path for path in paths if not is_image(path.name) and path.is_file()]
    read = {path: _idx(path) for path in taken}
    for path, found in read.items():
        if found is None and _NAMED.search(path.name.lower()):
            raise DataError(
                f"{path} is damaged: it does not begin as an idx file does; allowed: the whole "
                "file, or none of such a name; give another place with --data"
            )
    return [found for found in read.values() if found]


def from_idx(place: Path, found: Sequence[Idx], target: Target) -> dict[str, Any]:
    """Returns rows of what `idx_files` has found.

    Names tell training and test apart: those with "t10k", "test" or "val" are for the test. Raises
    DataError for damaged files, and for several files of a kind.
    """
    images, labels = ({}, {})
    for each in found:
        name = re.sub(r"\.gz$", "", each.path.name.lower())
        part = _PARTS[match[0][:2]] if (match := _PART.search(name)) else ""
        group = images if len(each.shape) > 1 else labels
        group.setdefault(part, {}).setdefault(name, each)  # the same file may lie there twice
    several = [group for kind in (images, labels) for group in kind.values() if len(group) > 1]
    parts = {part for part in images if part != "validation"} or {*images}
    if several or not parts or (len(parts) > 1 and parts != {"train", "test"}):
        listed = ", ".join(f"{each.path.name} {each.shape}" for each in found)
        raise DataError(
            f"{place} has idx files of no clear parts: {listed}; allowed: one file of images with "
            "train and one with t10k or test in its name, or a single file of images, each perhaps "
            "with a file of labels"
        )
    arrays = {part: next(iter(images[part].values())).read() for part in parts}
    named = {part: next(iter(labels[part].values())) for part in parts if part in labels}
    if len(parts) == 1 and len(labels) == 1 and not named:
        named = {next(iter(parts)): next(iter(next(iter(labels.values())).values()))}
    read = {part: each.read() for part, each in named.items()}
    ordered = {part: arrays[part] for part in sorted(parts, reverse=True)}  # train, then test
    return _rows(place, ordered, {p: each for p, each in read.items() if _are_labels(each)}, target)


def _are_labels(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" and array.ndim == 1


# Arrays of numpy


def from_numpy(place: Path, target: Target) -> dict[str, Any]:
    """Returns rows of an .npz or .npy file.

    Names of arrays tell images from labels, and training from test. Raises DataError for a damaged
    file, and for one where no array, or more than one, may be meant.
    """
    read = _npy(place) if place.suffix.lower() == ".npy" else None
    shapes = {"arr_0": read.shape} if read is not None else _shapes(place)
    parts, labels, unused = _meant(place, shapes)

    def array(name: str) -> np.ndarray:
        return read if read is not None else _npz(place, name)

    images = {part: array(name) for part, name in parts.items()}
    known: dict[str, Any] = {}
    for part, name in labels.items():
        found = array(name)
        found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
        if _are_labels(found):
            known[part] = found
        else:
            unused.append(name)
    rows = _rows(place, images, known, target)
    if unused:
        rows["train"].words.append(f"not used: {', '.join(sorted(unused))}")
    return rows


def _meant(
    place: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Returns the arrays of images by part, those of labels, and the names of all others.

    Raises DataError where no array, or more than one, may be the images of a part.
    """
    images: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    named: set[str] = set()  # as images are
    for name, shape in shapes.items():
        part = _PART.search(name.lower())
        words = {*re.findall(r"[a-z]+", _PART.sub(" ", name.lower()))}
        which = _PARTS[part[0][:2]] if part else ""
        if len(shape) in (3, 4):
            images.setdefault(which, []).append(name)
            named |= {name} if words & _X else set()
        elif len(shape) in (1, 2) and (words & _Y or name == "arr_1"):
            labels.setdefault(which, []).append(name)
    images = {part: [n for n in found if n in named] or found for part, found in images.items()}
    split = {"train", "test"} <= images.keys()
    if split and not named & {*images.get("", ())}:
        images.pop("", None)
    if split or len(images) > 1:
        images.pop("validation", None)
    if len(images) != 1 + split or any(len(found) != 1 for found in images.values()):
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no array"
        raise DataError(
            f"{place} has {listed}: not one array of images; allowed: images, x, data or arr_0, or "
            "x_train and x_test, or train_images and test_images, each (n, h, w), (n, h, w, c) or "
            "(n, c, h, w), perhaps with labels, y, y_train and the like; rename the arrays"
        )
    kept = {part: found[0] for part, found in labels.items() if len(found) == 1 and part in images}
    every = [name for found in labels.values() for name in found]
    if len(images) == 1 and not kept and len(every) == 1:
        kept = {next(iter(images)): every[0]}
    order = ("train", "test") if split else tuple(images)
    parts = {part: images[part][0] for part in order}
    unused = [name for name in shapes if name not in {*parts.values(), *kept.values()}]
    return parts, kept, unused


def _npy(place: Path) -> np.ndarray:
    try:
        return np.load(place, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file may raise anything
        raise _damaged(place, error) from None


def _npz(place: Path, name: str) -> np.ndarray:
    try:
        with np.load(place, allow_pickle=False) as file:
            return np.asarray(file[name])
    except Exception as error:
        raise _damaged(place, error) from None


def _damaged(place: Path, error: Exception) -> DataError:
    return DataError(
        f"{place} is damaged, or not a file of numpy's numbers: {reason(error)}; allowed: {FORMS}, "
        "without Python's objects; give another place with --data"
    )


def _shapes(place: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of numbers in an .npz, by name, and reads no array."""
    found = {}
    try:
        with zipfile.ZipFile(place) as archive:
            if sum(member.file_size for member in archive.infolist()) > NPZ_LIMIT:
                raise DataError(f"{place} would unpack to more than {NPZ_LIMIT >> 30} GiB")
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = np.lib.format.read_array_header_1_0
                    read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, kind = read(file)
                if not kind.hasobject:
                    found[member.removesuffix(".npy")] = shape
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise _damaged(place, error) from None
    return found
