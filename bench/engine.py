"""Gets every job done, whatever becomes of its workers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from joblib import delayed
from joblib.externals.loky.process_executor import BrokenProcessPool

from bench.jobs import Job, Verdict, run_job
from bench.monitor import Monitor
from bench.store import DEATHS, Store, StoreError
from bench.workers import pool


class Engine:
    """Runs jobs on joblib's worker processes.

    The folder of results is the only memory: a worker stores its own rows, so whatever was
    finished stays finished, and jobs that died are those that are neither stored nor failed.
    A job that does not fit in memory or raises is halved until the training at fault stands
    alone. When a worker is killed, joblib drops all that is under way; those jobs run again, and
    one that was there twice runs with nobody beside it, so that its third death is its own.
    """

    def __init__(self, store: Store, monitor: Monitor, workers: int, fail_fast: bool) -> None:
        self.store, self.monitor, self.workers = store, monitor, workers
        self.fail_fast = fail_fast
        self.deaths: dict[str, int] = {}  # of jobs, by key
        self.stillborn = 0  # times in a row that workers died before they began a job
        self.queue: list[Job] = []
        self.alone: list[Job] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Returns when every training is stored or failed.

        Raises StoreError when results can't be kept, or at the first failure if asked to.
        """
        self.queue = list(jobs)
        while self.queue or self.alone:
            parallel = bool(self.queue)
            batch = self.queue if parallel else self.alone[:1]
            waiting = {job.key: job for job in batch}
            if parallel:
                self.queue = []
            else:
                del self.alone[0]
            try:
                for verdict in self._parallel(batch, self.workers if parallel else 2):
                    del waiting[verdict.job.key]
                    self._settle(verdict)
            except BrokenProcessPool:
                self._after_death(list(waiting.values()))

    def _parallel(self, batch: Sequence[Job], workers: int) -> Iterator[Verdict]:
        # One worker runs in this very process, where a job that kills would kill the run; a job
        # under suspicion therefore always gets a process of its own.
        verdicts = pool(workers)(delayed(run_job)(job) for job in batch)
        return cast(Iterator[Verdict], verdicts)

    def _settle(self, verdict: Verdict) -> None:
        job = verdict.job
        if verdict.end == "done":
            self.monitor.finish(job.key, verdict.statuses)
        elif verdict.end == "storage":
            raise StoreError(f"results can't be written: {verdict.reason}; nothing stored is lost")
        elif len(job.specs) > 1:
            self.monitor.note(
                f"stack of {len(job.specs)}: {verdict.reason}; halved and tried again"
            )
            self.queue += self._halves(job)
        else:
            self._bury(job, verdict.reason, self.queue)

    def _halves(self, job: Job) -> list[Job]:
        middle = len(job.specs) // 2
        halves = [replace(job, specs=part) for part in (job.specs[:middle], job.specs[middle:])]
        cost = self.monitor.pending.pop(job.key, 0.0)
        for half in halves:
            self.monitor.pending[half.key] = cost * len(half.specs) / len(job.specs)
        return halves

    def _bury(self, job: Job, reason: str, retry: list[Job]) -> None:
        """One more death of a single training: tried again, or failed for good."""
        deaths = self.store.bury(job.specs[0].id, reason)
        if deaths < DEATHS:
            retry.append(job)
            return
        self.monitor.pending.pop(job.key, None)
        self.monitor.failed += 1
        self.monitor.note(f"failed: training {job.specs[0].id}: {reason} ({deaths} times)")
        if self.fail_fast:
            raise StoreError("stopped at the first failure (--fail-fast)")

    def _after_death(self, waiting: list[Job]) -> None:
        under_way = self._under_way()
        self.stillborn = 0 if under_way else self.stillborn + 1
        if self.stillborn == DEATHS:
            raise StoreError("worker processes die before they begin; nothing stored is lost")
        stored = self.store.done()
        for job in waiting:
            if all(spec.id in stored for spec in job.specs):  # killed between storing and telling
                self.monitor.finish(job.key, {spec.id: stored[spec.id] for spec in job.specs})
            elif job.key not in under_way:
                self.queue.append(job)
            else:
                deaths = self.deaths[job.key] = self.deaths.get(job.key, 0) + 1
                if deaths < DEATHS - 1:
                    self.queue.append(job)
                elif deaths < DEATHS:
                    self.alone.append(job)
                elif len(job.specs) == 1:
                    self._bury_killed(job)
                else:
                    halves = self._halves(job)
                    self.deaths |= {half.key: DEATHS - 1 for half in halves}
                    self.alone += halves
        self.monitor.note("a worker was killed; what it had not finished runs again")

    def _bury_killed(self, job: Job) -> None:
        while self.store.bury(job.specs[0].id, "its worker was killed") < DEATHS - 1:
            pass
        self._bury(job, "its worker was killed", self.alone)

    def _under_way(self) -> set[str]:
        keys = set(self.monitor.shares())
        clear_progress(self.monitor.progress)
        return keys


def clear_progress(folder: Path) -> None:
    """Removes what the jobs of a run have left of their progress."""
    shutil.rmtree(folder, ignore_errors=True)
