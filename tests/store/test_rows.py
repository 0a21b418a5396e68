"""A result is whole or absent, there once, and nothing stored is lost."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.spec import columns
from bench.store import checkpoint, schema
from bench.store.rows import BadFile, Store, StoreError, from_bytes, to_bytes
from bench.studies import STUDIES
from bench.studies.toy_grid.spec import ToySpec
from tests.conftest import POSIX
from tests.lives import server
from tests.rows import TOY_ROWS, points, row

ROWS = TOY_ROWS
SPECS = STUDIES["toy_grid"].specs("smoke", seeds=8)  # 64


def filled(folder: Path, n: int = 64) -> Store:
    kept = STUDIES["toy_grid"].store(folder, "smoke")
    kept.prepare()
    kept.write([row(s) for s in SPECS[:n]], [points(s) for s in SPECS[:n]])
    return kept


def ids(kept: Store) -> list[str]:
    """As a user sees them, through pandas alone."""
    return sorted(pd.read_parquet(kept.folder)["id"])


def test_one_typed_row_a_training(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    frame = pd.read_parquet(kept.folder).set_index("id")
    assert sorted(frame.index) == sorted(s.id for s in SPECS)
    for spec in SPECS:
        for name, kind in columns(ToySpec).items():
            assert kind(frame.loc[spec.id, name]) == getattr(spec, name)  # type: ignore[arg-type]
    assert frame["lam"].dtype == np.float64
    assert frame["critic_width"].dtype == np.int64
    assert set(ROWS.names) == {"id", *frame.columns}


def test_writing_again_replaces_and_never_doubles(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    kept.write([row(SPECS[0], score=2.0)], [points(SPECS[0])])
    frame = pd.read_parquet(kept.folder).set_index("id")
    assert len(frame) == 64
    assert frame["inception_score"].to_dict()[SPECS[0].id] == 2.0


def test_one_id_twice_in_a_write_is_one_row(tmp_path: Path) -> None:
    kept = filled(tmp_path, n=2)
    kept.write([row(SPECS[5], score=2.0), row(SPECS[5], score=3.0)], [])
    assert kept.prepare() == {}
    assert len(ids(kept)) == 3


def test_truncated_anywhere_is_refused() -> None:
    content = to_bytes(pa.Table.from_pylist([row(SPECS[0])], schema=ROWS))
    assert from_bytes(content, ROWS)["id"].to_pylist() == [SPECS[0].id]
    for end in range(len(content)):
        with pytest.raises(BadFile):
            from_bytes(content[:end], ROWS)


def test_any_flipped_bit_is_refused() -> None:
    content = to_bytes(pa.Table.from_pylist([row(SPECS[0])], schema=ROWS))
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((BadFile, StoreError)):
            from_bytes(bytes(flipped), ROWS)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_bad_files_are_set_aside_with_a_reason_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = filled(tmp_path)
    files = sorted(kept.folder.glob("*.parquet"))
    lost = set()
    for path, content in (
        (files[0], b""),
        (files[1], files[1].read_bytes()[:-20]),
        (files[2], pickle.dumps(Evil())),
    ):
        lost |= set(pd.read_parquet(path)["id"])
        path.write_bytes(content)
    lost |= set(pd.read_parquet(files[3])["id"])
    pq.write_table(pa.table({"a": [1]}), files[3])  # foreign, but fine parquet
    pq.write_table(pa.table({"a": [1]}), kept.folder / "mine.parquet")
    (kept.folder / "zz.parquet").mkdir()
    files[4].rename(kept.folder / "a file of another name.parquet")  # its rows are whole

    bad = kept.prepare()
    assert len(bad) == 7
    aside = kept.work / "aside"
    assert len(list(aside.glob("*.reason.txt"))) == 7
    assert "is empty" in bad[files[0]]
    assert not (tmp_path / "unpickled").exists()
    assert ids(kept) == sorted({s.id for s in SPECS} - lost)
    assert kept.prepare() == {}
    again = [s for s in SPECS if s.id in lost]
    kept.write([row(s) for s in again], [points(s) for s in again])
    assert ids(kept) == sorted(s.id for s in SPECS)


def test_a_newer_schema_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        kept = filled(tmp_path)
    before = {p: p.read_bytes() for p in kept.folder.glob("*.parquet")}
    for act in (kept.prepare, kept.done, lambda: kept.write([row(SPECS[0])], [])):
        with pytest.raises(StoreError, match="update the suite"):
            act()
    assert {p: p.read_bytes() for p in kept.folder.glob("*.parquet")} == before


def test_an_older_file_without_today_s_last_column_is_read(tmp_path: Path) -> None:
    older = ROWS.remove(ROWS.get_field_index("stack_size"))
    table = pa.Table.from_pylist([row(SPECS[0])], schema=older)
    read = from_bytes(to_bytes(table), ROWS)
    assert read.schema.equals(ROWS)
    assert read["stack_size"].to_pylist() == [None]


def test_other_generations_stay_out_of_tables(tmp_path: Path) -> None:
    kept = filled(tmp_path, n=3)
    kept.write([row(SPECS[0], protocol=0)], [])
    table, _ = STUDIES["toy_grid"].load(tmp_path, "smoke")
    assert len(table) == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "toy_grid").write_text("a file in the way")
    with pytest.raises(StoreError, match="can't be written"):
        STUDIES["toy_grid"].store(tmp_path, "smoke").prepare()


def test_a_copy_that_another_program_named_gives_the_rows_that_are_missing(tmp_path: Path) -> None:
    """As Dropbox and its like do when two machines have written one file."""
    kept = filled(tmp_path, n=32)
    theirs = filled(tmp_path / "other")
    theirs.write([row(SPECS[0], score=1.0)], [])
    for path in theirs.rows.files():
        os.replace(path, kept.folder / f"{path.stem} (conflicted copy).parquet")
    kept.prepare()
    assert ids(kept) == sorted(s.id for s in SPECS)
    frame = pd.read_parquet(kept.folder).set_index("id")
    assert frame["inception_score"].to_dict()[SPECS[0].id] == 4.7  # the row that was here stays
    assert kept.gone() == []


def test_a_link_that_leads_nowhere_is_set_aside(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    loop, nowhere = kept.rows.files()[:2]
    lost = {*pd.read_parquet(loop)["id"], *pd.read_parquet(nowhere)["id"]}
    for path, target in ((loop, loop.name), (nowhere, "missing")):
        path.unlink()
        path.symlink_to(target)
    assert {*kept.load()[1]} == {loop, nowhere}
    assert {*kept.prepare()} == {loop, nowhere}
    assert ids(kept) == sorted({s.id for s in SPECS} - lost)


def test_a_file_that_the_system_does_not_give_is_named_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = filled(tmp_path)
    path, read = kept.rows.files()[0], Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return read(self)

    with monkeypatch.context() as rights:
        rights.setattr(Path, "read_bytes", refuse)
        for act in (kept.load, kept.prepare):
            with pytest.raises(StoreError, match=f"{path} can't be read"):
                act()
    assert kept.prepare() == {}
    assert ids(kept) == sorted(s.id for s in SPECS)


def test_a_run_writes_nothing_into_published_results(tmp_path: Path) -> None:
    """What it writes there nobody would read."""
    kept = filled(tmp_path)
    published = tmp_path / "published" / "toy_grid" / "smoke.parquet"
    published.parent.mkdir(parents=True)
    published.write_bytes(to_bytes(kept.load()[0].combine_chunks()))
    with pytest.raises(StoreError, match="is published"):
        STUDIES["toy_grid"].store(tmp_path / "published", "smoke").prepare()
    assert list(published.parent.iterdir()) == [published]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filled(tmp_path, n=32)

    def full(fd: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            kept.write([row(s) for s in SPECS], [])
    assert ids(kept) == sorted(s.id for s in SPECS[:32])
    assert kept.prepare() == {}


def _write_each(folder: str, specs: list[ToySpec]) -> None:
    kept = STUDIES["toy_grid"].store(Path(folder), "smoke")
    for spec in specs:
        kept.write([row(spec)], [points(spec)])


@POSIX
def test_two_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    """All rows belong into two files."""
    specs = STUDIES["toy_grid"].specs("smoke", seeds=700)
    specs = [spec for spec in specs if spec.id[:2] in ("00", "ff")]
    kept = filled(tmp_path, n=0)
    kept.write([row(specs[0])], [points(specs[0])])
    # Two share the work, a third does all of it over again.
    shares = (specs[::2], specs[1::2], specs)
    writers = [server().Process(target=_write_each, args=(str(tmp_path), s)) for s in shares]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen = ids(kept)  # at any moment, whoever writes
        assert len(seen) == len(set(seen))
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert ids(kept) == sorted(s.id for s in specs)


@POSIX
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_kill_9_inside_a_write_keeps_what_was_finished(tmp_path: Path, call: str) -> None:
    kept = filled(tmp_path, n=32)
    child = os.fork()
    if child == 0:
        real, seen = getattr(os, call), [0]

        def deadly(*args, **kw):
            seen[0] += 1
            if seen[0] == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kw)

        setattr(os, call, deadly)
        try:
            kept.write([row(s) for s in SPECS], [])
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    found = ids(kept)
    assert set(found) >= {s.id for s in SPECS[:32]}
    assert len(found) == len(set(found))
    assert kept.prepare() == {}
    kept.write([row(s) for s in SPECS], [])
    assert ids(kept) == sorted(s.id for s in SPECS)


def test_deaths_are_remembered_and_forgiven(tmp_path: Path) -> None:
    kept = filled(tmp_path, n=0)
    id = SPECS[0].id
    assert [kept.note_failure(id, "a reason") for _ in range(3)] == [1, 2, 3]
    assert kept.failures() == {id: {"times": 3, "reason": "a reason"}}
    (kept.failed / "torn.json").write_text("{")
    assert set(kept.failures()) == {id}
    assert (kept.failed / "torn.json").exists()  # who asks for the status writes nothing
    kept.write([row(SPECS[0])], [points(SPECS[0])])
    assert kept.failures() == {}
    kept.note_failure(id, "again")
    kept.forget_failures(id)
    assert kept.failures() == {}


DEEP = "[" * 100_000
NOTES = ["", "{", "[]", "null", "3", DEEP, '{"times": "3", "reason": "r"}', '{"times": 3}', "\0"]


@pytest.mark.parametrize("text", NOTES, ids=range(len(NOTES)))
def test_a_torn_note_counts_for_nothing(tmp_path: Path, text: str) -> None:
    kept = filled(tmp_path, n=2)
    kept.failed.mkdir()
    (kept.failed / f"{SPECS[0].id}.json").write_text(text)
    (kept.work / "redo.json").write_text(text)
    assert kept.failures() == {} and kept.due() == set()
    assert kept.note_failure(SPECS[0].id, "a reason") == 1
    kept.redo([SPECS[1].id])
    assert kept.due() == {SPECS[1].id}


def test_what_lies_in_the_place_of_a_file_is_no_file(tmp_path: Path) -> None:
    """A folder, or a link that leads to itself."""
    kept = filled(tmp_path, n=2)
    (kept.work / "rows" / "folder.txt").mkdir()
    (kept.work / "rows" / "loop.txt").symlink_to("loop.txt")
    (kept.failed / f"{SPECS[0].id}.json").mkdir(parents=True)
    (tmp_path / "checkpoint").mkdir()
    assert kept.memory.ids() == {spec.id for spec in SPECS[:2]}
    kept.write([row(SPECS[0])], [points(SPECS[0])])
    assert kept.prepare() == {} and kept.failures() == {}
    assert checkpoint.load(tmp_path / "checkpoint") is None


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    """As of a disk that another system has written."""
    folder = tmp_path / "r\udce9sultats"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    kept = filled(folder)
    tensors = {"w": torch.arange(3.0), "none": torch.zeros(0)}
    kept.keep_weights(SPECS[0].id, tensors, {"keep": "shown"})
    assert kept.prepare() == {} and kept.gone() == [] and len(kept.load()[0]) == 64
    found, about = checkpoint.read(kept.weights_of(SPECS[0].id))
    assert found["w"].equal(tensors["w"]) and found["none"].shape == (0,)
    assert about == {"keep": "shown"}
    kept.prune_weights([SPECS[0].id], [])
