"""Folders of results are joined whole, and a folder copied over another is noticed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bench import report, results, run
from bench.store import merge as merging
from bench.store import rows as store_rows
from bench.store.merge import merged
from bench.store.rows import Store, to_bytes
from bench.store.schema import TYPES
from bench.studies import STUDIES
from tests.conftest import POSIX, ROOT
from tests.lives import server
from tests.rows import SMOKE, TOY_ROWS, TOY_SAMPLES, points, row

SPECS = STUDIES["toy_grid"].specs("smoke", seeds=8)  # 64


def kept_in(folder: Path) -> Store:
    return STUDIES["toy_grid"].store(folder, "smoke")


def filled(folder: Path, specs: Any, **more: Any) -> Store:
    kept = kept_in(folder)
    kept.prepare()
    kept.write([row(s, **more) for s in specs], [points(s) for s in specs])
    return kept


def content(folder: Path) -> dict[str, bytes]:
    """Every file below the folder but locks and the memory, whose name is new each time."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: text for name, text in found.items() if "/locks/" not in name}


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    frame = pd.read_parquet(folder / "toy_grid" / "smoke")
    return {each["id"]: dict(each) for _, each in frame.iterrows()}


def merge(*folders: Path, into: Path) -> int:
    return results.main(["merge", *map(str, folders), "--into", str(into)])


# Readers


def by_duckdb(files: str) -> duckdb.DuckDBPyRelation:
    relation = duckdb.sql(f"from read_parquet('{files}')")
    assert relation is not None
    return relation


def shapes(folder: Path) -> set[tuple[int, int]]:
    """Rows and columns, by every reader and way to name the folder."""
    found = {pd.read_parquet(folder).shape}
    found |= {pl.read_parquet(f"{folder}{end}").shape for end in ("", "/")}
    for end in ("", "/*.parquet", "/**/*.parquet"):
        found.add(by_duckdb(f"{folder}{end}").shape)
    return found


def test_every_reader_sees_the_same_rows_and_columns(tmp_path: Path) -> None:
    """Of buckets that a version with another column has written, too."""
    kept = filled(tmp_path, SPECS[:32])
    with_one_more = TOY_ROWS.append(pa.field("mine", pa.float64()))
    newer = Store(tmp_path, "toy_grid", "smoke", with_one_more, TOY_SAMPLES)
    newer.prepare()
    newer.write([row(s, mine=1.0) for s in SPECS[32:48]], [points(s) for s in SPECS[32:48]])
    assert shapes(kept.folder) == {(48, len(with_one_more))}
    kept.write([row(s) for s in SPECS[48:]], [])  # by a version without the column
    assert shapes(kept.folder) == {(64, len(with_one_more))}
    frame = pd.read_parquet(kept.folder).set_index("id")
    assert frame["mine"].sum() == 16
    by_polars = pl.read_parquet(kept.folder)
    lists = by_duckdb(str(kept.folder)).fetchall()
    epochs = {list(each) == [0, 10] for each in by_polars["trace_epoch"]}
    epochs |= {each[TOY_ROWS.names.index("trace_epoch")] == [0, 10] for each in lists}
    assert epochs == {True}
    gradients = lists[0][TOY_ROWS.names.index("decoder_gradient")]
    assert set(gradients) == {"svae_r", "alice"}
    assert set(by_polars["decoder_gradient"][0]) == {"svae_r", "alice"}


def test_only_row_files_are_in_the_folder_at_any_moment(tmp_path: Path) -> None:
    kept, over, names = kept_in(tmp_path), threading.Event(), set[str]()

    def look() -> None:
        while not over.is_set():
            names.update(p.name for p in kept.folder.glob("*"))
            if any(kept.folder.glob("*.parquet")):
                pl.read_parquet(kept.folder)  # or the thread ends with an error

    watch = threading.Thread(target=look)
    watch.start()
    try:
        assert run.main([*SMOKE, "--engine", "sequential", "--results", str(tmp_path)]) == 0
    finally:
        over.set()
        watch.join()
    assert names == {p.name for p in kept.folder.iterdir()} and len(names) > 4
    assert all(len(name) == 10 and name.endswith(".parquet") for name in names)
    assert shapes(kept.folder) == {(8, len(TOY_ROWS))}


