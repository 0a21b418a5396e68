"""Wherever jobs run, the same table comes out."""

from __future__ import annotations

import argparse
import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from bench import run
from bench.cli import UsageError
from bench.engine import engine
from bench.engine import executors as engines
from bench.engine import job as jobs
from bench.engine.plan import Plan
from bench.engine.progress import Monitor
from bench.store.rows import FAILURES, Store
from bench.studies import STUDIES, turns
from bench.studies.selection import Shard
from bench.studies.study import Job
from bench.studies.toy_grid.spec import ToySpec
from tests import lives
from tests.conftest import POSIX
from tests.lives import PATIENCE, Life
from tests.rows import SMOKE, row, smoke, stored

SPECS = smoke(seeds=4)  # 32


def needs(extra: str) -> pytest.MarkDecorator:
    there = find_spec({"dask": "distributed"}.get(extra, extra)) is not None
    return pytest.mark.skipif(not there, reason=f'pip install -e ".[{extra}]"')


pytestmark = pytest.mark.usefixtures("no_report")


# Workers


@pytest.mark.parametrize(("device", "processes"), [("cpu", 2), ("cuda", 3)])
def test_workers_start_their_gpu_before_there_is_a_job(
    device: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Callable[..., Any]] = []
    monkeypatch.setattr(engines.Loky, "_send", lambda pool, call, *given: sent.append(call))
    pool = engines.Loky(2, device)
    pool.begin(2)
    pool.stop()
    assert sent == processes * [os.getpid if device == "cpu" else engines._start_gpu]
    engines._start_gpu()  # without a GPU it raises nothing


# Shards


