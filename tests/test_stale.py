"""Rows that other source made are named and left out, and stay until new rows take their place."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import report, run
from bench.cli import UsageError
from bench.engine import engine
from bench.store import source
from bench.studies import STUDIES
from bench.studies.toy_grid.spec import ToySpec
from tests.numbers import made_here
from tests.rows import SMOKE, TOY, points, row, smoke, stored

SPECS = smoke()
ALICE = [spec.id for spec in SPECS if spec.method == "alice"]
OLD = {"method_digest": "0" * 12}


def fill(folder: Path, specs: list[ToySpec] = SPECS, **more: Any) -> None:
    """Stores a row of each spec; those of ALICE with `more`, by default another method's source."""
    more = more or OLD
    rows = [row(spec, **(more if spec.method == "alice" else {})) for spec in specs]
    TOY.store(folder, "smoke").write(rows, [points(spec) for spec in specs])


def command(folder: Path, *more: str) -> list[str]:
    return [*SMOKE, "--engine", "sequential", "--results", str(folder), *more]


def counts(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run.main(command(folder, "--status", "--json", *more)) == 0
    return json.loads(capsys.readouterr().out)


def test_stale_rows_are_named_and_left_out_of_counts_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    found = counts(tmp_path, capsys)
    assert (found["done"], found["stale"], found["pending"]) == (4, 4, 0)
    assert counts(tmp_path, capsys, "--stale")["done"] == 8
    assert run.main(command(tmp_path, "--status")) == 0
    assert "stale: 4 made by another alice: ALI at λ = 0 (2), ALICE at λ = 0.1 (2)" in (
        capsys.readouterr().err
    )
    page = report.build("toy_grid", "smoke", tmp_path)
    assert set(page.frame["method"]) == {"svae_r"}
    assert "left out: 4 made by another alice" in page.texts()["report.md"]
    assert "left out: 4 made by another alice" in page.html(tmp_path)
    shown = report.build(replace(TOY, stale=True), "smoke", tmp_path)
    assert len(shown.frame) == 8
    assert shown.warnings[0].startswith("STALE")
    # Nothing is trained, and the command does not say that all is done.
    assert run.main(command(tmp_path)) == 1
    assert len(pd.read_parquet(tmp_path / "toy_grid" / "smoke")) == 8


def test_a_report_of_stale_rows_alone_says_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path, [spec for spec in SPECS if spec.method == "alice"])
    with pytest.raises(UsageError, match=r"are stale, 4 made by another alice.*--redo"):
        report.build("toy_grid", "smoke", tmp_path)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"method_digest": None}, "unknown source"),  # before rows had digests
        ({"method_digest": None, "dirty": True}, "unknown source"),
        ({"metric_digests": {**TOY.today().metrics, "modes": "0" * 12}}, "another modes"),
        ({"metric_digests": {"gone": "0" * 12}}, ""),  # a metric that nobody declares any more
    ],
)
def test_what_makes_a_row_stale(tmp_path: Path, made: dict[str, Any], why: str) -> None:
    fill(tmp_path, **made)
    assert TOY.store(tmp_path, "smoke").stale() == (dict.fromkeys(ALICE, why) if why else {})


