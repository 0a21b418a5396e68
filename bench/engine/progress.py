"""Jobs report how far they have come, and a monitor shows a run's progress to the user."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.cli import duration
from bench.engine.plan import together
from bench.store.atomic import process, write_atomically
from bench.studies.study import Job
from bench.studies.turns import waited

if TYPE_CHECKING:
    from bench.scores.metrics import Metric

PRIOR = 3.0
"""Seconds for which an estimate counts as if they had gone as estimated."""


class Heartbeat:
    """Writes how far a job has come to a file in `progress/RUN`, at most twice a second.

    The file also tells the engine which jobs were under way when a worker is killed. Jobs on
    clusters write every five seconds, because many share a file system.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = job.work / "progress" / str(job.run) / f"{job.key}.json"
        self.next = 0.0
        self.start = time.monotonic() - waited()
        self(0.0)

    def seconds(self) -> float:
        """Returns how long the job has been under way, without waiting for its turn."""
        return time.monotonic() - waited() - self.start

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + (5.0 if self.job.parent is None else 0.5)
        note = {"key": self.job.key, "share": share, "seconds": self.seconds()}
        note |= {"process": process()}
        # A full disk is reported when results are written, not here.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(note).encode(), self.path.parent / "tmp")

    def stop(self) -> None:
        """Removes the file: the job is not under way any more."""
        self.path.unlink(missing_ok=True)


class Monitor:
    """Shows the counts of a run, as a live bar on a terminal and as plain lines elsewhere.

    `pending` holds the estimated seconds of each job that is not done, by key. The share done is
    weighted by these seconds. The time left is made of the estimates of what is left, times the
    ratio of real to estimated seconds of what is done. Jobs under way count by their heartbeats in
    the folder `progress`.
    """

    def __init__(
        self,
        done: int,
        diverged: int,
        failed: int,
        total: int,
        progress: Path,
        workers: int = 1,
    ) -> None:
        self.done, self.diverged, self.failed, self.total = done, diverged, failed, total
        self.progress, self.workers = progress, workers
        self.at_start = done
        self.pending: dict[str, float] = {}
        self.paid = self.took = 0.0  # seconds of jobs that are done, estimated and real
        self.start = time.monotonic()
        self.console = Console(stderr=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def note(self, line: str) -> None:
        """Prints a line that stays above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def finish(self, key: str, statuses: dict[str, str], seconds: float | None = None) -> None:
        """Counts the trainings of a job that is stored, and its seconds if they are known."""
        estimate = self.pending.pop(key, 0.0)
        self.paid += estimate
        self.took += estimate if seconds is None else seconds
        self.done += len(statuses)
        self.diverged += sum(status == "diverged" for status in statuses.values())

    def foreseen(self) -> dict[str, float]:
        """Returns the seconds that each job will still take, by its estimate and what jobs took."""
        ratio, left = self._ratio()
        return {key: ratio * seconds for key, seconds in left.items()}

    def _ratio(self) -> tuple[float, dict[str, float]]:
        """Returns real to estimated seconds of what is done, and what is left of each job."""
        left, took, whole = dict(self.pending), self.took, self.paid + sum(self.pending.values())
        for note in _notes(self.progress):
            if note["key"] in left:
                left[note["key"]] *= 1 - note["share"]
                took += note["seconds"] if note["share"] else 0.0
        done = whole - sum(left.values())
        return (took + PRIOR) / (done + PRIOR), left

    def shares(self) -> dict[str, float]:
        """Returns how far each job under way has come, from 0 to 1, by key."""
        return {note["key"]: note["share"] for note in _notes(self.progress)}

    def _state(self) -> tuple[float, str]:
        ratio, left = self._ratio()
        whole = self.paid + sum(self.pending.values())
        share = 1 - sum(left.values()) / whole if whole else 1.0
        elapsed = time.monotonic() - self.start
        rate = (self.done - self.at_start) / elapsed * 60
        rest = duration(ratio * together(left.values(), self.workers))
        counts = f"{self.done}/{self.total} done · {self.diverged} diverged · {self.failed} failed"
        speed = f"{rate:.0f} trainings/min" if rate >= 2 else f"{60 * rate:.0f} trainings/h"
        times = f"{share:.0%} of the work · {speed} · {duration(elapsed)} gone, {rest} left"
        return share, f"{counts} · {times}"

    def _show(self) -> None:
        # With FORCE_COLOR rich takes a log file for a terminal.
        terminal = sys.stderr.isatty() and not self.console.is_dumb_terminal
        over = False
        live = Live(console=self.console, refresh_per_second=4)
        with live if terminal else contextlib.nullcontext():
            while not over:
                over = self._stop.wait(0.25 if terminal else 10.0)
                share, text = self._state()
                if terminal:
                    grid = Table.grid(padding=(0, 1))
                    grid.add_row(ProgressBar(total=1.0, completed=share, width=24), text)
                    live.update(grid)
                else:
                    print(text, file=sys.stderr, flush=True)


def first_result(rows: Sequence[Mapping[str, Any]], metric: Metric, total: int) -> str:
    """Returns a line on what these stored rows, the first of `total`, say of a metric.

    It has the mean over trainings that are not diverged, and their number, by lambda and label.
    """
    cells: dict[float, dict[str, list[float | None]]] = {}
    for row in sorted(rows, key=lambda row: (row["lam"], row["label"])):
        cell = cells.setdefault(row["lam"], {})
        cell.setdefault(row["label"], []).append(row[metric.columns[0]])
    parts = []
    for lam, by_label in cells.items():
        means = []
        for label, values in by_label.items():
            known = [value for value in values if value is not None]
            mean = f"{label} {sum(known) / len(known):.2f}" if known else label
            lost = f", {len(values) - len(known)} diverged" if len(known) < len(values) else ""
            means.append(f"{mean} (n = {len(known)}{lost})")
        parts.append(f"at λ = {lam:g} {', '.join(means)}")
    first = f"first result, from {len(rows)} of {total} trainings"
    return f"{first}: mean {metric.heading} {'; '.join(parts)}"


def _notes(progress: Path) -> Iterator[dict[str, Any]]:
    """Yields the heartbeats in this folder: key, share, seconds and process of a job."""
    for path in progress.glob("*.json"):
        # It may be just replaced or removed, or anything if the disk was full.
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
            note = json.loads(path.read_text())
            process = re.fullmatch(r"[\w.]+-\d+", note["process"])  # part of a pattern of files
            named = process and isinstance(note["key"], str)
            if named and 0 <= note["share"] <= 1 and 0 <= note["seconds"] < math.inf:
                yield note


def clear_drafts(progress: Path) -> None:
    """Removes the drafts of workers that were killed amid a write; heartbeats name the workers."""
    for note in _notes(progress):
        for draft in (progress.parent.parent / "tmp").glob(f"{note['process']}-*"):
            with contextlib.suppress(OSError):
                draft.unlink()


def clear_progress(folder: Path) -> None:
    """Removes the heartbeats that the jobs of a run have left."""
    for _ in range(20):  # a worker that is just being killed may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
