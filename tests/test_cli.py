"""A refusal is one line, whatever it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import report, run
from bench.cli import complain
from bench.speed import __main__ as speed
from bench.speed import simulate
from tests import mini
from tests.rows import SMOKE


@pytest.mark.parametrize("name", ["a\nb", "a\r\x0b\x85\u2028b", "\udce9"], ids=ascii)
def test_a_name_with_a_line_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complain("bench.run", f"{name} of λ ≥ 0 does not exist") == 2
    with pytest.raises(SystemExit):
        run.main([*SMOKE, "--scale", "smoke", name])
    for line in capsys.readouterr().err.splitlines(keepends=True):
        assert line.startswith("python -m bench.run: ") and line.endswith("\n")
        assert ascii(name)[1:-1] in line


def test_a_line_keeps_what_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    complain("bench.run", "λ ≥ 0, 日本 and 'é'")
    assert capsys.readouterr().err == "python -m bench.run: λ ≥ 0, 日本 and 'é'\n"


@pytest.mark.parametrize("option", ["--only", "--results", "--scale", "--id"])
def test_two_dashes_are_no_value(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(["toy_grid", f"{option}=--"])
    assert stop.value.code == 2
    assert f"argument {option}: -- is no value" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["long", "zero"])
def test_a_name_that_no_file_can_have(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main([*SMOKE, "--status", "--results", name])
    assert stop.value.code == 2
    assert "argument --results" in capsys.readouterr().err


@pytest.mark.parametrize("where", [".", "none/table.md"])
def test_a_measurement_asks_first_whether_its_file_can_be_written(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main in (simulate.main, speed.main):
        with pytest.raises(SystemExit) as stop:
            main(["--out", str(tmp_path / where)])
        assert stop.value.code == 2
        assert "argument --out" in capsys.readouterr().err


def test_a_folder_to_compare_with_has_to_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["toy_grid", "--against", str(tmp_path / "none")]) == 2
    assert "--against" in capsys.readouterr().err


def said(main: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a refusal."""
    assert main([*arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_a_baseline_that_has_no_results_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--results", str(mini.FOLDER), "--out", str(tmp_path)]
    line = said(report.main, capsys, "toy_grid", *here, "--baseline", "gan")
    assert line.endswith("--baseline gan; allowed: methods with results here: svae_r, alice\n")
    line = said(report.main, capsys, *here, "--baseline", "gan")  # of every study
    assert "allowed: methods with results here: svae_r, alice" in line
    line = said(report.main, capsys, "theory", "--scale", "smoke", *here, "--baseline", "alice")
    assert "theory compares no methods in pairs" in line
    line = said(report.main, capsys, "--check", "--baseline", "alice")
    assert "published reports take no --baseline" in line
    assert not [*tmp_path.iterdir()]


def test_bench_run_refuses_a_baseline_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [*SMOKE, "--results", str(tmp_path), "--baseline"]
    line = said(run.main, capsys, *here, "alice_minimax")
    assert line.endswith("--baseline alice_minimax; allowed: alice, svae_r\n")
    assert "theory" in said(run.main, capsys, "theory", *here[1:], "alice")
    assert run.main([*here, "ALICE", "--status"]) == 0
    assert not [*tmp_path.rglob("*.parquet")]
