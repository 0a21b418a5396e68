"""Finds, downloads, draws and loads the data sets of `bench.data.sources`.

Images that are not drawn are prepared once, as memory-mapped arrays in a folder of the cache:

    images-SHA.npy   uint8 (n, c, h, w), the training images first
    labels-SHA.npy   int64 (n,), where there are labels
    about.json       the sizes and SHA-256s of both, written last and in one step

So about.json describes whole arrays at any moment, even if a process is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock

from bench.cli import one_line
from bench.data import download, files
from bench.data.files import Arrays, DataError, Lacking, fingerprint, reason
from bench.data.pictures import Rows
from bench.data.sources import DATASETS, Dataset, Source, find
from bench.store.atomic import write_atomically

VERSION = 1  # of prepared arrays
LEAST = 10
"""Images that a folder or file without a split must have."""
PARTS = {"images": ("train", "test"), "labels": ("train_labels", "test_labels")}
"""Arrays that a prepared file holds, one after the other."""


@dataclass(frozen=True)
class Images:
    """A data set is arrays of training and test images, and where they come from."""

    name: str  # of the data set, or "folder" for a user's own images
    sha256: str  # over names, types, shapes and bytes of all arrays
    stand_in: bool  # whether the suite drew the images
    train: np.ndarray  # uint8 (n, c, h, w), perhaps memory-mapped
    test: np.ndarray  # uint8 (m, c, h, w)
    train_labels: np.ndarray | None = None  # int64 (n,)
    test_labels: np.ndarray | None = None  # int64 (m,)
    origin: str = ""  # a folder, a file, or "drawn"
    said: str = ""  # of a user's own images: what was taken, left out and converted
    pixels: str = ""  # SHA-256 as above, without labels


class Damaged(DataError):
    """A prepared data set is not what was recorded; the message says what mends it."""


def cache() -> Path:
    """Returns the folder of downloads, $SVAE_BENCH_DATA or by default ~/.cache/svae-bench.

    Raises DataError if that folder is below a home that is not known.
    """
    return at_home(os.environ.get("SVAE_BENCH_DATA") or "~/.cache/svae-bench")


def at_home(path: str) -> Path:
    """Returns a path whose ~ is a home folder. Raises DataError if that folder is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # pathlib's, without $HOME or for a stranger's
        raise DataError(
            f"the home folder of {path} is not known; allowed: a cache named in $SVAE_BENCH_DATA "
            "(of bench.data: --cache), and paths without ~"
        ) from None


def load(name: str, data: Path | None = None) -> Images:
    """Returns the data set of this name, one of DATASETS.

    It comes from the folder or file `data`. Without `data` it comes from the entry's path, from
    the cache, or from a download to the cache. Files are prepared in the cache at first use.
    Raises DataError, which says what to do.
    """
    if draw := _entry(name).draw:
        arrays = draw()
        sha256 = fingerprint(arrays)[0]
        return Images(name, sha256, True, **arrays, origin="drawn", said="", pixels="")
    if data is None:
        images, new = _named(name)
    else:
        place = _existing(data)
        key = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
        folder = cache() / "prepared" / f"{name}-{key}"
        found = read(place / "prepared" / name)
        images, new = (found, False) if found else _prepare(name, place, folder, other=True)
    if new and images.said:
        print(one_line(images.said), file=sys.stderr)
    return images


def prepare(name: str, data: Path | None = None) -> Images:
    """Prepares the data set in the cache, so that `load(name)` returns it, and returns it.

    It comes from `data`, or without `data` as in `load`. What is damaged is prepared again. Raises
    DataError.
    """
    return _named(name, data, mend=True)[0]


def _named(name: str, data: Path | None = None, mend: bool = False) -> tuple[Images, bool]:
    """Returns what `prepare` returns, and whether it was made just now."""
    entry, folder = _entry(name), cache() / "prepared" / name
    if data is None and entry.path:
        data = at_home(entry.path)
    if data is None:
        with contextlib.suppress(Damaged) if mend else contextlib.nullcontext():
            if found := read(folder):
                return found, False
        if entry.download and not _located(entry):
            entry.download(cache())
    return _prepare(name, _existing(data or cache()), folder, other=data is not None)


