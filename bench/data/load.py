"""The images of the suite: the data sets of `bench.data.sources`, found, downloaded or drawn.

Images that are not drawn are prepared once, as memory-mapped arrays in a folder of the cache:

    images-SHA.npy   uint8 (n, c, h, w), the training images first
    labels-SHA.npy   int64 (n,), where there are labels
    about.json       written last: what the arrays are, their sizes and SHA-256s

The arrays are named by their hash and about.json is replaced in one step. So about.json speaks
of whole arrays whenever a process was killed.
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

VERSION = 1
"""Of what is prepared."""
PARTS = {"images": ("train", "test"), "labels": ("train_labels", "test_labels")}
"""What the prepared files hold, one array after the other."""


@dataclass(frozen=True)
class Images:
    """One data set.

    train (n, c, h, w) and test (m, c, h, w) are uint8, and perhaps memory-mapped. The labels are
    int64 or None. `name` says what they are: "folder" for images of your own, in the place of a
    known data set or not. `sha256` is over names, types, shapes and bytes of all arrays, however
    they came. `stand_in` is whether the suite drew them, as in the column of this name.
    """

    name: str
    sha256: str
    stand_in: bool
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    origin: str = ""  # a folder, a file, or "drawn"


def cache() -> Path:
    """Where downloads and prepared arrays are kept: $SVAE_BENCH_DATA or ~/.cache/svae-bench."""
    return Path(os.environ.get("SVAE_BENCH_DATA") or Path.home() / ".cache" / "svae-bench")


def load(name: str, data: Path | None = None) -> Images:
    """The data set of this name, one of DATASETS.

    With `data`, a folder or file, from there and nowhere else: prepared arrays, or files that
    are prepared in the cache at first use. Without, from the entry's own path or the cache;
    others are downloaded to it if need be (CelebA with gdown). Raises DataError with what to do.
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
    """Prepares the data set in the cache, from `data`, or from the cache or a download.

    From then on `load(name)` gives it. Raises DataError.
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
    """The data set in `place`, prepared in the folder unless the same files were before.

    Raises DataError if it can't be read, or the folder can't be written.
    """
    source = find(name, place)
    stamp, draft = source.stamp(), folder / ".draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            with contextlib.suppress(DataError):
                if found := read(folder, stamp=stamp):
                    return found
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
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
        raise DataError(f"{folder} was taken away while it was prepared")
    return found


def _write(folder: Path, draft: Path, source: Source, stamp: str) -> None:
    rows = source.read()
    train, test = len(rows["train"]), len(rows["test"])
    if not (train and test):
        raise DataError(f"{source.place} gave for training {train} of {train + test} images")
    drafts = {kind: draft / kind for kind, parts in PARTS.items() if parts[0] in rows}
    for kind, path in drafts.items():
        _save(path, *(rows[part] for part in PARTS[kind]))
    arrays = _arrays(drafts, train)
    sha256, hashes = fingerprint(arrays)
    about = {"version": VERSION, "name": source.name, "origin": str(source.place)}
    about |= {"stamp": stamp, "train": train, "test": test, "shape": arrays["train"].shape[1:]}
    about |= {"hashes": hashes, "sha256": sha256}
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
    """Memory-mapped, copy on write: a change stays in the process that makes it."""
    arrays: Arrays = {}
    for kind, path in paths.items():
        both = np.load(path, mmap_mode="c", allow_pickle=False)
        arrays |= zip(PARTS[kind], (both[:train], both[train:]), strict=True)
    return arrays


def read(folder: Path, check: bool = False, stamp: str | None = None) -> Images | None:
    """The data set that was prepared in the folder, memory-mapped, or None.

    Sizes and shapes are compared with what was recorded, every byte with `check`. With `stamp` it
    is None for other files than those of this stamp. Raises DataError if something differs, or
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
    """The test set of statically binarized MNIST, uint8 0 or 1, (10000, 784), sorted by class.

    From `data`, or the cache and downloaded if need be (Salakhutdinov and Murray 2008, the files
    of Larochelle). Raises DataError.
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
    """The classes of `static_bits`, int64 (10000,).

    The bits are those of MNIST's test set in stable order of class, so the classes follow from
    their numbers there. Of 6,385,616 pixels that are 0 or 255 in MNIST none contradicts its bit
    in this order, and the likeliest of all 10,000 images for each row of bits is of its class.
    """
    return np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
