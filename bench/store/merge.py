"""Merges results: a row of another folder is new, is there already, or is in conflict.

Rows of one id are one training. Rows of one id are in conflict if method, metrics, data or kind of
device differ. The first row is kept, unless it alone is stale. A difference in numbers is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bench.store.atomic import write_atomically
from bench.store.rows import (
    BadFile,
    Buckets,
    Store,
    StoreError,
    from_bytes,
    is_id,
    to_bytes,
    unreadable,
    without,
)
from bench.store.schema import PROVENANCE, TIMES
from bench.store.source import Today

Row = dict[str, Any]

ORIGIN = ("data_sha256", "classifier_sha256", "device")
"""Columns in which rows of one id must agree, where both rows have them."""


class Conflict(NamedTuple):
    """Two rows of one id that are not results of the same training."""

    id: str
    row: pa.Table  # the row that is not kept
    why: str  # names what differs
    replaced: bool  # whether it is the first table's


@dataclass
class Counts:
    """Ids of the other table's rows, by what became of them; `differing` rows are `there` too."""

    taken: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


class Merged(NamedTuple):
    """What `merged` returns."""

    table: pa.Table
    counts: Counts
    conflicts: list[Conflict]


def merged(first: pa.Table, other: pa.Table, today: Today | None = None) -> Merged:
    """Returns the rows of both tables, one for each id, with counts and conflicts.

    The first table's rows come first, in their order. Its columns do, too; a row has null in
    columns of the other table alone. Of two rows in conflict the first is kept, unless `today`
    says that it alone is stale.
    """
    there = {id: at for at, id in enumerate(first["id"].to_pylist())}
    ids = other["id"].to_pylist()
    common = [at for at, id in enumerate(ids) if id in there]
    olds = first.take(pa.array([there[ids[at]] for at in common], pa.int64())).to_pylist()
    news = other.take(pa.array(common, pa.int64())).to_pylist()
    counts, conflicts, left_out = Counts(), [], set()
    for at, old, new in zip(common, olds, news, strict=True):
        id, why = old["id"], _conflict(old, new, today)
        stale = today.stale(old) if today and not today.stale(new) else ""
        why = why or (stale and f"{stale} and today's")
        replaced = bool(stale) or (not why and _lacks(old, new))
        if why:
            row = first.slice(there[id], 1) if replaced else other.slice(at, 1)
            conflicts.append(Conflict(id, row, why, replaced))
        elif not replaced:
            counts.there.append(id)
        if not why and _differ(old, new):
            counts.differing.append(id)
        if not replaced:
            left_out.add(id)
    counts.taken = [id for id in ids if id not in left_out]
    both = [without(first, counts.taken), without(other, left_out)]
    try:
        both = pa.concat_tables(both, promote_options="permissive")
    except pa.ArrowException as error:
        raise StoreError(f"columns of one name have different types: {error}") from None
    return Merged(both, counts, conflicts)


def _conflict(old: Row, new: Row, today: Today | None) -> str:
    """Names what keeps two rows from being the same training, with both values; "" if nothing."""
    pairs = {name: (old.get(name), new.get(name)) for name in ORIGIN}
    found = [(name, a, b) for name, (a, b) in pairs.items() if None not in (a, b)]
    if today is None or today.stale(old) or today.stale(new):
        a, b = (today.of(row) if today else row for row in (old, new))
        found.append(("method_digest", a.get("method_digest"), b.get("method_digest")))
        ours, theirs = (dict(row.get("metric_digests") or ()) for row in (a, b))
        for name in sorted(ours.keys() & theirs.keys()):
            found.append((f"digest of {name}", ours[name], theirs[name]))
    return ", ".join(f"{n} {a!s:.12} and {b!s:.12}" for n, a, b in found if a != b)


def _lacks(old: Row, new: Row) -> bool:
    """Says whether the new row has all that the old row has, and values that the old row lacks."""
    names = (old.keys() | new.keys()) - set(PROVENANCE)
    more = [name for name in names if old.get(name) is None and new.get(name) is not None]
    less = [name for name in names if old.get(name) is not None and new.get(name) is None]
    return bool(more) and not less and not _differ(old, new)


def _differ(old: Row, new: Row) -> bool:
    """Says whether a number that both rows have differs; where a row is from does not count."""
    aside = {*PROVENANCE, *TIMES, *ORIGIN, "anchors"}
    old, new = ({**row, **dict(row.get("anchors") or ())} for row in (old, new))
    return any(
        repr(old[name]) != repr(new[name])  # NaN is like NaN
        for name in old.keys() & new.keys() - aside
        if old[name] is not None and new[name] is not None
    )


# Folders


@dataclass
class Told:
    """What became of a source's rows, and lines to print about conflicts and bad files."""

    counts: Counts = field(default_factory=Counts)
    conflicts: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


