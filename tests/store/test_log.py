"""The log of a training: whole lines, fixed columns, no record twice, and no harm."""

from __future__ import annotations

import csv
import json
import math
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store import log as logs
from bench.store.log import FIRST, Log
from tests.conftest import POSIX

ABOUT = {"id": "0123456789abcdef", "label": "sVAE-r", "lam": 0.1}


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_told", set())


def begun(work: Path, done: int = 0, columns: tuple[str, ...] = ("score",)) -> Log:
    return Log(work, ABOUT, columns, steps=8, epoch=4, done=done)


def written(log: Log) -> list[dict[str, str]]:
    text = (log.folder / "log.csv").read_text()
    assert text.endswith("\n")
    return list(csv.DictReader(text.splitlines(), strict=True))


def pictures(log: Log) -> list[str]:
    return sorted(path.name for path in log.folder.glob("*.png"))


def some(log: Log, steps: Iterator[int] | range) -> None:
    for step in steps:
        log.record(step, step / 2, (0.1 + 0.2, -step), {"score": step}, b"png" * (step % 2))


def test_a_record_is_a_line_of_fixed_columns(tmp_path: Path) -> None:
    log = begun(tmp_path)
    assert written(log) == []
    log.record(2, 0.5, (0.1 + 0.2, math.nan), {}, b"")
    log.record(8, 1.5, (None, math.inf), {"score": 3}, b"picture")
    first, last = written(log)
    assert list(first) == [*FIRST, "score"]
    assert list(first.values()) == ["0.5", "0.25", "0.5", "0.30000000000000004", "nan", ""]
    assert list(last.values()) == ["2.0", "1.0", "1.5", "", "inf", "3"]
    assert pictures(log) == ["samples-000008.png"]
    assert (log.folder / "samples-000008.png").read_bytes() == b"picture"
    assert log.folder == tmp_path / "logs" / ABOUT["id"]
    assert json.loads((log.folder / "spec.json").read_text()) == ABOUT


def test_a_log_that_goes_on_has_no_record_twice(tmp_path: Path) -> None:
    some(begun(tmp_path), range(1, 7))
    table = begun(tmp_path, done=4).folder / "log.csv"
    with table.open("a") as file:
        file.write("1.2")  # a line that a kill has cut
    log = begun(tmp_path, done=4)
    assert [row["epoch"] for row in written(log)] == ["0.25", "0.5", "0.75", "1.0"]
    assert pictures(log) == ["samples-000001.png", "samples-000003.png"]
    some(log, range(5, 9))
    assert [float(row["score"]) for row in written(log)] == [*range(1, 9)]


@pytest.mark.parametrize(("done", "columns"), [(0, ("score",)), (4, ("other",))])
def test_any_other_training_begins_its_log_anew(
    done: int, columns: tuple[str, ...], tmp_path: Path
) -> None:
    some(begun(tmp_path), range(1, 7))
    log = begun(tmp_path, done, columns)
    assert written(log) == [] and pictures(log) == []


@POSIX
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The system writes a part of the second line, as on a disk that is full in its middle."""
    log = begun(tmp_path)
    some(log, range(1, 2))
    size = (log.folder / "log.csv").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, before[1]))
    try:
        some(log, range(2, 5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    some(log, range(5, 6))
    assert [row["score"] for row in written(log)] == ["1", "5"]
    assert capsys.readouterr().err.count("no log in") == 1


def test_a_log_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("in the way")
    for _ in range(2):
        some(begun(tmp_path), range(3))
    err = capsys.readouterr().err
    assert err.startswith(f"no log in {tmp_path / 'logs'}: ") and err.count("\n") == 1
