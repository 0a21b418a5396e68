"""The command: what a user types, what comes back, what survives."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench import report, run
from bench.engine import engine
from bench.engine import job as jobs
from bench.engine.executors import EngineError, Sequential
from bench.engine.plan import Plan
from bench.engine.progress import Monitor
from bench.spec import Spec
from bench.store import provenance
from bench.store.rows import Store
from bench.studies import STUDIES, cuda
from bench.studies.study import Job, Study
from bench.studies.toy_grid.job import stacks
from bench.studies.toy_grid.study import ToyStudy
from bench.studies.toy_grid.train import Trainer
from models.objectives import OBJECTIVES
from tests import lives
from tests.chaos import children
from tests.conftest import POSIX
from tests.lives import Life
from tests.rows import SMOKE, smoke, stored


@pytest.fixture(autouse=True)
def without_report(request: pytest.FixtureRequest) -> None:
    if "method" not in request.node.name:
        request.getfixturevalue("no_report")


def test_help_is_quick_and_imports_neither_torch_nor_pandas(python: Callable) -> None:
    code = (
        "import sys\nfrom bench import run\n"
        "try: run.main(['--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    status, out, err = python("-c", code)
    assert (status, err) == (0, "")
    for option in ("--scale", "--only", "--lam", "--max-time", "--dry-run", "--json"):
        assert option in out


def test_reporting_imports_no_torch(python: Callable) -> None:
    code = "import sys, bench.report, bench.store.rows; assert 'torch' not in sys.modules"
    assert python("-c", code) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown study 'nothing'; allowed: toy_grid"),
        (["toy_grid", "--scale", "huge"], "choose from"),
        ([*SMOKE, "--only", "method=foo"], "allowed: method in this selection: alice, "),
        ([*SMOKE, "--only", "colour=red"], "allowed fields: label, study, scale, method"),
        ([*SMOKE, "--only", "encoder_width=1"], "allowed: encoder_width in this selection: 32"),
        ([*SMOKE, "--only", "encoder_width=a"], "allowed: encoder_width in this selection: 32"),
        ([*SMOKE, "--only", "lam=5"], "(own values: --lam)"),
        ([*SMOKE, "--only", "lam"], "allowed: FIELD=VALUE"),
        ([*SMOKE, "--only", "seed=3"], "(own values: --seeds)"),
        ([*SMOKE, "--lam", "0,a"], "not a list of numbers"),
        ([*SMOKE, "--lam", "-1"], "lam is -1.0; allowed: 0, or a number from"),
        ([*SMOKE, "--lr", "0"], "lr is 0.0; allowed: a number from"),
        ([*SMOKE, "--seeds", "0"], "allowed: a whole number >= 1"),
        ([*SMOKE, "--workers", "x"], "allowed: a whole number >= 1"),
        ([*SMOKE, "--max-time", "0"], "allowed: minutes > 0"),
        ([*SMOKE, "--json"], "--json goes with --dry-run or --status"),
        ([*SMOKE, "--precision", "tf32", "--device", "cpu"], "allowed on a CPU: float32\n"),
        (["mnist", "--precision", "tf32", "--device", "cpu"], "allowed on a CPU: float32, bf16\n"),
        (
            [*SMOKE, "--precision", "bf16"],
            "precision is bf16; allowed: float32, tf32 (--precision)\n",
        ),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = run.main(arguments)
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*SMOKE, "--device", "cuda"]) == 2
    assert "no CUDA device; allowed here: cpu" in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run.main([*SMOKE, "--workers", "1", "--results", str(tmp_path / "file")]) == 2
    assert "can't be written" in capsys.readouterr().err


def ask(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run.main([*SMOKE, "--results", str(folder), "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_status_and_dry_run_print_one_object_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    expected = {"study": "toy_grid", "scale": "smoke", "total": 8, "done": 0, "diverged": 0}
    expected |= {"stale": 0, "failed": 0, "pending": 8}
    assert ask(folder, capsys, "--status") == expected
    assert ask(folder, capsys, "--dry-run") == expected
    assert not folder.exists()
    only = ask(folder, capsys, "--dry-run", "--only", "label=ALI,sVAE", "--only", "lam=0")
    assert only["total"] == 4
    twice = ["--dry-run", "--only", "lam=0", "--only", "lam=0.1", "--lam=-0.0,0.1,0.1,0"]
    assert ask(folder, capsys, *twice)["total"] == 8
    both = ["--dry-run", "--only", "method=alice_minimax,alice_sigmoid", "--seeds", "2"]
    assert ask(folder, capsys, *both)["total"] == 16
    own = ["--dry-run", "--lam", "0,1,10", "--lr", "1e-4,1e-3"]
    assert ask(folder, capsys, *own)["total"] == 2 * 2 * 3 * 2


def test_every_method_by_only_on_two_workers_equals_one(
    tmp_path: Path, whole: pd.DataFrame
) -> None:
    """Other company, other order, other processes, an earlier part run: the same numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "after_run", lambda *_: None)
        for more in (["--only", "method=alice", "--workers", "1"], ["--workers", "2"]):
            assert run.main([*SMOKE, "--results", str(tmp_path), *more]) == 0
    pd.testing.assert_frame_equal(stored(tmp_path), whole)
    others = ["--only", "method=alice_minimax,alice_sigmoid", "--only", "lam=0.1"]
    assert run.main([*SMOKE, "--results", str(tmp_path), *others, "--workers", "1"]) == 0
    labels = set(stored(tmp_path)["label"])
    assert labels == {"ALI", "ALICE", "sVAE", "sVAE-r", "ALICE-minimax", "ALICE-sigmoid"}
    assert (tmp_path / "reports/toy_grid/smoke/report.html").is_file()


