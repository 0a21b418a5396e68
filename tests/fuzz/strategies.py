"""Draws folders, files and command lines as users have them, and worse."""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

Drawn = st.SearchStrategy[Any]

# Names and texts

_WORDS = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12)
NAMES = st.one_of(
    st.sampled_from(["a.png", "A.PNG", ".a.png", "._a.jpg", ".png", "a.jpeg", "b.WebP", "a.gif"]),
    st.sampled_from(["é\udce9.png", "new\nline.png", "a b.jpg", "-x.png", "*?[.png", "a\\b.png"]),
    st.sampled_from(["000001.jpg", "000001.png", "Thumbs.db", "\udcff", "x" * 200 + ".png"]),
    st.sampled_from(["__MACOSX", ".ipynb_checkpoints", "img_align_celeba", "celeba", "MNIST"]),
    st.sampled_from(["list_eval_partition.txt", "list_eval_partition.csv", "prepared", "raw"]),
    st.sampled_from(["cifar10.npz", "celeba64.npz", "cifar-10-batches-py", "data_batch_1"]),
    st.sampled_from(["cifar-10-python.tar.gz", "train-images-idx3-ubyte", "about.json"]),
    st.sampled_from(["img_align_celeba.zip", "a.zip", "a.npz", "a.tiff", "a.txt"]),
    _WORDS.map(lambda text: text.strip(".") or "dots"),
    _WORDS.map(lambda text: text + ".png"),
)
SILLY = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "-", "--", "=", ",", "nan", "inf", "-inf", "1e999", "0x10", "1_0"]),
    st.sampled_from(["-1", "0", "-0.0", "1.5", "9" * 30, "9" * 5000, "1e-400", "１", "²", "½"]),
    st.sampled_from(
        ["\0", "a\0b", "\udcff", "a\nb", "λ=1", "~", "~nobody/x", "..", "/", "/dev/null"]
    ),
    st.sampled_from(["1/0", "2/1", "1/99999999999", "a=b=c", "[1]", "None", "True", "x" * 300]),
    st.integers().map(str),
    st.floats().map(repr),
)


def mostly(good: Drawn, other: Drawn = SILLY) -> Drawn:
    """Draws from the first strategy nine times of ten."""
    return st.integers(0, 9).flatmap(lambda n: other if n == 9 else good)


# Files

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "LAB", "HSV"]


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """An image of any mode and format, tiny, perhaps turned by its tag or damaged."""
    w, h = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed, mode = draw(st.integers(0, 9)), draw(st.sampled_from(MODES))
    form = draw(st.sampled_from(["PNG", "JPEG", "WEBP", "PNG", "GIF", "BMP", "TIFF"]))
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    base = Image.fromarray(pixels)
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))
        options["exif"] = exif
    if mode == "P" and draw(st.booleans()):
        options["transparency"] = 3
    buffer = io.BytesIO()
    for wanted in (mode, "RGB"):
        try:
            base.convert("L" if wanted in ("I;16", "PA") else wanted).convert(wanted).save(
                buffer, form, **options
            )
            break
        except (OSError, ValueError, KeyError):
            buffer = io.BytesIO()
    return buffer.getvalue()


def _array(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(["u1", "u1", "f4", "i8", "U3", "?", "c8", "O", "f8,i4", "M8[s]"]))
    shape = draw(
        st.sampled_from(
            [(12, 16, 16, 3), (12, 16, 16), (12, 64, 64, 3), (3, 32, 32, 3), (12,), (), (0, 16, 16)]
        )
    )
    array = np.zeros(shape, "u1")
    return array.astype(dtype) if dtype != "f8,i4" else np.zeros(shape, dtype)


@st.composite
def npzs(draw: st.DrawFn) -> bytes:
    """An .npz with arrays of any type under names that are read, and others."""
    names = st.sampled_from(
        ["images", "train_images", "train_labels", "test_images", "test_labels", "test", "x"]
    )
    chosen = draw(st.lists(names, max_size=5, unique=True))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **{name: _array(draw) for name in chosen})  # type: ignore[arg-type]
    return buffer.getvalue()


LISTS = st.one_of(
    st.lists(
        st.tuples(
            st.sampled_from(["a.png", "000001.jpg", "0.png", "1.png"]), st.sampled_from("0123")
        ),
        max_size=6,
    ).map(lambda pairs: "\n".join(f"{a} {b}" for a, b in pairs).encode()),
    st.just("\ufeffimage_id,partition\r\n0.png,0\r\n1.png,2\r\n".encode()),
    st.just("0.png 0\n1.png 2\n".encode("utf-16")),
    st.binary(max_size=30),
)


