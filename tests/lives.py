"""Lives: the command in processes forked with all imports made, and what befalls its jobs.

Nothing here is imported before it is needed: joblib's workers, which begin without any imports,
find the functions of this module by their names.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PATIENCE = 900
"""Seconds until a process counts as hung, on a machine that others are using as well."""

IMPORTS = ["tests.chaos", "torch._dynamo", "bench.studies.images.job", "bench.studies.toy_grid.job"]
IMPORTS += ["bench.check.__main__"]


def server() -> Any:
    """Forks processes, once it has made the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    return context


class Life:
    """A function's call in a folder and a session of its own; what it returns is its status."""

    number = count()

    def __init__(self, folder: Path, call: Callable[[], Any]) -> None:
        self.file = folder / f"said-{next(self.number)}.txt"
        self.process = server().Process(target=_live, args=(folder, self.file, call))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def status(self) -> int | None:
        """The exit status, minus the signal of a killed life; None while it goes on."""
        return self.process.exitcode

    def until(self, happened: Callable[[], Any]) -> None:
        """Waits for something to happen in the life's time."""
        stop = time.monotonic() + PATIENCE
        while not happened():
            assert self.status() is None and time.monotonic() < stop, self.file.read_text()
            time.sleep(0.02)

    def end(self, status: int = 0) -> str:
        """All that the life has printed; it has to end with this status."""
        self.process.join(PATIENCE)
        said = self.file.read_text()
        assert self.status() == status, said
        return said


def _live(folder: Path, file: Path, call: Callable[[], Any]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ["NO_COLOR"] = "1"
    for stream in (1, 2):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), stream)
    sys.exit(call())


def command(arguments: Sequence[str], first: Sequence[Callable[[], None]]) -> None:
    """Runs `python -m bench.run ARGUMENTS`, after some changes."""
    from bench import process, run

    sys.argv = ["bench.run", *arguments]
    for change in first:
        change()
    process.command(run.main)


# Changes


def no_report() -> None:
    """Leaves out what takes seconds and is seldom looked at."""
    from bench import report

    report.after_run = lambda *_: None


def slow_report() -> None:
    """Says by a file that the report is being drawn, and goes on and on."""
    from bench import report

    report.after_run = lambda *_: (Path("drawing").touch(), time.sleep(60))


def small_stacks() -> None:
    """Makes more jobs of the toy study: pairs of trainings."""
    from bench.studies.toy_grid import job

    def pairs(specs: Any, device: str, cut: Any = job.stacks) -> list[Any]:
        return [stack[i : i + 2] for stack in cut(specs, device) for i in range(0, len(stack), 2)]

    job.stacks = pairs


def befall(event: Callable[[Any], None]) -> None:
    """Has something happen before each job, in the worker that runs it."""
    from bench.engine import engine

    def run(job: Any) -> Any:  # not a partial, which Ray can't send
        from bench.engine.job import run_job

        event(job)
        return run_job(job)

    engine.run_job = run


def third_checkpoint_kills(kind: str) -> None:
    """Kills an image study at the third checkpoint of a kind, with one after every step."""
    from bench.studies.images import job

    save, of_kind = job._save, []

    def saved(path: Path, state: Any) -> None:
        save(path, state)
        if f".{kind}." in path.name:
            of_kind.append(path)
        if len(of_kind) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    job.EVERY, job._save = 0.0, saved


def third_record_kills() -> None:
    """Kills an image study at the third record of its log, with a checkpoint after one step."""
    from bench.studies.images import job, watch

    save, records, saves = job._save, count(1), count()

    def saved(path: Path, state: Any) -> None:
        if next(saves) == 0:
            save(path, state)

    class Killed(watch.Watch):
        def __call__(self) -> None:
            super().__call__()
            if next(records) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    job.EVERY, job._save, job.Watch = 0.0, saved, Killed


def as_on_a_gpu() -> None:
    """Makes the command's workers those of a GPU: processes that take turns."""
    from bench.engine import executors

    executors.start = lambda engine, address, workers, device: executors.Loky(workers, "cuda")