@pytest.mark.parametrize("n", [1, 3, 5, 32])
def test_shards_are_disjoint_cover_all_and_are_alike_in_size(n: int) -> None:
    parts = [Shard(i, n).of(SPECS) for i in range(1, n + 1)]
    ids = [spec.id for part in parts for spec in part]
    assert sorted(ids) == sorted(spec.id for spec in SPECS)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Shard(1, n).of(SPECS[::-1]) == parts[0][::-1]  # order has no say


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/3", "1/3/5", "-1/3", "1.0/3"])
def test_a_shard_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main([*SMOKE, f"--shard={text}"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "allowed: i/n with i from 1 to n" in err and err.count("\n") == 1
    with pytest.raises(argparse.ArgumentTypeError):
        Shard.parse(text)


def test_counts_and_estimates_are_those_of_the_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SMOKE, "--results", str(tmp_path), "--dry-run", "--shard", "2/3"]
    assert run.main([*asked, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["shard"], counts["total"], counts["pending"]) == ("2/3", 3, 3)
    assert run.main(asked) == 0
    assert "shard 2/3: 3 trainings, 0 done" in capsys.readouterr().out
    assert run.main([*asked[:-1], "9/9"]) == 2
    assert "--shard 9/9 is empty: 8 trainings are selected" in capsys.readouterr().err


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "cloud"], "invalid choice: 'cloud'"),
        (["--engine", "dask"], "needs --address: tcp://HOST:PORT of its scheduler, or local"),
        (["--engine", "ray"], "needs --address: HOST:PORT"),
        (["--address", "local"], "--address goes with --engine dask or ray, not loky"),
        (["--engine", "sequential", "--workers", "2"], "--engine sequential is this one process"),
        (["--engine", "dask", "--address", "tcp://h:1", "--workers", "2"], "has its own"),
    ],
)
def test_engines_that_cannot_be(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = run.main([*SMOKE, "--results", str(tmp_path / "r"), *arguments])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_an_extra_that_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    asked = ["--engine", name, "--address", "local", "--results", str(tmp_path / "r")]
    assert run.main([*SMOKE, *asked]) == 2
    assert f'pip install -e ".[{name}]"' in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_what_dask_workers_must_be() -> None:
    def cluster(device: str, *workers: dict[str, Any]) -> engines.Dask:
        found = engines.Dask.__new__(engines.Dask)
        found.resources = {"GPU": 1.0} if device == "cuda" else None
        info = {"workers": dict(enumerate(workers))}
        found.client = SimpleNamespace(scheduler_info=lambda n_workers: info)
        found._check()
        return found

    one, gpu = {"nthreads": 1, "resources": {}}, {"nthreads": 1, "resources": {"GPU": 1}}
    assert cluster("cpu", one, one).size == 2
    assert cluster("cuda", one, gpu).size == 2
    with pytest.raises(UsageError, match="--nthreads 1"):
        cluster("cpu", one, {"nthreads": 2, "resources": {}})
    with pytest.raises(UsageError, match='--resources "GPU=1"'):
        cluster("cuda", one, one)


def test_what_travels_fits_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, parent in (("loky", os.getpid()), ("dask", None), ("ray", None)):
        there = ["--address", "local"] if parent is None else []
        asked = [*SMOKE, "--engine", name, *there, "--seeds", "4", "--results", "r"]
        plan = Plan(run.parser().parse_args(asked))
        plan.cut()
        (job, *_) = plan.jobs
        assert job.results == str(tmp_path / "r")
        assert job.parent == parent  # a cluster's worker is no child of this process
        assert job.run is not None and job.run.endswith(str(os.getpid()))


def test_stacks_fill_a_gpu_and_are_no_larger() -> None:
    """A stack of all trainings that fit would lose minutes of work when it is stopped."""
    specs = STUDIES["toy_grid"].specs("paper")
    stacks = STUDIES["toy_grid"].stacks(specs, "cuda")
    assert {spec.id for stack in stacks for spec in stack} == {spec.id for spec in specs}
    assert {len(stack) for stack in stacks} == {128} and len(stacks) == 27


# What the engine makes of a pool's bad news


class Fake(engines.Sequential):
    """A pool without processes; `fate` says what becomes of a job in place of running it."""

    def __init__(self, fate: Callable[[Job, bool], jobs.Verdict | None]) -> None:
        self.fate = fate

    def submit(self, call, job: Job, alone: bool = False) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result((call, alone))
        return future

    def outcome(self, future: Future[Any], job: Job) -> jobs.Verdict:
        call, alone = future.result()
        return self.fate(job, alone) or call(job)


def write(job: Job) -> jobs.Verdict:
    """Stands for training: rows come from nowhere, the store is real."""
    STUDIES["toy_grid"].store(Path(job.results), "smoke").write(
        [row(cast(ToySpec, spec)) for spec in job.specs], []
    )
    return jobs.Verdict(job, "done", {spec.id: "ok" for spec in job.specs})


def begin(job: Job) -> None:
    jobs.Heartbeat(job)


def engine_on(
    pool: engines.Sequential, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[engine.Engine, list[Job], Store]:
    monkeypatch.setattr(engine, "run_job", write)
    kept = STUDIES["toy_grid"].store(folder, "smoke")
    kept.prepare()
    plan = [Job(tuple(SPECS[i : i + 4]), str(folder), "cpu", {}) for i in range(0, len(SPECS), 4)]
    monitor = Monitor(0, 0, 0, len(SPECS), kept.progress_of(None))
    return engine.Engine(kept, monitor, pool, fail_fast=False), plan, kept


def test_one_that_kills_its_worker_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit, last = SPECS[9], []

    def fate(job: Job, alone: bool) -> jobs.Verdict | None:
        if culprit not in job.specs:
            return None
        begin(job)
        last.append((len(job.specs), alone))
        return jobs.Verdict(job, "killed")

    runner, plan, kept = engine_on(Fake(fate), tmp_path, monkeypatch)
    runner.run(plan)
    assert len(kept.done()) == len(SPECS) - 1
    assert list(kept.failures()) == [culprit.id]
    assert kept.failures()[culprit.id]["times"] == FAILURES
    assert last == [(4, False), (4, False), (4, True), (2, True), (1, True)]


def test_killed_between_storing_and_telling_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fate(job: Job, alone: bool) -> jobs.Verdict:
        seen.append(job.key)
        begin(job)
        write(job)
        return jobs.Verdict(job, "killed")

    runner, plan, kept = engine_on(Fake(fate), tmp_path, monkeypatch)
    runner.run(plan)
    assert seen == [job.key for job in plan]
    assert runner.monitor.done == len(SPECS)
    assert kept.failures() == {}


def test_workers_that_never_begin_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, plan, kept = engine_on(
        Fake(lambda job, alone: jobs.Verdict(job, "killed")), tmp_path, monkeypatch
    )
    with pytest.raises(engines.EngineError, match="die before they begin"):
        runner.run(plan)
    assert kept.failures() == {}  # no training is to blame


def test_a_cluster_that_is_gone_is_nobodys_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = []

    def fate(job: Job, alone: bool) -> None:
        if len(gone) < 2 * FAILURES:
            gone.append(job.key)
            begin(job)
            raise engines.Gone("the scheduler is gone")

    runner, plan, kept = engine_on(Fake(fate), tmp_path, monkeypatch)
    runner.run(plan)
    assert len(gone) == 2 * FAILURES
    assert len(kept.done()) == len(SPECS)
    assert runner.losses == {} and kept.failures() == {}


def test_a_cluster_that_stays_away_ends_the_run_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fate(job: Job, alone: bool) -> jobs.Verdict:
        raise engines.EngineError("no Dask scheduler at tcp://there:1 any more")

    monkeypatch.setattr(engines, "start", lambda *_: Fake(fate))
    assert run.main([*SMOKE, "--results", str(tmp_path)]) == 1
    said = "no Dask scheduler at tcp://there:1 any more; nothing stored is lost, the same command"
    assert said in capsys.readouterr().err


def test_ray_without_a_node_says_so_once_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = iter([{"CPU": 1.0}, {}, {}, {"CPU": 1.0}, {}])  # what the cluster is, look by look
    waits = []

    def wait(running: dict[Any, Any], timeout: float, when: str) -> SimpleNamespace:
        waits.append(running)
        return SimpleNamespace(done=[] if len(waits) <= 5 else list(running)[:1])

    def remote(job: Job) -> SimpleNamespace:
        future: Future[Any] = Future()
        future.set_result(write(job))
        return SimpleNamespace(future=lambda: future)

    cluster = engines.Ray.__new__(engines.Ray)
    cluster.address, cluster.size, cluster.gpus, cluster.empty = "there:1", 1, 0, False
    errors = "OutOfMemoryError WorkerCrashedError NodeDiedError ObjectLostError RayError"
    cluster.ray = SimpleNamespace(
        exceptions=SimpleNamespace(**dict.fromkeys(errors.split(), RuntimeError)),
        remote=lambda **_: lambda call: SimpleNamespace(remote=remote),
        cluster_resources=lambda: next(nodes),
    )
    runner, plan, kept = engine_on(cluster, tmp_path, monkeypatch)
    monkeypatch.setattr(engine, "wait", wait)
    runner.run(plan)
    assert len(kept.done()) == len(SPECS)
    line = "no node of the Ray cluster at there:1 has a CPU; waiting for one\n"
    assert capsys.readouterr().err == 2 * line


@needs("dask")
@pytest.mark.parametrize(
    ("status", "error", "verdict"),
    [
        pytest.param("finished", CancelledError(), engines.Gone, id="lost before it was fetched"),
        pytest.param("finished", OSError("refused"), engines.Gone, id="lost while it was fetched"),
        pytest.param("cancelled", CancelledError(), engines.Gone, id="lost with the scheduler"),
        pytest.param("error", OSError("no module"), engines.EngineError, id="cannot run"),
        pytest.param("finished", TypeError("a bug"), TypeError, id="no engine's fault"),
    ],
)
def test_dask_tells_a_lost_scheduler_from_workers_that_cannot_run(
    status: str, error: Exception, verdict: type[Exception]
) -> None:
    """Whatever the future said of itself before its result was asked for."""

    def result() -> None:
        raise error

    cluster = engines.Dask.__new__(engines.Dask)
    cluster.address, cluster.dask = "tcp://there:1", import_module("distributed")
    future = SimpleNamespace(status=status, result=result)
    with pytest.raises(verdict):
        ended: Future[Any] = Future()
        ended.set_result(future)
        cluster.outcome(ended, cast("Any", None))


# The real ones


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def dask_cluster(
    port: int, folder: Path, workers: int = 2
) -> Iterator[list[subprocess.Popen[str]]]:
    """A scheduler and its workers, in processes of their own and a folder of their own."""
    address, command = f"tcp://127.0.0.1:{port}", [sys.executable, "-W", "ignore", "-m"]

    def launch(which: str, *arguments: str) -> subprocess.Popen[Any]:
        return subprocess.Popen(
            [*command, f"distributed.cli.{which}", *arguments, "--no-dashboard"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    worker = (address, "--no-nanny", "--nthreads", "1", "--local-directory", str(folder))
    processes = [launch("dask_scheduler", "--host", "127.0.0.1", "--port", str(port))]
    processes += [launch("dask_worker", *worker) for _ in range(workers)]
    try:
        stop = time.monotonic() + PATIENCE
        while time.monotonic() < stop:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_shards_make_the_same_table(tmp_path: Path, whole: pd.DataFrame) -> None:
    found = 0
    for i in (3, 1, 2):
        part = ["--engine", "sequential", "--shard", f"{i}/3", "--results", str(tmp_path)]
        assert run.main([*SMOKE, *part]) == 0
        found += (8 + 3 - i) // 3
        assert len(stored(tmp_path)) == found
    pd.testing.assert_frame_equal(stored(tmp_path), whole)


@POSIX
@pytest.mark.parametrize(
    "more",
    [
        "",
        pytest.param("--engine dask --address local", marks=needs("dask")),
        pytest.param("--engine ray --address local", marks=needs("ray")),
    ],
)
def test_every_engine_gives_the_same_table(
    more: str, tmp_path: Path, live: Callable[..., Life], whole: pd.DataFrame
) -> None:
    """With a worker killed on the way, which costs only what it had not finished."""
    event = partial(lives.deadly_once, tmp_path / "mark")
    first = [lives.small_stacks, partial(lives.befall, event)]
    life = live(*SMOKE, "--results", "r", *more.split(), "--workers", "2", first=first)
    assert "a worker was killed" in life.end()
    assert (tmp_path / "mark").exists()
    pd.testing.assert_frame_equal(stored(tmp_path / "r"), whole)
    assert STUDIES["toy_grid"].store(tmp_path / "r", "smoke").failures() == {}


@POSIX
@needs("dask")
def test_a_job_that_dask_tries_again_runs_again(tmp_path: Path, live: Callable[..., Life]) -> None:
    """And doesn't get the verdict of its first try back."""
    live(call=partial(lives.tried_again, tmp_path / "mark")).end()


@POSIX
@pytest.mark.parametrize("name", ["loky", pytest.param("dask", marks=needs("dask"))])
def test_a_worker_is_replaced(name: str, live: Callable[..., Life]) -> None:
    live(call=partial(lives.renewed, name)).end()


@POSIX
def test_a_killed_worker_gives_its_turn_back(
    tmp_path: Path, live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = live(call=partial(lives.takes_a_turn, tmp_path))
    life.until((tmp_path / "taken").exists)
    monkeypatch.setattr(turns, "TURNS", [tmp_path / "0"])
    assert turns._taken() is None
    os.killpg(life.pid, signal.SIGKILL)
    with turns.turn():
        assert turns._taken() is None


@POSIX
@needs("ray")
def test_ray_is_told_to_end(tmp_path: Path, live: Callable[..., Life]) -> None:
    """By SIGTERM, as schedulers do, while it waits for a job."""
    more = ["--results", "r", "--engine", "ray", "--address", "local", "--workers", "2"]
    life = live(*SMOKE, *more, first=[lives.small_stacks, partial(lives.befall, lives.slows_down)])
    life.until(lambda: any((tmp_path / "r/toy_grid/smoke").glob("*.parquet")))
    os.kill(life.pid, signal.SIGTERM)
    said = life.end(143)
    assert "the same command goes on from there" in said and "Traceback" not in said


@POSIX
@needs("dask")
def test_dask_loses_a_worker_and_then_its_scheduler(
    tmp_path: Path, live: Callable[..., Life], whole: pd.DataFrame
) -> None:
    """The scheduler gives a dead worker's job to another; a lost scheduler is waited for."""
    (hold := tmp_path / "hold").touch()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    event = partial(lives.deadly_once, tmp_path / "mark")
    first = [lives.small_stacks, partial(lives.befall, event)]
    port = free_port()
    more = ["--results", "r", "--engine", "dask", "--address", f"tcp://127.0.0.1:{port}"]
    with dask_cluster(port, elsewhere) as (scheduler, *_):
        life = live(*SMOKE, *more, first=first)
        life.until((tmp_path / "held").exists)
        scheduler.send_signal(signal.SIGKILL)
        time.sleep(0.5)
    assert life.status() is None
    assert len(stored(tmp_path / "r")) == 6
    hold.unlink()
    with dask_cluster(port, elsewhere, workers=1):
        assert "is gone" in life.end()
    pd.testing.assert_frame_equal(stored(tmp_path / "r"), whole)
    assert STUDIES["toy_grid"].store(tmp_path / "r", "smoke").failures() == {}


# Where processes can't start


def test_without_semaphores_jobs_run_in_this_process_and_a_line_says_so(
    tmp_path: Path, whole: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Such systems have a read-only /dev/shm, or none."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(multiprocessing, "Lock", refused)
    monkeypatch.setattr(engines, "get_reusable_executor", refused)
    assert run.main([*SMOKE, "--workers", "2", "--results", str(tmp_path)]) == 0
    pd.testing.assert_frame_equal(stored(tmp_path), whole)
    assert "Read-only file system" in capfd.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("error", [OSError(11, "no more"), RuntimeError("no more threads")])
def test_a_limit_of_processes_ends_in_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(engines, "get_reusable_executor", refused)
    assert run.main([*SMOKE, "--workers", "2", "--results", str(tmp_path)]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "no more" in last and "--workers" in last


def test_processes_start_from_any_thread() -> None:
    """Notebooks and web pages call from threads, which can't change what a signal does."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: engines.deaf().__enter__()).exception() is None


@needs("dask")
def test_a_local_cluster_that_cannot_start_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        try:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        except OSError as error:
            raise RuntimeError("Nanny failed to start.") from error

    monkeypatch.setattr("distributed.LocalCluster", refused)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run.main([*SMOKE, "--engine", "dask", "--address", "local"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--address local" in line and "Read-only file system" in line
    assert not [*tmp_path.iterdir()]
