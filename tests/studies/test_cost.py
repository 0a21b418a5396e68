"""What a command says of time: before the run, and while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import run
from bench.engine import progress
from bench.engine.plan import Plan, together, worth
from bench.engine.progress import Heartbeat, Monitor, first_result
from bench.scores.metrics import TOY
from bench.store.rows import Store
from bench.studies import STUDIES, cost
from bench.studies.cuda import Unrecorded
from bench.studies.images import cost as images
from bench.studies.study import Job, Study
from bench.studies.toy_grid import job as toy
from tests import lives
from tests.rows import SMOKE, row, smoke

STUDY = STUDIES["toy_grid"]


# What is timed


@pytest.mark.parametrize("scale", ["smoke", "quick", "paper"])
def test_stacks_of_the_toy_study_cost_what_their_batches_take(
    scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timed are the cheapest and dearest batch, with the cycle and without it, at one update."""
    timed = []

    def seconds(specs: Sequence[Any]) -> float:
        assert {(s.critic_steps, s.model_steps, s.epochs) for s in specs} == {(1, 1, 1)}
        timed.append(specs)
        return (2.0 if specs[0].lam else 1.0) + sum(map(toy.flops, specs)) / 1e9

    monkeypatch.setattr(toy, "_epoch_seconds", seconds)
    stacks = STUDY.stacks(STUDY.specs(scale), "cpu")
    found = STUDY.estimate(stacks, "cpu")
    assert len(timed) <= 4
    for stack, estimate in zip(stacks, found, strict=True):
        one = toy._one_update(stack)
        updates = sum(map(toy.flops, stack)) / sum(map(toy.flops, one))
        assert estimate == pytest.approx(seconds(one) * updates)


def test_a_batch_is_really_trained_to_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(toy, "cpu_seconds", lambda step: calls.append(step()) or 0.5)
    assert all(8 <= s < 9 for s in (toy._epoch_seconds(smoke()[:2]), toy._epoch_seconds(smoke())))
    assert len(calls) == 2  # each of the 16 batches of an epoch took half a second


