"""Prepared data sets: one memory-mapped array in a folder of the cache, whole or absent.

    images-SHA.npy   uint8 (n, c, h, w), the training images first
    labels-SHA.npy   int64 (n,), where there are labels
    about.json       written last: what the arrays are, their sizes and SHA-256s

The arrays are named by their hash and about.json is replaced in one step, so whatever was killed
when, about.json speaks of arrays that are whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from bench.data.files import Arrays, DataError, Rows, fingerprint
from bench.store.atomic import write_atomically

VERSION = 1
PARTS = {"images": ("train", "test"), "labels": ("train_labels", "test_labels")}
"""What the files hold, one array after the other."""


def write(folder: Path, about: dict[str, Any], source: Callable[[], Mapping[str, Rows]]) -> None:
    """Makes the folder hold the data set that `source` gives, in place of any other.

    `about` has its `name`, its `origin`, and a `stamp` that tells one state of the origin from
    another: nothing is done if the folder's is the same. Raises DataError if the folder can't be
    written.
    """
    draft = folder / ".draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            with contextlib.suppress(DataError):
                found = read(folder)
                if found and (found[0]["stamp"], found[0]["version"]) == (about["stamp"], VERSION):
                    return
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
            draft.mkdir()
            try:
                _write(folder, draft, about, source())
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder} can't be written ({error.strerror or error}); choose another cache with "
            "SVAE_BENCH_DATA"
        ) from None


def _write(folder: Path, draft: Path, about: dict[str, Any], source: Mapping[str, Rows]) -> None:
    train, test = len(source["train"]), len(source["test"])
    if not (train and test):
        raise DataError(f"{about['origin']} gave for training {train} of {train + test} images")
    kinds = [kind for kind, parts in PARTS.items() if parts[0] in source]
    for kind in kinds:
        _save(draft / kind, *(source[part] for part in PARTS[kind]))
    arrays = _arrays(draft / "images", draft / "labels", train)
    sha256, hashes = fingerprint(arrays)
    about = {"version": VERSION, **about, "train": train, "test": test}
    about |= {"shape": arrays["train"].shape[1:], "hashes": hashes, "sha256": sha256}
    about["bytes"] = {kind: (draft / kind).stat().st_size for kind in kinds}
    current = {_file(folder, kind, sha256) for kind in kinds}
    for kind in kinds:
        os.replace(draft / kind, _file(folder, kind, sha256))
    write_atomically(folder / "about.json", json.dumps(about, indent=1).encode(), draft)
    for old in set(folder.glob("*.npy")) - current:
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
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _file(folder: Path, kind: str, sha256: str) -> Path:
    return folder / f"{kind}-{sha256[:16]}.npy"


def _arrays(images: Path, labels: Path, train: int) -> Arrays:
    """Memory-mapped, copy on write: a change stays in the process that makes it."""
    files = [np.load(images, mmap_mode="c", allow_pickle=False)]
    if labels.exists():
        files.append(np.load(labels, allow_pickle=False))
    arrays: Arrays = {}
    for both, parts in zip(files, PARTS.values(), strict=False):
        arrays |= zip(parts, (both[:train], both[train:]), strict=True)
    return arrays


def read(folder: Path, check: bool = False) -> tuple[dict[str, Any], Arrays] | None:
    """What about.json says and the data set in the folder, memory-mapped, or None.

    Sizes and shapes are compared with what was recorded, with `check` every byte. Raises
    DataError if they differ, or for a folder of a newer version of the suite.
    """
    reason = "another size, shape or SHA-256 than recorded"
    try:
        known = json.loads((folder / "about.json").read_text())
        if known["version"] > VERSION:
            raise DataError(f"{folder} was prepared by a newer version of the suite")
        files = {kind: _file(folder, kind, known["sha256"]) for kind in PARTS}
        sizes = {kind: files[kind].stat().st_size for kind in known["bytes"]}
        arrays = _arrays(files["images"], files["labels"], known["train"])
        shapes = [list(arrays[part].shape) for part in PARTS["images"]]
        recorded = [[known[part], *known["shape"]] for part in PARTS["images"]]
        same = sizes == known["bytes"] and shapes == recorded and {*arrays} == {*known["hashes"]}
        if same and (not check or fingerprint(arrays) == (known["sha256"], known["hashes"])):
            return known, arrays
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if absent and Path(error.filename).name == "about.json":
            return None
        reason = str(error)
    raise DataError(f"{folder} is damaged ({reason}): delete it and prepare again")