@st.composite
def _idx(draw: st.DrawFn) -> bytes:
    magic = draw(
        st.sampled_from([b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\x1f\x8b\x08\0"])
    )
    sizes = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3))
    return magic + b"".join(n.to_bytes(4, "big") for n in sizes) + draw(st.binary(max_size=40))


IDX = _idx()

DAMAGES = ["cut", "flip", "flip", "noise", "splice", "empty", "twice"]


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """The content after a stop amid a copy, flipped bits, or something else in its place."""
    how = draw(st.sampled_from(DAMAGES))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:at]
    if how == "flip" and content:
        changed = bytearray(content)
        for place in [at, *draw(st.lists(st.integers(0, len(content) - 1), max_size=2))]:
            changed[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if how == "splice":
        return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
    if how == "twice":
        return content + content
    return b"" if how == "empty" else draw(st.binary(max_size=200))


@st.composite
def files(draw: st.DrawFn, deep: int = 1) -> bytes:
    """Any file that a folder of images may have, perhaps damaged."""
    what = draw(st.sampled_from(["image"] * 5 + ["npz", "list", "idx", "bytes", "zip", "pickle"]))
    if what == "image":
        content = draw(images())
    elif what == "npz":
        content = draw(npzs())
    elif what == "list":
        content = draw(LISTS)
    elif what == "idx":
        content = draw(IDX)
    elif what == "pickle":
        content = b"\x80\x03}q\0X\4\0\0\0dataq\1K\1s."
    elif what == "zip" and deep:
        content = zipped(draw(st.dictionaries(NAMES, files(0), max_size=4)))
    else:
        content = draw(st.binary(max_size=60))
    return draw(damage(content)) if draw(st.integers(0, 3)) == 0 else content


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip of these members; a name that is no UTF-8 goes in as another program would write it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode())
            archive.writestr(info, content)
    return buffer.getvalue()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def other_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Another object, or the object without a key or with another value there."""
    known = json.loads(content)
    key = draw(st.sampled_from([*known]))
    how = draw(st.sampled_from(["value", "value", "without", "other", "deep"]))
    if how == "deep":
        return b"[" * 100_000
    if how == "other":
        return json.dumps(draw(JSON)).encode()
    if how == "without":
        del known[key]
    else:
        known[key] = draw(JSON)
    return json.dumps(known).encode()


# Folders are drawn as {name: content}: bytes of a file, another folder, or where a link leads.

Folder = dict[str, Any]
LINKS = st.sampled_from([".", "..", "self", "missing", "a.png", "sub", "/dev/zero"]).map(Path)


def good(n: int = 12) -> Folder:
    """Enough images to be a data set."""
    found = {}
    for i in range(n):
        buffer = io.BytesIO()
        Image.new("RGB", (5, 4), (i, 2 * i, 255 - i)).save(buffer, "PNG")
        found[f"{i}.png"] = buffer.getvalue()
    return found


@st.composite
def folders(draw: st.DrawFn, deep: int = 2) -> Folder:
    """A folder of anything; mostly it has images enough."""
    many = good() if draw(st.integers(0, 3)) else {}
    inside = [files(), files(), LINKS, st.just("fifo")]
    if deep:
        inside.append(folders(deep - 1))
    return draw(st.dictionaries(NAMES, st.one_of(inside), max_size=4)) | many


def lay(folder: Path, content: Folder) -> None:
    """Makes the folder on the disk; leaves out names that the file system refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in content.items():
        path = folder / name
        try:
            if isinstance(each, bytes):
                path.write_bytes(each)
            elif isinstance(each, dict):
                lay(path, each)
            elif each == "fifo":
                os.mkfifo(path)
            else:
                path.symlink_to(name if each == Path("self") else each)
        except (OSError, UnicodeEncodeError):
            continue


# Command lines


def lines(
    parser: argparse.ArgumentParser, values: Mapping[str, st.SearchStrategy[str]]
) -> st.SearchStrategy[list[str]]:
    """Draws command lines of this parser: its options and words, with good and silly values.

    `values` gives good values by the names of what they set.
    """
    parts = []
    for action in parser._actions:
        good = values.get(action.dest, SILLY)
        if action.choices:
            good = st.sampled_from([str(each) for each in action.choices])
        value, option = mostly(good), [*action.option_strings, ""][0]
        if not option:
            parts.append(st.tuples(value))
        elif action.nargs == 0:
            parts.append(st.just((option,)))
        else:
            joined = value.map(lambda text, option=option: (f"{option}={text}",))
            parts.append(mostly(joined, st.tuples(st.just(option), value)))
    known = st.sampled_from(parts).flatmap(lambda part: part)
    chosen = st.lists(mostly(known, mostly(known, st.tuples(SILLY))), max_size=5)
    return chosen.map(lambda found: [word for part in found for word in part])
