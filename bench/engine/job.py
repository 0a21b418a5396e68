"""One job is one stack: trains it, scores it, stores its rows. Runs in any process.

What travels to a worker is a small plain `Job`, what returns is a `Verdict`; results are files.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.engine.workers import keep_freed_memory
from bench.spec import columns, protocol
from bench.store import provenance
from bench.store.atomic import process, write_atomically
from bench.store.rows import Store
from bench.studies import STUDIES
from bench.studies.cuda import allow_tf32
from bench.studies.study import Job
from models.methods import label


@dataclass(frozen=True)
class Verdict:
    """How a job ended: done, out of memory, raised, or storage (its results couldn't be kept)."""

    job: Job
    end: str
    statuses: dict[str, str]  # id -> "ok" or "diverged", of trainings now stored
    reason: str = ""


def run_job(job: Job) -> Verdict:
    """Trains, scores and stores a stack; whatever goes wrong comes back as a verdict."""
    if job.parent not in (None, os.getpid()):
        # Ctrl-C reaches the whole group of processes; the parent alone decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    beat = Heartbeat(job)
    try:
        verdict = _attempt(job, beat)
    finally:
        beat.stop()
    if verdict.end == "memory" and job.device == "cuda":
        # Here, where no frame of the attempt holds tensors any more. Some versions refuse after a
        # recording that failed.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
    return verdict


def _attempt(job: Job, beat: Heartbeat) -> Verdict:
    try:
        rows, samples = _train(job, beat)
    except Exception as error:
        if _out_of_memory(error):
            return Verdict(job, "memory", {}, "out of memory")
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Verdict(job, "raised", {}, f"{type(error).__name__}: {error} ({where})")
    try:
        _store(job).write(rows, samples)
        STUDIES[job.specs[0].study].clear(job)
    except OSError as error:
        return Verdict(job, "storage", {}, f"{error.strerror or error}")
    return Verdict(job, "done", {row["id"]: row["status"] for row in rows})


def _store(job: Job) -> Store:
    one = job.specs[0]
    return STUDIES[one.study].store(Path(job.results), one.scale)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, here or in what this error came on top of."""
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch raises a plain RuntimeError when the CPU's allocator or a library of the GPU is refused.
    refusals = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    refused = isinstance(error, RuntimeError) and any(each in str(error) for each in refusals)
    return refused or _out_of_memory(error.__context__)


def _train(job: Job, beat: Heartbeat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    torch.set_num_threads(1)
    keep_freed_memory()
    allow_tf32(job.specs[0].precision == "tf32")
    rows, samples = STUDIES[job.specs[0].study].train(job, beat)
    by_id = {spec.id: spec for spec in job.specs}
    name = torch.cuda.get_device_name() if job.device == "cuda" else provenance.cpu_name()
    for row in rows:
        spec = by_id[row["id"]]
        row |= {
            **{column: getattr(spec, column) for column in columns(type(spec))},
            "config": spec.config,
            "protocol": protocol(spec.study),
            "label": label(spec.method, spec.lam),
            **job.origin,
            **provenance.versions(),
            "device": job.device,
            "device_name": name,
            "threads": torch.get_num_threads(),
            "stack_size": len(job.specs),
            "finished": datetime.now(UTC),
        }
    return rows, samples


class Heartbeat:
    """Tells how far a job has come through a file in `_progress/RUN`, at most twice a second.

    The file also says which jobs were under way when a worker is killed. A worker whose parent
    is gone ends itself here: nobody would wait for it. On clusters, which see to that themselves,
    there is no parent; there the file is shared by many and written less often.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = _store(job).progress_of(job.run) / f"{job.key}.json"
        self.next = 0.0
        self(0.0)

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + (5.0 if self.job.parent is None else 0.5)
        if self.job.parent not in (None, os.getpid(), os.getppid()):
            os._exit(1)
        note = {"key": self.job.key, "share": share, "process": process()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(note).encode(), self.path.parent / "_tmp")
        except OSError:
            pass  # progress is a courtesy: a full disk will be met when results are written

    def stop(self) -> None:
        self.path.unlink(missing_ok=True)
