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
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock

from bench.data import download, files
from bench.data.files import Arrays, DataError, Lacking, Rows, fingerprint
from bench.data.sources import DATASETS, Dataset, Source, find
from bench.store.atomic import write_atomically

VERSION = 1  # of prepared arrays
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


def cache() -> Path:
    """Returns the folder of downloads, $SVAE_BENCH_DATA or by default ~/.cache/svae-bench."""
    return Path(os.environ.get("SVAE_BENCH_DATA") or Path.home() / ".cache" / "svae-bench")


def load(name: str, data: Path | None = None) -> Images:
    """Returns the data set of this name, one of DATASETS.

    It comes from the folder or file `data`. Without `data` it comes from the entry's path, from
    the cache, or from a download to the cache. Files are prepared in the cache at first use.
    Raises DataError, which says what to do.
    """
    if draw := _entry(name).draw:
        arrays = draw()
        return Images(name, fingerprint(arrays)[0], True, **arrays, origin="drawn")
    if data is None:
        return prepare(name)
    place = _existing(data)
    key = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    folder = cache() / "prepared" / f"{name}-{key}"
    return read(place / "prepared" / name) or _prepare(name, place, folder)


def prepare(name: str, data: Path | None = None) -> Images:
    """Prepares the data set in the cache, so that `load(name)` returns it, and returns it.

    It comes from `data`, or without `data` as in `load`. Raises DataError.
    """
    entry, folder = _entry(name), cache() / "prepared" / name
    if data is None and entry.path:
        data = Path(entry.path).expanduser()
    if data is None:
        if found := read(folder):
            return found
        source = None
        with contextlib.suppress(Lacking):
            source = entry.locate(cache())
        if entry.download and not source:
            entry.download(cache())
    return _prepare(name, _existing(data or cache()), folder)


def _prepare(name: str, place: Path, folder: Path) -> Images:
    """Returns the data set in `place`, prepared in the folder unless that was done before.

    Raises DataError if the place can't be read or the folder can't be written.
    """
    source = find(name, place)
    stamp, draft = source.stamp(), folder / ".draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            with contextlib.suppress(DataError):
                if found := read(folder, stamp=stamp):
                    return found
            shutil.rmtree(draft, ignore_errors=True)  # a killed process may have left it
            draft.mkdir()
            try:
                _write(folder, draft, source, stamp)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            found = read(folder)
    except OSError as error:
        raise DataError(
            f"{folder} can't be written ({error.strerror or error}); choose another cache with "
            "SVAE_BENCH_DATA"
        ) from None
    if found is None:
        raise DataError(f"another process removed {folder}: prepare again")
    return found


def _write(folder: Path, draft: Path, source: Source, stamp: str) -> None:
    rows = source.read()
    train, test = len(rows["train"]), len(rows["test"])
    if not (train and test):
        raise DataError(f"too few images in {source.place}: {train} of {train + test} train")
    drafts = {kind: draft / kind for kind, parts in PARTS.items() if parts[0] in rows}
    for kind, path in drafts.items():
        _save(path, *(rows[part] for part in PARTS[kind]))
    arrays = _arrays(drafts, train)
    sha256, hashes = fingerprint(arrays)
    about = {"version": VERSION, "name": source.name, "origin": str(source.place)}
    about |= {"stamp": stamp, "train": train, "hashes": hashes, "sha256": sha256}
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
    and shapes with the record, and every byte under `check`. Raises DataError if they differ, or
    for a folder of a newer version of the suite.
    """
    try:
        if not (folder / "about.json").exists():
            return None
        known = json.loads((folder / "about.json").read_text())
        if known["version"] > VERSION:
            raise DataError(f"{folder} was prepared by a newer version of the suite")
        if stamp not in (None, known.get("stamp")):
            return None
        paths = _files(folder, known["bytes"], known["sha256"])
        sizes = {kind: path.stat().st_size for kind, path in paths.items()}
        arrays = _arrays(paths, known["train"])
        found = fingerprint(arrays, None if check else known["hashes"])
        if sizes == known["bytes"] and found == (known["sha256"], known["hashes"]):
            return Images(known["name"], known["sha256"], False, **arrays, origin=known["origin"])
        reason = "another size, shape or SHA-256 than recorded"
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        reason = str(error)
    raise DataError(f"{folder} is damaged ({reason}): delete it and prepare again")


def _entry(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"no data set {name}, only {', '.join(DATASETS)}")
    return DATASETS[name]


def _existing(data: Path) -> Path:
    if not data.exists():
        raise DataError(f"{data} does not exist")
    return data.resolve()


def static_bits(data: Path | None = None) -> np.ndarray:
    """Returns the test set of statically binarized MNIST, uint8 (10000, 784), sorted by class.

    It comes from `data`, from the cache or from a download. Raises DataError. Source: Salakhutdinov
    and Murray 2008, the files of Larochelle.
    """
    place = cache() if data is None else _existing(data)
    paths = [place / "binarized_mnist.npz", place / "binarized_mnist_test.amat"]
    if found := [path for path in paths if path.is_file()]:
        return files.bits(found[0])
    if data is None:
        return files.bits(download.bits(place))
    raise DataError(
        f"no statically binarized MNIST in {place}: looked for binarized_mnist.npz and "
        "binarized_mnist_test.amat; without --data it is downloaded"
    )


def static_labels() -> np.ndarray:
    """Returns the classes of `static_bits`, int64 (10000,).

    The bits follow MNIST's test set in stable order of class, so class sizes give the classes. No
    pixel that is 0 or 255 in MNIST contradicts its bit in this order.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
