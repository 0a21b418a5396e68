"""The engine gets every job done, whatever becomes of its workers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

from bench.engine.executors import EngineError, Gone, Sequential
from bench.engine.job import Verdict, run_job
from bench.engine.progress import Monitor, first_result
from bench.store.rows import FAILURES, Store, StoreError
from bench.studies import STUDIES
from bench.studies.study import Job

LOOK = 10
"""Seconds without an ended job after which the engine asks whether there still are workers."""


class Engine:
    """Runs jobs on any executor.

    The folder of results is the only memory: a worker stores its own rows. The engine halves a job
    that raises or needs too much memory, until the training at fault stands alone. When a worker
    is killed, the engine runs its jobs again. A job that lost its worker twice runs with no other
    job beside it, so that a third loss is its own fault. A method whose updates can't be recorded
    as a CUDA graph runs without a graph from then on, in a new worker.
    """

    def __init__(
        self,
        store: Store,
        monitor: Monitor,
        executor: Sequential,
        fail_fast: bool = False,
        require_graph: bool = False,
        deadline: float = math.inf,
    ) -> None:
        """`deadline` is a time of `time.monotonic`: no job begins that would not end by then."""
        self.store, self.monitor, self.executor = store, monitor, executor
        self.fail_fast, self.require_graph, self.deadline = fail_fast, require_graph, deadline
        self.eager: set[str] = set()  # methods that run without a graph
        self.losses: dict[str, int] = {}  # workers lost, by the key of the job they ran
        self.unbegun = 0  # workers lost in a row before they began their job
        self.shown = False  # whether the user has seen a result
        self.queue: deque[Job] = deque()
        self.alone: deque[Job] = deque()

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs the jobs until every training is stored or has failed.

        A stack that would not end by the deadline is cut, so that a part of it ends. Trainings that
        would not end are left. Raises StoreError when results can't be kept, or at the first
        failure under `fail_fast`. Raises EngineError when no worker can run jobs, or when a method
        has no graph under `require_graph`.
        """
        self.queue.extend(jobs)
        running: dict[Future[Any], Job] = {}
        while self.queue or self.alone or running:
            try:
                while len(running) < self._ahead() and (job := self._fitting(self.queue, running)):
                    running[self._submit(job)] = job
                    self.queue.remove(job)
                if not running and (job := self._fitting(self.alone, running)):
                    running[self._submit(job, alone=True)] = job
                    self.alone.remove(job)
                if not running:
                    if self._cut_to_fit():
                        continue
                    return
                ended = wait(running, LOOK, FIRST_COMPLETED).done
                if not ended:
                    self.executor.look()
                for future in ended:
                    if future not in running:  # a worker was replaced meanwhile
                        continue
                    verdict = self.executor.outcome(future, running[future])
                    del running[future]
                    self._settle(verdict)
                    if verdict.spoiled:
                        self._renew(future, verdict.job, running)
            except Gone as gone:
                self.monitor.note(f"{gone}; its unfinished jobs run again when it is back")
                self.queue.extendleft(reversed(self._unstored(running.values())))
                running.clear()

    def _renew(self, future: Future[Any], job: Job, running: dict[Future[Any], Job]) -> None:
        """Replaces a worker whose GPU or recording has failed, or does without graphs."""
        if self.executor.shared_fate:  # jobs under way end first, and others wait for their turn
            while busy := [f for f, of in running.items() if of.key in self.monitor.shares()]:
                for ended in wait(busy, LOOK, FIRST_COMPLETED).done:
                    self._settle(self.executor.outcome(ended, running.pop(ended)))
        if not self.executor.renew(future):
            self.eager |= STUDIES[job.specs[0].study].every_method().keys()
        elif self.executor.shared_fate:
            self.queue.extendleft(reversed(self._unstored(running.values())))
            running.clear()

    def left(self) -> list[Job]:
        """Returns the jobs that did not begin, because they would not end by the deadline."""
        return [*self.queue, *self.alone]

    def _ahead(self) -> float:
        """Returns how many jobs may be submitted; with a deadline, few wait for a worker."""
        ahead, size = self.executor.ahead, self.executor.size
        return ahead if self.deadline == math.inf else min(ahead, size + 1)

    def _fitting(self, jobs: Iterable[Job], running: dict[Future[Any], Job]) -> Job | None:
        """Returns the first job that would end by the deadline."""
        if self.deadline == math.inf:
            return next(iter(jobs), None)
        foreseen, left = self.monitor.foreseen(), self.deadline - time.monotonic()
        if len(running) >= self.executor.size:  # the job would wait for another
            left -= min(foreseen.get(job.key, 0.0) for job in running.values())
        return next((job for job in jobs if foreseen.get(job.key, 0.0) <= left), None)

    def _cut_to_fit(self) -> bool:
        """Cuts the first stack of which a part would end by the deadline; says whether it could."""
        foreseen, left = self.monitor.foreseen(), self.deadline - time.monotonic()
        for job in self.queue:
            each = foreseen.get(job.key, 0.0) / len(job.specs)
            if each <= left < each * len(job.specs):
                n = min(int(left / each), len(job.specs) - 1)  # the quotient may be rounded up
                self.queue.remove(job)
                self.queue.extendleft(reversed(self._parts(job, n)))
                return True
        return False

    def _submit(self, job: Job, alone: bool = False) -> Future[Any]:
        job = replace(job, eager=tuple(sorted(self.eager)))
        return self.executor.submit(run_job, job, alone)

    def _settle(self, verdict: Verdict) -> None:
        job = verdict.job
        if verdict.end == "killed":
            self._worker_lost(job)
            return
        self.unbegun = 0
        if verdict.end == "done":
            self.monitor.finish(job.key, verdict.statuses, verdict.seconds)
            if not self.shown:
                self.shown = True
                self._show(job)
        elif verdict.end == "unrecorded":
            self._unrecorded(verdict)
        elif verdict.end == "storage":
            raise StoreError(f"results can't be written: {verdict.reason}; nothing stored is lost")
        elif len(job.specs) > 1:
            n = len(job.specs)
            self.monitor.note(f"stack of {n}: {verdict.reason}; the engine halves it")
            self.queue.extend(self._halves(job))
        else:
            self._failed(job, verdict.reason)

    def _unrecorded(self, verdict: Verdict) -> None:
        """Runs a job again, this time without a graph."""
        names = ", ".join(verdict.methods)
        why = f"updates of {names} can't be recorded as a CUDA graph: {verdict.reason}"
        if self.require_graph:
            raise EngineError(f"{why} (--require-graph)")
        self.monitor.note(f"{why}; they run without a graph")
        self.eager |= set(verdict.methods)
        self.queue.appendleft(verdict.job)

    def _show(self, job: Job) -> None:
        """Shows what a job gave, unless the report follows at once."""
        metrics = STUDIES[job.specs[0].study].metrics()
        if metrics and self.monitor.pending:
            columns = ["id", "lam", "label", *(metric.columns[0] for metric in metrics)]
            ids = {spec.id for spec in job.specs}
            rows = self.store.load()[0].select(columns).to_pylist()
            rows = [row for row in rows if row["id"] in ids]
            # Of a user's own images no classifier of the suite gives a score.
            known = (m for m in metrics if any(row[m.columns[0]] is not None for row in rows))
            metric = next(known, metrics[0])
            self.monitor.note(first_result(rows, metric, self.monitor.total))

    def _halves(self, job: Job) -> list[Job]:
        return self._parts(job, len(job.specs) // 2)

    def _parts(self, job: Job, n: int) -> list[Job]:
        """Returns a job of the first n trainings of a stack, and a job of the others."""
        parts = [replace(job, specs=some) for some in (job.specs[:n], job.specs[n:])]
        cost = self.monitor.pending.pop(job.key, 0.0) / len(job.specs)
        self.monitor.pending |= {part.key: cost * len(part.specs) for part in parts}
        return parts

    def _failed(self, job: Job, reason: str) -> None:
        """Tries a single training that failed again, or gives it up."""
        times = self.store.note_failure(job.specs[0].id, reason)
        if times < FAILURES:
            self.queue.append(job)
            return
        self.monitor.pending.pop(job.key, None)
        self.monitor.failed += 1
        self.monitor.note(f"failed: training {job.specs[0].id}: {reason} ({times} times)")
        if self.fail_fast:
            raise StoreError("stopped at the first failure (--fail-fast)")

    def _worker_lost(self, job: Job) -> None:
        """Runs a job again whose worker was killed, perhaps through another job's fault."""
        begun = job.key in self.monitor.shares()
        self.unbegun = 0 if begun else self.unbegun + 1
        if self.unbegun == FAILURES * self.executor.size:
            raise EngineError("worker processes die before they begin")
        if self._unstored([job]):
            losses = self.losses[job.key] = self.losses.get(job.key, 0) + begun
            if losses < FAILURES - 1 or not begun:
                self.queue.append(job)
            elif losses < FAILURES:
                self.alone.append(job)
            elif len(job.specs) == 1:
                reason = "its worker was killed"
                while self.store.note_failure(job.specs[0].id, reason) < FAILURES - 1:
                    pass
                self._failed(job, reason)
            else:
                halves = self._halves(job)
                self.losses |= {half.key: FAILURES - 1 for half in halves}
                self.alone.extend(halves)
        self.monitor.note("a worker was killed; the engine runs its unfinished jobs again")

    def _unstored(self, jobs: Iterable[Job]) -> list[Job]:
        """Returns the jobs that must run again; none of the jobs is under way any more."""
        stored, left = self.store.done(), []
        for job in jobs:
            (self.monitor.progress / f"{job.key}.json").unlink(missing_ok=True)
            if all(spec.id in stored for spec in job.specs):  # killed after its rows were stored
                self.monitor.finish(job.key, {spec.id: stored[spec.id] for spec in job.specs})
            else:
                left.append(job)
        return left
