"""The store keeps one row of parquet per finished training, whole or not at all.

`results/STUDY/SCALE/` is memory and queue: a training is done if and only if its row is there. Rows
lie in up to 256 bucket files, named by the first two digits of their ids. A new row enters by an
atomic replacement of its bucket under a lock. At any moment, whoever is writing,

    pandas.read_parquet("results/toy_grid/quick")

gives exactly one row per finished training. So do other readers of parquet, because the folder
holds rows and nothing else. All else lies beside it:

    SCALE/00.parquet ... ff.parquet    rows, see bench.store.schema; each file has its own SHA-256
    SCALE_samples/                     points and images for figures, by the same rules
    _SCALE/weights/                    weights of trainings, see bench.store.checkpoint
    _SCALE/aside/                      damaged and foreign files, each with the reason
    _SCALE/failed/                     trainings that failed, how often and why
    _SCALE/logs/                       what trainings under --log have written, see bench.store.log
    _SCALE/checkpoints/                long trainings under way
    _SCALE/rows/                       which rows there have been, see bench.store.memory
    _SCALE/locks/, progress/, tmp/     files of the runs under way
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from bench import plugins
from bench.cli import UsageError
from bench.spec import protocol
from bench.store import schema
from bench.store.atomic import at_once, left_behind, process, work_of, write_atomically
from bench.store.memory import Memory
from bench.store.source import Today

if TYPE_CHECKING:
    from torch import Tensor

FAILURES = 3
"""Failures of one training after which runs go on without it, until --retry-failed."""

_ID = re.compile("[0-9a-f]{16}")
_DIGEST, _BLANK = b"bench.sha256", b"0" * 64
_SMALL = 2**17
"""Bytes of a file up to which this process remembers what such a file holds."""


class StoreError(UsageError):
    """The results can't be used as they are; the message says why and what to do."""


class Unwritable(StoreError):
    """The folder takes no files: the disk is full or read-only, or a quota or rights forbid it."""


def unreadable(path: Path, error: OSError) -> StoreError:
    """Returns the error of a file of results that the system does not give."""
    return StoreError(f"{path} can't be read ({error.strerror}); choose other results, or mend it")


class BadFile(Exception):
    """The store can't trust a file; the message is the reason."""


def is_id(text: Any) -> bool:
    """Says whether this is the id of a spec, which can name a file."""
    return bool(_ID.fullmatch(str(text)))


def tell_aside(files: Mapping[Path, str]) -> None:
    """Prints a line on standard error for each file that was set aside, with the reason."""
    for path, reason in files.items():
        line = f"set aside: {path} {reason}; trainings that lose their rows run again"
        print(line, file=sys.stderr)


