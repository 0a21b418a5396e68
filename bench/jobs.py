"""One job is one stack: trains it, scores it, stores its rows. Runs in any process.

What travels to a worker is a small plain `Job`, what returns is a `Verdict`; results are files.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from bench import provenance
from bench.evaluate import Evaluation
from bench.spec import FIELDS, PROTOCOL, Spec
from bench.store import Store, write_atomically
from bench.train import Trainer, keep_freed_memory, program
from models.objectives import label

TRACES = 8
"""The decoder's gradient is measured before training and after each eighth of the epochs."""


@dataclass(frozen=True)
class Job:
    """A stack of trainings and where its results go."""

    specs: tuple[Spec, ...]
    results: str
    device: str
    origin: dict[str, Any]  # columns known to the process that started the run
    parent: int | None = None  # its process id, if it is on this machine

    @property
    def key(self) -> str:
        return f"{self.specs[0].id}-{len(self.specs)}"


@dataclass(frozen=True)
class Verdict:
    """How a job ended: done, out of memory, raised, or storage (its results couldn't be kept)."""

    job: Job
    end: str
    statuses: dict[str, str]  # id -> "ok" or "diverged", of trainings now stored
    reason: str = ""


def stacks(specs: Sequence[Spec], device: str) -> list[list[Spec]]:
    """Cuts trainings into stacks of one tensor program each.

    On a CPU large enough to spread the cost of a call, small enough for a core's cache: 4 to 32
    members, about 2,048 hidden units a layer in all, equal shapes side by side. On a GPU as large
    as can be: memory is found out by running, a stack that does not fit is halved. No stack mixes
    lambda = 0 with lambda > 0: the cycle is a part of the program that the former does without.
    """
    groups: dict[Any, list[Spec]] = {}
    for spec in specs:
        groups.setdefault((program(spec), spec.lam > 0), []).append(spec)
    found = []
    for members in groups.values():
        members.sort(key=lambda s: (*_shape(s), s.seed, s.lam, s.method))
        width = max(max(s.encoder_width, s.decoder_width, s.critic_width) for s in members)
        limit = len(members) if device == "cuda" else max(4, min(32, 2048 // width))
        pieces = -(-len(members) // limit)
        cuts = [len(members) * i // pieces for i in range(pieces + 1)]
        found += [members[a:b] for a, b in pairwise(cuts)]
    return found


def _shape(spec: Spec) -> tuple[int, ...]:
    return (
        *(spec.encoder_width, spec.decoder_width, spec.critic_width),
        *(spec.encoder_depth, spec.decoder_depth, spec.critic_depth),
    )


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
        torch.cuda.empty_cache()  # here, where no frame of the attempt holds tensors any more
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
    except OSError as error:
        return Verdict(job, "storage", {}, f"{error.strerror or error}")
    return Verdict(job, "done", {row["id"]: row["status"] for row in rows})


def _store(job: Job) -> Store:
    return Store(Path(job.results), job.specs[0].study, job.specs[0].scale)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, here or in what this error came on top of."""
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch raises a plain RuntimeError when the CPU's allocator is refused.
    refused = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return refused or _out_of_memory(error.__context__)


def _train(job: Job, beat: Heartbeat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    torch.set_num_threads(1)
    keep_freed_memory()
    tf32 = job.specs[0].precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    trainer = Trainer(job.specs, job.device)
    evaluation = Evaluation(trainer)
    epochs = trainer.specs[0].epochs
    traced = sorted({round(epochs * i / TRACES) for i in range(TRACES + 1)})
    traces = []

    def after_epoch(epoch: int) -> None:
        if epoch in traced:
            traces.append(evaluation.decoder_gradient())
        beat(epoch / epochs)

    seconds = trainer.train(after_epoch) / len(job.specs)
    name = torch.cuda.get_device_name() if job.device == "cuda" else provenance.cpu_name()
    common = {
        **job.origin,
        **provenance.versions(),
        "protocol": PROTOCOL,
        "n_splits": 1,
        "classifier": "exact posterior",
        "trace_epoch": traced,
        "device": job.device,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "stack_size": len(job.specs),
        "train_seconds": seconds,
        "finished": datetime.now(UTC),
    }
    rows, samples = [], []
    for i, (spec, outcome) in enumerate(zip(trainer.specs, evaluation.outcomes(), strict=True)):
        gradients = {method: [trace[i][method] for trace in traces] for method in traces[0][i]}
        rows.append(
            {
                **common,
                **{name: getattr(spec, name) for name in FIELDS},
                **(outcome.metrics or {}),
                "id": spec.id,
                "config": spec.config,
                "label": label(spec.method, spec.lam),
                "status": "ok" if outcome.metrics else "diverged",
                "n_samples": evaluation.z.shape[2],
                "decoder_gradient": gradients,
            }
        )
        points = {"x": outcome.x, "x_rec": outcome.x_rec, "samples": outcome.samples}
        samples.append({"id": spec.id, **{k: v.ravel() for k, v in points.items()}})
    return rows, samples


class Heartbeat:
    """Tells how far a job has come through a file in `_progress/PARENT`, at most twice a second.

    The file also says which jobs were under way when a worker is killed. A worker whose parent
    is gone ends itself here: nobody would wait for it.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = _store(job).progress_of(job.parent) / f"{job.key}.json"
        self.next = 0.0
        self(0.0)

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 0.5
        if self.job.parent not in (None, os.getpid(), os.getppid()):
            os._exit(1)
        note = {"key": self.job.key, "share": share}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(note).encode(), self.path.parent / "_tmp")
        except OSError:
            pass  # progress is a courtesy: a full disk will be met when results are written

    def stop(self) -> None:
        self.path.unlink(missing_ok=True)
