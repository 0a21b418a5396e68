"""A plan holds what a command asks for, how much of it is done, and the jobs that are left."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError, duration
from bench.render.text import counted
from bench.spec import Spec, option
from bench.studies import STUDIES
from bench.studies.selection import given, select, shrunk
from bench.studies.study import Job, Needs, Study

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
UNSURE = 3
"""Ratio to that limit up to which the trainer itself is timed."""
START = 4.0
"""Seconds that worker processes take to start: jobs that are shorter in all run without them."""
CROWDED = 0.9
"""Share of a core below which the first line names other programs."""
FIRST = 12.0
"""Seconds up to which a job may run first, to show a result early."""
PROCESS = 2**27
"""Bytes of memory that a worker takes at least, before it trains anything."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory a container has."""


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

        from bench.scores import metrics
        from bench.studies.cost import Crowd
        from models.precision import allow_tf32

        self.crowd, self.start = Crowd(), time.monotonic()
        self.args = args
        if args.results.exists() and not args.results.is_dir():
            why = f"--results {args.results} is no folder, and can't be written or read"
            raise UsageError(f"{why}; allowed: a folder of results")
        self.study = replace(STUDIES[args.study], stale=args.stale, baseline=args.baseline)
        elsewhere = check_engine(args.engine, args.address, args.workers, args.device)
        self.device = choose_device(args.device, elsewhere)
        if args.precision == "tf32" and self.device != "cuda":
            allowed = ", ".join(name for name in self.study.kind.PRECISIONS if name != "tf32")
            raise UsageError(f"--precision tf32 needs --device cuda; allowed on a CPU: {allowed}")
        if args.require_graph and self.device != "cuda":
            raise UsageError("--require-graph needs --device cuda; a CPU has no graphs")
        allow_tf32(args.precision == "tf32")  # for estimates
        one = self.device == "cuda" or args.engine == "sequential"
        self.workers = args.workers or (1 if one else cpu_count())
        # The speed of a cluster can't be measured from here: this machine's speed stands for it.
        self.elsewhere, self.here = elsewhere, choose_device(None) if elsewhere else self.device
        self.scale, self.why = args.scale, "as asked"
        if args.scale is None:
            self.scale, self.why = self.choose_scale()
        self.specs: Sequence[Spec] = select(self.study, self.scale, args)
        self.less: Sequence[str] = ()
        if args.data or not args.status:
            asked = self.specs
            self.specs = self._checked(asked)
            self.less = shrunk(asked, self.specs)
            imagenet = args.inception_weights is not None
            metrics.check(self.study.metrics(), self.study.taken(), imagenet)
        self.store = self.study.store(args.results, self.scale)
        if args.baseline:
            self.check_baseline()
        if not elsewhere:
            # A process without a job is idle.
            self.workers = min(self.workers, len(self.specs))
        if not args.status:
            self.check_room()

    def check_baseline(self) -> None:
        """Raises UsageError for a --baseline that is neither stored nor to be trained."""
        name, study = self.args.baseline, self.study
        if not study.compares:
            raise UsageError(f"{study.name} compares no methods in pairs and takes no --baseline")
        stored = self.store.load()[0]
        pairs = {*zip(stored["method"].to_pylist(), stored["label"].to_pylist(), strict=True)}
        pairs |= {(spec.method, study.label(spec.method, spec.lam)) for spec in self.specs}
        if not any(name in pair for pair in pairs):
            allowed = ", ".join(sorted({method for method, _ in pairs}))
            raise UsageError(f"--baseline {name}; allowed: {allowed}")

    def check_room(self) -> None:
        """Raises UsageError for trainings with clearly too little memory here, or disk."""
        args, needs = self.args, {spec: self.study.needs(spec) for spec in self.specs}
        if not self.elsewhere:
            check_memory(needs, self.workers, self.device)
        keep, there = args.keep_weights != "none", existing(args.results)
        free = shutil.disk_usage(there).free

        def files(some: Collection[Needs]) -> float:
            most = max((each.checkpoint for each in some), default=0.0)
            return self.workers * most + keep * sum(each.weights for each in some)

        if files(needs.values()) > free:
            left = [needs[spec] for spec in count(self.specs, self.store, args.redo)[1]]
            if (more := files(left)) > free:
                kept = "weights and checkpoints" if keep else "checkpoints"
                less = "--keep-weights none, or " if keep else ""
                raise UsageError(
                    f"{kept} of {len(left)} trainings take {size(more)}, and {size(free)} are free "
                    f"in {there}; allowed: {less}a --results folder on a larger disk"
                )

    def cut(self, begin: Callable[[int], None] = lambda workers: None) -> None:
        """Makes the jobs that are left, and takes so many workers as they are worth.

        Workers may `begin` before the jobs are timed, because both take seconds. The longest jobs
        come first, so that workers end together. A short job comes before them, so that the user
        soon sees a result.
        """
        from bench.store import provenance

        self.counts, left = count(self.specs, self.store, self.args.redo)
        origin = provenance.commit()
        stacks = self.study.stacks(left, self.device)
        # One worker is always worth it, and begins without waiting for a GPU's products.
        if self.args.engine == "loky" and self.args.workers is None and self.workers > 1:
            self.workers = worth(self.workers, self._by_products(stacks))
        self.share = self._share()  # before this command's own workers are at work
        begin(self.workers)
        seconds = self.estimate(stacks)
        self.jobs = [
            job_of(self.args, stack, self.args.results, self.device, origin, self.args.keep_weights)
            for stack in stacks
        ]
        pairs = zip(self.jobs, seconds, strict=True)
        self.costs = {job.key: each / self.share for job, each in pairs}
        self.jobs.sort(key=lambda job: -self.costs[job.key])
        if short := [job for job in self.jobs if self.costs[job.key] <= FIRST]:
            first = max(short, key=lambda job: max(spec.lam for spec in job.specs))
            self.jobs.remove(first)
            self.jobs.insert(0, first)

    def estimate(self, stacks: Sequence[Sequence[Spec]]) -> list[float]:
        """Returns the seconds of each stack for a process that has a core to itself."""
        from bench.engine.job import keep_freed_memory

        keep_freed_memory()  # as in a worker
        with suppress(Exception):  # what raises, or needs too much memory, is met by its job
            return self.study.estimate(stacks, self.here) if stacks else []
        return self._by_products(stacks)

    def _by_products(self, stacks: Sequence[Sequence[Spec]]) -> list[float]:
        """Returns about the same, quickly: from the speed of matrix products."""
        return Study.estimate(self.study, stacks, self.here) if stacks else []

    def _share(self) -> float:
        """Returns the share of a core that each worker is likely to have beside other programs."""
        return 1.0 if self.elsewhere or self.here != "cpu" else self.crowd.share(self.workers)

    def whole(self) -> Sequence[Spec]:
        """Returns what the options select without --shard."""
        if self.args.shard is None:
            return self.specs
        args = argparse.Namespace(**{**vars(self.args), "shard": None})
        whole = select(self.study, self.scale, args)
        return self._checked(whole)

    def _checked(self, specs: Sequence[Spec]) -> Sequence[Spec]:
        """Returns the specs as they will be trained, see `Study.check`."""
        args = self.args
        known = given(self.study, args)
        fetch = not args.dry_run  # it writes nothing
        return self.study.check(specs, args.data, args.inception_weights, known, fetch)

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
            start = START if self.args.engine == "loky" and self.workers > 1 else 0.0
            estimate = duration(start + together(self.costs.values(), self.workers))
            line += f" in {len(self.jobs)} stacks; about {estimate} on "
            line += f"{self.workers} x {self.device}"
            if self.share < CROWDED:
                cores = len(self.crowd.cores)
                few = f" that share {counted(cores, 'core')}" if cores < self.workers else ""
                line += few or " beside other programs"
        return line

    def choose_scale(self) -> tuple[str, str]:
        """Returns the scale of a command without --scale, and the reason."""
        specs: Sequence[Spec] = self.study.specs("paper")
        if self.args.data:
            specs = self._checked(specs)  # of few images the paper's own size is short
        stacks = self.study.stacks(specs, self.device)

        def side_by_side(costs: Collection[float]) -> float:
            return together(costs, self.workers) / self._share()

        seconds = side_by_side(self._by_products(stacks))
        if PAPER_BY_DEFAULT / UNSURE < seconds < PAPER_BY_DEFAULT * UNSURE:
            seconds = side_by_side(self.estimate(stacks))
        if seconds < PAPER_BY_DEFAULT:
            return "paper", f"its estimate on this {self.device} is under 30 min"
        return "quick", f"--scale paper would take about {duration(seconds)} here"


