"""A user's own images: which files are taken, and what their pixels mean.

Every situation ends in the right arrays, or in one line that names the file.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import load as data
from bench.data import pictures
from bench.data.__main__ import main
from bench.data.files import mnist_files
from bench.data.load import DataError, load
from bench.data.sources import images_in

pytestmark = pytest.mark.usefixtures("cache")
RNG = np.random.default_rng(1)


def noise(side: int = 36) -> Image.Image:
    return Image.fromarray(RNG.integers(256, size=(side, side, 3), dtype=np.uint8))


CONTENT = {}


def content(number: int = 0, form: str = "PNG") -> bytes:
    """A small image as a file."""
    if (number, form) not in CONTENT:
        buffer = io.BytesIO()
        noise().save(buffer, form)
        CONTENT[number, form] = buffer.getvalue()
    return CONTENT[number, form]


def folder(place: Path, *names: str) -> Path:
    """Writes an image of its own to each of these names."""
    for number, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content(number))
    return place


def numbered(n: int = 10, ending: str = "png") -> list[str]:
    return [f"{i:06d}.{ending}" for i in range(1, n + 1)]


def count(images: data.Images) -> int:
    return len(images.train) + len(images.test)


def refused(place: Path, capsys: pytest.CaptureFixture[str], name: str = "cifar10") -> str:
    """The line of `prepare`, which has to end with status 2 and one line."""
    capsys.readouterr()
    assert main(["prepare", name, "--from", str(place)]) == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1 and error.endswith("\n"), error
    assert "object at 0x" not in error and "delete it" not in error and "--data" not in error
    return error


# Which files are taken


NO_IMAGES = {
    "hidden": [".a.png", "._000001.png", ".ipynb_checkpoints/a-checkpoint.png", "sub/.x/y/a.png"],
    "of a system": ["__MACOSX/._a.png", "sub/__MACOSX/a.png", "@eaDir/a.png/SYNOPHOTO_THUMB.png"],
    "bins": ["$RECYCLE.BIN/a.png", ".Trash-1000/files/a.png", "lost+found/a.png", "#recycle/a.png"],
    "bins of Windows": ["Recycled/a.png", "RECYCLED/a.png", "sub/~$000001.png"],
    "snapshots": ["~snapshot/a.png", "@Recently-Snapshot/a.png", "sub/.snapshot/a.png"],
    "servers": ["@tmp/a.png", "@SynoResource/a.png", "@__thumb/a.png", "_gsdata_/a.png"],
    "front page": ["_vti_cnf/a.png", "sub/_vti_cnf/000001.png"],
    "thumbnails": ["thumbs/a.png", "sub/Thumbnails/a.PNG", "Thumbs.db", ".thumbnails/n/a.png"],
    "thumbnails beside": ["sub/000001_thumb.jpg", "sub/TN-000002.png", "sub/000003.thumbnail.png"],
    "lists": ["a.txt", "LABELS.CSV", "a.json", "index.html", "a.png.txt"],
    "others": ["a.zip", "a.gif", "a.heic", "noending", "a.png~", "a.png.part", "__pycache__/a.png"],
}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_never_joins_and_is_counted(
    tmp_path: Path, kind: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names, others = [f"sub/{name}" for name in numbered()], NO_IMAGES[kind]
    place = folder(tmp_path / "plain", *names)
    clean = load("cifar10", place).sha256
    folder(place, *names, *others)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in [*others, *names]:
                archive.write(place / name, name)
        place = tmp_path / "x.zip"
    capsys.readouterr()
    assert load("cifar10", place).sha256 == clean
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "10 images taken" in said and f"{len(others)} other file" in said


def test_a_class_of_images_may_be_called_recycled(tmp_path: Path) -> None:
    names = [*numbered(8), "recycled/a.png", "@home/a.png"]
    assert count(load("cifar10", folder(tmp_path / "x", *names))) == 10


def test_what_is_left_out_is_counted_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered(), "a.txt", "thumbs/a.png", "thumbs/b.png")
    for name in "ab":
        linked(place / f"{name}.png", "nowhere")
    load("cifar10", place)
    assert "(2 broken links, 1 list, 2 thumbnails)" in capsys.readouterr().err


@pytest.mark.parametrize("archive", ["archive.zip", "Faces.NPZ"])
def test_an_archive_in_a_folder_without_images_is_named(
    tmp_path: Path, archive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", archive)
    for name in ("cifar10", "celeba"):
        assert f"give {place / archive} with --from" in refused(place, capsys, name)


def test_a_name_alone_makes_no_thumbnail(tmp_path: Path) -> None:
    names = [*numbered(8), "thumb_7.png", "thumb/000001.png"]
    assert count(load("cifar10", folder(tmp_path / "x", *names))) == 10


def test_the_place_itself_may_be_hidden_or_of_thumbnails(tmp_path: Path) -> None:
    for name in (".data/.x", "x/thumbs", "__MACOSX"):
        assert count(load("cifar10", folder(tmp_path / name, *numbered()))) == 10
    only = folder(tmp_path / "y", *(f"thumbnails/{name}" for name in numbered()))
    assert count(load("cifar10", only)) == 10  # nothing else is there


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "PNG", "WebP", "BMP", "tif", "TIFF", "ppm"])
def test_endings_in_capitals_and_contents_that_do_not_fit_them(tmp_path: Path, ending: str) -> None:
    expected = load("cifar10", folder(tmp_path / "a", *numbered()))
    found = load("cifar10", folder(tmp_path / "b", *numbered(10, ending)))  # each is a PNG
    assert found.sha256 == expected.sha256


@pytest.mark.parametrize("name", ["x.ZIP", "x.Zip"])
def test_a_zip_in_capitals(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for i, each in enumerate(numbered()):
            archive.writestr(each, content(i))
    assert count(load("cifar10", tmp_path / name)) == 10


def linked(place: Path, target: Path | str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, place)


LINKS: dict[str, tuple[int, Callable[[Path, Path], object]]] = {
    "a folder": (20, lambda x, disk: linked(x / "b", disk)),
    "a folder twice": (20, lambda x, disk: [linked(x / end, disk) for end in "bc"]),
    "a folder in a linked folder": (
        22,
        lambda x, disk: [
            linked(x / "b", disk),
            linked(disk / "more", folder(disk.parent / "far", "1.png", "2.png")),
        ],
    ),
    "a folder and one in it": (
        20,
        lambda x, disk: [linked(x / "a_sub", disk / "in"), linked(x / "b", disk)],
    ),
    "its own folder": (10, lambda x, disk: linked(x / "self", x)),
    "the folder above": (
        10,
        lambda x, disk: [folder(x.parent, "beside/a.png"), linked(x / "a/up", x.parent)],
    ),
    "a file, and its folder later": (
        20,
        lambda x, disk: [linked(x / "b.png", disk / "in/1000001.png"), linked(x / "c", disk)],
    ),
    "a file twice": (
        11,
        lambda x, disk: [linked(x / f"{end}.png", disk / "in/1000001.png") for end in "bc"],
    ),
    "a loop": (
        20,
        lambda x, disk: [linked(disk / "back", x), linked(x / "b", disk), linked(x / "l", "l")],
    ),
    "files": (20, lambda x, disk: [linked(x / f"f{p.name}", p) for p in disk.rglob("*.png")]),
    "a file beside it": (10, lambda x, disk: linked(x / "0.png", x / "a/000001.png")),
    "a hidden store": (
        12,
        lambda x, disk: [
            linked(x / f"k{i}.png", folder(x / ".git/annex", str(i)) / str(i)) for i in range(2)
        ],
    ),
    "a store without endings": (
        12,
        lambda x, disk: [
            linked(x / f"k{i}.png", folder(x / "blobs", str(i)) / str(i)) for i in range(2)
        ],
    ),
    "nothing": (10, lambda x, disk: linked(x / "gone.png", x / "nowhere.png")),
}


@pytest.mark.skipif(os.name != "posix", reason="links")
@pytest.mark.parametrize("kind", LINKS)
def test_links_are_followed_once_and_without_loops(tmp_path: Path, kind: str) -> None:
    x = folder(tmp_path / "d/x", *(f"a/{name}" for name in numbered()))
    disk = folder(tmp_path / "disk", *(f"in/1{name}" for name in numbered()))
    before = load("cifar10", x)
    expected, link = LINKS[kind]
    link(x, disk)
    images = load("cifar10", x)
    assert count(images) == expected
    if expected == 10:
        assert images.sha256 == before.sha256
    elif expected == 20:
        both = np.concatenate([images.train, images.test])
        assert len(np.unique(both.reshape(len(both), -1), axis=0)) == 10  # the same ten, twice


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_pipe_is_never_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder(tmp_path / "x", *numbered())
    os.mkfifo(place / "pipe.png")
    linked(place / "link.png", place / "pipe.png")
    assert count(load("cifar10", place)) == 10
    assert "neither a folder nor a file" in refused(place / "pipe.png", capsys)
    assert "neither a folder nor a file" in refused(Path("/dev/null"), capsys)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered(), "locked/a.png")
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith(("locked", ".hidden")):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "locked can't be read: Permission denied" in refused(place, capsys)
    shutil.move(place / "locked", place / ".hidden")
    assert count(load("cifar10", place)) == 10


@pytest.mark.parametrize("name", ["cifar10", "celeba", "mnist"])
def test_a_place_that_may_not_be_searched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place = folder(tmp_path / "x", *numbered(), "data_batch_1", "train-images-idx3-ubyte")
    look = Path.stat

    def stat(path: Path, **how: Any) -> os.stat_result:
        if path.parent.name == "x":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    assert "Permission denied" in refused(place, capsys, name)


def test_a_file_that_cannot_be_read_or_goes_meanwhile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered(12))
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "000007.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        assert "000007.png" in refused(place, capsys)
    find = data.find

    def gone(name: str, where: Path, other: bool) -> data.Source:
        source = find(name, where, other)
        (place / "000003.png").unlink()
        return source

    monkeypatch.setattr(data, "find", gone)
    assert "000003.png" in refused(place, capsys)
    monkeypatch.setattr(data, "find", find)
    stamp = data.Source.stamp

    def after(source: data.Source) -> str:
        found = stamp(source)
        (place / "000004.png").unlink()
        return found

    monkeypatch.setattr(data.Source, "stamp", after)
    assert "000004.png" in refused(place, capsys)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"\x1b[31m.png", "ÿ日.png".encode()])
def test_any_name_is_read_and_shown_in_one_line(
    tmp_path: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / os.fsdecode(b"x" + name)
    try:
        folder(place, *numbered(9), os.fsdecode(name))
    except OSError:
        pytest.skip("a file system of UTF-8 alone")
    assert main(["prepare", "cifar10", "--from", str(place)]) == 0
    out, error = capsys.readouterr()
    assert "9 + 1 images" in out and not error and out.count("\n") == 2
    assert "9 + 1 images" in (main(["prepare", "cifar10"]), capsys.readouterr().out)[1]
    assert count(load("cifar10", place)) == 10
    (place / os.fsdecode(name)).write_bytes(b"GIF89a")
    refused(place, capsys)


def test_the_order_does_not_depend_on_the_separator(tmp_path: Path) -> None:
    names = [f"{sub}/{i}.png" for sub in ("a", "a-b", "a0", "aB") for i in range(3)]
    place = folder(tmp_path / "x", *names)
    hashes = {load("cifar10", place).sha256}
    for separator in "/\\":
        path = tmp_path / f"{ord(separator)}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for i in reversed(range(len(names))):
                archive.writestr(names[i].replace("/", separator), content(i))
            archive.writestr(f"a{separator}.x{separator}a.png", content())
        hashes.add(load("cifar10", path).sha256)
    assert len(hashes) == 1


def test_members_of_a_zip_that_are_no_files(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of equal names
        archive.writestr("folder.png/", b"")
        archive.writestr("other.png\\", b"")
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"000001.png")
        archive.writestr("000003.png", b"an older one")
        for i, name in enumerate(numbered()):
            archive.writestr(name, content(i))
    expected = load("cifar10", folder(tmp_path / "x", *numbered()))
    assert load("cifar10", path).sha256 == expected.sha256


def changed_zip(path: Path, change: Callable[[bytearray, int, int], None]) -> Path:
    """A zip whose first member's headers, local and central, were changed."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(numbered()):
            archive.writestr(name, content(i))
    whole = bytearray(path.read_bytes())
    change(whole, 0, whole.index(b"PK\x01\x02"))
    path.write_bytes(whole)
    return path


