"""A plan holds what a command asks for, how much of it is done, and the jobs that are left."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError, duration
from bench.spec import Spec
from bench.studies import STUDIES
from bench.studies.selection import select
from bench.studies.study import Job, Study

if TYPE_CHECKING:
    from bench.store.rows import Store

CLUSTERS, LOCAL = ("dask", "ray"), "local"
DOWNLOAD = "download"
ADDRESSES = {
    "dask": "tcp://HOST:PORT of its scheduler",
    "ray": "HOST:PORT, ray://HOST:PORT or auto",
}
PAPER_BY_DEFAULT = 30 * 60
"""Seconds below which the estimate of `paper` makes it the default scale."""


@dataclass(frozen=True)
class Counts:
    """Counts the states of selected trainings; `diverged` trainings are `done` as well.

    `stale` trainings have rows that were made by other source, and are not asked to run again.
    """

    study: str
    scale: str
    total: int
    done: int
    diverged: int
    stale: int
    failed: int
    pending: int


def count(
    specs: Sequence[Spec], store: Store, redo: str | None = None
) -> tuple[Counts, list[Spec]]:
    """Returns the counts of these trainings, and the trainings that are left; writes nothing.

    `redo` says which finished trainings are left as well: "stale", "all", or None for none.
    """
    from bench.store.rows import FAILURES

    done, failures = store.done(), store.failures()
    stale = store.stale().keys() - done.keys() if redo is None else set()
    given_up = {id for id, note in failures.items() if note["times"] >= FAILURES}
    if redo == "all":
        # What an earlier command asked for and has trained again is done, until all is.
        again = done.keys() & store.asked().keys() if store.due() - given_up else set()
        done = {id: done[id] for id in again}
    failed = given_up - done.keys()
    statuses = [done[spec.id] for spec in specs if spec.id in done]
    old = [spec for spec in specs if spec.id in stale]
    kept = {*done, *stale, *failed}
    left = [spec for spec in specs if spec.id not in kept]
    counts = Counts(
        study=specs[0].study,
        scale=specs[0].scale,
        total=len(specs),
        done=len(statuses),
        diverged=statuses.count("diverged"),
        stale=len(old),
        failed=len(specs) - len(statuses) - len(old) - len(left),
        pending=len(left),
    )
    return counts, left


class Plan:
    """Holds what a command's options ask for; `cut` sets `counts`, `jobs` and `costs`."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Reads the command's options. Raises UsageError for options that can't be met."""
        from joblib import cpu_count

        from bench.engine import cost
        from bench.scores import metrics

        self.args, self.study = args, replace(STUDIES[args.study], stale=args.stale)
        elsewhere = check_engine(args.engine, args.address, args.workers, args.device)
        self.device = choose_device(args.device, elsewhere)
        if args.precision == "tf32" and self.device != "cuda":
            allowed = ", ".join(name for name in self.study.kind.PRECISIONS if name != "tf32")
            raise UsageError(f"--precision tf32 needs --device cuda; allowed on a CPU: {allowed}")
        one = self.device == "cuda" or args.engine == "sequential"
        self.workers = args.workers or (1 if one else cpu_count())
        # The speed of a cluster can't be measured from here: this machine's speed stands for it.
        here = choose_device(None) if elsewhere else self.device
        self.rate = cost.matmul_rate(here)  # FLOP/s of a worker's matrix products
        self.scale, self.why = args.scale, "as asked"
        if args.scale is None:
            self.scale, self.why = choose_scale(self.study, self.device, self.workers, self.rate)
        self.specs: Sequence[Spec] = select(self.study, self.scale, args)
        if args.data or not (args.status or args.json):
            self.specs = self.study.check(self.specs, args.data, args.inception_weights)
            imagenet = args.inception_weights is not None
            metrics.check(self.study.metrics(), self.study.columns(), imagenet)
        self.store = self.study.store(args.results, self.scale)

    def cut(self) -> None:
        """Makes the jobs that are left. The longest come first, so that workers end together."""
        from bench.store import provenance

        self.counts, left = count(self.specs, self.store, self.args.redo)
        origin = provenance.commit()
        self.jobs = [
            job_of(self.args, stack, self.args.results, self.device, origin, self.args.keep_weights)
            for stack in self.study.stacks(left, self.device)
        ]
        seconds = self.study.seconds
        self.costs = {job.key: sum(seconds(s, self.rate) for s in job.specs) for job in self.jobs}
        self.jobs.sort(key=lambda job: -self.costs[job.key])

    def whole(self) -> Sequence[Spec]:
        """Returns what the options select without --shard."""
        if self.args.shard is None:
            return self.specs
        args = argparse.Namespace(**{**vars(self.args), "shard": None})
        whole = select(self.study, self.scale, args)
        return self.study.check(whole, args.data, args.inception_weights)

    def line(self) -> str:
        """Returns a line: the selection, how much of it is done, how long the rest will take."""
        counts, shard = self.counts, f", shard {self.args.shard}" if self.args.shard else ""
        line = (
            f"{self.study.name} at scale {self.scale} ({self.why}){shard}: {counts.total} "
            f"trainings, {counts.done} done ({counts.diverged} diverged), "
            f"{f'{counts.stale} stale, ' if counts.stale else ''}{counts.failed} failed, "
            f"{counts.pending} to go"
        )
        if self.jobs:
            costs = self.costs.values()
            estimate = duration(max(sum(costs) / self.workers, *costs))
            line += f" in {len(self.jobs)} stacks; about {estimate} on "
            line += f"{self.workers} x {self.device}"
        return line