def at_hand(name: str) -> bool:
    """Says whether `load(name)` downloads nothing. Raises DataError if the cache can't be read."""
    entry = _entry(name)
    there = entry.draw or entry.path or not entry.download
    return bool(there or read(cache() / "prepared" / name) or _located(entry))


def _located(entry: Dataset) -> Source | None:
    """Returns the data set's files in the cache, None if they are not there."""
    with contextlib.suppress(Lacking), _reading(cache()):
        return entry.locate(cache())
    return None


def _prepare(name: str, place: Path, folder: Path, other: bool) -> tuple[Images, bool]:
    """Returns the data set in `place`, prepared in the folder unless that was done before.

    `other` images may take its place. It says as well whether that was done now. Raises DataError
    if the place can't be read or the folder can't be written.
    """
    with _reading(place):
        source = find(name, place, other)
        stamp = source.stamp()
    draft = folder / ".draft"
    if found := _known(folder, stamp):  # also in a cache that can only be read
        return found, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if found := _known(folder, stamp):
                return found, False
            shutil.rmtree(draft, ignore_errors=True)  # a killed process may have left it
            draft.mkdir()
            try:
                _write(name, folder, draft, source, stamp)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            found = read(folder)
    except (OSError, NotImplementedError) as error:  # a file system without locks has the second
        raise DataError(
            f"{folder} can't be locked and written ({reason(error)}); choose another cache with "
            "$SVAE_BENCH_DATA (of bench.data: --cache)"
        ) from None
    if found is None:
        raise DataError(f"another process removed {folder}: prepare again")
    return found, True


def _known(folder: Path, stamp: str) -> Images | None:
    with contextlib.suppress(Damaged):
        return read(folder, stamp=stamp)
    return None


def _write(name: str, folder: Path, draft: Path, source: Source, stamp: str) -> None:
    """Writes a source's images; those known as the data set `name` have its name."""
    with _reading(source.place):
        rows = source.read()
    train, test = len(rows["train"]), len(rows["test"])
    if not (train and test):
        raise DataError(
            f"too few images in {source.place}: {train + test}; allowed: at least {LEAST}, because "
            "every tenth is for the test; give more with --data"
        )
    drafts = {kind: draft / kind for kind, parts in PARTS.items() if parts[0] in rows}
    for kind, path in drafts.items():
        _save(path, *(rows[part] for part in PARTS[kind]))
    arrays = _arrays(drafts, train)
    sha256, hashes = fingerprint(arrays)
    whose = name if _entry(name).known(hashes) else source.name
    about = {"version": VERSION, "name": whose, "origin": str(source.place)}
    about |= {"stamp": stamp, "train": train, "hashes": hashes, "sha256": sha256}
    if whose == source.name and not isinstance(rows["train"], np.ndarray):
        about["said"] = rows["train"].said()
    about["bytes"] = {kind: path.stat().st_size for kind, path in drafts.items()}
    new = _files(folder, drafts, sha256)
    for kind, path in new.items():
        os.replace(drafts[kind], path)
    write_atomically(folder / "about.json", json.dumps(about, indent=1).encode(), draft)
    for old in {*folder.glob("*.npy")} - {*new.values()}:
        old.unlink(missing_ok=True)