def test_rows_without_digests_are_dated_by_the_committed_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = TOY.today()
    metrics = {name: digest for name, digest in today.metrics.items() if name != "modes"}
    lines = ["study,made_by,name,digest,checked"]
    lines += [f"toy_grid,{'0' * 40},alice,{today.method('alice')},by hand"]
    lines += [f"toy_grid,{'1' * 12},alice,{today.method('alice')},by hand"]
    lines += [f"toy_grid,{'3' * 12},alice,{'1' * 12},by hand"]
    lines += [f"toy_grid,{'0' * 40},{name},{digest},by hand" for name, digest in metrics.items()]
    (tmp_path / "dated.csv").write_text("\n".join(lines))
    monkeypatch.setattr(source, "DATED", tmp_path / "dated.csv")
    source._dated.cache_clear()
    try:
        for made, stale in (
            ({"method_digest": None, "modes": None}, 0),  # by its commit
            ({"method_digest": None}, 4),  # nothing is known of its modes
            ({"method_digest": None, "dirty": True}, 4),  # nobody knows its source
            ({"method_digest": None, "commit": "f" * 40}, 4),
            ({"method_digest": "1" * 12}, 0),  # other source with the same numbers
            ({"method_digest": "2" * 12}, 4),
            ({"method_digest": "3" * 12}, 0),  # by two lines
        ):
            fill(tmp_path, SPECS, **made)
            assert len(TOY.store(tmp_path, "smoke").stale()) == stale, made
    finally:
        source._dated.cache_clear()


def test_redo_trains_what_is_stale_and_keeps_old_rows_until_then(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_report: None,
) -> None:
    fill(tmp_path)
    before = stored(tmp_path)
    assert counts(tmp_path, capsys, "--redo")["pending"] == 4
    with monkeypatch.context() as broken:
        broken.setattr(engine, "run_job", stop)
        with pytest.raises(Stop):
            run.main(command(tmp_path, "--redo"))
    pd.testing.assert_frame_equal(stored(tmp_path), before)  # nothing is lost on the way
    assert run.main(command(tmp_path, "--redo")) == 0
    after = stored(tmp_path)
    changed = after["id"][after["inception_score"] != before["inception_score"]]
    assert set(changed) == {*ALICE}
    assert counts(tmp_path, capsys)["done"] == 8


def test_redo_all_goes_on_where_it_stopped(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_report: None,
) -> None:
    fill(tmp_path, method_digest=TOY.today().method("alice"))
    trained: list[str] = []
    run_job = engine.run_job

    def twice(job: Any) -> Any:
        if len(trained) > 2:
            raise Stop
        trained.extend(spec.id for spec in job.specs)
        return run_job(job)

    monkeypatch.setattr(engine, "run_job", twice)
    assert counts(tmp_path, capsys, "--redo", "all")["pending"] == 8
    with pytest.raises(Stop):
        run.main(command(tmp_path, "--redo", "all"))
    assert len(stored(tmp_path)) == 8
    monkeypatch.setattr(engine, "run_job", run_job)
    left = counts(tmp_path, capsys, "--redo", "all")
    assert left["pending"] == 8 - len(trained)
    assert run.main(command(tmp_path, "--redo", "all")) == 0
    assert (stored(tmp_path)["inception_score"] != 4.7).all()
    assert counts(tmp_path, capsys)["done"] == 8


def test_redo_all_asks_anew_for_what_a_smaller_command_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, method_digest=TOY.today().method("alice"))
    with monkeypatch.context() as broken:
        broken.setattr(engine, "run_job", stop)
        with pytest.raises(Stop):
            run.main(command(tmp_path, "--only", "method=alice", "--redo", "all"))
    assert counts(tmp_path, capsys, "--redo", "all")["pending"] == 8
    assert counts(tmp_path, capsys)["pending"] == 4  # a plain command goes on with the others
    assert run.main(command(tmp_path, "--status")) == 0
    assert "an earlier --redo all has left 4 trainings" in capsys.readouterr().err
    # One that fails for good does not stand in the way of the next.
    kept = TOY.store(tmp_path, "smoke")
    for id in kept.due():
        for _ in range(3):
            kept.note_failure(id, "a reason")
    found = counts(tmp_path, capsys, "--redo", "all")
    assert (found["pending"], found["failed"]) == (4, 4)


def test_redo_drops_the_checkpoint_that_would_give_the_same_row(tmp_path: Path) -> None:
    fill(tmp_path)
    kept = TOY.store(tmp_path, "smoke")
    left, going_on = (kept.work / "checkpoints" / f"{id}.a.train" for id in ALICE[:2])
    left.parent.mkdir()
    kept.redo(ALICE[1:2])
    for path in (left, going_on):
        path.write_bytes(b"")
    kept.redo(ALICE[:2])
    assert not left.exists() and going_on.exists()  # a stop costs a minute, not the training