def to_bytes(table: pa.Table) -> bytes:
    """Returns a parquet file of `table` that carries its schema version and its own SHA-256."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(buffer, table.schema, **options) as writer:
        writer.write_table(table)
        version = str(schema.SCHEMA_VERSION).encode()
        writer.add_key_value_metadata({b"bench.schema": version, _DIGEST: _BLANK})
    content = buffer.getvalue()
    return _with_digest(content, _BLANK, hashlib.sha256(content).hexdigest().encode())


def _with_digest(content: bytes, old: bytes, new: bytes) -> bytes:
    before, key, after = content.rpartition(_DIGEST)
    return before + key + after.replace(old, new, 1)


def from_bytes(content: bytes, columns: pa.Schema, keep: bool = False) -> pa.Table:
    """Returns the table of a file made by `to_bytes`, checked to the last bit.

    Columns that the file lacks get their default, or null. Columns that nobody declares any more
    are left out unless `keep`. Raises BadFile for a file that `to_bytes` did not write. Raises
    StoreError for a file of a newer schema.
    """
    # A run and its report read the same rows several times, and 200 small files take half a second.
    read = _remembered if len(content) <= _SMALL else _from_bytes
    return read(content, columns, keep, schema.SCHEMA_VERSION)


def _from_bytes(content: bytes, columns: pa.Schema, keep: bool, newest: int) -> pa.Table:
    if not content:
        raise BadFile("is empty")
    if content.startswith(b"version https://git-lfs"):
        raise BadFile("is a pointer of Git LFS: git lfs pull brings the file")
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        metadata = file.metadata.metadata or {}
    except Exception as error:  # a damaged file may raise anything
        raise BadFile(f"is not a whole parquet file: {_one_line(error)}") from None
    digest = metadata.get(_DIGEST, b"")
    if len(digest) != len(_BLANK):
        raise BadFile("carries no checksum: not a file of this suite, or a damaged one")
    blank = _with_digest(content, digest, _BLANK)
    if hashlib.sha256(blank).hexdigest().encode() != digest:
        raise BadFile("does not match its checksum: damaged")
    version = int(metadata[b"bench.schema"])
    if version > newest:
        raise StoreError(
            f"results of schema {version}; this version of the suite reads up to {newest}: update "
            "the suite, or choose another folder"
        )
    table, present = file.read(use_threads=False), {*file.schema_arrow.names}
    for field in columns:
        if field.name not in present:
            default = json.loads((field.metadata or {}).get(schema.DEFAULT.encode(), b"null"))
            table = table.append_column(field, pa.array([default] * len(table), field.type))
    extra = [field for field in table.schema if keep and field.name not in columns.names]
    wanted = pa.schema([*columns, *extra])
    try:
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowException, KeyError) as error:
        raise BadFile(f"has other columns: {_one_line(error)}") from None


_remembered = lru_cache(512)(_from_bytes)


def without(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    """Returns the table without the rows of these ids."""
    return table.filter(~pc.field("id").isin(pa.array(ids, pa.string())))


def _widened(table: pa.Table, columns: pa.Schema) -> pa.Table:
    """Returns the table with these columns, null where it lacks them; others come last."""
    for field in columns:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    others = sorted(set(table.column_names) - set(columns.names))
    return table.select([*columns.names, *others])


def _schema(path: Path) -> pa.Schema:
    """Returns the columns of a file, none if the file is foreign, damaged or gone."""
    with suppress(OSError, pa.ArrowException):
        with path.open("rb") as content:  # pyarrow takes no path that is no UTF-8
            file = pq.read_metadata(content)
        if _DIGEST in (file.metadata or {}):
            return file.schema.to_arrow_schema()
    return pa.schema([])


def _noted(path: Path) -> dict[str, Any]:
    """Returns the object in a file of JSON; an empty one where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        if isinstance(found := json.loads(path.read_text()), dict):
            return found
    return {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Buckets:
    """Keeps rows with an `id` in files that are named by its first two digits."""

    def __init__(self, folder: Path, columns: pa.Schema, work: Path) -> None:
        self.folder, self.columns, self.work = folder, columns, work
        self.wide: Iterable[pa.Field] = ()  # columns of all files, once `align` has found them
        self.memory: Memory | None = None  # forgets the rows of files that are set aside

    def files(self) -> list[Path]:
        """Returns all files but hidden ones and, in folders of earlier versions, `_*`."""
        return sorted(self.folder.glob("[!_.]*"))

    def read(self) -> tuple[pa.Table, dict[Path, str]]:
        """Returns all rows of files that can be trusted, and the other files with the reason."""
        tables, bad = [], {}
        for path in self.files():
            try:
                tables.append(self.load(path))
            except BadFile as error:
                bad[path] = str(error)
            except FileNotFoundError:
                continue  # another runner has set it aside meanwhile
            except OSError as error:
                raise unreadable(path, error) from None
        return pa.concat_tables([self.columns.empty_table(), *tables]), bad

    def load(self, path: Path, keep: bool = False) -> pa.Table:
        """Returns the rows of one of these files. Raises as `from_bytes` does, and OSError."""
        if path.is_dir():
            raise BadFile("is a folder where a result file should be")
        if path.is_symlink() and not path.exists():
            raise BadFile("is a link that leads nowhere")
        if len(path.stem) != 2 or path.suffix != ".parquet":
            raise BadFile("is not one of this suite's result files")
        try:
            table = from_bytes(path.read_bytes(), self.columns, keep)
        except StoreError as error:
            raise StoreError(f"{path} holds {error}") from None
        ids = table.column("id").to_pylist()
        if len(set(ids)) != len(ids) or any(str(i)[:2] != path.stem for i in ids):
            raise BadFile("holds rows that belong elsewhere")
        return table

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows, or replaces rows of the same id, each bucket in one atomic step.

        Raises ValueError for a malformed id and for a key that no column declares.
        """
        new: dict[str, dict[str, Any]] = {}
        for row in rows:
            if undeclared := row.keys() - set(self.columns.names):
                raise ValueError(f"a row has {min(undeclared)!r}, which no column declares")
            new[row["id"]] = row
        self.put(pa.Table.from_pylist(list(new.values()), schema=self.columns))

    def put(self, table: pa.Table, replace: bool = True) -> None:
        """Adds rows of distinct ids, each bucket in one atomic step.

        Rows of the same id are replaced, or kept without `replace`. Raises ValueError for a
        malformed id.
        """
        buckets: dict[str, list[int]] = {}
        for at, id in enumerate(table["id"].to_pylist()):
            if not is_id(id):  # its beginning becomes a file's name
                raise ValueError(f"{id!r} is not an id")
            buckets.setdefault(id[:2], []).append(at)

        def renew(name: str) -> None:
            with self.changing(name) as (old, write):
                new = table.take(buckets[name])
                if replace:
                    old = without(old, new["id"].to_pylist())
                else:
                    new = without(new, old["id"].to_pylist())
                if len(new):
                    write(pa.concat_tables([old, new], promote_options="permissive"))

        at_once(renew, sorted(buckets))

    @contextmanager
    def changing(self, bucket: str) -> Iterator[tuple[pa.Table, Callable[[pa.Table], None]]]:
        """Holds a bucket's lock; yields its rows, and a function that replaces them all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{bucket}.parquet"

        def write(table: pa.Table) -> None:
            others = [each for each in self.files()[:2] if each != path]
            self._write(path, _widened(table, self._columns(map(_schema, others))))

        with self.lock(bucket):
            yield self._load_or_set_aside(path), write

    def change(self, row: Mapping[str, Any], columns: Mapping[str, Any]) -> bool:
        """Gives columns of a stored row new values, in one atomic step; all else stays.

        Does nothing and returns False unless the row is the one that was read: a row of its id that
        finished at its time. Raises ValueError for a column that nobody declares.
        """
        if undeclared := columns.keys() - set(self.columns.names):
            raise ValueError(f"{min(undeclared)!r} is no column")
        with self.changing(row["id"][:2]) as (table, write):
            rows = {each["id"]: each for each in table.to_pylist()}
            if row["id"] not in rows or rows[row["id"]]["finished"] != row["finished"]:
                return False
            rows[row["id"]] |= columns
            write(pa.Table.from_pylist(list(rows.values()), schema=table.schema))
        return True

    def _write(self, path: Path, table: pa.Table) -> None:
        write_atomically(path, to_bytes(table.combine_chunks()), self.work / "tmp")

    def _columns(self, schemas: Iterable[pa.Schema]) -> pa.Schema:
        """Returns the declared columns, and then whatever others these schemas have."""
        found = {field.name: field for field in (*self.columns, *self.wide)}
        for each in schemas:
            found = {field.name: field for field in each} | found
        others = [found[name] for name in sorted(found.keys() - set(self.columns.names))]
        return pa.schema([*self.columns, *others])

    def align(self, more: Iterable[Path] = ()) -> None:
        """Gives all files the same columns, those of the files `more` included.

        Most readers of a folder take the columns of one file for those of all.
        """
        found = {path: _schema(path) for path in self.files()}
        wide = self.wide = self._columns([*found.values(), *map(_schema, more)])
        for path in (path for path, columns in found.items() if not columns.equals(wide)):
            # It may be set aside meanwhile.
            with self.lock(path.stem), suppress(FileNotFoundError, BadFile):
                self._write(path, _widened(self.load(path, keep=True), wide))

    def lock(self, name: str) -> FileLock:
        """Returns a lock that one process at a time holds, over all machines."""
        locks = self.work / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{self.folder.name}-{name[:64]}.lock")

    def _load_or_set_aside(self, path: Path) -> pa.Table:
        """Returns the table at `path`, empty where there is none; sets a bad file aside."""
        try:
            return self.load(path, keep=True)
        except FileNotFoundError:
            pass
        except BadFile as error:
            if self.memory is not None:
                self.memory.keep(lambda ids: {id for id in ids if id[:2] != path.stem})
            aside = self.work / "aside"
            aside.mkdir(exist_ok=True)
            target = aside / f"{path.name[:64]}.{uuid.uuid4().hex[:8]}"
            os.replace(path, target)
            reason = f"{path.relative_to(self.work.parent)} {error}\n"
            write_atomically(aside / f"{target.name}.reason.txt", reason.encode(), aside)
        return self.columns.empty_table()

    def set_aside_bad(self) -> dict[Path, str]:
        """Moves files that can't be trusted to `aside/`; returns them with the reason.

        Whole rows that such a file alone has stay: programs that keep folders alike leave copies
        under other names.
        """
        bad = self.read()[1]
        for path in bad:
            self.put(self._rows_of(path), replace=False)
            with self.lock(path.stem):
                self._load_or_set_aside(path)
        return bad

    def _rows_of(self, path: Path) -> pa.Table:
        """Returns the rows of a file of any name, none if it is damaged or of another suite."""
        with suppress(BadFile, StoreError, OSError):
            table = from_bytes(path.read_bytes(), self.columns, keep=True)
            ids = table["id"].to_pylist()
            if all(map(is_id, ids)) and len({*ids}) == len(ids):
                return table
        return self.columns.empty_table()


class Store:
    """Keeps the results of one study at one scale below the folder `results`.

    A folder of published results has STUDY/SCALE.parquet and can only be loaded. Rows that were
    made by other source than `today` says are kept and left out; None takes all rows as they are.
    """

    def __init__(
        self,
        results: Path,
        study: str,
        scale: str,
        rows: pa.Schema,
        samples: pa.Schema,
        today: Today | None = None,
    ) -> None:
        self.today = today
        self.folder, self.protocol = results / study / scale, protocol(study)
        self.rows = Buckets(self.folder, rows, self.work)
        self.samples = Buckets(self.folder.with_name(f"{scale}_samples"), samples, self.work)
        self.failed = self.work / "failed"
        self._asked = self.work / "redo.json"
        self.memory = Memory(self.work / "rows", lambda: self.rows.lock("memory"))
        self.rows.memory = self.memory

    @property
    def work(self) -> Path:
        """Returns the folder of all that is neither row nor sample."""
        return work_of(self.folder)

    def load(self) -> tuple[pa.Table, dict[Path, str]]:
        """Returns the rows of today's protocol and source, and the unreadable files.

        The files come with the reason. Raises StoreError for newer results and for damaged
        published results.
        """
        table, bad = self._of_protocol()
        left_out = self._stale(table)
        kept = pa.array([id not in left_out for id in table["id"].to_pylist()], pa.bool_())
        return table.filter(kept), bad

    def stale(self) -> dict[str, str]:
        """Returns what made each row that `load` leaves out otherwise, by id."""
        return self._stale(self.every())

    def every(self) -> pa.Table:
        """Returns all rows of today's protocol, stale or not. Raises StoreError as `load` does."""
        return self._of_protocol()[0]

    def metrics(self) -> list[str]:
        """Returns what files say of metrics whose columns nobody declares, see `schema.METRIC`."""
        found = {}
        for columns in map(_schema, [*self.rows.files(), self.published("")]):
            for field in columns:
                told = (field.metadata or {}).get(schema.METRIC.encode())
                if told and field.name not in self.rows.columns.names:
                    found[field.name] = told.decode()
        return [found[name] for name in sorted(found)]

    def left_out(self) -> list[str]:
        """Returns a line for each reason for which `load` leaves rows out: how many, and which."""
        table = self.every()
        stale = self._stale(table)
        cells: dict[str, list[str]] = {}
        for row in table.select(["id", "label", "lam"]).to_pylist():
            if why := stale.get(row["id"]):
                cells.setdefault(why, []).append(f"{row['label']} at λ = {row['lam']:g}")
        return [
            f"{len(each)} made by {why}: "
            + ", ".join(f"{cell} ({n})" for cell, n in sorted(Counter(each).items()))
            for why, each in sorted(cells.items())
        ]

    def _of_protocol(self) -> tuple[pa.Table, dict[Path, str]]:
        table, bad = self._read("", self.rows)
        return table.filter(pc.field("protocol") == self.protocol), bad

    def _stale(self, table: pa.Table) -> dict[str, str]:
        if self.today is None:
            return {}
        names = ("id", "method", "commit", "dirty", "method_digest", "metric_digests", "plugins")
        rows = table.select([*names, *self.today.metrics]).to_pylist()
        return {row["id"]: why for row in rows if (why := self.today.stale(row))}

    def load_samples(self) -> pa.Table:
        """Returns what is kept for figures. Raises StoreError as `load` does."""
        # Earlier versions kept them among the rows. A run moves them, so they are read first.
        older = self._older_samples().read()[0]
        found = self._read("_samples", self.samples)[0]
        return pa.concat_tables([found, without(older, found["id"].to_pylist())])

    def _older_samples(self) -> Buckets:
        return Buckets(self.folder / "_samples", self.samples.columns, self.work)

    def _read(self, kind: str, buckets: Buckets) -> tuple[pa.Table, dict[Path, str]]:
        path = self.published(kind)
        if not path.is_file():
            return buckets.read()
        try:
            return from_bytes(path.read_bytes(), buckets.columns), {}
        except (BadFile, StoreError) as error:
            raise StoreError(f"{path} {error}") from None
        except OSError as error:
            raise unreadable(path, error) from None

    @property
    def weights(self) -> Path:
        """Returns the folder of kept weights, those of published rows beside their file."""
        if self.published("").is_file():
            return self.folder.with_name(f"{self.folder.name}_weights")
        return self.work / "weights"

    def weights_of(self, id: str) -> Path:
        """Returns where the weights of a training are kept."""
        return self.weights / f"{id}.safetensors"

    def keep_weights(self, id: str, tensors: dict[str, Tensor], about: Mapping[str, str]) -> None:
        """Writes a training's weights and what its file says of them, in one step."""
        from bench.store import checkpoint

        checkpoint.save(self.weights_of(id), tensors, about, self.work / "tmp")

    def prune_weights(self, among: Iterable[str], shown: Collection[str]) -> None:
        """Removes weights of those stored trainings among these that a report does not show.

        Files that a run with --keep-weights all has written stay, and so do files that can't be
        read.
        """
        for id in self.done().keys() & {*among} - {*shown}:
            path = self.weights_of(id)
            with suppress(OSError, SafetensorError, UnicodeError):
                with safe_open(path, framework="numpy") as file:
                    pruned = (file.metadata() or {}).get("keep") == "shown"
                if pruned:
                    path.unlink()

    def published(self, kind: str) -> Path:
        """Returns the file of published rows, or of `_samples`, in a folder that has them."""
        return self.folder.with_name(f"{self.folder.name}{kind}.parquet")

    def stored_columns(self, kind: str = "") -> tuple[Path | None, pa.Schema]:
        """Returns a file of rows, or of `_samples`, and its columns; None and none without one."""
        buckets = self.samples if kind else self.rows
        files = [self.published(kind), *buckets.files()]
        found = ((path, _schema(path)) for path in files if path.is_file())
        return next((each for each in found if len(each[1])), (None, pa.schema([])))

    def explain(self, write: bool = True) -> list[Path]:
        """Gives published files today's lines on columns; every value stays as it is.

        Returns the files that had other lines; without `write` they keep them.
        """
        found = []
        for kind, buckets in (("", self.rows), ("_samples", self.samples)):
            path = self.published(kind)
            there = {field.name: schema.about(field) for field in _schema(path)}
            if there and any(there.get(f.name) != schema.about(f) for f in buckets.columns):
                found.append(path)
            if write and path in found:
                table = from_bytes(path.read_bytes(), buckets.columns, keep=True)
                write_atomically(path, to_bytes(table.combine_chunks()), path.with_name("tmp"))
                path.with_name("tmp").rmdir()
        return found

    def progress_of(self, run: str | None) -> Path:
        """Returns the folder of heartbeats of a run, which its `process` names."""
        return self.work / "progress" / str(run)

    def prepare(self, option: str = "--results") -> dict[Path, str]:
        """Makes the folder ready for writing; returns the files that it set aside.

        Errors name the command's `option` that chooses another folder.

        Raises StoreError if the folder belongs to a newer version of the suite or can't be a
        folder, or if it holds published results. Raises Unwritable if it takes no files.
        """
        if self.published("").is_file():
            raise StoreError(
                f"{self.published('')} is published and stays as it is; choose a folder of your "
                f"own with {option}"
            )
        try:
            for folder in (self.folder, self.samples.folder, self.work):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.work / f"probe-{process()}"
            write_atomically(probe, b"probe", self.work / "tmp")
            probe.unlink()
            for folder in (self.folder, self.samples.folder):
                if not os.access(folder, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                if folder.stat().st_dev != self.work.stat().st_dev:
                    raise OSError(errno.EXDEV, f"it is on another disk than {self.work}")
            with self.rows.lock("probe"):
                self._move_older()
                # Drafts and heartbeats of ended processes go.
                for pattern in ("tmp/*", "progress/*", "probe-*"):
                    for path in filter(left_behind, self.work.glob(pattern)):
                        if path.is_dir():
                            shutil.rmtree(path, ignore_errors=True)
                        else:
                            path.unlink(missing_ok=True)
            bad = self.rows.set_aside_bad() | self.samples.set_aside_bad()
            self.rows.align()
            self.samples.align()
            # Where there are no rows, the user has removed them: the memory begins anew.
            self.memory.keep(lambda ids: ids | there if (there := self._ids()) else there)
            return bad
        except (OSError, ValueError, NotImplementedError) as error:
            # ValueError: a zero byte in the name; NotImplementedError: a file system without locks.
            wrong = isinstance(error, FileExistsError | NotADirectoryError | ValueError)
            raise (StoreError if wrong else Unwritable)(
                f"results folder {self.folder} can't be written "
                f"({getattr(error, 'strerror', None) or error}); choose another with {option}"
            ) from None

    def _move_older(self) -> None:
        """Moves what earlier versions kept in the folder of rows; a kill costs nothing."""
        older = self._older_samples()
        if older.folder.is_dir():
            older.set_aside_bad()
            for path in older.files():
                self.samples.put(older.load(path, keep=True), replace=False)
                path.unlink()
        for name in ("aside", "failed", "checkpoints"):
            for path in self.folder.glob(f"_{name}/*"):
                target = self.work / name / path.name
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    os.replace(path, target)
        for name in ("samples", "aside", "failed", "checkpoints", "locks", "progress", "tmp"):
            shutil.rmtree(self.folder / f"_{name}", ignore_errors=True)
        for path in self.folder.glob("_probe-*"):
            path.unlink(missing_ok=True)

    def _ids(self) -> set[str]:
        """Returns the ids of all rows, for which no file needs to be read whole."""
        found: set[str] = set()
        for path in self.rows.files():
            with suppress(OSError, KeyError, pa.ArrowException), path.open("rb") as file:
                found.update(pq.ParquetFile(file).read(["id"])["id"].to_pylist())
        return found

    def gone(self) -> list[str]:
        """Returns the ids of rows that were here and are not any more; none in an empty folder.

        Rows of damaged files are left out: a run sets these files aside and trains the rows again.
        """
        known = self.memory.ids()  # first, for a new row is stored before it is remembered
        if not known or not self.rows.files() or known <= self._ids():
            return []
        table, bad = self.rows.read()
        damaged = {path.stem for path in bad}
        here = set(table["id"].to_pylist())
        return sorted(id for id in known - here if id[:2] not in damaged)

    def loss(self) -> str | None:
        """Returns a line that says how many rows are gone and what to do, None if none is."""
        if not (gone := self.gone()):
            return None
        return (
            f"{len(gone)} of {len(gone) + len(self._ids())} rows of {self.folder} are gone; was "
            "another folder copied over it? `python -m bench.results merge` joins folders; "
            "--redo trains the rows again"
        )

    def forget_gone(self) -> None:
        """Forgets the rows that are gone, so that runs train them again."""
        gone = set(self.gone())
        self.memory.keep(lambda ids: ids - gone)

    def done(self, column: str = "status") -> dict[str, Any]:
        """Returns the status, or another column, of every finished training by id.

        Trainings whose rows are stale, or asked to be trained again, are not finished.
        """
        table, due = self.load()[0], self.due()
        pairs = zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
        return {id: value for id, value in pairs if id not in due}

    # Trainings that shall run again. Their rows stay until others take their place.

    def redo(self, ids: Collection[str]) -> None:
        """Asks that these trainings run again; what was asked before stays asked until all is done.

        A checkpoint that a finished training has left goes: it would give the same row again.
        """
        with self.rows.lock("redo"):
            due = self.due()
            asked = self.asked() if due else {}
            new = {id: at for id, at in self._finished().items() if id in ids}
            for id in new.keys() - due:
                for path in (self.work / "checkpoints").glob(f"{id}.*"):
                    path.unlink(missing_ok=True)
            content = json.dumps(asked | new).encode()
            write_atomically(self._asked, content, self.work / "tmp")

    def asked(self) -> dict[str, str]:
        """Returns when each row was made whose training was asked to run again, by id."""
        return _noted(self._asked)

    def due(self) -> set[str]:
        """Returns the ids of trainings that were asked to run again and have not yet."""
        if not (asked := self.asked()):
            return set()
        finished = self._finished()
        return {id for id, at in asked.items() if finished.get(id) == at}

    def _finished(self) -> dict[str, str]:
        table = self.rows.read()[0]
        at = map(str, table["finished"].to_pylist())
        return dict(zip(table["id"].to_pylist(), at, strict=True))

    def write(self, rows: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]]) -> None:
        """Keeps finished trainings. The rows come last, because a row says that it is done."""
        self.samples.write(samples)
        self.rows.write(rows)
        self.memory.add(row["id"] for row in rows)
        for row in rows:
            self.forget_failures(row["id"])

    # Failures are remembered, but are no results.

    def failures(self) -> dict[str, dict[str, Any]]:
        """Returns {"times": n, "reason": text} by id of every training that has failed.

        A torn note counts for nothing: the training runs again. Nor does a failure count that other
        plug-ins were loaded at, or one of another text.
        """
        found = {}
        for path in sorted(self.failed.glob("*.json")):
            note = _noted(path)
            times, reason = note.get("times") or note.get("deaths"), note.get("reason")
            if not (isinstance(times, int) and isinstance(reason, str)):  # "deaths": once so called
                continue
            if note.get("plugins", {}) == plugins.digests():  # others may do better
                found[path.stem] = {"times": times, "reason": reason}
        return found

    def note_failure(self, id: str, reason: str) -> int:
        """Remembers one more failure of a training; returns how many there are."""
        times = self.failures().get(id, {}).get("times", 0) + 1
        told = {"times": times, "reason": reason, "plugins": plugins.digests()}
        note = json.dumps(told).encode()
        self.failed.mkdir(parents=True, exist_ok=True)
        write_atomically(self.failed / f"{id}.json", note, self.work / "tmp")
        return times

    def forget_failures(self, id: str) -> None:
        """Forgets the failures of a training, so that runs try it again."""
        if (path := self.failed / f"{id}.json").is_file():
            path.unlink(missing_ok=True)