def _save(path: Path, *parts: Rows) -> None:
    """Streams rows of one shape into one .npy file."""
    n = sum(map(len, parts))
    with open(path, "wb") as file:
        for i, row in enumerate(chain(*parts)):
            if i == 0:
                header = {"descr": row.dtype.str, "fortran_order": False, "shape": (n, *row.shape)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _files(folder: Path, kinds: Iterable[str], sha256: str) -> dict[str, Path]:
    return {kind: folder / f"{kind}-{sha256[:16]}.npy" for kind in kinds}


def _arrays(paths: dict[str, Path], train: int) -> Arrays:
    """Maps arrays into memory, copy on write: a change stays in the process that makes it."""
    arrays: Arrays = {}
    for kind, path in paths.items():
        both = np.load(path, mmap_mode="c", allow_pickle=False)
        arrays |= zip(PARTS[kind], (both[:train], both[train:]), strict=True)
    return arrays


def read(folder: Path, check: bool = False, stamp: str | None = None) -> Images | None:
    """Returns the data set that was prepared in the folder, memory-mapped, or None.

    It returns None as well if the files that were prepared had another `stamp`. It compares sizes
    and shapes with the record, and every byte under `check`. Raises Damaged if they differ, and
    DataError for a folder of a newer version of the suite.
    """
    come = ""
    try:
        if not (folder / "about.json").exists():
            return None
        known = json.loads((folder / "about.json").read_text())
        if known["version"] > VERSION:
            raise DataError(
                f"{folder} was prepared by a newer version of the suite; choose another cache with "
                "$SVAE_BENCH_DATA (of bench.data: --cache), or update the suite"
            )
        come = f" --from {shlex.quote(known['origin'])}"
        if stamp not in (None, known.get("stamp")):
            return None
        paths = _files(folder, known["bytes"], known["sha256"])
        sizes = {kind: path.stat().st_size for kind, path in paths.items()}
        arrays = _arrays(paths, known["train"])
        found = fingerprint(arrays, None if check else known["hashes"])
        if sizes == known["bytes"] and found == (known["sha256"], known["hashes"]):
            about = {"origin": known["origin"], "said": known.get("said", "")}
            about["pixels"] = fingerprint({p: arrays[p] for p in PARTS["images"]}, found[1])[0]
            return Images(known["name"], known["sha256"], False, **arrays, **about)
        why = "another size, shape or SHA-256 than recorded"
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything
        why = reason(error)
    come = come or _origin(folder / "about.json")
    command = f"python -m bench.data prepare {shlex.quote(folder.name)}{come}"
    command += f" --cache {shlex.quote(str(folder.parent.parent))}"
    how = "" if come else ", with --from and the files that it was made of if you gave any"
    raise Damaged(f"{folder} is damaged ({why}); this prepares it again{how}: {command}")


def _origin(about: Path) -> str:
    """Returns the option that names the origin in a damaged about.json, or "" if it is lost."""
    with contextlib.suppress(Exception):  # a damaged file may raise anything
        found = re.search(r'"origin": ("(?:[^"\\]|\\.)*")', about.read_text())
        return f" --from {shlex.quote(json.loads(found[1]))}" if found else ""
    return ""


def _entry(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"no data set {name}, only {', '.join(DATASETS)}")
    return DATASETS[name]


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Raises DataError for what the system refuses while a user's files are read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or place} can't be read: {reason(error)}") from None


def _existing(data: Path) -> Path:
    with _reading(data):
        data = data if data.exists() else at_home(str(data))
        if data.exists():
            return data.resolve()
    raise DataError(f"{data} does not exist; give another folder or file with --data")


def static_bits(data: Path | None = None) -> np.ndarray:
    """Returns the test set of statically binarized MNIST, uint8 (10000, 784), sorted by class.

    It comes from `data`, from the cache or from a download. Raises DataError. Source: Salakhutdinov
    and Murray 2008, the files of Larochelle.
    """
    place = cache() if data is None else _existing(data)
    for name in ("binarized_mnist.npz", "binarized_mnist_test.amat"):
        with _reading(place):
            found = files.within(place, name)
            if found and found.is_file():
                return files.bits(found)
    if data is None:
        return files.bits(download.bits(place))
    raise DataError(
        f"no statically binarized MNIST in {place}; allowed: binarized_mnist.npz or "
        "binarized_mnist_test.amat there; without --data it is downloaded"
    )


def static_labels() -> np.ndarray:
    """Returns the classes of `static_bits`, int64 (10000,).

    The bits follow MNIST's test set in stable order of class, so class sizes give the classes. No
    pixel that is 0 or 255 in MNIST contradicts its bit in this order.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
