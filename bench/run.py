"""Trains every training of a study that is not stored yet, then renders its report.

    python -m bench.run toy_grid

Stopping loses nothing that was finished; the same command goes on from there.

Exit status: 0 all done, 1 some failed (or results could not be kept), 2 usage, 3 --max-time was up
with trainings left, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import _thread
import argparse
import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench.cli import Parser, UsageError, complain
from bench.spec import Spec, columns
from bench.studies import STUDIES
from bench.studies.images.study import ImageSpec
from bench.studies.shard import Shard
from bench.studies.study import SCALES, Study

if TYPE_CHECKING:
    from bench.engine.executors import Pool
    from bench.store.rows import Store
    from bench.studies.study import Job

RESULTS = Path("results")
ENGINES = ("loky", "sequential", "dask", "ray")
CLUSTERS = ("dask", "ray")
DOWNLOAD = "download"
_START = time.monotonic()
PAPER_BY_DEFAULT = 30 * 60
"""Without --scale, `paper` is run where it is estimated to take fewer seconds than this."""


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("study", choices=STUDIES, metavar="STUDY", help=", ".join(STUDIES))
    p.add_argument(
        "--scale",
        choices=SCALES,
        help="smoke: seconds; quick: minutes on two CPU cores; paper: the paper's own size "
        "(default: quick, or paper where it is estimated under 30 minutes)",
    )
    p.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FIELD=VALUE[,VALUE]",
        help="keep trainings whose field (or label) has one of these values; repeatable; "
        "methods outside the study's own join by --only method=NAME",
    )
    p.add_argument("--lam", type=_floats, metavar="L[,L]", help="own values of lambda")
    p.add_argument("--lr", type=_floats, metavar="R[,R]", help="own learning rates")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE[,VALUE]",
        help="own values of any other field of the study's trainings, e.g. ais_images=10000",
    )
    p.add_argument("--data", type=Path, metavar="DIR|FILE", help="images already there")
    p.add_argument(
        "--inception-weights",
        metavar="FILE",
        help="score colour images by ImageNet's classifier as well: torch-fidelity's weights, or "
        f"{DOWNLOAD} to fetch them (extra fidelity)",
    )
    p.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help="seeds 0 to N-1 (1; 5 for mnist at paper scale)",
    )
    p.add_argument(
        "--shard", type=Shard.parse, metavar="I/N", help="only the I-th of N parts of all this"
    )
    p.add_argument("--workers", type=_positive, metavar="N", help="processes (a CPU core each)")
    p.add_argument(
        "--engine",
        choices=ENGINES,
        default="loky",
        help="loky: processes of this machine (default); sequential: this process; dask, ray: a "
        "cluster, which --address names",
    )
    p.add_argument(
        "--address",
        metavar="URL",
        help="of a running cluster: tcp://HOST:PORT of a Dask scheduler, HOST:PORT or auto for "
        "Ray; local starts one on this machine",
    )
    p.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    p.add_argument(
        "--precision",
        choices=ImageSpec.PRECISIONS,
        default="float32",
        help="of matrix products; tf32: on a GPU, rounded inputs; bf16: of images, rounded",
    )
    p.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: results")
    p.add_argument(
        "--max-time",
        type=_minutes,
        metavar="MIN",
        help="stop after so many minutes; exit 3 if trainings are left",
    )
    p.add_argument("--retry-failed", action="store_true", help="try failed trainings again")
    p.add_argument("--fail-fast", action="store_true", help="stop at the first failed training")
    p.add_argument("--dry-run", action="store_true", help="say what would be run")
    p.add_argument("--status", action="store_true", help="say what is done")
    p.add_argument("--json", action="store_true", help="with --dry-run or --status: one object")
    return p


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0,0.1") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number >= 1")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: minutes > 0")
    return minutes


def select(study: Study[Any], scale: str, args: argparse.Namespace) -> list[Spec]:
    """The trainings that the arguments name. Raises UsageError."""
    from models.methods import label

    asked: dict[str, list[str]] = {}
    for field, values in (_condition(text, study) for text in args.only):
        asked.setdefault(field, []).extend(values)
    known = study.every_method()
    methods = list(known) if {"method", "label"} & set(asked) else None
    given = _given(study, args.set)
    try:
        specs = study.specs(scale, methods, args.lam, args.lr, args.seeds, args.precision, given)
    except ValueError as error:
        raise UsageError(str(error)) from None

    specs = [spec for spec in specs if spec.lam == 0 or known[spec.method]]

    def value(spec: Spec, field: str) -> Any:
        return label(spec.method, spec.lam) if field == "label" else getattr(spec, field)

    for field, texts in asked.items():
        kind = columns(study.kind).get(field, str)
        present = sorted({value(spec, field) for spec in specs})
        allowed = f"{field} in this selection: {', '.join(map(str, present))}"
        try:
            wanted = [kind(text) for text in texts]
        except ValueError:
            raise UsageError(f"--only {field}={','.join(texts)}; allowed: {allowed}") from None
        for text, each in zip(texts, wanted, strict=True):
            if each not in present:
                option = {"lam": "--lam", "lr": "--lr", "seed": "--seeds"}.get(field)
                hint = f" (own values: {option})" if option else ""
                raise UsageError(f"--only {field}={text}; allowed: {allowed}{hint}")
        specs = [spec for spec in specs if value(spec, field) in wanted]
    if args.shard is not None:
        whole, specs = specs, args.shard.of(specs)
        if not specs:
            raise UsageError(f"--shard {args.shard} is empty: {len(whole)} trainings are selected")
    return specs


def _given(study: Study[Any], texts: Sequence[str]) -> dict[str, list[Any]]:
    """The axes that --set replaces. Raises UsageError."""
    own = {"study", "scale", "method", "lam", "lr", "seed", "precision"}
    kinds = {name: kind for name, kind in columns(study.kind).items() if name not in own}
    joined = {
        name
        for axes in study.axes.values()
        for axis in axes
        for name in axis.split(",")
        if "," in axis
    }
    given = {}
    for text in texts:
        field, equals, values = text.partition("=")
        if field not in kinds.keys() - joined or not equals:
            allowed = ", ".join(sorted(kinds.keys() - joined))
            raise UsageError(f"--set {text}; allowed: FIELD=VALUE[,VALUE] of {allowed}")
        try:
            given[field] = list(dict.fromkeys(kinds[field](v) for v in values.split(",")))
        except ValueError:
            raise UsageError(
                f"--set {text}; allowed: values of type {kinds[field].__name__}"
            ) from None
    return given


def _condition(text: str, study: Study[Any]) -> tuple[str, list[str]]:
    field, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--only {text}; allowed: FIELD=VALUE[,VALUE]")
    allowed = ["label", *columns(study.kind)]
    if field not in allowed:
        raise UsageError(f"--only {text}; allowed fields: {', '.join(allowed)}")
    return field, values.split(",")


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


def choose_device(asked: str | None, elsewhere: bool = False) -> str:
    """cpu or cuda. Raises UsageError for a GPU that isn't there, unless jobs run elsewhere."""
    import torch

    if asked == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device; allowed here: cpu")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_scale(study: Study[Any], device: str, workers: int, rate: float) -> tuple[str, str]:
    """Without --scale: which one, and why."""
    cost = study.seconds
    seconds = sum(cost(spec, rate) for spec in study.specs("paper")) / workers
    if seconds < PAPER_BY_DEFAULT:
        return "paper", f"its estimate on this {device} is under 30 min"
    return "quick", f"--scale paper would take about {_duration(seconds)} here"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if args.json and not (args.dry_run or args.status):
            raise UsageError("--json goes with --dry-run or --status")
        return _run(args)
    except UsageError as error:
        return complain("bench.run", error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 143 if _Terminated.came else 130


def _run(args: argparse.Namespace) -> int:
    from joblib import cpu_count

    from bench.engine import cost
    from bench.engine import executors as engines

    study = STUDIES[args.study]
    engines.check(args.engine, args.address, args.workers, args.device)
    elsewhere = args.address not in (None, engines.LOCAL)
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
    specs = select(study, scale, args)
    if args.data or not (args.status or args.json):
        specs = study.check(specs, args.data, args.inception_weights)
    if args.status or args.dry_run:
        return _go(args, specs, scale, why, device, workers, rate, None)
    pool = engines.open_pool(args.engine, args.address, workers, device)
    try:
        return _go(args, specs, scale, why, device, pool.size, rate, pool)
    finally:
        pool.stop()


def _go(
    args: argparse.Namespace,
    specs: Sequence[Spec],
    scale: str,
    why: str,
    device: str,
    workers: int,
    rate: float,
    pool: Pool | None,
) -> int:
    """Says what there is to do and, with a pool, does it."""
    from bench.store.rows import StoreError, Unwritable

    store = STUDIES[args.study].store(args.results, scale)
    try:
        if pool:
            _prepare(store, specs, args.retry_failed)
        counts, left = count(specs, store)
    except Unwritable as error:
        return complain("bench.run", error, 1)
    except StoreError as error:
        raise UsageError(str(error)) from None
    part = f", shard {args.shard}" if args.shard else ""
    if args.json:
        print(json.dumps(vars(counts) | ({"shard": str(args.shard)} if part else {})))
        return 0

    jobs, costs = _plan(left, device, args, rate)
    line = (
        f"{args.study} at scale {scale} ({why}){part}: {counts.total} trainings, "
        f"{counts.done} done ({counts.diverged} diverged), {counts.failed} failed, "
        f"{counts.pending} to go"
    )
    if jobs:
        estimate = max([sum(costs.values()) / workers, *costs.values()])
        line += f" in {len(jobs)} stacks; about {_duration(estimate)} on {workers} x {device}"
    print(line, flush=True)
    if pool is None:
        return 0
    pool.ready()
    return _train(args, specs, store, counts, jobs, costs, pool)


def _prepare(store: Store, specs: Sequence[Spec], retry_failed: bool) -> None:
    from bench.engine.engine import clear_progress
    from bench.store.atomic import process

    for path, reason in store.prepare().items():
        print(f"set aside: {path} {reason}; its trainings run again", file=sys.stderr)
    clear_progress(store.progress_of(process()))
    for spec in specs if retry_failed else []:
        store.forget_failures(spec.id)


def _plan(
    left: Sequence[Spec], device: str, args: argparse.Namespace, rate: float
) -> tuple[list[Job], dict[str, float]]:
    """Jobs, the longest first so that workers end together, and their seconds by key."""
    from bench.store import provenance
    from bench.store.atomic import process
    from bench.studies.study import Job

    if not left:
        return [], {}
    study = STUDIES[left[0].study]
    origin = provenance.commit()
    # Workers may stand in another folder; those of a cluster are not children of this process.
    results = str(args.results.absolute())
    data = None if args.data is None else str(args.data.absolute())
    weights = args.inception_weights
    if weights not in (None, DOWNLOAD):
        weights = str(Path(weights).absolute())
    parent = None if args.engine in CLUSTERS else os.getpid()
    jobs = [
        Job(tuple(stack), results, device, origin, parent, process(), data, weights)
        for stack in study.stacks(left, device)
    ]
    costs: dict[str, float] = {
        job.key: sum(study.seconds(spec, rate) for spec in job.specs) for job in jobs
    }
    jobs.sort(key=lambda job: -costs[job.key])
    return jobs, costs


def _train(
    args: argparse.Namespace,
    specs: Sequence[Spec],
    store: Store,
    counts: Counts,
    jobs: list[Job],
    costs: dict[str, float],
    pool: Pool,
) -> int:
    from bench.engine.engine import Engine, clear_drafts, clear_progress
    from bench.engine.executors import EngineError
    from bench.engine.progress import Monitor
    from bench.store.atomic import process
    from bench.store.rows import StoreError

    progress = store.progress_of(process())
    monitor = Monitor(counts.done, counts.diverged, counts.failed, counts.total, progress)
    monitor.pending = dict(costs)
    # What the report needs takes seconds to import: that may as well happen while others train.
    threading.Thread(target=import_module, args=("bench.report",), daemon=True).start()
    timer = _Deadline(args.max_time)
    try:
        with timer, monitor:
            Engine(store, monitor, pool, args.fail_fast).run(jobs)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pool.stop()
        if args.engine == "loky":  # where all workers are surely gone by now
            clear_drafts(progress)
        clear_progress(progress)
        state, _ = count(specs, store)
        print(
            f"stopped: {state.done} of {state.total} trainings are stored; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        if timer.up:
            return 3 if state.pending else int(state.failed > 0)
        return 143 if _Terminated.came else 130
    except StoreError as error:
        return complain("bench.run", error, 1)
    except EngineError as error:
        again = EngineError(f"{error}; nothing stored is lost, the same command goes on from there")
        return complain("bench.run", again, 1)
    except OSError as error:
        reason = StoreError(f"results can't be written: {error.strerror}; nothing stored is lost")
        return complain("bench.run", reason, 1)
    finally:
        clear_progress(progress)
    from bench import report

    counts, _ = count(specs, store)
    try:
        if counts.done:
            with store.lock("report"):  # shards may end together
                report.after_run(args.study, counts.scale, args.results)
    except StoreError as error:
        return complain("bench.run", error, 1)
    if jobs:
        wall = time.monotonic() - _START
        share = (
            1 - store.train_seconds({s.id for job in jobs for s in job.specs}) / wall / pool.size
        )
        print(f"{_duration(wall)} in all, {share:.1%} of it outside training")
    return int(counts.failed > 0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


class _Terminated(KeyboardInterrupt):
    """SIGTERM came. Ray's calls pass on no other interruption, and that as a plain one."""

    came = False


def _terminate(signum: int, frame: object) -> NoReturn:
    _Terminated.came = True
    raise _Terminated


class _Deadline:
    """Interrupts the main thread once the given minutes are over; `up` says that it did."""

    def __init__(self, minutes: float | None) -> None:
        self.up = False
        self._timer = threading.Timer((minutes or 0) * 60, self._fire) if minutes else None

    def _fire(self) -> None:
        self.up = True
        # Not SIGINT: what a script starts in the background ignores it.
        _thread.interrupt_main(signal.SIGTERM)

    def __enter__(self) -> _Deadline:
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()


def command() -> NoReturn:
    """Runs `main` and ends the process with its status."""
    status = main()
    # What the interpreter does after this now and then aborts on threads that libraries have of
    # their own ("terminate called without an active exception"); all that matters is on disk.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    command()