@POSIX
def test_sigterm_while_the_report_is_drawn(tmp_path: Path, live: Callable[..., Life]) -> None:
    life = live(*SMOKE, "--workers", "1", "--results", "r", first=[lives.slow_report])
    life.until((tmp_path / "drawing").exists)
    os.kill(life.pid, signal.SIGTERM)
    assert "Traceback" not in life.end(143)


@POSIX
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_stopped_and_started_again(
    sent: signal.Signals,
    status: int,
    tmp_path: Path,
    live: Callable[..., Life],
    whole: pd.DataFrame,
) -> None:
    """And when the run is killed, its workers end by themselves."""
    asked = [*SMOKE, "--results", str(tmp_path)]
    first = [lives.small_stacks, partial(lives.befall, lives.slows_down)]
    life = live(*asked, "--workers", "2", first=first)
    life.until(lambda: any((tmp_path / "toy_grid" / "smoke").glob("*.parquet")))
    workers = children(life.pid)
    if sent == signal.SIGINT:
        os.killpg(life.pid, sent)  # as a terminal does
    else:
        os.kill(life.pid, sent)
    said = life.end(status)
    assert "Traceback" not in said
    assert sent == signal.SIGKILL or "the same command goes on from there" in said
    stop = time.monotonic() + 30
    while time.monotonic() < stop and any(Path(f"/proc/{each}").exists() for each in workers):
        time.sleep(0.1)
    assert not [each for each in workers if Path(f"/proc/{each}").exists()]
    assert len(workers) == 2 or sys.platform != "linux"
    assert 0 < len(stored(tmp_path)) < len(whole)
    assert run.main([*asked, "--workers", "1"]) == 0
    pd.testing.assert_frame_equal(stored(tmp_path), whole)