class Source:
    """Reads rows, samples and weights of a folder of results, own or published; writes nothing."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.bad: dict[Path, str] = {}
        older = Buckets(store.folder / "_samples", store.samples.columns, store.work)
        self._samples = [store.samples, older]
        self._published_samples: pa.Table | None = None
        self.files = store.rows.files()
        if (published := store.published("")).is_file():
            self.files = [published]

    def rows(self) -> Iterator[pa.Table]:
        """Yields the rows of each bucket; notes the files that can't be trusted."""
        if self.files == [self.store.published("")]:
            tables = _by_bucket(self._published("", self.store.rows.columns))
        else:
            tables = (self._load(self.store.rows, path) for path in self.files)
        for table in tables:
            if table is None or not len(table):
                continue
            ids = table["id"].to_pylist()
            if all(is_id(id) for id in ids) and len(set(ids)) == len(ids):
                yield table
            else:
                self.bad[self.store.folder] = f"holds rows like {ids[0]!r} twice, or with no id"

    def samples(self, bucket: str) -> Iterator[pa.Table]:
        """Yields samples of the rows whose ids begin with `bucket`."""
        columns = self._samples[0].columns
        if self.store.published("_samples").is_file():
            table = self._published_samples
            if table is None:
                table = self._published_samples = self._published("_samples", columns)
            yield _of(table, [id for id in table["id"].to_pylist() if id.startswith(bucket)])
        for kept in self._samples:
            table = self._load(kept, kept.folder / f"{bucket}.parquet")
            if table is not None:
                yield table

    def _published(self, kind: str, columns: pa.Schema) -> pa.Table:
        path = self.store.published(kind)
        try:
            return from_bytes(path.read_bytes(), columns, keep=True)
        except BadFile as error:
            self.bad[path] = str(error)
            return columns.empty_table()
        except OSError as error:
            raise unreadable(path, error) from None

    def _load(self, buckets: Buckets, path: Path) -> pa.Table | None:
        try:
            return buckets.load(path, keep=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(path, error) from None
        except BadFile as error:
            self.bad[path] = str(error)
            return None


def _by_bucket(table: pa.Table) -> Iterator[pa.Table]:
    buckets: dict[str, list[str]] = {}
    for id in table["id"].to_pylist():
        buckets.setdefault(id[:2], []).append(id)
    for _, ids in sorted(buckets.items()):
        yield _of(table, ids)


def merge(source: Store, into: Store) -> Told:
    """Takes the rows of `source` into `into`, with samples and weights.

    Rows in conflict are kept in `aside/`. A kill at any moment and a second call give the same
    folder, for each bucket changes in one step that comes last. Raises StoreError for results of a
    newer schema.
    """
    told, other = Told(), Source(source)
    into.rows.align(other.files)
    for table in other.rows():
        _merge_bucket(other, table, into, told)
    told.bad = [f"{path} {reason}" for path, reason in other.bad.items()]
    return told


def _merge_bucket(other: Source, table: pa.Table, into: Store, told: Told) -> None:
    bucket = table["id"][0].as_py()[:2]
    with into.rows.changing(bucket) as (old, write):
        found = merged(old, table, into.today)
        taken, there = found.counts.taken, found.counts.there
        same = set(there) - set(found.counts.differing)
        told.conflicts += [_keep_aside(into, other.store, each) for each in found.conflicts]
        for samples in other.samples(bucket):
            into.samples.put(_of(samples, taken))
            into.samples.put(_of(samples, same), replace=False)
        for id in taken:
            _take_weights(other.store.weights_of(id), into.weights_of(id))
        if taken:
            write(found.table)
    for name in ("taken", "there", "differing"):
        getattr(told.counts, name).extend(getattr(found.counts, name))
    if taken:
        into.memory.add(taken)
        for id in taken:
            into.forget_failures(id)


def _of(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.field("id").isin(pa.array(sorted(ids), pa.string())))


def _take_weights(path: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content, target.parent.parent / "tmp")


def _keep_aside(into: Store, source: Store, conflict: Conflict) -> str:
    """Keeps a row whole in `aside/`, named by its content; returns a line that names it."""
    row = {name: value for name, value in conflict.row.to_pylist()[0].items() if value is not None}
    digest = hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]
    target = into.work / "aside" / f"{conflict.id}.{digest}.parquet"
    what = ", ".join(f"{key} {row[key]}" for key in ("label", "lam", "seed") if key in row)
    whose = into.folder if conflict.replaced else source.published("")
    if source.folder.is_dir() and not conflict.replaced:
        whose = source.folder
    line = f"{conflict.id} ({what}) of {whose}: {conflict.why} differ"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        reason = target.with_name(f"{target.name}.reason.txt")
        write_atomically(reason, f"{line}\n".encode(), into.work / "tmp")
        write_atomically(target, to_bytes(conflict.row.combine_chunks()), into.work / "tmp")
    if conflict.replaced:
        # Its samples and weights go aside before others take their place, and once only: after a
        # kill the others may be there already.
        samples = _of(into.samples.read()[0], [conflict.id])
        for name, content in (
            (".samples.parquet", to_bytes(samples.combine_chunks())),
            (".safetensors", _bytes(into.weights_of(conflict.id))),
        ):
            kept = target.with_suffix(name)
            if content and not kept.exists():
                write_atomically(kept, content, into.work / "tmp")
    return f"{line}; kept in {target}"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
