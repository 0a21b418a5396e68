"""Trains every training of a study that is not stored yet, then renders its report.

    python -m bench.run toy_grid

A stop loses nothing that was finished: the same command goes on from there.

Exit status: 0 if all trainings are done, 1 if some failed, are stale or could not be kept, 2 for
wrong usage, 3 if --max-time was up with trainings left, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import _thread
import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins
from bench.cli import (
    BASELINE,
    Parser,
    UsageError,
    complain,
    duration,
    given_beside,
    options,
    positive,
    to_path,
)
from bench.engine.plan import CLUSTERS, DOWNLOAD, Plan, count
from bench.process import command, stopped, terminate
from bench.studies import STUDIES, grids
from bench.studies.images.spec import ImageSpec
from bench.studies.selection import Shard, configurations
from bench.studies.study import FRACTIONS, SCALES

if TYPE_CHECKING:
    from bench.engine.executors import Sequential

RESULTS = Path("results")
AGAIN = "the same command goes on from there"
TAKEN_BY_ID = ("id", "study", "grid", "plugin", "scale", "results", "data", "device")
TAKEN_BY_ID += ("inception_weights",)
"""The options that --id stands beside."""
_START = time.monotonic()


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.run", __doc__)
    add = p.add_argument
    add("study", nargs="?", metavar="STUDY", help=f"one of {', '.join(STUDIES)}, or a plug-in's")
    about = """trains a grid of your own, which a file of TOML describes: its name, the study that
        it is based on, axes, methods, lambdas and seeds. See bench/README.md."""
    add("--study", dest="grid", type=to_path, metavar="FILE", help=about)
    plugins.add_option(p)
    about = """trains the spec of one stored row again, which stays as it is, and says whether all
        numbers came out the same. The row is in --results or among the published results."""
    add("--id", metavar="ID", help=about)
    about = """smoke takes a minute or less and draws its images unless there is --data. quick
        trains narrow networks on real data. paper has the paper's own size. The default is quick,
        or paper where its estimate is under 30 minutes."""
    add("--scale", choices=SCALES, help=about)
    many: dict[str, Any] = {"action": "append", "default": [], "metavar": "FIELD=VALUE[,VALUE]"}
    about = """keeps trainings whose field, or label, has one of these values. The option may be
        repeated; values of one field add up. method=NAME also adds methods outside the study's
        own."""
    add("--only", **many, help=about)
    about = "trains at these values of lambda, such as 0,0.01,0.1, instead of the study's own"
    add("--lam", type=_floats, metavar="L[,L]", help=about)
    about = """trains at these learning rates instead of the study's own. Figures and claims of the
        toy study keep to 1e-3 if it is among the rows."""
    add("--lr", type=_floats, metavar="R[,R]", help=about)
    about = """trains with these values of a field instead of the study's own, such as epochs=20,
        encoder_width=64,128 or bits=dynamic (the suite's own binarization). A report prefers the
        study's own settings, so give other settings a --results folder of their own."""
    add("--set", **many, help=about)
    about = """takes images from this place: the published files, or images of your own. These are
        idx files, an .npz or .npy, or a folder, .zip or .tar of images. Without it the command uses
        its cache, or downloads the files."""
    add("--data", type=to_path, metavar="DIR|FILE", help=about)
    about = f"""also scores colour images by ImageNet's classifier: inception score, FID of as many
        samples as --set samples=N says, and KID. FILE is torch-fidelity's
        weights-inception-2015-12-05-6726825d.pth, or the word {DOWNLOAD}. `python -m bench.results
        score` adds these scores to stored trainings. The real weights were never run yet."""
    add("--inception-weights", metavar="FILE", help=about)
    about = "trains seeds 0 to N-1 (default: 1 seed; 5 for mnist at paper scale)"
    add("--seeds", type=positive, metavar="N", help=about)
    about = """trains a balanced part of toy_grid's grid. In 1/8 each depth and width of a network
        is as frequent as the other, at all ratios of updates: 72 of 576 configurations. 1/32 has 18
        of these, for further seeds."""
    add("--fraction", choices=FRACTIONS, help=about)
    about = """trains only the I-th of N parts, from 1 to N, of what the other options select. The
        parts are disjoint, so N machines can share one folder of results."""
    add("--shard", type=Shard.parse, metavar="I/N", help=about)
    about = """runs N processes of one thread each (default: a process a core, or one on a GPU). N
        jobs share each GPU of a Ray cluster."""
    add("--workers", type=positive, metavar="N", help=about)
    about = """runs jobs in processes of this machine (loky, the default), one by one in this
        process (sequential), or on a cluster (dask, ray). --address names the cluster."""
    add("--engine", choices=("loky", "sequential", *CLUSTERS), default="loky", help=about)
    about = """names a running cluster: tcp://HOST:PORT of a Dask scheduler; HOST:PORT,
        ray://HOST:PORT or auto for Ray. The word local starts a cluster on this machine."""
    add("--address", metavar="URL", help=about)
    about = "trains on this device (default: cuda where torch finds a GPU)"
    add("--device", choices=("cpu", "cuda"), help=about)
    about = """rounds matrix products (default: float32). tf32 rounds their inputs on a GPU. bf16
        rounds inputs and outputs while images train; scores stay in float32. Each precision is a
        training of its own; keep tf32 in a --results folder of its own."""
    add("--precision", choices=ImageSpec.PRECISIONS, default="float32", help=about)
    about = """keeps results in this folder (default: results). Reports go to reports, or to
        DIR/reports for another folder."""
    add("--results", type=to_path, default=RESULTS, metavar="DIR", help=about)
    about = """keeps weights of no training, of all, or of those that the report shows (default).
        With shown the run keeps weights of every training until none is left to train. At paper
        scale a training takes 3 MB (toy_grid, 10 GB in all), 31 MB (mnist), 50 MB (cifar10) or 91
        MB (celeba). `python -m bench.results score` computes new scores from them."""
    add("--keep-weights", choices=("none", "shown", "all"), default="shown", help=about)
    about = """writes a log while a training runs: both losses, scores now and then, and pictures of
        samples. The command names the folder, and the command that watches it."""
    add("--log", action="store_true", help=about)
    about = """stops after so many minutes, with exit status 3 if trainings are left, and starts no
        training that would not end by then. Then `python -m bench.report STUDY` shows what is
        stored."""
    add("--max-time", type=_minutes, metavar="MIN", help=about)
    about = """stops, with exit status 1, at a method whose updates a GPU can't record as a CUDA
        graph. By default the method is trained without a graph, and its rows say so."""
    add("--require-graph", action="store_true", help=about)
    about = """renders no report, and keeps the weights that the end of a run would remove. `python
        -m bench.report` renders the report later, on any machine."""
    add("--no-report", action="store_true", help=about)
    about = "tries trainings again that have failed three times"
    add("--retry-failed", action="store_true", help=about)
    about = """trains again what is stored: stale trainings, whose rows were made by other source of
        a method or metric than today's, or with the word all every selected training. Old rows
        stay until new rows take their place."""
    redo: dict[str, Any] = {"nargs": "?", "const": "stale", "choices": ("stale", "all")}
    add("--redo", **redo, help=about)
    about = "counts and shows stale trainings as if today's source had made them"
    add("--stale", action="store_true", help=about)
    add("--baseline", metavar="METHOD", default="", help=BASELINE)
    add("--fail-fast", action="store_true", help="stops at the first training that fails")
    about = "prints a table of what the command would train, and writes nothing"
    add("--dry-run", action="store_true", help=about)
    add("--status", action="store_true", help="prints what is stored, and writes nothing")
    about = """prints one object, with --dry-run or --status: study, scale, total, done, diverged
        (among the done), stale, failed, pending, and shard under --shard"""
    add("--json", action="store_true", help=about)
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
    """Runs the command and returns its exit status."""
    p = parser()
    args = p.parse_args(arguments)
    if threading.current_thread() is threading.main_thread():  # Python allows it there alone
        signal.signal(signal.SIGTERM, terminate)
    try:
        if args.json and not (args.dry_run or args.status):
            raise UsageError("--json goes with --dry-run or --status")
        plugins.load([*args.plugin, *([args.grid] if args.grid else [])])
        if args.grid is not None:
            args.study = _study_of(args)
        if args.id is not None:
            if args.log:
                raise UsageError("--id writes no log; allowed: --id without --log")
            if other := given_beside(p, args, TAKEN_BY_ID):
                why = "--id trains one row's own spec: no option selects or changes it"
                raise UsageError(f"{why}, as {other} would")
            from bench.engine.again import again

            return again(args)
        if args.study is None:
            raise UsageError(f"a STUDY is missing; allowed: {', '.join(STUDIES)}")
        if args.study not in STUDIES:
            grids.adopt(args.results)
        if args.study not in STUDIES:
            raise UsageError(f"unknown study {args.study!r}; allowed: {', '.join(STUDIES)}")
        return _run(args)
    except UsageError as error:
        return complain("bench.run", error)
    except Exception as error:
        if not (where := plugins.place(error)):
            raise
        return complain("bench.run", f"{type(error).__name__}: {error} {where}")
    except KeyboardInterrupt as stop:
        print(f"stopped; {AGAIN}", file=sys.stderr)
        return stopped(stop)


def _study_of(args: argparse.Namespace) -> str:
    """Returns the name of the study that the file of --study has added. Raises UsageError."""
    if args.study is not None:
        raise UsageError(f"--study {args.grid} names the study; allowed: no STUDY beside it")
    studies = plugins.LOADED[args.grid.name].studies
    if len(studies) != 1:
        raise UsageError(f"--study {args.grid} has {len(studies)} studies; allowed: a file of one")
    return studies[0]


def _run(args: argparse.Namespace) -> int:
    from bench.engine import executors
    from bench.store.rows import StoreError, Unwritable, tell_aside

    plan = Plan(args)
    asks = args.json or args.status or args.dry_run
    if loss := plan.store.loss():
        if not (asks or args.redo):
            raise StoreError(loss)
        print(f"python -m bench.run: {loss}", file=sys.stderr)
    if args.json:
        counts, _ = count(plan.specs, plan.store, args.redo)
        print(json.dumps(vars(counts) | ({"shard": str(args.shard)} if args.shard else {})))
        return 0
    if args.status or args.dry_run:
        if bad := plan.store.load()[1]:
            path, reason = next(iter(bad.items()))
            what = f"{len(bad)} files, such as {path}, which {reason}"
            print(f"bad: {what}; a run sets them aside", file=sys.stderr)
        plan.cut()
        if args.dry_run:
            print(configurations(plan.study, plan.specs))
        _begin(plan)
        return 0
    executor = executors.start(args.engine, args.address, plan.workers, plan.device)
    try:
        plan.workers = executor.size
        tell_aside(plan.store.prepare())
        if loss:
            plan.store.forget_gone()
        for spec in plan.specs if args.retry_failed else []:
            plan.store.forget_failures(spec.id)
        plan.cut(executor.begin)
        _begin(plan)
        if args.redo == "all":
            plan.store.redo([spec.id for job in plan.jobs for spec in job.specs])
        executor.ready()
        return _train(plan, executor)
    except Unwritable as error:
        return complain("bench.run", error, 1)
    finally:
        executor.stop()


def _begin(plan: Plan) -> None:
    """Prints what the command will do, and which rows it leaves out."""
    for line in plan.store.left_out():
        do = "they run again" if plan.args.redo else "--redo trains them again, --stale shows them"
        print(f"stale: {line}; {do}", file=sys.stderr)
    if due := len(plan.store.due()):
        print(f"again: an earlier --redo all has left {due} trainings", file=sys.stderr)
    if plan.less:
        less = ", ".join(plan.less)
        print(f"few images: {less}, which is the study's own value", file=sys.stderr)
    print(plan.line(), flush=True)
    if plan.counts.failed:
        known = plan.store.failures()
        why = next((known[spec.id]["reason"] for spec in plan.specs if spec.id in known), "")
        print(f"failed before: {why}; --retry-failed tries again", file=sys.stderr)
    if plan.args.log and plan.jobs and not (plan.args.dry_run or plan.args.status):
        print(_watching(plan), flush=True)


def _watching(plan: Plan) -> str:
    """Returns a line: where the logs of a run lie, and the command that watches them."""
    from bench.store.log import logs_of

    args = plan.args
    if not plan.study.logs:
        return f"--log: {plan.study.name} writes no logs"
    files = [*args.plugin, *([args.grid] if args.grid else [])]
    results = args.results if args.results != RESULTS else None
    given = options(plan.scale if args.scale else None, results, files)
    watch = f"python -m bench.show {plan.study.name}{given} --follow"
    return f"logs: {logs_of(plan.store.work)}; watch by: {watch}"


def _train(plan: Plan, executor: Sequential) -> int:
    from bench.engine.engine import Engine
    from bench.engine.executors import EngineError
    from bench.engine.progress import Monitor, clear_drafts, clear_progress
    from bench.store.atomic import process
    from bench.store.rows import StoreError

    args, store, counts = plan.args, plan.store, plan.counts
    progress = store.progress_of(process())
    clear_progress(progress)
    monitor = Monitor(
        counts.done, counts.diverged, counts.failed, counts.total, progress, plan.workers
    )
    monitor.pending = dict(plan.costs)
    if not args.no_report:
        # The report's imports take seconds: this thread makes them while workers train.
        threading.Thread(target=import_module, args=("bench.report",), daemon=True).start()
    seconds = 60 * (args.max_time or float("inf")) - (time.monotonic() - plan.start)
    seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
    deadline = time.monotonic() + seconds
    # SIGTERM, because a command that a script starts in the background ignores SIGINT.
    timer = threading.Timer(seconds, _thread.interrupt_main, [signal.SIGTERM])
    try:
        if args.max_time:
            timer.start()
        with monitor:
            limit = deadline if args.max_time else math.inf
            engine = Engine(store, monitor, executor, args.fail_fast, args.require_graph, limit)
            engine.run(plan.jobs)
    except KeyboardInterrupt as stop:
        time_is_up = time.monotonic() >= deadline
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        executor.stop()
        if args.engine == "loky":  # all workers have ended by now
            clear_drafts(progress)
        clear_progress(progress)
        if time_is_up:
            print("--max-time is up", file=sys.stderr)
        status = _stopped(plan)
        return status if time_is_up else stopped(stop)
    except StoreError as error:
        return complain("bench.run", error, 1)
    except EngineError as error:
        return complain("bench.run", f"{error}; nothing stored is lost, {AGAIN}", 1)
    except OSError as error:
        why = f"results can't be written: {error.strerror}"
        return complain("bench.run", f"{why}; nothing stored is lost, {AGAIN}", 1)
    finally:
        timer.cancel()
        clear_progress(progress)
    if left := engine.left():
        foreseen = monitor.foreseen()
        least = min(foreseen.get(job.key, 0.0) / len(job.specs) for job in left)
        trainings = sum(len(job.specs) for job in left)
        what = f"{trainings} trainings would not end in time; each takes {duration(least)} or more"
        print(f"--max-time: {what}", file=sys.stderr)
        return _stopped(plan)
    return _report(plan, executor)


def _stopped(plan: Plan) -> int:
    """Tells what is stored; returns the exit status of a command whose time is up."""
    state, _ = count(plan.specs, plan.store, "stale" if plan.args.redo else None)
    stored = f"{state.done} of {state.total} trainings are stored"
    print(f"stopped: {stored}; {AGAIN}", file=sys.stderr)
    return 3 if state.pending else int(state.failed > 0 or state.stale > 0)


def _report(plan: Plan, executor: Sequential) -> int:
    from bench.store.rows import StoreError

    counts, _ = count(plan.specs, plan.store)
    try:
        if counts.done and not plan.args.no_report:
            from bench import report

            with plan.store.rows.lock("report"):  # shards may end at the same time
                prune: list[str] = []
                if plan.args.keep_weights == "shown":
                    whole = plan.whole()
                    state = counts if whole is plan.specs else count(whole, plan.store)[0]
                    prune = [] if state.pending else [spec.id for spec in whole]
                report.after_run(plan.study, plan.scale, plan.args.results, prune)
    except StoreError as error:
        return complain("bench.run", error, 1)
    if plan.jobs and not plan.args.no_report:
        wall = time.monotonic() - _START
        seconds = plan.store.done("train_seconds")
        trained = sum(seconds.get(spec.id, 0.0) for job in plan.jobs for spec in job.specs)
        share = 1 - trained / wall / executor.size
        print(f"{duration(wall)} in all, {share:.1%} of it outside training")
    if counts.pending:
        why = f"{counts.pending} rows are not in {plan.store.folder} any more; was it moved?"
        print(f"python -m bench.run: {why}", file=sys.stderr)
    return int(counts.failed > 0 or counts.stale > 0 or counts.pending > 0)


if __name__ == "__main__":
    command(main)
