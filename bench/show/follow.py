"""Draws trainings that run with --log, while they run: `python -m bench.show --follow`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from bench.cli import UsageError, duration
from bench.frame import RESULTS, find
from bench.render.drawings import curves_over
from bench.show import terminal
from bench.show.choose import given
from bench.show.details import Score, scores, shown
from bench.store.atomic import process, work_of
from bench.store.log import ABOUT, FIRST, PICTURE, TABLE, logs_of
from bench.studies import STUDIES
from bench.studies.study import SCALES

EVERY = 1.0
"""Seconds between two looks."""
PATIENCE = 20
"""Looks until a run has to be under way: a run takes seconds to start."""
SILENT = 600
"""Seconds without a heartbeat after which a run of another host counts as ended."""
LOSSES = FIRST[3:]
"""Columns of every log; scores follow those of FIRST."""


@dataclass
class Training:
    """Reads the log of one training, which may be written at the same time."""

    folder: Path
    study: str
    changed: float = 0.0  # when the last record came, seconds since 1970
    columns: list[str] = field(default_factory=list)
    records: list[dict[str, float | None]] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Returns the training's id, which names the folder."""
        return self.folder.name

    @property
    def scale(self) -> str:
        """Returns the scale, which the folder of its study at a scale is named by."""
        return self.folder.parents[1].name.removeprefix("_")

    @property
    def name(self) -> str:
        """Returns label, lambda and seed as far as the log says them, and the id."""
        known = {key: self.spec[key] for key in ("label", "lam", "seed") if key in self.spec}
        words = [str(known.get("label", self.study))]
        words += [f"λ = {known['lam']:g}"] if isinstance(known.get("lam"), int | float) else []
        words += [f"seed {known['seed']}"] if "seed" in known else []
        return f"{', '.join(words)} ({self.id[:8]})"

    @property
    def last(self) -> dict[str, float | None]:
        """Returns the last record."""
        return self.records[-1] if self.records else {}

    @property
    def share(self) -> float:
        """Returns how far the training has come, from 0 to 1."""
        return self.last.get("share") or 0.0

    def look(self) -> bool:
        """Reads the log if it has changed, and says whether it has records."""
        with suppress(OSError):
            table = self.folder / TABLE
            changed = table.stat().st_mtime
            if changed != self.changed:
                self.columns, self.records = _records(table.read_bytes())
                self.changed = changed
        if not self.spec:
            with suppress(OSError, ValueError):
                found = json.loads((self.folder / ABOUT).read_text("utf-8"))
                self.spec = found if isinstance(found, dict) else {}
        return bool(self.records)

    def values(self, column: str) -> tuple[list[float], list[float]]:
        """Returns the epochs at which a column has values, and the values."""
        pairs = [(each["epoch"], each[column]) for each in self.records]
        there = [(at, value) for at, value in pairs if at is not None and value is not None]
        return [at for at, _ in there], [value for _, value in there]

    def picture(self) -> np.ndarray | None:
        """Returns the newest picture of samples that can be read, uint8 (h, w, 3)."""
        from PIL import Image

        with suppress(OSError):
            found = {each.name: PICTURE.fullmatch(each.name) for each in self.folder.iterdir()}
            numbers = {name: int(match[1]) for name, match in found.items() if match}
            for name in sorted(numbers, key=lambda name: numbers[name], reverse=True):
                with suppress(OSError, SyntaxError), Image.open(self.folder / name) as image:
                    return np.asarray(image.convert("RGB"))
        return None


def _records(content: bytes) -> tuple[list[str], list[dict[str, float | None]]]:
    """Returns the columns of a log and its whole records; a last line without an end is none."""
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
    columns, *lines = [*csv.reader(whole.splitlines())] or [[]]
    if tuple(columns[: len(FIRST)]) != FIRST:
        return [], []
    lines = [line for line in lines if len(line) == len(columns)]
    records = [dict(zip(columns, map(_number, line), strict=True)) for line in lines]
    return columns, [record for record in records if record["epoch"] is not None]


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return {"True": 1.0, "False": 0.0}.get(text)