# Folders of earlier versions


def as_earlier(kept: Store) -> dict[str, bytes]:
    """Arranges a folder as earlier versions did; returns what must not be lost, by name."""
    files = {"_failed/aa.json": b"{}", "_aside/x": b"x", "_checkpoints/a.train.safetensors": b"t"}
    shutil.rmtree(kept.work)
    os.replace(kept.samples.folder, kept.folder / "_samples")
    for name, text in {**files, "_tmp/d": b"", "_locks/l": b"", "_progress/p/j": b""}.items():
        (kept.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (kept.folder / name).write_bytes(text)
    return files


def test_a_folder_of_an_earlier_version_is_read_and_then_moved(tmp_path: Path) -> None:
    kept = filled(tmp_path, SPECS[:32])
    files = as_earlier(kept)
    assert len(kept.load()[0]) == len(kept.load_samples()) == 32
    # A kill amid the move has left samples in both places.
    moved = kept.folder / "_samples" / f"{SPECS[0].id[:2]}.parquet"
    kept.samples.put(kept.samples.load(moved) if moved.exists() else TOY_SAMPLES.empty_table())
    assert len(kept.load_samples()) == 32
    assert kept.prepare() == {}
    assert {p.suffix for p in kept.folder.iterdir()} == {".parquet"}
    assert len(kept.load_samples()) == 32
    for name, text in files.items():
        assert (kept.work / name.removeprefix("_")).read_bytes() == text


def _prepare(folder: str) -> None:
    kept_in(Path(folder)).prepare()


@POSIX
def test_several_runners_move_an_earlier_folder_at_once(tmp_path: Path) -> None:
    kept = filled(tmp_path, SPECS)
    as_earlier(kept)
    runners = [server().Process(target=_prepare, args=(str(tmp_path),)) for _ in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [runner.exitcode for runner in runners] == [0, 0, 0]
    assert len(kept.load_samples()) == len(kept.samples.read()[0]) == 64


# The memory of a folder


def refused(folder: Path, capsys: pytest.CaptureFixture[str], gone: int) -> None:
    capsys.readouterr()
    asked = [*SMOKE, "--engine", "sequential", "--results", str(folder)]
    assert run.main(asked) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "bench.results merge" in err and "--redo" in err
    assert f": {gone} of " in err
    assert run.main([*asked, "--status"]) == 0
    assert f": {gone} of " in capsys.readouterr().err


@pytest.mark.parametrize("what", ["toy_grid/smoke", "toy_grid", "."])
@pytest.mark.parametrize("began_as_a_copy", [False, True])
def test_a_folder_copied_over_another_is_noticed(
    what: str, began_as_a_copy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a copy that has more rows, and a tree that was a copy of the other."""
    one, other = tmp_path / "one", tmp_path / "other"
    mine = filled(one, SPECS[:16])
    if began_as_a_copy:
        shutil.copytree(one, other)
    mine.write([row(s) for s in SPECS[16:24]], [points(s) for s in SPECS[16:24]])
    filled(other, SPECS[24:])
    had = set(mine.done())
    shutil.copytree(other / what, one / what, dirs_exist_ok=True)
    gone = had - set(mine.done())
    assert gone  # some buckets were replaced
    assert set(mine.gone()) == gone
    refused(one, capsys, len(gone))
    mine.forget_gone()
    assert mine.gone() == [] and kept_in(other).gone() == []


def test_the_first_page_names_the_command_that_joins_folders() -> None:
    assert "python -m bench.results merge" in (ROOT / "README.md").read_text("utf-8")


@POSIX
def test_a_study_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who removes the folder after a merge would lose its rows."""
    filled(tmp_path / "one", SPECS[:4])
    shutil.copytree(tmp_path / "one" / "toy_grid", tmp_path / "one" / "coins")
    listed = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        if path.name == "toy_grid":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert merge(tmp_path / "one", into=tmp_path / "both") == 1
    assert f"{tmp_path / 'one' / 'toy_grid'}: Permission denied" in capsys.readouterr().err


def test_a_backup_copied_over_the_folder_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup of a run under way, whose memory has had the same name."""
    kept = filled(tmp_path / "one", SPECS[:32])
    shutil.copytree(tmp_path / "one", tmp_path / "backup")
    kept.write([row(s) for s in SPECS[32:]], [])
    had = set(kept.done())
    shutil.copytree(tmp_path / "backup", tmp_path / "one", dirs_exist_ok=True)
    assert set(kept.gone()) == had - set(kept.done()) != set()
    monkeypatch.setattr(report, "write", lambda *_: None)
    assert report.main(["--results", str(tmp_path / "one")]) == 0
    assert f"{len(kept.gone())} of 64 rows of {kept.folder} are gone" in capsys.readouterr().err


def test_rows_removed_on_purpose_are_forgotten(tmp_path: Path) -> None:
    kept = filled(tmp_path, SPECS[:8])
    shutil.rmtree(kept.folder)
    assert kept.gone() == []
    kept.prepare()
    kept.write([row(SPECS[9])], [])
    assert kept.gone() == []
    assert kept.memory.ids() == {SPECS[9].id}


def test_damaged_rows_are_not_gone(tmp_path: Path) -> None:
    kept = filled(tmp_path, SPECS)
    damaged = sorted(kept.folder.iterdir())
    damaged[0].write_bytes(b"")
    assert kept.gone() == []
    assert len(kept.prepare()) == 1
    assert kept.gone() == []
    damaged[1].write_bytes(b"")
    at_fault = next(s for s in SPECS if s.id[:2] == damaged[1].stem)
    kept.write([row(at_fault)], [])  # sets the file aside as well
    assert kept.gone() == []
    damaged[2].unlink()
    assert {id[:2] for id in kept.gone()} == {damaged[2].stem}


def test_a_torn_line_of_the_memory_costs_nothing_else(tmp_path: Path) -> None:
    kept = filled(tmp_path, SPECS[:4])
    (path,) = (kept.work / "rows").iterdir()
    path.write_bytes(path.read_bytes() + b"\n0123")
    kept.write([row(SPECS[5])], [])
    assert kept.memory.ids() == {s.id for s in (*SPECS[:4], SPECS[5])}


# The rule


def table(*found: dict[str, Any], columns: pa.Schema = TOY_ROWS) -> pa.Table:
    return pa.Table.from_pylist(list(found), schema=columns)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, False),
        ({"train_seconds": 2.0, "commit": "1" * 40, "stack_size": 9, "threads": 3}, False),
        ({"inception_score": 4.6}, True),
        ({"trace_epoch": [0, 11]}, True),
        ({"decoder_gradient": {"svae_r": [0.2, 1.5], "alice": [0.1, 0.5]}}, True),
    ],
)
def test_the_first_is_kept_and_other_numbers_are_counted(
    change: dict[str, Any], differs: bool
) -> None:
    first, other = row(SPECS[0]), {**row(SPECS[0]), **change}
    found = merged(table(first), table(other, row(SPECS[1])))
    assert found.table.to_pylist() == table(first, row(SPECS[1])).to_pylist()
    assert found.counts.taken == [SPECS[1].id] and found.counts.there == [SPECS[0].id]
    assert found.counts.differing == [SPECS[0].id] * differs
    assert not found.conflicts


ORIGINS = TOY_ROWS
for name in ("data_sha256", "classifier_sha256"):  # as rows of images have
    ORIGINS = ORIGINS.append(pa.field(name, pa.string()))


@pytest.mark.parametrize(
    ("mine", "theirs", "conflict"),
    [
        ({"device": "cpu"}, {"device": "cuda"}, "device"),
        ({"method_digest": "a"}, {"method_digest": "b"}, "method_digest"),
        ({"method_digest": None}, {"method_digest": "b"}, "method_digest"),
        ({"method_digest": None}, {"method_digest": None}, ""),
        ({"data_sha256": "a"}, {"data_sha256": "b"}, "data_sha256"),
        ({"classifier_sha256": "a"}, {"classifier_sha256": "b"}, "classifier_sha256"),
        ({"metric_digests": {"m": "a"}}, {"metric_digests": {"m": "b"}}, "digest of m"),
        ({"metric_digests": {"m": "a", "n": "c"}}, {"metric_digests": {"m": "a"}}, ""),
    ],
)
def test_rows_of_other_code_data_or_device_are_in_conflict(
    mine: dict[str, Any], theirs: dict[str, Any], conflict: str
) -> None:
    first, other = (table(row(SPECS[0], **each), columns=ORIGINS) for each in (mine, theirs))
    found = merged(first, other)
    assert found.table.equals(first)
    assert len(found.conflicts) == (conflict != "")
    if conflict:
        assert found.conflicts[0].why.startswith(f"{conflict} ")
        assert found.conflicts[0].row.equals(other)


def test_a_stale_row_makes_room_for_today_s() -> None:
    today = STUDIES["toy_grid"].today()
    stale, fresh = table(row(SPECS[0], method_digest="a")), table(row(SPECS[0]))
    found = merged(stale, fresh, today)
    assert found.table.equals(fresh) and found.counts.taken == [SPECS[0].id]
    assert found.conflicts[0].row.equals(stale) and found.conflicts[0].replaced
    found = merged(fresh, stale, today)
    assert found.table.equals(fresh) and not found.counts.taken
    assert found.conflicts[0].row.equals(stale) and not found.conflicts[0].replaced


def test_a_row_with_more_metrics_is_kept_and_none_is_lost() -> None:
    less, more = row(SPECS[0]), row(SPECS[0])
    less["modes"], less["metric_digests"] = None, {"mse_x": more["metric_digests"]["mse_x"]}
    today = STUDIES["toy_grid"].today()
    found = merged(table(less), table(more), today)
    assert found.table.equals(table(more)) and found.counts.taken == [SPECS[0].id]
    assert not found.conflicts
    found = merged(table(more), table(less), today)
    assert found.table.equals(table(more)) and found.counts.there == [SPECS[0].id]
    other = {**more, "mse_x": 7.0}  # other numbers: the first stays, and is counted
    assert merged(table(less), table(other), today).counts.differing == [SPECS[0].id]


def test_a_row_with_more_anchors_has_the_same_numbers() -> None:
    columns = TOY_ROWS.append(pa.field("anchors", TYPES["numbers by name"]))
    few, many = {"noise: mse_x": 0.5}, {"noise: mse_x": 0.5, "noise: fid": float("nan")}
    less, more = row(SPECS[0], anchors=few, modes=None), row(SPECS[0], anchors=many)
    less["metric_digests"] = {}
    found = merged(table(less, columns=columns), table(more, columns=columns))
    assert found.counts.taken == [SPECS[0].id] and not found.counts.differing
    (kept,) = found.table.to_pylist()
    assert kept["modes"] == more["modes"] and dict(kept["anchors"]).keys() == many.keys()
    other = row(SPECS[0], anchors={"noise: mse_x": 0.6})
    assert merged(table(other, columns=columns), table(more, columns=columns)).counts.differing


def test_what_a_replaced_row_had_is_kept_aside_after_a_kill_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples and weights, and not those of the row that takes its place."""
    one = SPECS[0]
    stale = filled(tmp_path / "stale", [one], method_digest="0" * 12)
    fresh = filled(tmp_path / "fresh", [one])
    fresh.samples.write([points(one) | {"samples": [7.0] * 8}])
    for store, content in ((stale, b"old"), (fresh, b"new")):
        store.weights_of(one.id).parent.mkdir(parents=True)
        store.weights_of(one.id).write_bytes(content)
    with monkeypatch.context() as killed:
        killed.setattr(merging, "_take_weights", _take_and_die)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "fresh", into=tmp_path / "stale")
    for _ in range(2):
        merge(tmp_path / "fresh", into=tmp_path / "stale")
        (weights,) = (stale.work / "aside").glob("*.safetensors")
        (samples,) = (stale.work / "aside").glob("*.samples.parquet")
        assert weights.read_bytes() == b"old"
        assert pd.read_parquet(samples)["samples"][0].tolist() == [1.0] * 8
        assert stale.weights_of(one.id).read_bytes() == b"new"
        assert stale.load()[0].num_rows == 1


def _take_and_die(path: Path, target: Path) -> None:
    target.write_bytes(path.read_bytes())
    raise KeyboardInterrupt


# The command


def test_two_machines_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, both = (tmp_path / name for name in ("one", "other", "both"))
    filled(one, SPECS[:40])
    filled(other, SPECS[30:35])
    kept = filled(other, SPECS[35:], score=4.5)
    weights = kept.weights_of(SPECS[50].id)
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    kept.note_failure(SPECS[60].id, "a reason")
    before = [content(folder) for folder in (one, other)]
    assert merge(one, other, into=both) == 0
    said = capsys.readouterr().out
    assert f"{one}: 40 rows taken, 0 already there, 0 differ in numbers, 0 conflicts" in said
    assert f"{other}: 24 rows taken, 10 already there, 5 differ in numbers, 0 conflicts" in said
    found, joined = rows_of(both), kept_in(both)
    assert set(found) == {s.id for s in SPECS} == joined.memory.ids()
    assert found[SPECS[36].id]["inception_score"] == 4.7
    assert found[SPECS[50].id]["inception_score"] == 4.5
    assert set(joined.load_samples()["id"].to_pylist()) == set(found)
    assert joined.weights_of(SPECS[50].id).read_bytes() == b"weights"
    assert joined.failures() == {} and shapes(joined.folder) == {(64, len(TOY_ROWS))}
    assert [content(folder) for folder in (one, other)] == before  # sources are only read
    mine = {p: p.read_bytes() for p in both.rglob("*.parquet")}
    assert merge(one, other, into=both) == 0
    assert {p: p.read_bytes() for p in both.rglob("*.parquet")} == mine
    assert merge(one, other, into=one) == 0  # into one of them
    assert len(rows_of(one)) == 64


def test_conflicts_are_named_and_kept_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, both = (tmp_path / name for name in ("one", "other", "both"))
    filled(one, SPECS[:8])
    filled(other, SPECS[6:16], device="cuda")
    for _ in range(2):  # repeating changes nothing
        assert merge(one, other, into=both) == 1
        said = capsys.readouterr().out
        assert "8 rows taken, 0 already there, 0 differ in numbers, 2 conflicts" in said or (
            "0 rows taken, 8 already there, 0 differ in numbers, 2 conflicts" in said
        )
        assert f"{SPECS[6].id} (label" in said and "device cpu and cuda differ" in said
        aside = sorted(kept_in(both).work.glob("aside/*"))
        assert len(aside) == 4
    assert rows_of(both)[SPECS[6].id]["device"] == "cpu"
    lost = [store_rows.from_bytes(p.read_bytes(), TOY_ROWS) for p in aside if p.suffix != ".txt"]
    assert pa.concat_tables(lost)["id"].to_pylist() == sorted(s.id for s in SPECS[6:8])
    assert set(pa.concat_tables(lost)["device"].to_pylist()) == {"cuda"}


def test_published_older_and_unknown_results_are_joined(tmp_path: Path) -> None:
    older, published, both = (tmp_path / name for name in ("older", "published", "both"))
    as_earlier(filled(older, SPECS[:8]))
    (published / "toy_grid").mkdir(parents=True)
    mine = TOY_ROWS.append(pa.field("mine", pa.float64()))
    content = to_bytes(table(*(row(s, mine=1.0) for s in SPECS[8:16]), columns=mine))
    (published / "toy_grid" / "smoke.parquet").write_bytes(content)
    samples = table(*map(points, SPECS[8:10]), columns=TOY_SAMPLES)
    (published / "toy_grid" / "smoke_samples.parquet").write_bytes(to_bytes(samples))
    shutil.copytree(older / "toy_grid", older / "coins")  # a study that nobody declares here
    before = globals()["content"](older)
    assert merge(older, published, into=both) == 0
    assert globals()["content"](older) == before
    found = rows_of(both)
    assert set(found) == {s.id for s in SPECS[:16]}
    assert sum(each["mine"] == 1.0 for each in found.values()) == 8  # an undeclared column
    assert len(kept_in(both).load_samples()) == 10
    assert len(pd.read_parquet(both / "coins" / "smoke")) == 8
    assert len({p.name for p in (both / "coins" / "smoke_samples").iterdir()}) > 0
    assert shapes(both / "toy_grid" / "smoke") == {(16, len(mine))}


def test_damaged_files_of_a_source_are_named_and_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = filled(tmp_path / "one", SPECS)
    damaged = min(kept.folder.iterdir())
    left = {s.id for s in SPECS if s.id[:2] != damaged.stem}
    damaged.write_bytes(b"")
    assert merge(tmp_path / "one", into=tmp_path / "both") == 1
    assert f"skipped: {damaged} is empty" in capsys.readouterr().err
    assert damaged.read_bytes() == b"" and set(rows_of(tmp_path / "both")) == left


def test_what_cannot_be_merged_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path / "one", SPECS[:2])
    (tmp_path / "two" / "toy_grid").mkdir(parents=True)
    assert merge(tmp_path / "nowhere", into=tmp_path / "both") == 2
    (tmp_path / "two" / "toy_grid" / "smoke.parquet").write_bytes(b"")
    assert merge(tmp_path / "one", into=tmp_path / "two") == 2
    (tmp_path / "file").write_text("")
    assert merge(tmp_path / "one", into=tmp_path / "file") in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 3


def _merge(one: str, other: str, both: str) -> None:
    assert merge(Path(one), Path(other), into=Path(both)) == 1


def _write(folder: str) -> None:
    kept = kept_in(Path(folder))
    kept.prepare()
    for spec in SPECS[50:]:
        kept.write([row(spec)], [points(spec)])


@POSIX
def test_two_merges_and_a_run_in_one_folder_at_once(tmp_path: Path) -> None:
    one, other, both = (str(tmp_path / name) for name in ("one", "other", "both"))
    filled(Path(one), SPECS[:40])
    filled(Path(other), SPECS[38:50], device="cuda")
    calls = [(_merge, (one, other, both)), (_merge, (one, other, both)), (_write, (both,))]
    lives = [server().Process(target=call, args=args) for call, args in calls]
    for life in lives:
        life.start()
    for life in lives:
        life.join()
    assert [life.exitcode for life in lives] == [0, 0, 0]
    found, kept = rows_of(tmp_path / "both"), kept_in(tmp_path / "both")
    assert set(found) == {s.id for s in SPECS} == kept.memory.ids()
    assert found[SPECS[38].id]["device"] in ("cpu", "cuda")  # whoever came first
    assert len(list(kept.work.glob("aside/*.parquet"))) in (2, 4)
    assert kept.prepare() == {} and kept.gone() == []


def killed_at(hit: int, call: Callable[[], Any]) -> bool:
    """Whether the call came so far that it was killed, at a step of writing a file."""
    child = os.fork()
    if child == 0:
        left = [hit]
        try:

            def deadly(real: Callable[..., Any], *args: Any, **kw: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kw)

            for name in ("fsync", "replace", "unlink"):
                setattr(os, name, partial(deadly, getattr(os, name)))
            call()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@POSIX
def test_a_merge_killed_at_any_step_comes_out_the_same(tmp_path: Path) -> None:
    specs = [s for s in STUDIES["toy_grid"].specs("smoke", seeds=100) if s.id[:2] in ("00", "7a")]
    one, other, peace = (tmp_path / name for name in ("one", "other", "peace"))
    filled(one, specs[:4])
    filled(other, specs[3:], device="cuda")
    weights = kept_in(other).weights_of(specs[-1].id)
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    assert merge(one, other, into=peace) == 1

    def all_of(folder: Path) -> dict[str, bytes]:
        left = {n: t for n, t in content(folder).items() if "/tmp/" not in n and "/rows/" not in n}
        return {n: t for n, t in left.items() if not n.endswith(".txt") and "probe" not in n}

    expected, hit = all_of(peace), 0
    assert len(expected) > 4
    while True:
        hit += 1
        both = tmp_path / f"both-{hit}"
        killed = killed_at(hit, lambda both=both: merge(one, other, into=both))
        found = rows_of(both) if any(both.glob("toy_grid/smoke/*")) else {}
        assert all(each["device"] == "cpu" for id, each in found.items() if id == specs[3].id)
        assert merge(one, other, into=both) == 1
        assert all_of(both) == expected, hit
        assert kept_in(both).gone() == [] and kept_in(both).memory.ids() == set(rows_of(both))
        if not killed:
            break
    assert hit > 20