@POSIX
def test_a_training_that_kills_its_workers_fails_alone(
    tmp_path: Path, live: Callable[..., Life]
) -> None:
    culprit = smoke()[3]
    event = partial(lives.deadly_always, culprit.id)
    first = [lives.small_stacks, partial(lives.befall, event)]
    only = ["--only", f"lam={culprit.lam}", "--only", f"method={culprit.method}"]
    said = live(*SMOKE, *only, "--results", "r", "--workers", "2", first=first).end(1)
    assert f"failed: training {culprit.id}: its worker was killed (3 times)" in said
    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    assert len(kept.done()) == 1
    assert list(kept.failures()) == [culprit.id]


@POSIX
def test_a_failed_recording_costs_its_worker_and_no_training(
    tmp_path: Path, live: Callable[..., Life], whole: pd.DataFrame
) -> None:
    culprit = smoke()[3]
    event = partial(lives.records, culprit.id, tmp_path / "mark")
    first = [lives.as_on_a_gpu, lives.small_stacks, partial(lives.befall, event)]
    said = live(*SMOKE, "--results", "r", "--workers", "1", first=first).end()
    assert "of alice, svae_r can't be recorded as a CUDA graph: operation not permitted" in said
    assert "a worker was killed" not in said  # the other job's worker was ended on purpose
    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    assert kept.failures() == {}
    pd.testing.assert_frame_equal(stored(tmp_path / "r"), whole)
    lines = [line.split() for line in (tmp_path / "mark").read_text().splitlines()]
    begins, ends = lines[::2], lines[1::2]
    assert [worker for worker, _ in begins] == [worker for (worker,) in ends]  # they take turns
    old, new = ({w for w, recorded in begins if recorded == each} for each in ("True", "False"))
    assert old and new and not old & new  # all workers were replaced
    graphs = {row["id"]: row["graph"] for row in kept.load()[0].to_pylist()}
    assert not graphs[culprit.id]
    # The job that failed is the only one that has trained twice.
    assert 2 * sum(recorded == "True" for _, recorded in begins) == sum(graphs.values()) + 2


def test_a_graph_may_be_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise cuda.Unrecorded("operation not permitted", ("alice",))

    monkeypatch.setattr(Trainer, "train", refuses)
    runner, plan, kept, _ = engine_for(tmp_path)
    runner.require_graph = True
    with pytest.raises(EngineError, match=r"of alice can't be recorded .* \(--require-graph\)"):
        runner.run(plan)
    assert kept.failures() == {}
    if not torch.cuda.is_available():
        assert run.main([*SMOKE, "--results", str(tmp_path), "--require-graph"]) == 2
        assert "a CPU has no graphs" in capsys.readouterr().err


def test_max_time_stops_cleanly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the background of a script as well, where Ctrl-C is ignored."""
    arguments = [*SMOKE[:3], "--seeds", "200", "--workers", "1", "--results", str(tmp_path)]
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run.main([*arguments, "--max-time", "0.01"]) == 3
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert "the same command goes on from there" in capsys.readouterr().err


def test_max_time_begins_nothing_that_would_not_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each training at lambda 0 would take an hour by its estimate, the other stacks a second."""

    def foreseen(study: Study, stacks: Sequence[Sequence[Spec]], device: str) -> list[float]:
        return [1.0 if stack[0].lam else 3600.0 * len(stack) for stack in stacks]

    monkeypatch.setattr(ToyStudy, "estimate", foreseen)
    monkeypatch.setattr(Study, "estimate", foreseen)
    arguments = [*SMOKE, "--workers", "1", "--results", str(tmp_path)]
    assert run.main([*arguments, "--max-time", "30"]) == 3
    err = capsys.readouterr().err
    assert "--max-time: 4 trainings would not end in time; each takes" in err
    assert "stopped: 4 of 8 trainings are stored" in err
    assert set(stored(tmp_path)["lam"]) == {0.1}
    assert run.main(arguments) == 0
    assert len(stored(tmp_path)) == 8