def encrypt(whole: bytearray, local: int, central: int) -> None:
    whole[local + 6] |= 1
    whole[central + 8] |= 1


def deflate64(whole: bytearray, local: int, central: int) -> None:
    whole[local + 8] = whole[central + 10] = 9


def break_name(whole: bytearray, local: int, central: int) -> None:
    whole[central + 9] |= 8  # "the name is UTF-8"
    whole[central + 46] = 0xFF


def flip_pixels(whole: bytearray, local: int, central: int) -> None:
    whole[local + 100] ^= 1


@pytest.mark.parametrize("change", [encrypt, deflate64, break_name, flip_pixels])
def test_a_zip_that_cannot_be_unpacked_is_named(
    tmp_path: Path,
    change: Callable[[bytearray, int, int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(changed_zip(tmp_path / "x.zip", change), capsys)
    assert "x.zip" in line and (
        change is break_name or ("000001.png" in line and "unpack the zip" in line)
    )


@pytest.mark.parametrize("end", [".tar.gz", ".tgz", ".tar", ".7z", ".rar", ".txt", ""])
def test_another_archive_is_not_called_damaged(
    tmp_path: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"photos{end}"
    path.write_bytes(b"whatever")
    for name in ("cifar10", "celeba"):
        line = refused(path, capsys, name)
        assert "allowed:" in line and ".zip" in line and "damaged" not in line


@pytest.mark.parametrize("n", [0, 1, 5, 9])
@pytest.mark.parametrize("form", ["folder", "zip", "npz"])
def test_too_few_images_are_counted(
    tmp_path: Path, n: int, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / ("x" if form == "folder" else f"x.{form}")
    if form == "npz":
        np.savez(place, images=RNG.integers(256, size=(n, 64, 64, 3), dtype=np.uint8))
    elif form == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            for i, name in enumerate(numbered(n)):
                archive.writestr(name, content(i))
    else:
        place.mkdir()
        folder(place, *numbered(n))
    line = refused(place, capsys, "celeba")
    assert "allowed:" in line and (f": {n};" in line or "at least 10" in line or n == 0)


# CelebA


def celeba(place: Path, sub: str, ending: str = "jpg", n: int = 20) -> list[str]:
    """Images, of which 16 train, 2 validate and 2 test; returns the lines of the official list."""
    folder(place, *(f"{sub}/{name}" for name in numbered(n, ending)))
    return [f"{i:06d}.jpg {0 if i < 17 else 1 if i < 19 else 2}" for i in range(1, n + 1)]


LISTS: dict[str, Callable[[list[str]], bytes]] = {
    "plain": lambda lines: "\n".join(lines).encode(),
    "windows": lambda lines: "\r\n".join([*lines, ""]).encode("utf-8-sig"),
    "old mac": lambda lines: "\r".join(lines).encode(),
    "utf-16": lambda lines: "\n".join(lines).encode("utf-16"),
    "blank lines": lambda lines: "\n\n".join(f" {line}  " for line in ["", *lines]).encode(),
    "tabs": lambda lines: "\n".join(lines).replace(" ", "\t").encode(),
    "capitals": lambda lines: "\n".join(lines).upper().encode(),
    "csv": lambda lines: "\n".join(["image_id partition", *lines]).replace(" ", ",").encode(),
    "excel": lambda lines: "\r\n".join(
        '"' + line.replace(" ", '";"') + '"' for line in ["Image_ID Partition", *lines]
    ).encode("utf-8-sig"),
    "pandas": lambda lines: (
        "\n".join([",image_id,partition", *(f"{i},{line}" for i, line in enumerate(lines))])
        .replace(" ", ",")
        .encode()
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_celebas_list_in_any_form(tmp_path: Path, kind: str) -> None:
    lines = celeba(tmp_path, "img_align_celeba")
    name = "list_eval_partition.csv" if kind in ("csv", "pandas") else "list_eval_partition.txt"
    (tmp_path / (name.upper() if kind == "capitals" else name)).write_bytes(LISTS[kind](lines))
    images = load("celeba", tmp_path)
    assert (images.name, len(images.train), len(images.test)) == ("celeba", 16, 2)


@pytest.mark.parametrize(
    ("sub", "at", "given"),
    [
        ("img_align_celeba", "", ""),
        ("img_align_celeba", "", "img_align_celeba"),
        ("img_align_celeba", "img_align_celeba", ""),
        ("celeba/img_align_celeba", "celeba", ""),
        ("CelebA/Img/img_align_celeba", "CelebA/Eval", ""),
        ("CelebA/Img/img_align_celeba", "CelebA/Eval", "CelebA"),
        ("CelebA/Img/img_align_celeba", "CelebA/Eval", "CelebA/Img/img_align_celeba"),
        ("IMG_ALIGN_CELEBA", "", ""),
        ("img_align_celeba/img_align_celeba", "", "img_align_celeba/img_align_celeba"),
        ("faces", "faces", "faces"),
        ("img_align_celeba_png", "", ""),
    ],
)
def test_celebas_list_at_any_place(tmp_path: Path, sub: str, at: str, given: str) -> None:
    lines = celeba(tmp_path / "d", sub, "png" if sub.endswith("_png") else "jpg")
    (tmp_path / "d" / at).mkdir(parents=True, exist_ok=True)
    (tmp_path / "d" / at / "list_eval_partition.txt").write_text("\n".join(lines))
    images = load("celeba", tmp_path / "d" / given)
    assert (images.name, len(images.train), len(images.test)) == ("celeba", 16, 2)


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize("inside", [False, True])
def test_celebas_zip_and_its_list(tmp_path: Path, separator: str, inside: bool) -> None:
    lines = celeba(tmp_path / "d", "img_align_celeba")
    path = tmp_path / ("archive.zip" if inside else "IMG_ALIGN_CELEBA.ZIP")
    with zipfile.ZipFile(path, "w") as archive:
        for each in (tmp_path / "d" / "img_align_celeba").iterdir():
            archive.writestr(f"img_align_celeba{separator}{each.name}", each.read_bytes())
        if inside:
            archive.writestr("Eval/list_eval_partition.txt", "\n".join(lines))
    if not inside:
        (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines))
    images = load("celeba", path)
    assert (images.name, len(images.train), len(images.test)) == ("celeba", 16, 2)


def test_celebas_list_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = celeba(tmp_path, "img_align_celeba")
    path = tmp_path / "list_eval_partition.txt"
    for content in (b"", b"<html>", b"\xff\xfe\x00", b"000001.jpg 7", b"\0" * 50):
        path.write_bytes(content)
        assert "list_eval_partition.txt" in refused(tmp_path, capsys, "celeba")
    path.write_text("\n".join(lines[:19]))
    assert "000020.jpg" in refused(tmp_path, capsys, "celeba")
    path.write_text("\n".join(f"{line[:-1]}0" for line in lines))  # a part without images
    assert main(["prepare", "celeba", "--from", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "18 + 2 images" in out and "no image into the test part" in out


COPIES = [
    "list_eval_partition.txt.txt",
    "list_eval_partition (1).txt",
    "list_eval_partition-1.csv",
    "list_eval_partition_2.TXT",
    "Copy of list_eval_partition.txt",
    "list_eval_partition - Copy.txt",
]


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("at", ["", "img_align_celeba", "faces", "zip"])
def test_celebas_list_may_be_a_copy(tmp_path: Path, name: str, at: str) -> None:
    sub = at if at == "faces" else "img_align_celeba"
    lines = celeba(tmp_path / "d", sub)
    place = tmp_path / "d" / (sub if at == "faces" else "")
    if at == "zip":
        place = tmp_path / "x.zip"
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr(name, "\n".join(lines))
            for each in numbered(20, "jpg"):
                archive.write(tmp_path / "d" / sub / each, f"{sub}\\{each}")
    else:
        (tmp_path / "d" / at / name).write_text("\n".join(lines))
    images = load("celeba", place)
    assert (images.name, len(images.train), len(images.test)) == ("celeba", 16, 2)


@pytest.mark.parametrize("at", ["", "img_align_celeba"])
def test_of_several_lists_the_own_name_is_taken(
    tmp_path: Path, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = celeba(tmp_path, "img_align_celeba")
    for name in ("A list_eval_partition.txt", "list_eval_partition (1).txt"):
        (tmp_path / at / name).write_text("\n".join(lines[:-1]))
    line = refused(tmp_path, capsys, "celeba")
    assert "A list_eval_partition.txt" in line and "list_eval_partition (1).txt" in line
    (tmp_path / at / "List_Eval_Partition.txt").write_text("\n".join(lines))
    assert len(load("celeba", tmp_path).train) == 16


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.parametrize("name", ["list_eval_partition.txt", "list_eval_partition (1).txt"])
@pytest.mark.parametrize("at", ["", "img_align_celeba"])
def test_a_list_that_is_no_file_is_never_opened(tmp_path: Path, name: str, at: str) -> None:
    celeba(tmp_path, "img_align_celeba")
    os.mkfifo(tmp_path / at / name)
    assert len(load("celeba", tmp_path).test) == 2
    (tmp_path / at / name).unlink()
    (tmp_path / at / name).mkdir()
    (tmp_path / at / f"._{name}").write_bytes(b"of macOS")
    images = load("celeba", tmp_path)
    assert (len(images.train), len(images.test)) == (18, 2)


def test_celebas_list_with_two_parts_for_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = celeba(tmp_path, "img_align_celeba")
    path = tmp_path / "list_eval_partition.txt"
    path.write_text("\n".join([*lines, lines[0]]))
    assert len(load("celeba", tmp_path).train) == 16
    path.write_text("\n".join([*lines, "000001.jpg 2"]))
    line = refused(tmp_path, capsys, "celeba")
    assert "000001.jpg" in line and "allowed:" in line


# Pixels


def ramp(top: float, kind: Any) -> np.ndarray:
    """A ramp of 32 values, from 0 to `top`, in 32 columns."""
    return np.tile(np.linspace(0, top, 32), (32, 1)).astype(kind)


def ten(place: Path, image: Image.Image, ending: str = "png", **how: Any) -> Path:
    """Ten copies of an image."""
    place.mkdir(parents=True)
    image.save(place / f"0.{ending}", **how)
    for i in range(1, 10):
        shutil.copy(place / f"0.{ending}", place / f"{i}.{ending}")
    return place


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Prepares a place as images of 32 x 32 pixels; returns the first, (channels, 32, 32)."""
    entry = images_in("nowhere", channels=request.param, size=32)
    monkeypatch.setitem(data.DATASETS, "mine", entry)
    return lambda place: load("mine", place).train[0]


WIDE = ramp(65535, np.uint16)
GREYS: dict[str, tuple[Image.Image, str]] = {
    "png": (Image.fromarray(WIDE), "png"),
    "tiff": (Image.fromarray(WIDE), "tif"),
    "big-endian tiff": (Image.frombytes("I;16B", (32, 32), WIDE.astype(">u2").tobytes()), "tif"),
    "pgm": (Image.fromarray(WIDE), "pgm"),
    "floats": (Image.fromarray(ramp(1, np.float32)), "tif"),
    "eight bits": (Image.fromarray(np.rint(ramp(255, float)).astype(np.uint8)), "png"),
}


@pytest.mark.parametrize("kind", GREYS)
def test_greys_of_any_depth_keep_their_values(
    tmp_path: Path, own: Callable[[Path], np.ndarray], kind: str
) -> None:
    found = own(ten(tmp_path / "x", *GREYS[kind]))
    assert np.array_equal(found, np.broadcast_to(np.rint(ramp(255, float)), found.shape))


def test_a_tiff_whose_zero_is_white(tmp_path: Path, own: Callable[[Path], np.ndarray]) -> None:
    found = own(ten(tmp_path / "x", Image.fromarray(65535 - WIDE), "tif", tiffinfo={262: 0}))
    with Image.open(tmp_path / "x/0.tif") as image:
        assert image.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(found[0], np.rint(ramp(255, float)))


@pytest.mark.parametrize(
    "values",
    [
        ramp(255, np.float32),
        ramp(1, np.float32) - 0.1,
        np.full((32, 32), np.nan, np.float32),
        np.full((32, 32), np.inf, np.float32),
        ramp(65535, np.int32),
    ],
    ids=["to 255", "below 0", "nan", "inf", "int32"],
)
def test_greys_of_no_known_meaning_are_refused(
    tmp_path: Path, values: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(ten(tmp_path / "x", Image.fromarray(values), "tif"), capsys)
    assert "0.tif" in line and "allowed:" in line


def quarters() -> np.ndarray:
    """An image (32, 32, 3) that no turn leaves as it is: a quarter each, and a gradient."""
    x = np.zeros((32, 32, 3), np.uint8)
    x[:16, :16], x[:16, 16:], x[16:, :16] = (250, 0, 0), (0, 200, 0), (0, 0, 150)
    x[..., 1] += np.arange(32, dtype=np.uint8)
    return x


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
"""What a viewer shows, by the tag: 6, of a camera held upright, is turned a quarter clockwise."""


@pytest.mark.parametrize("tag", TURNED)
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_tags_of_orientation_are_applied(tmp_path: Path, tag: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    how = {"lossless": True} if ending == "webp" else {}
    place = ten(tmp_path / "x", Image.fromarray(quarters()), ending, exif=exif, **how)
    found = load("cifar10", place).train[0].transpose(1, 2, 0)
    assert np.array_equal(found, TURNED[tag](quarters()))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 9])
def test_damaged_tags_refuse_no_photo(tmp_path: Path, exif: bytes) -> None:
    place = ten(tmp_path / "x", Image.fromarray(quarters()), "png", exif=exif)
    assert np.array_equal(load("cifar10", place).train[0].transpose(1, 2, 0), quarters())


def half_clear(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """Black on the left, transparent (and black) on the right, in this mode."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, :16] = 255
    if mode in ("LA", "RGBA"):
        image = Image.new(mode, (32, 32))
        image.putalpha(Image.fromarray(alpha))
        return image, {}
    if mode == "I;16":
        grey = Image.fromarray(np.where(alpha == 255, 0, 777).astype(np.uint16))
        return grey, {"transparency": 777}
    grey = Image.fromarray(
        np.where(alpha == 255, 0, 1).astype(np.uint8) * (254 if mode == "1" else 1)
    )
    if mode == "P":
        grey.putpalette([0, 0, 0, 9, 9, 9])
        return grey, {"transparency": bytes([255, 0])}
    clear = {"L": 1, "RGB": (1, 1, 1), "1": 255}[mode]
    return grey.convert(mode), {"transparency": clear}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "1", "I;16"])
def test_transparency_is_composited_on_white_and_said(
    tmp_path: Path,
    own: Callable[[Path], np.ndarray],
    mode: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, how = half_clear(mode)
    found = own(ten(tmp_path / "x", image, "png", **how))
    assert (found[..., :16] == 0).all() and (found[..., 16:] == 255).all()
    assert "10 with transparency, composited on white" in capsys.readouterr().err


def png(kind: int, bits: int, row: bytes, clear: bytes) -> bytes:
    """A PNG of 32 equal rows that names a transparent colour in its own depth."""
    header = struct.pack(">IIBBBBB", 32, 32, bits, kind, 0, 0, 0)
    parts = {b"IHDR": header, b"tRNS": clear, b"IDAT": zlib.compress((b"\0" + row) * 32)}
    chunks = [
        struct.pack(">I", len(each)) + name + each + struct.pack(">I", zlib.crc32(name + each))
        for name, each in (parts | {b"IEND": b""}).items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


WORDS = struct.Struct(">3H")
DEPTHS: dict[str, tuple[bytes, int, int]] = {
    "2 bits": (png(0, 2, bytes(4) + b"\x55" * 4, b"\0\1"), 0, 255),
    "4 bits": (png(0, 4, bytes(8) + b"\x11" * 8, b"\0\1"), 0, 255),
    "16 bits": (
        png(2, 16, bytes(96) + WORDS.pack(100, 200, 300) * 16, WORDS.pack(100, 200, 300)),
        0,
        255,
    ),
    "16 bits, black": (png(2, 16, WORDS.pack(0, 0, 1) * 16 + bytes(96), bytes(6)), 0, 255),
    "16 bits, other": (
        png(2, 16, bytes(96) + WORDS.pack(100, 200, 301) * 16, WORDS.pack(100, 200, 300)),
        0,
        0,
    ),
}
"""Files, and what their left and right halves are on white."""


@pytest.mark.parametrize("kind", DEPTHS)
def test_a_transparent_colour_of_any_depth_is_white_and_said(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, left, right = DEPTHS[kind]
    place = folder(tmp_path / "x", *numbered(9))
    (place / "0.png").write_bytes(content)
    found = load("cifar10", place).train[0]
    assert (found[..., :16] == left).all() and (abs(found[..., 16:].astype(int) - right) < 2).all()
    assert ("1 with transparency" in capsys.readouterr().err) == (right == 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_wide_tiffs_keep_their_higher_byte(
    tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = {256: 32, 257: 32, 258: 16, 259: 1, 262: 1 if channels == 1 else 2, 273: 8}
    tags |= {277: channels, 278: 32, 279: 2048 * channels}
    pixels = struct.pack("<H", 200 * 257) * 1024 * channels
    entries = b"".join(
        struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items() if tag != 258
    )
    if channels == 1:
        depth, more = struct.pack("<HHII", 258, 3, 1, 16), b""
    else:
        depth, more = (
            struct.pack("<HHII", 258, 3, 3, 8 + len(pixels)),
            struct.pack("<3H", 16, 16, 16),
        )
    entries = entries[:24] + depth + entries[24:]
    at = 8 + len(pixels) + len(more)
    content = b"II*\0" + struct.pack("<I", at) + pixels + more + struct.pack("<H", len(tags))
    place = folder(tmp_path / "x", *numbered(9))
    (place / "0.tif").write_bytes(content + entries + bytes(4))
    assert (load("cifar10", place).train[0] == 200).all()
    assert "transparency" not in capsys.readouterr().err


def test_opaque_alpha_changes_and_says_nothing(
    tmp_path: Path, own: Callable[[Path], np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = own(ten(tmp_path / "a", Image.fromarray(quarters())))
    assert np.array_equal(
        own(ten(tmp_path / "b", Image.fromarray(quarters()).convert("RGBA"))), plain
    )
    assert "white" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("P", "png"),
        ("1", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("LAB", "tif"),
        ("YCbCr", "tif"),
    ],
)
def test_other_modes_are_converted(
    tmp_path: Path, own: Callable[[Path], np.ndarray], mode: str, ending: str
) -> None:
    white = Image.new("RGB", (32, 32), "white")
    white.paste("black", (16, 0, 32, 32))
    if mode == "LAB":
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:, :16, 0] = 255
        image = Image.frombytes("LAB", (32, 32), pixels.tobytes())
    else:
        image = white.convert(mode)
    found = own(ten(tmp_path / "x", image, ending)).astype(int)
    assert (abs(found - np.asarray(white.convert("L"))) < 8).mean() > 0.9


def test_the_first_of_several_frames_is_taken_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, more = Image.fromarray(quarters()), [noise(32)]
    for ending, how in (("png", {}), ("tif", {}), ("webp", {"lossless": True})):
        place = ten(tmp_path / ending, first, ending, save_all=True, append_images=more, **how)
        found = load("cifar10", place).train[0].transpose(1, 2, 0)
        assert np.array_equal(found, quarters())
        assert "10 with several frames" in capsys.readouterr().err


def test_arrays_in_a_file_keep_their_values(tmp_path: Path) -> None:
    pixels = RNG.integers(256, size=(20, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    expected = load("celeba", tmp_path / "a.npz").sha256
    for kind in (">u2", "u2", "f4", "f8"):
        scaled = pixels * np.uint16(257) if "u" in kind else pixels / 255
        np.savez(tmp_path / "A.NPZ", images=scaled.astype(kind))
        shutil.move(tmp_path / "A.NPZ.npz", tmp_path / "A.NPZ")
        assert load("celeba", tmp_path / "A.NPZ").sha256 == expected, kind
    np.savez(tmp_path / "b.npz", images=pixels > 127)
    assert set(np.unique(load("celeba", tmp_path / "b.npz").train)) == {0, 255}


@pytest.mark.parametrize("form", ["GIF", "AVIF", "ICO", "html", "empty", "cut", "lfs"])
def test_a_file_that_is_not_what_its_ending_says_is_named(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered())
    bad = {"html": b"<!DOCTYPE html>", "empty": b"", "cut": content(0, "JPEG")[:-400]}
    bad["lfs"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    if form not in bad:
        try:
            bad[form] = content(0, form)
        except (KeyError, OSError):
            pytest.skip(f"no {form} here")
    (place / "zz.jpg").write_bytes(bad[form])
    assert "zz.jpg" in refused(place, capsys)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_libtiff_prints_nothing(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ten(tmp_path / "x", noise(), "tif", compression=compression)
    assert count(load("cifar10", place)) == 10
    whole = (place / "0.tif").read_bytes()
    (place / "0.tif").write_bytes(whole[:200] + bytes(200) + whole[400:])
    assert "0.tif" in refused(place, capfd)


def test_tiny_and_long_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ten(tmp_path / "x", Image.new("L", (1, 1), 77))
    assert (load("cifar10", place).train == 77).all()
    Image.new("L", (pictures.RATIO, 1), 77).save(place / "a.png")
    assert (load("cifar10", place).train == 77).all()
    Image.new("L", (1, pictures.RATIO + 1)).save(place / "a.png")
    assert "a.png" in refused(place, capsys)


# Messages and the ambient process


def test_a_file_system_without_locks_or_space(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = folder(tmp_path / "x", *numbered())

    class NoLock:
        def __init__(self, *_: object) -> None:
            raise NotImplementedError("FileSystem does not appear to support flock")

    with monkeypatch.context() as patch:
        patch.setattr(data, "FileLock", NoLock)
        assert "--cache" in refused(place, capsys)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused(place, capsys)
    assert "No space left" in line and "$SVAE_BENCH_DATA" in line and "--cache" in line
    assert not list(cache.rglob("*.npy")) and not list(cache.rglob(".draft"))


def test_a_cache_that_can_only_be_read_serves_what_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "x", *numbered())
    before = load("cifar10", place).sha256

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(data, "FileLock", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert load("cifar10", place).sha256 == before
    (place / "a.png").write_bytes(content())
    with pytest.raises(DataError, match="Read-only"):
        load("cifar10", place)


def test_a_cache_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered())
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME and entry
    monkeypatch.delenv("SVAE_BENCH_DATA")
    line = refused(place, capsys)
    assert "$SVAE_BENCH_DATA" in line and "--cache" in line
    with pytest.raises(DataError, match="SVAE_BENCH_DATA"):
        load("cifar10", place)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    capsys.readouterr()
    cache = str(tmp_path / "c")
    assert main(["prepare", "cifar10", "--from", str(place), "--cache", cache]) == 0


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "home" / "x", *numbered())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SVAE_BENCH_DATA", "~/c")
    assert data.prepare("cifar10", Path("~/x")).sha256 == load("cifar10").sha256
    assert (tmp_path / "home" / "c" / "prepared").is_dir() and not Path("~").exists()


def test_what_is_damaged_in_the_cache_is_mended_by_the_command_that_is_named(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x y", *numbered())
    before = data.prepare("cifar10", place).sha256
    about = cache / "prepared" / "cifar10" / "about.json"
    for damaged in (
        b"",
        b"[" * 10**5,
        b"[]",
        b'{"version": "1"}',
        about.read_bytes()[:-9],
        b"\xff",
    ):
        about.write_bytes(damaged)
        with pytest.raises(DataError, match=r"-m bench\.data prepare cifar10 "):
            load("cifar10")
        data.prepare("cifar10", place)
        assert load("cifar10").sha256 == before
    about.write_bytes(about.read_bytes()[:-9])  # which still tells where the files are
    with pytest.raises(DataError, match="prepare cifar10 --from ") as error:
        load("cifar10")
    command = shlex.split(str(error.value).partition("-m bench.data ")[2])
    assert main(command) == 0 and load("cifar10").sha256 == before
    about.write_bytes(b"")
    with pytest.raises(DataError, match="with --from and the files"):
        load("cifar10")
    data.prepare("cifar10", place)
    next(about.parent.glob("*.npy")).write_bytes(b"")
    with pytest.raises(DataError, match="prepare cifar10") as error:
        load("cifar10")
    command = shlex.split(str(error.value).partition("-m bench.data ")[2])
    assert main(command) == 0 and load("cifar10").sha256 == before


def test_what_is_damaged_is_mended_from_files_in_the_cache(cache: Path) -> None:
    cache.mkdir()
    part = {
        "images": RNG.integers(256, size=(9, 32, 32, 3), dtype=np.uint8),
        "labels": np.arange(9),
    }
    arrays = {f"{which}_{name}": each for which in ("train", "test") for name, each in part.items()}
    np.savez(cache / "cifar10.npz", **arrays)  # pyright: ignore[reportArgumentType]
    before = load("cifar10").sha256
    (cache / "prepared" / "cifar10" / "about.json").write_bytes(b"")
    with pytest.raises(DataError, match="prepare cifar10"):
        load("cifar10")
    assert main(["prepare", "cifar10"]) == 0 and load("cifar10").sha256 == before


def test_images_prepared_under_other_rules_are_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "x", *numbered())
    for rules, again in (("1", True), ("1", False), ("2", True)):
        monkeypatch.setattr(pictures, "RULES", rules)
        load("cifar10", place)
        assert ("10 images taken" in capsys.readouterr().err) == again


def test_a_newer_suites_arrays_are_left_alone(tmp_path: Path, cache: Path) -> None:
    place = folder(tmp_path / "x", *numbered())
    data.prepare("cifar10", place)
    about = cache / "prepared" / "cifar10" / "about.json"
    newer = about.read_text().replace('"version": 1', '"version": 99')
    about.write_text(newer)
    for call in (lambda: load("cifar10"), lambda: data.prepare("cifar10", place)):
        with pytest.raises(DataError, match=r"newer.*SVAE_BENCH_DATA"):
            call()
    assert about.read_text() == newer


def mnist(place: Path, names: Sequence[str]) -> Path:
    place.mkdir(parents=True)
    for name in names:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(struct.pack(">4i", 0, 0, 0, 0))
    return place


MNIST = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]


@pytest.mark.parametrize(
    "form",
    [
        "{}-ubyte",
        "{}-UBYTE",
        "dots {}-ubyte",
        "{}-ubyte.GZ",
        "mnist/RAW/{}-ubyte",
        "{0}-ubyte/{0}-ubyte",
    ],
)
def test_mnists_files_are_found_however_they_were_unpacked(tmp_path: Path, form: str) -> None:
    dots = form.startswith("dots ")
    names = [name.replace("-idx", ".idx") if dots else name for name in MNIST]
    made = [form.removeprefix("dots ").format(name) for name in names]
    for name in made:
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(bytes(16))
    found = mnist_files(tmp_path / "m")
    assert sorted(found.values()) == sorted(tmp_path / "m" / name for name in made)
    assert "images" in found["train"].name and "t10k" in found["test_labels"].name


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("m", "idx3-ubyte is damaged"),
        ("m/train-images.idx3-ubyte", "idx3-ubyte is damaged"),
        ("nothing", "allowed: idx files, an .npz"),
        ("nowhere", "nowhere does not exist"),
    ],
)
def test_what_is_no_data_set_is_answered_with_what_is_allowed(
    tmp_path: Path, place: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mnist(tmp_path / "m", ["train-images.idx3-ubyte"])
    (tmp_path / "nothing").mkdir()
    assert says in refused(tmp_path / place, capsys, "mnist")
