"""Prepared data sets: one memory-mapped array in a folder of the cache, whole or absent.

    images-SHA.npy   uint8 (n, c, h, w), the training images first
    labels-SHA.npy   int64 (n,), where there are labels
    about.json       written last: what the arrays are, their sizes and SHA-256s

The arrays are named by their hash and about.json is replaced in one step, so whatever was killed
when, about.json speaks of arrays that are whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from bench.data.files import Arrays, DataError, fingerprint, sha256
from bench.store.atomic import write_atomically

VERSION = 1


@dataclass(frozen=True)
class Content:
    """What is to be prepared: chunks of images, the training images first, and all labels."""

    train: int
    test: int
    chunks: Iterable[np.ndarray]
    labels: np.ndarray | None = None


def content(arrays: Arrays) -> Content:
    train, test = arrays["train"], arrays["test"]
    labels = None
    if "train_labels" in arrays:
        labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    return Content(len(train), len(test), (train, test), labels)


def write(folder: Path, name: str, origin: str, stamp: str, source: Callable[[], Content]) -> None:
    """Makes the folder hold this data set, in place of any other.

    `origin` says where it comes from; `stamp` tells one state of that from another, and if the
    folder's is the same nothing is done. Raises DataError if it can't be written.
    """
    draft = folder / ".draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _holds(folder, stamp):
                return
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
            draft.mkdir()
            try:
                _write(folder, draft, name, origin, stamp, source())
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder} can't be written ({error.strerror or error}); choose another cache with "
            "SVAE_BENCH_DATA"
        ) from None


def _holds(folder: Path, stamp: str) -> bool:
    try:
        found = read(folder)
    except DataError:
        return False
    return found is not None and (found[0]["stamp"], found[0]["version"]) == (stamp, VERSION)


def _write(folder: Path, draft: Path, name: str, origin: str, stamp: str, source: Content) -> None:
    _write_images(draft / "images", source, origin)
    files = ["images"]
    if source.labels is not None:
        files.append("labels")
        with open(draft / "labels", "wb") as file:
            np.save(file, source.labels.astype(np.int64))
            _sync(file)
    arrays = _arrays(draft / "images", draft / "labels", source.train)
    hashes = {key: sha256(array) for key, array in arrays.items()}
    whole = fingerprint(arrays, hashes)
    about = {
        "version": VERSION,
        "name": name,
        "origin": origin,
        "stamp": stamp,
        "train": source.train,
        "test": source.test,
        "shape": arrays["train"].shape[1:],
        "bytes": {file: (draft / file).stat().st_size for file in files},
        "hashes": hashes,
        "sha256": whole,
    }
    for file in files:
        os.replace(draft / file, _file(folder, file, whole))
    write_atomically(folder / "about.json", json.dumps(about, indent=1).encode(), draft)
    current = {_file(folder, file, whole) for file in files}
    for old in set(folder.glob("*.npy")) - current:
        old.unlink(missing_ok=True)


def _write_images(path: Path, source: Content, origin: str) -> None:
    """Streams the chunks into one .npy file."""
    n, total = 0, source.train + source.test
    with open(path, "wb") as file:
        for chunk in source.chunks:
            if not n:
                shape = (total, *chunk.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(chunk).data)
            n += len(chunk)
        _sync(file)
    if not 0 < source.train < total == n:
        raise DataError(f"{origin} gave {n} images, for training {source.train} of {total}")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _file(folder: Path, kind: str, whole: str) -> Path:
    return folder / f"{kind}-{whole[:16]}.npy"


def _arrays(images: Path, labels: Path, train: int) -> Arrays:
    """Memory-mapped, copy on write: a change stays in the process that makes it."""
    both = np.load(images, mmap_mode="c", allow_pickle=False)
    arrays = {"train": both[:train], "test": both[train:]}
    if labels.exists():
        ids = np.load(labels, allow_pickle=False)
        arrays |= {"train_labels": ids[:train], "test_labels": ids[train:]}
    return arrays


def about(folder: Path) -> dict[str, Any] | None:
    """What the folder holds; None if nothing. Raises DataError if that can't be read."""
    path = folder / "about.json"
    try:
        found = json.loads(path.read_text())
        if found["version"] > VERSION:
            raise DataError(f"{folder} was prepared by a newer version of the suite")
        return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}): delete {folder}, prepare again") from None


def read(folder: Path, check: bool = False) -> tuple[dict[str, Any], Arrays] | None:
    """The data set in the folder, memory-mapped, or None; DataError if it is damaged.

    Sizes and shapes are compared with what was recorded, with `check` every byte.
    """
    known = about(folder)
    if known is None:
        return None
    damaged = f"{folder} is damaged: delete it and prepare again"
    try:
        for kind, size in known["bytes"].items():
            if _file(folder, kind, known["sha256"]).stat().st_size != size:
                raise DataError(f"{damaged} (its {kind} are not {size} bytes)")
        images, labels = (_file(folder, kind, known["sha256"]) for kind in ("images", "labels"))
        arrays = _arrays(images, labels, known["train"])
        shapes = [list(arrays[p].shape) for p in ("train", "test")]
        if shapes != [[known[p], *known["shape"]] for p in ("train", "test")]:
            raise DataError(f"{damaged} (other shapes than recorded)")
        if set(arrays) != set(known["hashes"]):
            raise DataError(f"{damaged} (other arrays than recorded)")
        if check:
            hashes = {key: sha256(array) for key, array in arrays.items()}
            if hashes != known["hashes"] or fingerprint(arrays, hashes) != known["sha256"]:
                raise DataError(f"{damaged} (another SHA-256 than recorded)")
        return known, arrays
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{damaged} ({error})") from None