def test_max_time_cuts_a_stack_of_which_a_part_would_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four trainings would end in time. They take less, so that the others follow."""

    def foreseen(study: Study, stacks: Sequence[Sequence[Spec]], device: str) -> list[float]:
        assert [len(stack) for stack in stacks] == [4]
        return [3600.0]

    monkeypatch.setattr(Plan, "_share", lambda plan: 1.0)
    monkeypatch.setattr(ToyStudy, "estimate", foreseen)
    monkeypatch.setattr(Study, "estimate", foreseen)
    arguments = [*SMOKE, "--lam", "0", "--workers", "1", "--results", str(tmp_path)]
    assert run.main([*arguments, "--max-time", "31"]) == 0
    rows = pd.read_parquet(tmp_path / "toy_grid" / "smoke")
    assert list(rows["stack_size"]) == [2, 2, 2, 2]


def test_files_without_a_history_are_told_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = provenance.commit()
    monkeypatch.setenv("SVAE_BENCH_COMMIT", "a" * 40)
    assert provenance.commit() == here  # git knows better
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    arguments = [*SMOKE, "--workers", "1", "--lam", "0", "--results", str(tmp_path / "r")]
    assert run.main(arguments) == 0
    rows = pd.read_parquet(tmp_path / "r" / "toy_grid" / "smoke")
    assert set(rows["commit"]) == {"a" * 40} and not rows["dirty"].any()
    monkeypatch.setenv("SVAE_BENCH_COMMIT", "main")
    assert run.main(arguments) == 2
    assert "SVAE_BENCH_COMMIT is main; allowed: 40 digits" in capsys.readouterr().err


def test_a_run_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: pd.DataFrame
) -> None:
    monkeypatch.setattr(report, "after_run", lambda *_: pytest.fail("a report"))
    arguments = [*SMOKE, "--workers", "1", "--results", str(tmp_path)]
    assert run.main([*arguments, "--no-report"]) == 0
    pd.testing.assert_frame_equal(stored(tmp_path), whole)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_in_a_recording_halves_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Also where the end of the recording raises an error of its own, as torch's does."""
    tried: list[int] = []

    def graph(work: Callable, device: torch.device) -> Callable:
        if tried[-1] > 1:
            try:
                raise error("CUDA error: out of memory")
            except Exception:
                raise RuntimeError("captures_underway.empty()")  # noqa: B904
        return work

    def begins(self: Trainer, *given: Any, record: bool, init: Callable = Trainer.__init__) -> None:
        init(self, *given)
        self.record = True  # whatever the engine says: this process can't be replaced
        tried.append(len(self.specs))

    monkeypatch.setattr(cuda, "_graph", graph)
    monkeypatch.setattr(cuda, "_failed", False)
    monkeypatch.setattr(Trainer, "__init__", begins)
    runner, plan, kept, monitor = engine_for(tmp_path)
    runner.run(plan)
    assert sorted(set(tried)) == [1, 2, 4]
    assert len(kept.done()) == monitor.done == 8
    assert kept.failures() == {} and cuda.spoiled()
    assert runner.eager == set(OBJECTIVES)  # nothing else is recorded here


def engine_for(folder: Path) -> tuple[engine.Engine, list[Job], Store, Monitor]:
    kept = STUDIES["toy_grid"].store(folder, "smoke")
    kept.prepare()
    plan = [
        Job(tuple(stack), str(folder), "cpu", {"commit": None, "dirty": None})
        for stack in stacks(smoke(), "cpu")
    ]
    monitor = Monitor(0, 0, 0, 8, kept.progress_of(None))
    monitor.pending = {job.key: 1.0 for job in plan}
    return engine.Engine(kept, monitor, Sequential(), fail_fast=False), plan, kept, monitor


def test_a_log_file_gets_lines_though_colours_are_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runners of continuous integration set FORCE_COLOR; a bar would fill their logs."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    *_, monitor = engine_for(tmp_path)
    with monitor:
        monitor.note("noted")
    first, *lines = capfd.readouterr().err.splitlines()
    assert "noted" in first and len(lines) == 1
    assert lines[0].startswith("0/8 done") and "\x1b" not in lines[0]