class Watch:
    """Finds the logs of studies below a folder of results, and the runs that are under way."""

    def __init__(
        self, results: Path, studies: Sequence[str], scales: Sequence[str], id: str
    ) -> None:
        self.results = results
        self.works = {
            work_of(results / study / scale): study for study in studies for scale in scales
        }
        self.wanted, self.known = id, dict[Path, Training]()

    def look(self) -> list[Training]:
        """Returns the trainings that have records, that of the newest record first."""
        for work, study in self.works.items():
            for folder in logs_of(work).glob(f"{self.wanted}*"):
                self.known.setdefault(folder, Training(folder, study))
        found = [each for each in self.known.values() if each.look()]
        return sorted(found, key=lambda each: (-each.changed, each.id))

    def under_way(self) -> bool:
        """Says whether a run is under way in one of the folders."""
        return any(_alive(run) for work in self.works for run in work.glob("progress/*"))

    def stored(self) -> datetime | None:
        """Returns when the row of the training that is asked for was stored, None for no row."""
        names = list(dict.fromkeys(self.works.values()))
        for name in names:
            with suppress(UsageError):
                found = find(self.wanted, self.results, name)
                if found.folder == self.results:
                    return found.row["finished"]
        return None

    def ended(self, trainings: Sequence[Training]) -> bool:
        """Says whether the training asked for has ended: by its log, or by a row that is newer."""
        if not trainings or trainings[0].share >= 1:
            return bool(trainings)
        stored = self.stored()
        return stored is not None and stored.timestamp() >= trainings[0].changed


def _alive(run: Path) -> bool:
    """Says whether the process that a folder of heartbeats is named by still runs."""
    host, _, number = run.name.rpartition("-")
    try:
        if host == process().rpartition("-")[0] and os.name == "posix":
            os.kill(int(number), 0)
            return True
        return time.time() - max(each.stat().st_mtime for each in run.iterdir()) < SILENT
    except PermissionError:
        return True  # it is another user's
    except (OSError, ValueError, OverflowError):
        return False


def follow(
    studies: Sequence[str], ids: Sequence[str], args: argparse.Namespace, on: Console
) -> int:
    """Draws what runs log until no run is under way, or until the training asked for has ended.

    Returns the exit status. Raises UsageError if nothing is logged and no run is under way.
    """
    if len(ids) > 1:
        raise UsageError(f"--follow {' '.join(ids)}; allowed: one ID")
    wanted, results = ids[0] if ids else "", args.results or RESULTS
    watch = Watch(results, studies or [*STUDIES], [args.scale] if args.scale else SCALES, wanted)
    trainings, going = watch.look(), watch.under_way()
    if wanted and not trainings and watch.stored():
        told = f"python -m bench.show {wanted}{given(args)}"
        raise UsageError(f"{wanted} is stored, and nothing of it is logged: {told}")
    if not trainings:
        until = "until the run under way logs" if going else f"up to {PATIENCE} s for a run"
        print(f"waiting {until}{f' {wanted}' if wanted else ''}", file=sys.stderr, flush=True)
    for _ in range(PATIENCE):
        if trainings or going:
            break
        time.sleep(EVERY)
        trainings, going = watch.look(), watch.under_way()
    else:
        raise UsageError(_nothing(watch, studies, args))
    live = on.is_terminal and not on.is_dumb_terminal
    printed: dict[Path, int] = {}
    with Live(console=on, auto_refresh=False, transient=False) if live else nullcontext() as screen:
        while True:
            if screen is not None:
                screen.update(view(trainings, on), refresh=True)
            else:
                for line in _lines(trainings, printed):
                    print(line, flush=True)
            if not going or (wanted and watch.ended(trainings)):
                break
            time.sleep(EVERY)
            # A run ends after its last record, so it is asked for first.
            going = watch.under_way()
            trainings = watch.look()
    print("this training has ended" if going else "no run is under way")
    return 0


def _nothing(watch: Watch, studies: Sequence[str], args: argparse.Namespace) -> str:
    """Returns a line that says that nothing is logged, and what can be done."""
    at = f" at scale {args.scale}" if args.scale else ""
    of = f" of {watch.wanted or studies[0]}" if watch.wanted or studies else ""
    what = f"nothing{of} is logged{at} in {watch.results}, and no run is under way"
    if args.scale:
        others = Watch(watch.results, studies or [*STUDIES], SCALES, watch.wanted)
        if found := {each.scale for each in others.look()}:
            scales = " and ".join(scale for scale in SCALES if scale in found)
            return f"{what}; there are logs at scale {scales}"
    return (
        f"{what}: python -m bench.run {(studies or ['toy_grid'])[0]}{given(args, args.scale)} --log"
    )


def _lines(trainings: Sequence[Training], printed: dict[Path, int]) -> Iterator[str]:
    """Yields a line for each new record; of records that were there at first the last counts."""
    for each in reversed(trainings):
        if each.folder not in printed or printed[each.folder] > len(each.records):
            printed[each.folder] = len(each.records) - 1
        for record in each.records[printed[each.folder] :]:
            yield f"{each.name}: {_said(record)}"
        printed[each.folder] = len(each.records)