def test_trainings_of_images_are_corrected_by_their_own_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And by the mean of others where a step takes too long to be timed."""
    specs = STUDIES["mnist"].specs("quick")
    rate = 8e10
    monkeypatch.setattr(images, "matmul_rate", lambda device: rate)
    slow = images.training_seconds(images._step(specs[0]), rate)
    factor = {"wgan_gp": 3.0}

    def seconds(spec: Any) -> float:
        return factor.get(spec.method, 2.0) * images.training_seconds(spec, rate)

    monkeypatch.setattr(images, "_step_seconds", seconds)
    monkeypatch.setattr(images, "TIMING", 1e9)
    alone = images.estimate([[spec] for spec in specs], "cpu")
    alone[0] -= images.anchors_seconds(specs[0])  # a process needs them once
    for spec, found in zip(specs, alone, strict=True):
        times = factor.get(spec.method, 2.0)
        training, scores = (
            each(spec, rate) for each in (images.training_seconds, images.evaluation_seconds)
        )
        assert found == pytest.approx(times * training + scores)
    first = images.anchors_seconds(specs[0])
    expected = [first + sum(alone[:2]), sum(alone[2:])]
    assert images.estimate([specs[:2], specs[2:]], "cpu") == pytest.approx(expected)
    monkeypatch.setattr(images, "LONG", slow)
    alone = images.training_seconds(specs[0], rate) + images.evaluation_seconds(specs[0], rate)
    assert images.estimate([specs[:1]], "cpu") == [alone + first]


def test_trainings_that_share_a_gpu_are_corrected_by_steps_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = STUDIES["mnist"].specs("smoke", methods=["svae_r", "wgan_gp", "vae"], lams=[0.1])
    rate, timed = 8e12, []
    monkeypatch.setattr(images, "matmul_rate", lambda device: rate)

    def half(stack: Any, device: str) -> float:
        timed.append(stack)
        return (
            sum(images.training_seconds(images._step(spec), rate, images.GPU) for spec in stack) / 2
        )

    found = []
    with monkeypatch.context() as patch:
        patch.setattr(images, "_turn_seconds", half)
        found = images.estimate([specs[2:], specs[:2]], "cuda")
    assert timed == [specs[:2]]  # the dearest
    for stack, seconds in zip([specs[2:], specs[:2]], found, strict=True):
        training = sum(images.training_seconds(spec, rate, images.GPU) for spec in stack)
        scores = sum(images.evaluation_seconds(spec, rate, images.GPU) for spec in stack)
        assert seconds == pytest.approx(training / 2 + scores)

    def unrecorded(stack: Any, device: str) -> float:
        raise Unrecorded("operation not permitted", ("svae_r",))

    with monkeypatch.context() as patch:
        patch.setattr(images, "_turn_seconds", unrecorded)
        (foreseen,) = images.estimate([specs], "cuda")
    assert foreseen == pytest.approx(
        sum(
            each(spec, rate, images.GPU)
            for spec in specs
            for each in (images.training_seconds, images.evaluation_seconds)
        )
    )
    made: list[str] = []
    monkeypatch.setattr(images, "TURNS", 2)
    monkeypatch.setattr(images.Trainer, "advance", lambda self: made.append(self.spec.method))
    assert images._turn_seconds(specs, "cpu") > 0
    assert made == [spec.method for spec in specs] * (3 + 2)  # in turn


@pytest.mark.parametrize(
    ("study", "method", "training", "scores"),
    [("mnist", "svae_r", 125, 43), ("cifar10", "svae_r", 420, 8), ("mnist", "gan", 40, 20)],
)
def test_by_products_a_gpu_is_foreseen_within_a_factor_of_two(
    study: str, method: str, training: float, scores: float
) -> None:
    """Of what the kernels should take on one H100, whose products run at 40 TFLOP/s.

    A core takes 5 s for the neighbours of 10,000 samples.
    """
    spec = STUDIES[study].specs("paper", [method], [0.1])[0]
    assert training / 2 < images.training_seconds(spec, 4e13, images.GPU) < 2 * training
    assert scores / 2 < images.evaluation_seconds(spec, 4e13, images.GPU) < 2 * scores


def test_other_programs_lengthen_the_clock_and_not_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two trainings share 10 s of the clock, of which the processor worked 4 s for them."""
    clock, processor = iter([100.0, 110.0]), iter([7.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(processor))
    both: list[Any] = [SimpleNamespace(seconds=1.0, cpu_seconds=0.5) for _ in range(2)]
    with cost.counted(both):
        pass
    assert [(each.seconds, each.cpu_seconds) for each in both] == [(6.0, 2.5)] * 2


def test_what_the_first_batch_compiles_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiling(toy.Trainer):
        first = True

        def updates(self, batch: Any) -> None:
            stop = time.process_time() + (0.5 if self.first else 0.001)
            self.first = False
            while time.process_time() < stop:
                pass

    monkeypatch.setattr(toy, "Trainer", Compiling)
    assert toy._epoch_seconds(smoke()[:2]) < 16 * 0.5  # which 16 first batches would take


# Other programs


def crowd(monkeypatch: pytest.MonkeyPatch, own: float, busy: float, pressing: float) -> cost.Crowd:
    """A second on two cores: what this process, all programs and those that don't yield took."""
    monkeypatch.setattr(cost, "_cores", lambda: {"cpu0", "cpu1"})
    states = iter([(0.0, 0.0, 0.0, 0.0), *[(1.0, own, busy, pressing)] * 9])
    monkeypatch.setattr(cost.Crowd, "_now", lambda self: next(states))
    return cost.Crowd()


@pytest.mark.parametrize(
    ("own", "busy", "pressing", "others"),
    [
        (1.0, 1.0, 1.0, 0.0),  # alone
        (1.0, 1.5, 1.5, 0.5),
        (1.0, 2.0, 1.1, 0.1),  # beside a nice program
        (0.5, 2.0, 2.0, 3.0),  # four programs share two cores
        (0.3, 0.5, 0.5, 0.2),  # waiting for the disk
    ],
)
def test_other_programs_take_their_share(
    own: float, busy: float, pressing: float, others: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = crowd(monkeypatch, own, busy, pressing)
    assert there.others() == pytest.approx(others)
    assert there.share(1) == pytest.approx(min(1.0, 2 / (1 + others)))
    assert there.share(2) == pytest.approx(2 / (2 + others))


@pytest.mark.parametrize(
    ("niceness", "grouped", "pressing"), [(0, "0", 9.0), (10, "0", 18.0), (0, "1", 18.0)]
)
def test_busy_cores_are_read_from_the_system(
    niceness: int, grouped: str, pressing: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that are nice count a tenth, unless their niceness says nothing to this process."""
    (tmp_path / "grouped").write_text(f"{grouped}\n")
    monkeypatch.setattr(cost, "AUTOGROUP", tmp_path / "grouped")
    (tmp_path / "stat").write_text(
        "cpu 1 1 1 1 1 1 1 1 1 1\ncpu0 200 1000 200 9 9 100 100 200 7 7\ncpu1 5 5 5 5 5 5 5 5 5 5\n"
    )
    monkeypatch.setattr(cost, "STAT", tmp_path / "stat")
    monkeypatch.setattr(cost.os, "getpriority", lambda *_: niceness)
    monkeypatch.setattr(cost.os, "sysconf", lambda _: 100)
    assert cost._busy({"cpu0"}) == (18.0, pytest.approx(pressing))


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "STAT", tmp_path / "none")
    assert (cost.Crowd().others(), cost.Crowd().share(64)) == (0.0, 1.0)


# The plan


def test_workers_start_for_jobs_that_are_worth_it() -> None:
    assert worth(2, [1.0, 1.0]) == 1
    assert worth(2, [100.0, 100.0]) == 2
    assert worth(64, [100.0] * 5) == 5
    assert worth(64, [100.0, 1.0]) == 1  # the long job takes its time anyway
    assert worth(1, [100.0] * 5) == worth(8, []) == 1


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: Any, *more: str) -> Plan:
    for kind in (Study, type(STUDY)):
        monkeypatch.setattr(kind, "estimate", lambda self, stacks, _: [*map(seconds, stacks)])
    monkeypatch.setattr(cost.Crowd, "share", lambda self, workers: 0.5)
    asked = ["toy_grid", "--scale", "quick", "--results", str(tmp_path), *more]
    found = Plan(run.parser().parse_args(asked))
    found.cut()
    return found


@pytest.mark.parametrize(
    ("more", "each", "workers"),
    [([], 0.01, 1), ([], 60.0, 2), (["--workers", "2"], 0.01, 2), (["--workers", "1"], 60.0, 1)],
)
def test_the_user_s_word_on_workers_counts(
    more: list[str], each: float, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    assert planned(tmp_path, monkeypatch, lambda stack: each, *more).workers == workers


def test_more_workers_than_cores_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_cores", lambda: {"cpu0", "cpu1"})
    found = planned(tmp_path, monkeypatch, lambda stack: 60.0, "--workers", "16")
    assert found.line().endswith(" on 16 x cpu that share 2 cores")
    found = planned(tmp_path, monkeypatch, lambda stack: 60.0, "--workers", "2")
    assert found.line().endswith(" on 2 x cpu beside other programs")


def test_a_method_that_raises_is_left_to_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(specs: Sequence[Any]) -> float:
        raise ArithmeticError

    monkeypatch.setattr(toy, "_epoch_seconds", broken)
    found = Plan(run.parser().parse_args([*SMOKE, "--results", str(tmp_path)]))
    found.cut()
    assert len(found.jobs) == 2 and all(seconds > 0 for seconds in found.costs.values())


def test_a_short_job_comes_first_then_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of short jobs, it is one with the largest lambda."""
    found = planned(tmp_path, monkeypatch, lambda stack: 5.0 * stack[0].model_steps, "--workers=2")
    first, *others = found.jobs
    assert max(spec.lam for spec in first.specs) == 0.1
    assert found.costs[first.key] == 10.0  # twice the seconds, on half a core
    costs = [found.costs[job.key] for job in others]
    assert costs == sorted(costs, reverse=True) and len({*map(id, found.jobs)}) == 18
    assert "about 4.6 min on 2 x cpu beside other programs" in found.line()
    found = planned(tmp_path, monkeypatch, lambda stack: 50.0 * stack[0].model_steps)
    costs = [found.costs[job.key] for job in found.jobs]
    assert costs == sorted(costs, reverse=True)  # no job is short


@pytest.mark.parametrize(
    ("products", "trainer", "scale"),
    [(60.0, 1e9, "paper"), (1e4, 0.0, "quick"), (1e3, 1e4, "quick"), (3e3, 1e3, "paper")],
)
def test_the_default_scale_follows_the_estimate(
    products: float, trainer: float, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of matrix products, and near the limit of half an hour that of the trainer."""
    for kind, seconds in ((Study, products), (type(STUDY), trainer)):
        patched = lambda self, stacks, _, all=seconds: [all / len(stacks)] * len(stacks)  # noqa: E731
        monkeypatch.setattr(kind, "estimate", patched)
    monkeypatch.setattr(cost.Crowd, "share", lambda self, workers: 1.0)
    asked = ["toy_grid", "--results", str(tmp_path), "--workers", "1"]
    assert Plan(run.parser().parse_args(asked)).scale == scale


# While it runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = STUDY.store(tmp_path, "smoke")
    found.prepare()
    return found


@pytest.fixture
def monitor(store: Store, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    monkeypatch.setattr(progress, "PRIOR", 0.0)
    found = Monitor(0, 0, 0, 8, store.progress_of(None), workers=2)
    found.pending = {"a": 10.0, "b": 10.0, "c": 20.0}
    return found


def left(monitor: Monitor) -> str:
    return monitor._state()[1].rpartition("gone, ")[2]


def test_the_time_left_is_corrected_by_what_jobs_have_taken(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(progress, "PRIOR", 1.0)
        assert left(monitor) == "20 s left"  # nothing is known yet
    monitor.finish("a", {"x": "ok"}, 30.0)
    assert left(monitor) == "60 s left"  # c alone, three times as long
    monitor.finish("b", {"y": "ok"})  # found stored: its seconds are not known
    assert left(monitor) == "40 s left"
    monitor.finish("c", {"z": "ok"}, 1.0)
    assert left(monitor) == "1 s left"


def test_jobs_under_way_correct_it_as_well(
    monitor: Monitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(progress, "time", now)
    job = Job((smoke()[0],), str(tmp_path), "cpu", {})
    monitor.pending = {job.key: 10.0, "b": 60.0}
    beat = Heartbeat(job)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 110.0))
    beat(0.5)
    assert beat.seconds() == 10.0
    share, _ = monitor._state()
    assert share == pytest.approx(5 / 70)
    assert left(monitor) == "2 min left"  # of b, as half of ten seconds took ten
    beat.stop()


def test_jobs_of_a_run_tell_their_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    finish = Monitor.finish
    monkeypatch.setattr(
        Monitor, "finish", lambda self, *each: (told.append(each[2]), finish(self, *each))
    )
    monkeypatch.setattr("bench.report.after_run", lambda *_: None)
    assert run.main([*SMOKE, "--results", str(tmp_path), "--engine", "sequential"]) == 0
    assert len(told) == 2 and all(0 < seconds < 1e3 for seconds in told)


def test_a_first_result_is_of_stored_rows() -> None:
    by_lam = {(s.method, s.lam): s for s in smoke()}
    rows = [
        row(by_lam["svae_r", 0.1], 4.5),
        row(by_lam["svae_r", 0.1], None) | {"inception_score": None},
        row(by_lam["alice", 0.1], 4.0),
        row(by_lam["alice", 0.1], 3.0),
        row(by_lam["alice", 0.0], None) | {"inception_score": None},
    ]
    assert first_result(rows, TOY[0], 432) == (
        "first result, from 5 of 432 trainings: mean IS at λ = 0 ALI (n = 0, 1 diverged); "
        "at λ = 0.1 ALICE 3.50 (n = 2), sVAE-r 4.50 (n = 1, 1 diverged)"
    )


def test_a_run_shows_its_first_result_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.report.after_run", lambda *_: None)
    monkeypatch.setattr(toy, "stacks", toy.stacks)  # as it was, after the test
    lives.small_stacks()
    asked = [*SMOKE, "--engine", "sequential", "--results", str(tmp_path)]
    before = ["--only", "lam=0", "--only", "encoder_width=32", "--only", "decoder_width=32"]
    assert run.main([*asked, *before]) == 0
    capsys.readouterr()
    assert run.main(asked) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("first result")]
    table = STUDY.store(tmp_path, "smoke").load()[0].to_pandas()
    assert "λ = 0.1 ALICE" in line
    _, label, score, *_ = line.rpartition("λ = ")[2].split()
    stored = table[(table["lam"] == 0.1) & (table["label"] == label)]["inception_score"]
    assert score in {f"{each:.2f}" for each in stored}
    assert "from 2 of 8 trainings" in line
    one = ["--lam", "0.2", "--only", "encoder_width=32", "--only", "decoder_width=32"]
    assert run.main([*asked, *one]) == 0  # a single job, which the report follows
    assert "first result" not in capsys.readouterr().err


def test_jobs_side_by_side_take_their_mean_or_the_longest() -> None:
    assert together([3.0, 3.0, 3.0], 2) == 4.5
    assert together([9.0, 1.0], 2) == 9.0
    assert together([], 2) == 0.0
