"""Chooses the images of a folder, zip or tar by what they are, and counts what it leaves out.

Hidden files and folders, thumbnails and lists are no images. A link is followed once.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from bench.data.files import BYTES_LIMIT, DataError, no_room, reason

P = TypeVar("P", Path, str)
ALLOWED = ".jpg, .png, .webp, .bmp, .tif or .ppm"  # the endings that a message names
_IMAGES = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|bmp|tiff?|p[bgnp]m)")
_OTHER_IMAGES = re.compile(
    r"\.(gif|apng|avif|hei[cf]|jp2|jxl|svg|psd|tga|ico|dng|cr2|nef|arw|raw|exr|hdr|pfm)"
)
_LISTS = re.compile(r"\.(txt|[ct]sv|jsonl?|xml|html?|md|ya?ml)")
_HIDDEN = re.compile(
    r"(?i:__macosx|__pycache__|@eadir|@synoresource|@__thumb|@tmp|[@#]recycle|[#~]snapshot"
    r"|@recently-snapshot|lost\+found|found\.000|\$recycle\.bin|recycler|_gsdata_|_vti_cnf"
    r"|system volume information|network trash folder|temporary items|~\$.*)"
    r"|Recycled|RECYCLED"
)
"""Folders and files that systems make and hide, whose names begin with no dot.

A folder `recycled` may be a class of images, but an old bin is written in capitals.
"""
_THUMBNAILS = frozenset(("thumbs", "thumbnails", "_thumbs", "_thumbnails"))
_THUMBNAIL = re.compile(r"(?:thumb|thumbnail|tn)[_.-](.+)|(.+)[_.-](?:thumb|thumbnail|tn)")
"""Folders of thumbnails, and the name of a thumbnail beside its image."""
_PARTITION = re.compile(r"(.*[\W_])?list_eval_partition([\W_].*)?\.(txt|csv)")
_OWN_NAME = re.compile(r"list_eval_partition\.(txt|csv)")
"""CelebA's list of parts, also as browsers and systems name a copy of it, and its own name."""


@dataclass(frozen=True)
class Chosen:
    """Images of a folder or zip, and what was left out.

    `files` maps sorted names, with "/" between folders, to paths below a folder or to members of a
    zip. Members are never used as paths. `notes` counts what became of pixels.
    """

    place: Path
    files: dict[str, str]
    left_out: Counter[str]
    lists: tuple[str, ...] = ()  # files or members that are lists of CelebA's parts
    notes: Counter[str] = field(default_factory=Counter)
    packed: Path | None = None  # the tar whose images were unpacked to `place`

    @property
    def given(self) -> Path:
        """Returns the place that the user knows."""
        return self.packed or self.place

    def counted(self) -> str:
        """Returns how many files were taken, and how many were left out and why."""
        kinds = ", ".join(_number(n, kind) for kind, n in sorted(self.left_out.items()))
        total = self.left_out.total()
        taken = f"{len(self.files)} image{'s' * (len(self.files) != 1)} taken from {self.given}"
        files = f"{total} other file{'s' * (total != 1)} left out"
        return f"{taken}, {files}{f' ({kinds})' if kinds else ''}"

    def size(self, name: str, archive: zipfile.ZipFile | None) -> int:
        """Returns the bytes of an image; `archive` is the open zip. Raises OSError."""
        file = self.files[name]
        return archive.getinfo(file).file_size if archive else (self.place / file).stat().st_size

    def read(self, name: str, archive: zipfile.ZipFile | None) -> bytes:
        """Returns the content of an image. Raises OSError, or what zipfile raises."""
        file = self.files[name]
        return archive.read(file) if archive else (self.place / file).read_bytes()


def choose(place: Path, unpacked: Path | None = None) -> Chosen:
    """Returns the images of a folder or zip, or of a tar, which are written to `unpacked`.

    Raises DataError for a place that can't be read.
    """
    files: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    lists = []
    if unpacked:
        found = _in_tar(place, unpacked)
    else:
        found = _in_zip(place) if place.is_file() else _in_folder(place)
    for name, file, why in found:
        why = why or _no_image(name)
        if why == "list" and may_be_partition(name):
            lists.append(file)
        elif why:
            left_out[why] += 1
        else:
            left_out["repeated"] += name in files
            files[name] = file  # of equal names in a zip the last one is the newest
    small = _thumbnails(files)
    left_out["thumbnail"] += len(small)
    files = {name: files[name] for name in sorted(files) if name not in small}
    lists.sort(key=lambda file: (file.count("/"), file))
    if unpacked:
        return Chosen(unpacked, files, +left_out, packed=place)
    return Chosen(place, files, +left_out, tuple(lists))


def _number(n: int, kind: str) -> str:
    several = re.sub(r"^(broken link|link|list|thumbnail)", r"\1s", kind)
    return f"{n} {kind if n == 1 else several}"


def _last(path: Path | str) -> str:
    return re.split(r"[/\\]", str(path))[-1].lower()


def may_be_partition(path: Path | str) -> bool:
    """Returns whether a file is CelebA's list of parts or a copy of it, by its name."""
    return not _hidden(_last(path)) and _PARTITION.fullmatch(_last(path)) is not None


def partition(lists: Sequence[P]) -> P | None:
    """Returns the first of these lists that has the list's own name, or the only one, or None.

    Raises DataError for several copies.
    """
    own = [each for each in lists if _OWN_NAME.fullmatch(_last(each))]
    if len(lists) > 1 and not own:
        raise DataError(
            f"{lists[0]} and {lists[1]} may both be CelebA's list; allowed: one of them, or one "
            "more that is named list_eval_partition.txt"
        )
    return next(iter(own or lists), None)