def check_memory(needs: Mapping[Spec, Needs], workers: int, device: str) -> None:
    """Raises UsageError for a training, or for so many workers, that can't fit into memory here."""
    there = memory(device)
    if workers * PROCESS > there:
        raise UsageError(
            f"--workers {workers}; allowed: at most {there // PROCESS:.0f}, because each takes "
            f"{size(PROCESS)} or more of the {size(there)} of memory here"
        )
    for spec, each in needs.items():
        if (takes := sum(each.memory.values())) > there:
            field = max(each.memory, key=lambda name: each.memory[name])
            raise UsageError(
                f"{field} is {getattr(spec, field)}, so a training takes {size(takes)} of memory; "
                f"allowed: a value that fits into the {size(there)} here ({option(field)})"
            )


def memory(device: str) -> float:
    """Returns the bytes of memory that this machine or container has; a GPU's count as well."""
    found = float("inf")
    with suppress(AttributeError, OSError, ValueError):  # not on every system
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # there is no container, or it says max
        found = min(found, float(CGROUP.read_text()))
    if device == "cuda":
        import torch

        found += torch.cuda.get_device_properties(0).total_memory
    return found


def size(number: float) -> str:
    """Returns a number of bytes in GB, to two digits or to the GB."""
    return f"{number / 1e9:,.2g} GB" if number < 1e11 else f"{number / 1e9:,.0f} GB"


def existing(folder: Path) -> Path:
    """Returns the folder, or the nearest place above it that there is."""
    folder = folder.absolute()
    while not os.path.exists(folder):
        folder = folder.parent
    return folder


def together(costs: Collection[float], workers: int) -> float:
    """Returns the seconds that jobs of these seconds take on so many workers, at best."""
    return max(sum(costs) / workers, max(costs, default=0.0))


def worth(workers: int, costs: Collection[float]) -> int:
    """Returns how many of these workers are worth their start; one is the process that asks."""
    alone = sum(costs) <= START + together(costs, workers)
    return 1 if alone else min(workers, len(costs))


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
        grid=STUDIES[specs[0].study].grid,
        log=args.log,
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
