"""Gets every job done, whatever becomes of its workers."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.engine.executors import Broken, EngineError, Gone, Pool
from bench.engine.job import Verdict, run_job
from bench.engine.progress import Monitor
from bench.store.rows import FAILURES, Store, StoreError
from bench.studies.study import Job


class Engine:
    """Runs jobs on a pool of workers, whichever it is.

    The folder of results is the only memory: a worker stores its own rows, so whatever was
    finished stays finished, and jobs that died are those that are neither stored nor failed.
    A job that does not fit in memory or raises is halved until the training at fault stands
    alone. When a worker is killed, what was under way with it runs again, and a job that was
    there twice runs with nobody beside it, so that its third death is its own.
    """

    def __init__(self, store: Store, monitor: Monitor, pool: Pool, fail_fast: bool) -> None:
        self.store, self.monitor, self.pool = store, monitor, pool
        self.fail_fast = fail_fast
        self.deaths: dict[str, int] = {}  # of jobs, by key
        self.stillborn = 0  # times in a row that workers died before they began a job
        self.queue: list[Job] = []
        self.alone: list[Job] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Returns when every training is stored or failed.

        Raises StoreError when results can't be kept, or at the first failure if asked to;
        EngineError when no worker can run jobs.
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
                for verdict in self.pool.run(run_job, batch, alone=not parallel):
                    del waiting[verdict.job.key]
                    self._settle(verdict)
            except Broken:
                self._after_death(list(waiting.values()))
            except Gone as gone:
                self.monitor.note(f"{gone}; what is not stored runs again when it is back")
                self.queue += self._unstored(list(waiting.values()))

    def _settle(self, verdict: Verdict) -> None:
        job = verdict.job
        if verdict.end == "done":
            self.monitor.finish(job.key, verdict.statuses)
        elif verdict.end == "storage":
            raise StoreError(f"results can't be written: {verdict.reason}; nothing stored is lost")
        elif verdict.end == "killed":
            self._killed(job)
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
        deaths = self.store.note_failure(job.specs[0].id, reason)
        if deaths < FAILURES:
            retry.append(job)
            return
        self.monitor.pending.pop(job.key, None)
        self.monitor.failed += 1
        self.monitor.note(f"failed: training {job.specs[0].id}: {reason} ({deaths} times)")
        if self.fail_fast:
            raise StoreError("stopped at the first failure (--fail-fast)")

    def _after_death(self, waiting: list[Job]) -> None:
        """Workers are gone and nobody says whose: every job that had begun is under suspicion."""
        under_way = self.monitor.shares().keys() & {job.key for job in waiting}
        self.stillborn = 0 if under_way else self.stillborn + 1
        if self.stillborn == FAILURES:
            raise EngineError("worker processes die before they begin")
        for job in self._unstored(waiting):
            if job.key in under_way:
                self._died(job)
            else:
                self.queue.append(job)
        self.monitor.note("a worker was killed; what it had not finished runs again")

    def _killed(self, job: Job) -> None:
        """The worker of this very job is gone."""
        begun = job.key in self.monitor.shares()
        if not begun and self.deaths.get(job.key) == FAILURES - 1:  # and nobody was beside it
            raise EngineError("worker processes die before they begin")
        for unstored in self._unstored([job]):
            self._died(unstored)
        self.monitor.note("a worker was killed; what it had not finished runs again")

    def _unstored(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that are to be run again; none of them is under way any more."""
        stored = self.store.done()
        left = []
        for job in jobs:
            (self.monitor.progress / f"{job.key}.json").unlink(missing_ok=True)
            if all(spec.id in stored for spec in job.specs):  # it ended between storing and telling
                self.monitor.finish(job.key, {spec.id: stored[spec.id] for spec in job.specs})
            else:
                left.append(job)
        return left

    def _died(self, job: Job) -> None:
        deaths = self.deaths[job.key] = self.deaths.get(job.key, 0) + 1
        if deaths < FAILURES - 1:
            self.queue.append(job)
        elif deaths < FAILURES:
            self.alone.append(job)
        elif len(job.specs) == 1:
            self._bury_killed(job)
        else:
            halves = self._halves(job)
            self.deaths |= {half.key: FAILURES - 1 for half in halves}
            self.alone += halves

    def _bury_killed(self, job: Job) -> None:
        while self.store.note_failure(job.specs[0].id, "its worker was killed") < FAILURES - 1:
            pass
        self._bury(job, "its worker was killed", self.alone)


def clear_drafts(progress: Path) -> None:
    """Removes what workers that were just killed amid a write have left, by their heartbeats."""
    for path in progress.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = json.loads(path.read_text())["process"]
            for draft in (progress.parent.parent / "_tmp").glob(f"{process}-*"):
                draft.unlink(missing_ok=True)


def clear_progress(folder: Path) -> None:
    """Removes what the jobs of a run have left of their progress."""
    for _ in range(20):  # a worker that is just being killed may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
