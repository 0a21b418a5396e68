"""What a command asks for, where it stands, and the jobs that are left of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError
from bench.spec import Spec
from bench.studies import STUDIES
from bench.studies.selection import select
from bench.studies.study import Job, Study

if TYPE_CHECKING:
    from bench.store.rows import Store

CLUSTERS = ("dask", "ray")
DOWNLOAD = "download"
ADDRESSES = {
    "dask": "tcp://HOST:PORT of its scheduler",
    "ray": "HOST:PORT, ray://HOST:PORT or auto",
}
PAPER_BY_DEFAULT = 30 * 60
"""Without --scale, `paper` is run where it is estimated to take fewer seconds than this."""


@dataclass(frozen=True)
class Counts:
    """The state of a selection of trainings; `diverged` ones are among those `done`."""

    study: str
    scale: str
    total: int
    done: int
    diverged: int
    failed: int
    pending: int


def count(specs: Sequence[Spec], store: Store) -> tuple[Counts, list[Spec]]:
    """The state of these trainings and those still to be trained; writes nothing."""
    from bench.store.rows import FAILURES

    done, failures = store.done(), store.failures()
    failed = {id for id, note in failures.items() if note["times"] >= FAILURES and id not in done}
    statuses = [done[spec.id] for spec in specs if spec.id in done]
    left = [spec for spec in specs if spec.id not in done and spec.id not in failed]
    counts = Counts(
        study=specs[0].study,
        scale=specs[0].scale,
        total=len(specs),
        done=len(statuses),
        diverged=statuses.count("diverged"),
        failed=len(specs) - len(statuses) - len(left),
        pending=len(left),
    )
    return counts, left


@dataclass
class Plan:
    """What a command asks for, on which machine."""

    args: argparse.Namespace
    study: Study[Any]
    scale: str
    why: str  # this scale
    specs: Sequence[Spec]
    store: Store
    device: str
    workers: int
    rate: float  # FLOP/s of a worker's matrix products
    jobs: list[Job] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)  # seconds of each job by key

    @classmethod
    def of(cls, args: argparse.Namespace) -> Plan:
        """From the command's options. Raises UsageError."""
        from joblib import cpu_count

        from bench.engine import cost
        from bench.scores import metrics

        study = STUDIES[args.study]
        elsewhere = check_engine(args.engine, args.address, args.workers, args.device)
        device = choose_device(args.device, elsewhere)
        if args.precision == "tf32" and device != "cuda":
            allowed = ", ".join(name for name in study.kind.PRECISIONS if name != "tf32")
            raise UsageError(f"--precision tf32 needs --device cuda; allowed on a CPU: {allowed}")
        one = device == "cuda" or args.engine == "sequential"
        workers = args.workers or (1 if one else cpu_count())
        # What a cluster is made of can't be measured from here: this machine stands for it.
        rate = cost.matmul_rate(choose_device(None) if elsewhere else device)
        scale, why = args.scale, "as asked"
        if scale is None:
            scale, why = choose_scale(study, device, workers, rate)
        specs: Sequence[Spec] = select(study, scale, args)
        if args.data or not (args.status or args.json):
            specs = study.check(specs, args.data, args.inception_weights)
            imagenet = args.inception_weights is not None
            metrics.check(study.metrics(), study.columns(), imagenet)
        store = study.store(args.results, scale)
        return cls(args, study, scale, why, specs, store, device, workers, rate)

    def cut(self, left: Sequence[Spec]) -> None:
        """Makes the jobs, the longest first so that workers end together."""
        from bench.store import provenance
        from bench.store.atomic import process

        if not left:
            return
        args, weights, origin = self.args, self.args.inception_weights, provenance.commit()
        if weights not in (None, DOWNLOAD):
            weights = str(Path(weights).absolute())
        self.jobs = [
            Job(
                tuple(stack),
                # Workers may stand in another folder.
                str(args.results.absolute()),
                self.device,
                origin,
                # Those of a cluster are not children of this process.
                None if args.engine in CLUSTERS else os.getpid(),
                process(),
                None if args.data is None else str(args.data.absolute()),
                weights,
            )
            for stack in self.study.stacks(left, self.device)
        ]
        seconds = self.study.seconds
        self.costs = {job.key: sum(seconds(s, self.rate) for s in job.specs) for job in self.jobs}
        self.jobs.sort(key=lambda job: -self.costs[job.key])

    def line(self, counts: Counts) -> str:
        """What is asked for, how much of it is done and how long the rest will take."""
        part = f", shard {self.args.shard}" if self.args.shard else ""
        line = (
            f"{self.study.name} at scale {self.scale} ({self.why}){part}: {counts.total} "
            f"trainings, {counts.done} done ({counts.diverged} diverged), {counts.failed} failed, "
            f"{counts.pending} to go"
        )
        if self.jobs:
            costs = self.costs.values()
            estimate = duration(max(sum(costs) / self.workers, *costs))
            line += f" in {len(self.jobs)} stacks; about {estimate} on "
            line += f"{self.workers} x {self.device}"
        return line


def check_engine(engine: str, address: str | None, workers: int | None, device: str | None) -> bool:
    """Whether jobs run on other machines. Raises UsageError for options that don't go together."""
    from bench.engine.executors import LOCAL

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
    """cpu or cuda. Raises UsageError for a GPU that isn't there, unless jobs run elsewhere."""
    import torch

    if asked == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device; allowed here: cpu")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_scale(study: Study[Any], device: str, workers: int, rate: float) -> tuple[str, str]:
    """Without --scale: which one, and why."""
    seconds = sum(study.seconds(spec, rate) for spec in study.specs("paper")) / workers
    if seconds < PAPER_BY_DEFAULT:
        return "paper", f"its estimate on this {device} is under 30 min"
    return "quick", f"--scale paper would take about {duration(seconds)} here"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