def _said(record: Mapping[str, float | None]) -> str:
    done = f"epoch {record['epoch']:g}, {record['share'] or 0:.0%}"
    values = [f"{name} {value:.4g}" for name, value in _values(record)]
    return ", ".join([done, *values])


def _values(record: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Returns losses and scores of a record, where they were measured."""
    skip = ("epoch", "share", "seconds", "n_samples")
    return [(n, each) for n, each in record.items() if each is not None and n not in skip]


# On a terminal


def view(trainings: Sequence[Training], on: Console) -> RenderableType:
    """Returns what is drawn: the training of the newest record, and a line for each other one."""
    if not trainings:
        return Text("waiting: the run under way has logged nothing so far")
    first, *others = trainings
    width, height = min(on.width, 160), on.height
    going = [each for each in others if each.share < 1]
    rated = scores(STUDIES[first.study])
    tall = max(7, min(12, height // 3))
    above: list[RenderableType] = [Rule(Text(first.name, style="bold"), align="left")]
    above.append(_line(_progress(first)))
    charts = [*_charts(first, rated, on, width, tall)]
    if len(charts) > 1 and width >= 90:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(*charts)
        charts = [grid]
    above += charts if height >= 40 else charts[:1]
    above.append(_latest(first, rated))
    left = height - 2 - len(on.render_lines(Group(*above)))
    below = [_line(_other(each)) for each in going[: max(1, min(left // 2, height // 6))]]
    if told := _told(len(going) - len(below), len(others) - len(going)):
        below.append(_line(told, "dim"))
    return Group(*above, *_picture(first, on, width, left - len(below)), *below)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _told(more: int, ended: int) -> str:
    parts = {"under way": more, "ended": ended}
    return ", ".join(f"{n} more {what}" for what, n in parts.items() if n > 0)


def _other(training: Training) -> str:
    values = ", ".join(f"{name} {value:.3g}" for name, value in _values(training.last)[:3])
    return f"{training.name}  {training.share:.0%}  {values}"


def _progress(training: Training) -> str:
    last, share = training.last, training.share
    seconds = last.get("seconds") or 0.0
    told = f"epoch {last['epoch'] or 0:.4g}, {share:.0%}, {duration(seconds)} of training"
    silent = time.time() - training.changed
    return told + (f"; last record {duration(silent)} ago" if silent > 60 and share < 1 else "")


def _charts(
    training: Training, rated: Mapping[str, Score], on: Console, width: int, height: int
) -> Iterator[RenderableType]:
    """Yields the charts of the losses and of the first score that was measured."""
    measured = [name for name in rated if name in training.columns and training.values(name)[1]]
    wide = (width - 1) // 2 if measured and width >= 90 else width
    losses = {name: training.values(name) for name in LOSSES if training.values(name)[1]}
    if losses:
        at = max((epochs for epochs, _ in losses.values()), key=len)
        lines = {name: values for name, (_, values) in losses.items()}
        yield terminal.drawn(curves_over("losses", "epoch", at, lines), on, wide, height)
    for name in measured[:1]:
        epochs, values = training.values(name)
        curves = curves_over("score", "epoch", epochs, {name: values})
        yield terminal.drawn(curves, on, wide, height)


def _latest(training: Training, rated: Mapping[str, Score]) -> Text:
    """Returns the last value of every score, and which values are better."""
    text = Text()
    for name in training.columns[len(FIRST) :]:
        if values := training.values(name)[1]:
            score = rated.get(name)
            text.append(f"{name} ", "dim").append(
                shown(values[-1], score.digits if score else None)
            )
            text.append({"higher": " ↑", "lower": " ↓"}.get(score.better, "") if score else "")
            text.append("   ")
    return text


def _picture(training: Training, on: Console, width: int, lines: int) -> Iterator[RenderableType]:
    """Yields the newest picture, no higher than so many lines; a narrow one has samples alone.

    Images are shown as large as they can be, so the picture ends below the rows that fit.
    """
    pixels = training.picture() if lines >= 7 else None
    if pixels is None:
        return
    images = "shape" in STUDIES[training.study].sample_columns()
    if width < (140 if images else 100):
        pixels = pixels[:, : min(pixels.shape[:2])]
    high, wide = 2 * (lines - 1), pixels.shape[1]
    if images:
        eighths = 8 * high * wide // (width * len(pixels))  # a picture has eight rows
        pixels = pixels[: max(1, min(8, eighths)) * len(pixels) // 8]
    yield Text("samples", style="bold")
    yield terminal.image(pixels, on, min(width, high * wide // len(pixels)))
