"""Thousands of tiny jobs through an engine: throughput, memory and what Ctrl-C leaves behind.

    python -m tests.overload --engine loky
    python -m tests.overload --engine sequential,loky,dask,ray --out FILE

A job writes one row through the real store and trains nothing. Memory is that of all processes of
the run (proportional set size, Linux). A second run is interrupted half-way by SIGINT to its
whole group, as a terminal does; afterwards no process, temporary file or shared memory of it may
be left. Exit status: 0, or 1 if jobs were lost or something was left.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench.process import command
from bench.store.provenance import ROOT, cpu_name

MARK = "BENCH_OVERLOAD"
HEADINGS = (
    *("engine", "jobs", "jobs/s, 2nd third", "last third", "GiB, 2nd third", "last third"),
    *("lost", "left after Ctrl-C"),
)


def work(engine_name: str, jobs: int, folder: Path) -> None:
    """The run itself: one line `done seconds` for each job in `folder/ended`, as they end."""
    from bench.engine import engine, progress
    from bench.engine import executors as engines
    from bench.engine.progress import Monitor
    from bench.store.atomic import process
    from bench.studies import STUDIES
    from bench.studies.study import Job

    specs = STUDIES["toy_grid"].specs("paper", seeds=-(-jobs // 3456))[:jobs]
    kept = STUDIES["toy_grid"].store(folder / "results", "paper")
    kept.prepare()
    parent = os.getpid() if engine_name in ("sequential", "loky") else None
    plan = [Job((s,), str(folder / "results"), "cpu", {}, parent, process()) for s in specs]
    engine.run_job = tiny
    address = "local" if parent is None else None
    workers = 1 if engine_name == "sequential" else 2
    executor = engines.start(engine_name, address, workers, "cpu")
    monitor = Monitor(0, 0, 0, jobs, kept.progress_of(process()))
    finish, start = monitor.finish, time.monotonic()
    with open(folder / "ended", "w", buffering=1) as ended:

        def told(key: str, statuses: dict[str, str], seconds: float | None = None) -> None:
            finish(key, statuses, seconds)
            ended.write(f"{monitor.done} {time.monotonic() - start}\n")

        monitor.finish = told
        try:
            engine.Engine(kept, monitor, executor, fail_fast=True).run(plan)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            executor.stop()
            if engine_name == "loky":
                progress.clear_drafts(monitor.progress)
            progress.clear_progress(monitor.progress)
            os._exit(130)  # as bench.run does
    executor.stop()
    progress.clear_progress(monitor.progress)
    (folder / "stored").write_text(str(len(kept.done())))


def tiny(job):  # types would import torch with this module
    """Stands for training: rows come from nowhere, the store is real."""
    from bench.engine import job as jobs
    from tests.rows import points, row

    real, jobs._train = jobs._train, lambda job, beat: ([row(job.specs[0])], [points(job.specs[0])])
    try:
        return jobs.run_job(job)
    finally:
        jobs._train = real


# Watching it from outside


def marked(mark: str) -> list[int]:
    """Processes started with this mark in their environment, and all they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def memory(pids: Sequence[int]) -> float:
    """GiB of these processes together, each page counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 2**20


def ended(folder: Path) -> list[tuple[int, float]]:
    try:
        lines = (folder / "ended").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(done), float(at)) for done, at in (line.split() for line in lines)]


def run(engine: str, jobs: int, interrupt: bool) -> tuple[list[float], list[float], int, list[str]]:
    """Jobs/s and GiB in each third, jobs lost, and what is left behind (or not interrupted)."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="o-") as name:
        folder, scratch = Path(name), Path(name) / "t"
        scratch.mkdir()
        environment = {**os.environ, MARK: mark, "TMPDIR": str(scratch), "NO_COLOR": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        shared = set(os.listdir("/dev/shm"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.overload", "--work", engine, str(jobs), name],
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        seen: dict[int, list[float]] = {0: [], 1: [], 2: []}
        peers: set[int] = set()
        while process.poll() is None:
            time.sleep(0.02 if interrupt else 1.0)
            done = len(ended(folder))
            if interrupt and done >= jobs // 2:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(timeout=60)
            elif not interrupt or (done and not peers):  # looking takes longer than some jobs
                peers |= set(now := marked(mark))
                if done < jobs and not interrupt:  # at the end it counts rows
                    seen[3 * done // jobs].append(memory(now))
        times = ended(folder)
        if interrupt:
            lost = 0
        else:
            lost = jobs - int((folder / "stored").read_text() if process.returncode == 0 else 0)
        stop = time.monotonic() + 20  # a killed process takes a moment to be gone
        while marked(mark) and time.monotonic() < stop:
            time.sleep(0.2)
        left = [f"process {pid}" for pid in marked(mark)]
        if interrupt and process.returncode == 0:
            left.append("the run ended before it was interrupted")
        left += [f"file {path.relative_to(scratch)}" for path in scratch.rglob("*")]
        left += [f"draft {path.name}" for path in folder.glob("results/*/_*/tmp/*")]
        left += [f"progress {path.name}" for path in folder.glob("results/*/_*/progress/*")]
        ours = {str(pid) for pid in peers}
        new = set(os.listdir("/dev/shm")) - shared
        left += [f"shared memory {n}" for n in new if ours & set(n.replace("_", "-").split("-"))]
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
    thirds = [[at for done, at in times if done * 3 // (jobs + 1) == third] for third in range(3)]
    rates = [len(t) / (t[-1] - t[0]) if len(t) > 1 and t[-1] > t[0] else 0.0 for t in thirds]
    return rates, [max(seen[i], default=0.0) for i in range(3)], lost, left


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", default="loky", metavar="NAME[,NAME]", help="loky")
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N", help="10,000")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.work:
        work(args.work[0], int(args.work[1]), Path(args.work[2]))
        return 0
    lines, good = [HEADINGS, ("---", *("---:",) * 6, "---")], True
    for name in args.engine.split(","):
        rates, sizes, lost, _ = run(name, args.jobs, interrupt=False)
        *_, left = run(name, max(20, args.jobs // 10), interrupt=True)
        good &= lost == 0 and not left
        lines.append(
            (
                *(name, f"{args.jobs:,}", f"{rates[1]:.0f}", f"{rates[2]:.0f}"),
                *(f"{sizes[1]:.2f}", f"{sizes[2]:.2f}", str(lost), "; ".join(left) or "nothing"),
            )
        )
        print(" | ".join(lines[-1]), flush=True)
    note = f"Two workers (sequential: one); {cpu_name()}, which other programs were using as well."
    text = "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", note, ""])
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    print(text)
    return int(not good)


if __name__ == "__main__":
    command(main)  # which repeats a Ctrl-C that comes while an object is cleared away