def test_out_of_memory_halves_the_stack_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Trainer.train
    tried = []

    def small_memory(self: Trainer, after_epoch) -> None:
        tried.append(len(self.specs))
        if len(self.specs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(self, after_epoch)

    monkeypatch.setattr(Trainer, "train", small_memory)
    runner, plan, kept, monitor = engine_for(tmp_path)
    runner.run(plan)
    assert sorted(set(tried)) == [1, 2, 4]
    assert len(kept.done()) == monitor.done == 8
    assert kept.failures() == {}


def test_an_error_of_a_gpu_costs_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later call of CUDA would fail there; other errors leave the worker as it is."""
    train = Trainer.train
    broken, renewed = [], []

    def fails_once(self: Trainer, after_epoch) -> None:
        if broken and not renewed:
            raise RuntimeError("CUDA error: unspecified launch failure")
        if not broken:
            broken.append(True)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return train(self, after_epoch)

    def renew(self: Sequential, future: Any) -> bool:
        renewed.append(future.result().reason)
        return True

    monkeypatch.setattr(Trainer, "train", fails_once)
    monkeypatch.setattr(Sequential, "renew", renew)
    runner, plan, kept, monitor = engine_for(tmp_path)
    runner.run(plan)
    assert len(renewed) == 1 and "an illegal memory access" in renewed[0]
    assert len(kept.done()) == monitor.done == 8 and kept.failures() == {}
    assert not runner.eager
    assert cuda.unusable(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    assert not cuda.unusable(ValueError("CUDA error")) and not cuda.unusable(None)


def test_a_training_that_raises_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Trainer.train
    culprit = smoke()[3]

    def raising(self: Trainer, after_epoch) -> None:
        if culprit in self.specs:
            raise ArithmeticError("no such thing")
        return train(self, after_epoch)

    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "train", raising)
        arguments = [*SMOKE, "--workers", "1", "--results", str(tmp_path)]
        assert run.main(arguments) == 1
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    assert len(kept.done()) == 7
    failures = kept.failures()
    assert list(failures) == [culprit.id]
    assert failures[culprit.id]["times"] == 3
    assert "ArithmeticError: no such thing" in failures[culprit.id]["reason"]
    capsys.readouterr()
    assert ask(tmp_path, capsys, "--status")["failed"] == 1
    assert run.main(arguments) == 1  # remembered, not tried again
    assert run.main([*arguments, "--retry-failed"]) == 0
    assert len(kept.done()) == 8


def test_results_that_cannot_be_kept_end_the_run_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    assert run.main([*SMOKE, "--workers", "1", "--results", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "results can't be written: No space left on device; nothing stored is lost" in err


def test_damaged_results_are_set_aside_and_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: pd.DataFrame
) -> None:
    arguments = [*SMOKE, "--workers", "1", "--results", str(tmp_path)]
    assert run.main(arguments) == 0
    first = min((tmp_path / "toy_grid" / "smoke").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    assert run.main(arguments) == 0
    assert f"set aside: {first}" in capsys.readouterr().err
    pd.testing.assert_frame_equal(stored(tmp_path), whole)


def test_progress_moves_while_a_stack_trains(tmp_path: Path) -> None:
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    (spec, *_) = STUDIES["toy_grid"].specs("smoke")
    job = Job((spec,), str(tmp_path), "cpu", {})
    monitor = Monitor(0, 0, 0, 1, kept.progress_of(None))
    monitor.pending = {job.key: 10.0}
    beat = jobs.Heartbeat(job)
    beat.next = 0.0
    beat(0.5)
    share, text = monitor._state()
    assert share == pytest.approx(0.5)
    assert text.startswith("0/1 done · 0 diverged · 0 failed · 50% of the work · 0 trainings/h")
    beat.stop()
    assert monitor.shares() == {}