def _hidden(part: str) -> bool:
    return part not in (".", "..") and (part.startswith(".") or _HIDDEN.fullmatch(part) is not None)


def is_image(name: str) -> bool:
    """Returns whether a file's name has the ending of an image that is read."""
    return _IMAGES.fullmatch(PurePosixPath(name).suffix.lower()) is not None


def _no_image(name: str) -> str:
    """Returns why a file is none of the images, by its name; "" if it is one."""
    if any(map(_hidden, re.split(r"[/\\]", name))):
        return "hidden"
    ending = PurePosixPath(name).suffix.lower()
    if is_image(name):
        return ""
    if _OTHER_IMAGES.fullmatch(ending):
        return f"in a format that is not read: {ending}"
    return "list" if _LISTS.fullmatch(ending) else "of another kind"


def _thumbnails(names: Collection[str]) -> set[str]:
    """Returns names of images that are thumbnails of others, by their folder or their own name."""
    small = {name for name in names if _THUMBNAILS & set(name.lower().split("/")[:-1])}
    small = small if len(small) < len(names) else set()
    stems = {name.rpartition(".")[0].lower() for name in names}
    for name in names:
        folder, gap, stem = name.rpartition(".")[0].lower().rpartition("/")
        if found := _THUMBNAIL.fullmatch(stem):
            original = found[1] or found[2]
            small |= {name} if f"{folder}{gap}{original}" in stems else set()
    return small


def _in_zip(place: Path) -> Iterator[tuple[str, str, str]]:
    """Yields each file of a zip: its name, its member, and why it is left out, if known."""
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
    except Exception as error:  # a damaged file may raise anything
        raise DataError(
            f"{place} can't be read as a zip: {reason(error)}; allowed: a whole .zip, or a folder "
            "of what is in it; give another place with --data"
        ) from None
    for member in members:
        name = member.filename.replace("\\", "/")  # of a zip made on Windows
        if name.endswith("/"):
            continue
        link = stat.S_ISLNK(member.external_attr >> 16)
        yield name, member.filename, "link in a zip" if link else ""


def _in_tar(place: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields what `_in_zip` yields of a tar, whose images it writes to a folder, by number.

    No name of a member is used as a path, and no link is followed.
    """
    try:
        with tarfile.open(place) as archive:
            for number, member in enumerate(archive):
                if member.isdir():
                    continue
                name, file = member.name.removeprefix("./"), str(number)
                why = "" if member.isfile() else "link in an archive"
                if not (why or _no_image(name)):
                    content = archive.extractfile(member)
                    assert content is not None  # of a file
                    with content, (folder / file).open("wb") as copy:
                        # A larger image is refused by its size, which a byte more shows.
                        copy.write(content.read(BYTES_LIMIT + 1))
                yield name, file, why
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DataError(
            f"{place} can't be read as a tar: {reason(error).splitlines()[0]}; allowed: a whole "
            ".tar, .tar.gz, .tar.bz2, .tar.xz or .zip, or a folder of what is in it; give another "
            "place with --data"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise no_room(error) from None
        raise DataError(f"{place} can't be read as a tar: {reason(error)}") from None


def _in_folder(place: Path) -> Iterator[tuple[str, str, str]]:
    """Yields each file below a folder: its name, its path below, and why it is left out, if known.

    What lies there itself comes first, then what links lead to. No folder is entered twice. A file
    without an image's ending is not taken, so a link that has the ending may lead to it.
    """
    root = os.path.realpath(place)
    entered, taken = {root}, set()
    folders, links = [("", root)], []
    while folders or links:
        later: list[tuple[str, str]] = []
        while folders:
            prefix, folder = folders.pop()
            for name, entry in _entries(folder, prefix):
                path = os.path.join(folder, entry.name)
                if entry.is_symlink() and not _hidden(entry.name):
                    later.append((name, path))
                elif entry.is_dir(follow_symlinks=False):
                    if _hidden(entry.name):
                        yield from _all_hidden(name, path)
                    elif path not in entered:
                        entered.add(path)
                        folders.append((f"{name}/", path))
                elif path in taken:
                    yield name, name, "repeated"
                elif not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
                    yield name, name, "of another kind"  # a pipe, socket or device
                else:
                    if not _no_image(name):
                        taken.add(path)
                    yield name, name, ""
        links = sorted([*links, *later])
        while links and not folders:
            name, path = links.pop(0)
            why, real = _linked(path, root)
            if not why and (real in entered or real in taken):
                why = "repeated"
            if why or not os.path.isdir(real):
                if not _no_image(name):
                    taken.add(real)
                yield name, name, why
            else:
                entered.add(real)
                folders.append((f"{name}/", real))


def _entries(folder: str, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            return [(prefix + entry.name, entry) for entry in entries]
    except OSError as error:  # never fewer images without a word
        raise DataError(f"{folder} can't be read: {reason(error)}") from None


def _all_hidden(name: str, folder: str) -> Iterator[tuple[str, str, str]]:
    """Yields the files of a hidden folder, as far as it can be read; follows no link."""
    for _, _, files in os.walk(folder):
        yield from ((name, name, "hidden") for _ in files)


def _linked(path: str, root: str) -> tuple[str, str]:
    """Returns why a link is left out, or "", and the path that it leads to."""
    real, own = os.path.realpath(path), os.path.dirname(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return "broken link", real
        raise DataError(f"{path} can't be read: {reason(error)}") from None
    if stat.S_ISDIR(mode):
        above = any(os.path.commonpath((real, each)) == real for each in (own, root))
        return "link to a folder above" if above else "", real
    return "" if stat.S_ISREG(mode) else "of another kind", real