def test_redo_under_max_time_says_that_trainings_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.setattr(engine, "run_job", interrupt)
    assert run.main(command(tmp_path, "--redo", "--max-time", "1e-9")) == 3


def interrupt(job: Any) -> Any:
    raise KeyboardInterrupt


class Stop(BaseException):
    """What ends a command amid its work."""


def stop(job: Any) -> Any:
    raise Stop


# One row again


def test_a_row_comes_out_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_report: None
) -> None:
    assert run.main(command(tmp_path, "--only", "method=alice", "--lam", "0.1")) == 0
    (first, *_) = stored(tmp_path).to_dict("records")
    before = (tmp_path / "toy_grid" / "smoke" / f"{first['id'][:2]}.parquet").read_bytes()
    again = ["--id", first["id"], "--results", str(tmp_path)]
    capsys.readouterr()
    assert run.main(again) == 0
    assert "the same: all" in capsys.readouterr().out
    kept = TOY.store(tmp_path, "smoke")
    (changed,) = (r for r in kept.load()[0].to_pylist() if r["id"] == first["id"])
    for factor, status, said in (
        (1 + 1e-15, 0, "the same but for rounding: 1 of"),
        (1 + 1e-6, 1, "NOT the same: 1 of"),
        (math.nan, 1, "NOT the same: 1 of"),
    ):
        kept.write([changed | {"mse_x": changed["mse_x"] * factor}], [])
        assert run.main(again) == status
        out = capsys.readouterr().out
        assert said in out
        assert f"mse_x: {changed['mse_x'] * factor!r} then, {changed['mse_x']!r} now" in out
    for factor, status in ((1 + 0.6 * 2**-23, 0), (1 + 2**-20, 1)):  # the last bit of float32
        traces = [(k, [v * factor for v in each]) for k, each in changed["decoder_gradient"]]
        kept.write([changed | {"decoder_gradient": traces}], [])
        assert run.main(again) == status
        assert "decoder_gradient: " in capsys.readouterr().out
    kept.write([changed | {"modes": None}], [])  # as if the metric were younger than the row
    assert run.main(again) == 0
    out = capsys.readouterr().out
    assert "the stored row lacks: modes\n" in out and "the same: all" in out
    kept.write([changed | {"status": "diverged"}], [])
    assert run.main(again) == 1
    assert "status: 'diverged' then, 'ok' now" in capsys.readouterr().out
    kept.write([changed], [])
    path = tmp_path / "toy_grid" / "smoke" / f"{first['id'][:2]}.parquet"
    assert path.read_bytes() == before  # the stored row was never touched


def test_a_published_row_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (published, *_) = STUDIES["toy_grid"].load(report.REFERENCE, "smoke")[0].to_pylist()
    status = run.main(["--id", published["id"], "--results", str(tmp_path)])
    said = capsys.readouterr().out
    assert "of toy_grid at smoke" in said
    # Another processor may round otherwise, and a training makes much of a rounding.
    assert status == 0 or not made_here(published), said


@pytest.mark.parametrize("option", ["--lam 3", "--precision bf16", "--seeds 2", "--stale"])
def test_one_row_again_takes_no_option_that_would_change_it(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--id", "0" * 16, *option.split()]) == 2
    err = capsys.readouterr().err
    assert f"no option selects or changes it, as {option.split()[0]} would" in err


@pytest.mark.parametrize("id", ["0" * 16, "nothing"])
def test_an_id_that_no_row_has(id: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run.main(["--id", id, "--results", str(tmp_path)]) == 2
    assert f"id {id!r}; allowed: the id of a row in" in capsys.readouterr().err
