"""A job trains one stack, scores it and stores its rows, in any process."""

from __future__ import annotations

import contextlib
import ctypes
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench import plugins
from bench.cli import UsageError
from bench.engine.progress import Heartbeat
from bench.spec import columns, protocol
from bench.store import provenance, source
from bench.store import weights as kept
from bench.store.atomic import at_once
from bench.studies import STUDIES, cuda, grids
from bench.studies.study import Job, Rows, Study
from models.precision import allow_tf32

if TYPE_CHECKING:
    from bench.store.rows import Store


source.read_all()


@dataclass(frozen=True)
class Verdict:
    """Says how a job ended. A worker returns nothing else: results are files.

    The end is done, memory (too little), raised, unrecorded (as a CUDA graph), storage (results
    can't be written) or killed (the job's worker).
    """

    job: Job
    end: str
    statuses: dict[str, str] = field(default_factory=dict)  # id -> ok or diverged, if done
    reason: str = ""
    seconds: float = 0.0  # that the job took, if done
    methods: tuple[str, ...] = ()  # whose updates can't be recorded
    spoiled: bool = False  # whether the worker must be replaced, see `bench.studies.cuda`


def run_job(job: Job) -> Verdict:
    """Trains, scores and stores a stack. Whatever goes wrong is returned as a verdict."""
    beat = Heartbeat(job)
    try:
        verdict = _attempt(job, beat)
    finally:
        beat.stop()
    if verdict.end == "memory" and job.device == "cuda":
        # No frame of the attempt holds tensors here. Some versions of torch refuse this after a
        # recording that failed.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
    return replace(verdict, spoiled=verdict.spoiled or cuda.spoiled())


def _attempt(job: Job, beat: Heartbeat) -> Verdict:
    try:
        study = study_of(job)
        rows, samples = _train(job, beat)
    except cuda.Unrecorded as error:
        return Verdict(job, "unrecorded", reason=error.why, methods=error.methods)
    except Exception as error:
        if cuda.out_of_memory(error):
            return Verdict(job, "memory", {}, "out of memory")
        return _raised(job, error)
    store = study.store(Path(job.results), job.specs[0].scale)
    try:
        _keep_weights(job, store, rows)  # first, because a row says that all is done
        store.write(rows, samples)
        study.clear(job)
    except OSError as error:
        return Verdict(job, "storage", {}, f"{error.strerror or error}")
    except RuntimeError as error:  # weights could not be fetched from a GPU
        return _raised(job, error)
    statuses = {row["id"]: row["status"] for row in rows}
    return Verdict(job, "done", statuses, seconds=beat.seconds())


def study_of(job: Job) -> Study[Any]:
    """Returns the study of a job, with the job's plug-ins. Raises UsageError for what is not here.

    A process that calls `bench.run.main` may have added to its own tables by hand.
    """
    plugins.install(job.texts)
    name = job.specs[0].study
    if job.grid is not None and name not in STUDIES:
        grids.learn(name, job.grid)
    if name not in STUDIES:
        raise UsageError(f"the worker knows no study {name}; give its file with --plugin")
    known = STUDIES[name].every_method()
    for spec in job.specs:
        if spec.method not in known:
            raise UsageError(f"the worker knows no {spec.method}; give its file with --plugin")
    return STUDIES[name]


def _raised(job: Job, error: Exception) -> Verdict:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = plugins.place(error) or f"({Path(last.filename).name}:{last.lineno})"
    told = isinstance(error, UsageError)  # in words that name a place themselves
    reason = str(error) if told else f"{type(error).__name__}: {error} {where}"
    return Verdict(job, "raised", {}, reason, spoiled=cuda.unusable(error))


def _keep_weights(job: Job, store: Store, rows: Rows) -> None:
    """Takes the weights out of the rows, and keeps them if the job says so.

    Weights of an earlier training of the same spec never stay beside a new row.
    """
    specs = {spec.id: spec for spec in job.specs}

    def keep(row: dict[str, Any]) -> None:
        weights = row.pop("weights", None)
        if weights is not None and job.weights != "none":
            about = kept.about(specs[row["id"]], row) | {"keep": job.weights}
            store.keep_weights(row["id"], weights, about)
        else:
            store.weights_of(row["id"]).unlink(missing_ok=True)

    at_once(keep, rows)


def _train(job: Job, beat: Heartbeat) -> tuple[Rows, Rows]:
    torch.set_num_threads(1)
    keep_freed_memory()
    allow_tf32(job.specs[0].precision == "tf32")
    study = STUDIES[job.specs[0].study]
    today = study.today()
    methods = {spec.method: today.method(spec.method) for spec in job.specs}
    rows, samples = study.train(job, beat)
    by_id = {spec.id: spec for spec in job.specs}
    name = torch.cuda.get_device_name() if job.device == "cuda" else provenance.cpu_name()
    for row in rows:
        spec = by_id[row["id"]]
        row |= {
            **{column: getattr(spec, column) for column in columns(type(spec))},
            "config": spec.config,
            "protocol": protocol(spec.study),
            "label": study.label(spec.method, spec.lam),
            **job.origin,
            **provenance.versions(),
            "device": job.device,
            "device_name": name,
            "threads": torch.get_num_threads(),
            "stack_size": len(job.specs),
            "finished": datetime.now(UTC),
            "method_digest": methods[spec.method],
            "metric_digests": today.filled(row),
            "plugins": plugins.digests() or None,
            "grid": study.grid,
        }
    return rows, samples


def keep_freed_memory() -> None:
    """Lets glibc keep the memory that tensors free; does nothing without glibc.

    By default glibc returns large blocks to the system, which then clears every page anew. That
    takes a tenth of a training's time on a CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**31 - 1)
