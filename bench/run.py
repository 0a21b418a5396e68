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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench.cli import Parser, UsageError, complain, positive
from bench.engine.plan import CLUSTERS, DOWNLOAD, Plan, count, duration
from bench.studies import STUDIES
from bench.studies.images.spec import ImageSpec
from bench.studies.selection import Shard
from bench.studies.study import SCALES

if TYPE_CHECKING:
    from bench.engine.executors import Sequential

RESULTS = Path("results")
_START = time.monotonic()
_terminated: list[int] = []  # each SIGTERM that came


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = Parser("python -m bench.run", __doc__)
    add = p.add_argument
    add("study", choices=STUDIES, metavar="STUDY", help=", ".join(STUDIES))
    about = "smoke: seconds; quick: minutes on two CPU cores; paper: the paper's own size "
    about += "(default: quick, or paper where it is estimated under 30 minutes)"
    add("--scale", choices=SCALES, help=about)
    many: dict[str, Any] = {"action": "append", "default": [], "metavar": "FIELD=VALUE[,VALUE]"}
    about = "keep trainings whose field (or label) has one of these values; repeatable; methods "
    about += "outside the study's own join by --only method=NAME"
    add("--only", **many, help=about)
    add("--lam", type=_floats, metavar="L[,L]", help="own values of lambda")
    add("--lr", type=_floats, metavar="R[,R]", help="own learning rates")
    about = "own values of any other field of the study's trainings, e.g. ais_images=10000"
    add("--set", **many, help=about)
    add("--data", type=Path, metavar="DIR|FILE", help="images already there")
    about = "score colour images by ImageNet's classifier as well: torch-fidelity's weights, or "
    add("--inception-weights", metavar="FILE", help=f"{about}{DOWNLOAD} to fetch them")
    about = "seeds 0 to N-1 (1; 5 for mnist at paper scale)"
    add("--seeds", type=positive, metavar="N", help=about)
    add("--shard", type=Shard.parse, metavar="I/N", help="only the I-th of N parts of all this")
    add("--workers", type=positive, metavar="N", help="processes (a CPU core each)")
    about = "loky: processes of this machine (default); sequential: this process; dask, ray: a "
    about += "cluster, which --address names"
    engines = ("loky", "sequential", *CLUSTERS)
    add("--engine", choices=engines, default="loky", help=about)
    about = "of a running cluster: tcp://HOST:PORT of a Dask scheduler, HOST:PORT or auto for "
    add("--address", metavar="URL", help=f"{about}Ray; local starts one on this machine")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    about = "of matrix products; tf32: on a GPU, rounded inputs; bf16: of images, rounded"
    add("--precision", choices=ImageSpec.PRECISIONS, default="float32", help=about)
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="default: results")
    about = "stop after so many minutes; exit 3 if trainings are left"
    add("--max-time", type=_minutes, metavar="MIN", help=about)
    add("--retry-failed", action="store_true", help="try failed trainings again")
    add("--fail-fast", action="store_true", help="stop at the first failed training")
    add("--dry-run", action="store_true", help="say what would be run")
    add("--status", action="store_true", help="say what is done")
    add("--json", action="store_true", help="with --dry-run or --status: one object")
    return p


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0,0.1") from None


def _minutes(text: str) -> float:
    with suppress(ValueError):
        if 0 < (minutes := float(text)) < float("inf"):
            return minutes
    raise argparse.ArgumentTypeError(f"{text!r}; allowed: minutes > 0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
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
        return 143 if _terminated else 130


def _run(args: argparse.Namespace) -> int:
    from bench.engine import executors
    from bench.store.rows import Unwritable

    plan = Plan(args)
    if args.json:
        counts, _ = count(plan.specs, plan.store)
        print(json.dumps(vars(counts) | ({"shard": str(args.shard)} if args.shard else {})))
        return 0
    if args.status or args.dry_run:
        plan.cut()
        print(plan.line(), flush=True)
        return 0
    executor = executors.start(args.engine, args.address, plan.workers, plan.device)
    try:
        plan.workers = executor.size
        for path, reason in plan.store.prepare().items():
            print(f"set aside: {path} {reason}; its trainings run again", file=sys.stderr)
        for spec in plan.specs if args.retry_failed else []:
            plan.store.forget_failures(spec.id)
        plan.cut()
        print(plan.line(), flush=True)
        executor.ready()
        return _train(plan, executor)
    except Unwritable as error:
        return complain("bench.run", error, 1)
    finally:
        executor.stop()


def _train(plan: Plan, executor: Sequential) -> int:
    from bench.engine.engine import Engine
    from bench.engine.executors import EngineError
    from bench.engine.progress import Monitor, clear_drafts, clear_progress
    from bench.store.atomic import process
    from bench.store.rows import StoreError

    args, store, counts = plan.args, plan.store, plan.counts
    progress = store.progress_of(process())
    clear_progress(progress)
    monitor = Monitor(counts.done, counts.diverged, counts.failed, counts.total, progress)
    monitor.pending = dict(plan.costs)
    # What the report needs takes seconds to import: that may as well happen while others train.
    threading.Thread(target=_import_report, daemon=True).start()
    seconds = min(60 * (args.max_time or float("inf")), threading.TIMEOUT_MAX)
    deadline = time.monotonic() + seconds
    # Not SIGINT: what a script starts in the background ignores it.
    timer = threading.Timer(seconds, _thread.interrupt_main, [signal.SIGTERM])
    try:
        if args.max_time:
            timer.start()
        with monitor:
            Engine(store, monitor, executor, args.fail_fast).run(plan.jobs)
    except KeyboardInterrupt:
        time_is_up = time.monotonic() >= deadline
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        executor.stop()
        if args.engine == "loky":  # where all workers are surely gone by now
            clear_drafts(progress)
        clear_progress(progress)
        state, _ = count(plan.specs, store)
        print(
            f"stopped: {state.done} of {state.total} trainings are stored; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        if time_is_up:
            return 3 if state.pending else int(state.failed > 0)
        return 143 if _terminated else 130
    except StoreError as error:
        return complain("bench.run", error, 1)
    except EngineError as error:
        again = f"{error}; nothing stored is lost, the same command goes on from there"
        return complain("bench.run", again, 1)
    except OSError as error:
        reason = f"results can't be written: {error.strerror}; nothing stored is lost"
        return complain("bench.run", reason, 1)
    finally:
        timer.cancel()
        clear_progress(progress)
    return _report(plan, executor)


def _report(plan: Plan, executor: Sequential) -> int:
    from bench import report
    from bench.store.rows import StoreError

    counts, _ = count(plan.specs, plan.store)
    try:
        if counts.done:
            with plan.store.rows.lock("report"):  # shards may end together
                report.after_run(plan.study.name, plan.scale, plan.args.results)
    except StoreError as error:
        return complain("bench.run", error, 1)
    if plan.jobs:
        wall = time.monotonic() - _START
        seconds = plan.store.done("train_seconds")
        trained = sum(seconds.get(spec.id, 0.0) for job in plan.jobs for spec in job.specs)
        share = 1 - trained / wall / executor.size
        print(f"{duration(wall)} in all, {share:.1%} of it outside training")
    return int(counts.failed > 0)


def _import_report() -> None:
    from bench import report as report


def _terminate(signum: int, frame: object) -> NoReturn:
    _terminated.append(signum)
    raise KeyboardInterrupt


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