# Events


def records(refused: str, mark: Path, job: Any) -> None:
    """Has a CPU record updates as a GPU does; a recording with a training of this id fails.

    Each training writes two lines: its worker's number with whether it may record, then the number
    alone once it ends.
    """
    from bench.studies import cuda
    from bench.studies.toy_grid import job as toy_job
    from bench.studies.toy_grid import train

    def graph(work: Any, device: Any) -> Any:
        if any(spec.id == refused for spec in job.specs):
            raise RuntimeError("operation not permitted when stream is capturing")
        return work

    def say(*words: object) -> None:
        with mark.open("a") as file:
            print(os.getpid(), *words, file=file)

    class Trainer(train.Trainer):
        def __init__(self, *given: Any, record: bool) -> None:
            super().__init__(*given)
            self.record = record

        def train(self, *given: Any) -> None:
            say(self.record)
            try:
                super().train(*given)
            finally:
                say()

    cuda._graph, toy_job.Trainer = graph, Trainer


def slows_down(job: Any) -> None:
    """Trains in slow motion once there are results: whatever comes then finds jobs under way."""
    from bench.studies.toy_grid.train import Trainer

    def slow(self: Any, batch: Any, updates: Any = Trainer.updates) -> None:
        time.sleep(1)
        updates(self, batch)

    if any(job.folder.glob("*.parquet")):
        Trainer.updates = slow


def deadly_once(mark: Path, job: Any) -> None:
    """Kills one worker once there are results, which no job of this machine is to make again.

    Dask may: a result stays with the worker that made it until it is fetched. While there is a
    file `hold` beside the mark, the last of four pairs says so and waits.
    """
    from bench.engine.job import Heartbeat
    from bench.studies import STUDIES

    done = STUDIES["toy_grid"].store(Path(job.results), "smoke").done()
    assert job.parent is None or not done.keys() & {spec.id for spec in job.specs}
    if not done:
        return
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        while len(done) == 6 and mark.with_name("hold").exists():
            mark.with_name("held").touch()
            time.sleep(0.05)
    else:
        Heartbeat(job)
        os.kill(os.getpid(), signal.SIGKILL)


def deadly_always(id: str, job: Any) -> None:
    """Kills every worker that comes to a training."""
    from bench.engine.job import Heartbeat

    if any(spec.id == id for spec in job.specs):
        Heartbeat(job)
        os.kill(os.getpid(), signal.SIGKILL)


# Other lives


def tried_again(mark: Path) -> None:
    """Gives Dask a job twice whose first try kills its worker."""
    from bench.engine.executors import Dask

    cluster: Any = Dask("local", 1, "cpu")
    job = SimpleNamespace(key="one", mark=mark)
    futures = (cluster.submit(_try, job) for _ in range(2))
    first, second = (cluster.outcome(future, job) for future in futures)
    cluster.stop()
    assert (first.end, second) == ("killed", "done"), (first, second)


def renewed(engine: str) -> None:
    """Has an executor replace a worker, which then has another number."""
    from bench.engine import executors

    local = executors.Dask("local", 1, "cpu") if engine == "dask" else executors.Loky(1, "cuda")
    pool: Any = local
    job = SimpleNamespace(key="one")
    future = pool.submit(_worker, job)
    first = pool.outcome(future, job)
    assert pool.renew(future)
    second = pool.outcome(pool.submit(_worker, job), job)
    pool.stop()
    assert len({first, second, os.getpid()}) == 3, (first, second, os.getpid())


def _worker(job: SimpleNamespace) -> int:
    return os.getpid()


def takes_a_turn(turns: Path) -> None:
    """Takes the one turn of a folder, says so by a file, and keeps the turn."""
    from bench.studies import turns as shared

    shared.TURNS[:] = [turns / "0"]
    with shared.turn():
        (turns / "taken").touch()
        time.sleep(PATIENCE)


def _try(job: SimpleNamespace) -> str:
    if not job.mark.exists():
        job.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"