def job_of(
    args: argparse.Namespace,
    specs: Sequence[Spec],
    results: Path,
    device: str,
    origin: dict[str, Any],
    keep_weights: str = "none",
) -> Job:
    """Returns the job of a stack, with what the command's options say of it."""
    from bench.store.atomic import process

    weights = args.inception_weights
    return Job(
        tuple(specs),
        # Workers may run in another folder: paths are absolute.
        str(results.absolute()),
        device,
        origin,
        # A cluster's workers are not children of this process.
        None if args.engine in CLUSTERS else os.getpid(),
        process(),
        args.data and str(args.data.absolute()),
        weights if weights in (None, DOWNLOAD) else str(Path(weights).absolute()),
        keep_weights,
    )


def check_engine(engine: str, address: str | None, workers: int | None, device: str | None) -> bool:
    """Says whether jobs run on other machines. Raises UsageError for options that conflict."""
    if engine not in CLUSTERS:
        if address is not None:
            raise UsageError(f"--address goes with --engine dask or ray, not {engine}")
        if engine == "sequential" and (workers or 1) > 1:
            raise UsageError(f"--workers {workers}; --engine sequential is this one process")
    elif address is None:
        raise UsageError(
            f"--engine {engine} needs --address: {ADDRESSES[engine]}, or local to start one here"
        )
    elif address != LOCAL and workers is not None and (engine, device) != ("ray", "cuda"):
        raise UsageError(f"--workers {workers}; a running cluster has its own (see --address)")
    return address not in (None, LOCAL)


def choose_device(asked: str | None, elsewhere: bool = False) -> str:
    """Returns cpu or cuda. Raises UsageError for a missing GPU, unless jobs run elsewhere."""
    import torch

    if asked == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device; allowed here: cpu")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_scale(study: Study[Any], device: str, workers: int, rate: float) -> tuple[str, str]:
    """Returns the scale of a command without --scale, and the reason."""
    seconds = sum(study.seconds(spec, rate) for spec in study.specs("paper")) / workers
    if seconds < PAPER_BY_DEFAULT:
        return "paper", f"its estimate on this {device} is under 30 min"
    return "quick", f"--scale paper would take about {duration(seconds)} here"
