"""Writes what can be watched of a training while it runs: losses, scores now and then, pictures."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.store.atomic import write_atomically

FIRST = ("epoch", "share", "seconds", "critic_loss", "model_loss")
"""Columns of every log; scores follow."""
TABLE, ABOUT = "log.csv", "spec.json"
PICTURE = re.compile(r"samples-(\d+)\.png")

_told: set[Path] = set()


def logs_of(work: Path) -> Path:
    """Returns the folder of logs of a study at a scale, by its folder `Job.work`."""
    return work / "logs"


@contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """Keeps errors of the logs in `folder` from a training; a process tells the first of them."""
    try:
        yield
    except Exception as error:
        if folder not in _told:
            _told.add(folder)
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"no log in {folder}: {why}", file=sys.stderr, flush=True)


class Log:
    """Writes the log of one training to a folder of its own, whose name is the training's id.

    The table has a line for each record, which is appended whole. Numbers are as Python writes
    them, so nan and inf as well; a field is empty where nothing was measured. A picture's number
    is the step of its record. Errors are `harmless`.
    """

    def __init__(
        self,
        work: Path,
        about: Mapping[str, Any],
        columns: Sequence[str],
        steps: int,
        epoch: int = 1,
        done: int = 0,
    ) -> None:
        """Begins the log of a training of so many `steps`, of which an `epoch` has some.

        A training that goes on from a checkpoint has steps that are `done`. Its log goes on, and
        loses what came after them. Any other log begins anew. `about` has the training's id.
        """
        self.folder, self.drafts = logs_of(work) / about["id"], work / "tmp"
        self.columns, self.steps, self.epoch = (*FIRST, *columns), steps, epoch
        with harmless(self.folder.parent):
            self._begin(about, done)

    def _begin(self, about: Mapping[str, Any], done: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        table, header = self.folder / TABLE, ",".join(self.columns)
        found = table.read_bytes().decode(errors="replace").split("\n") if table.is_file() else [""]
        kept = []
        if done and found[0] == header:  # what follows the last newline was not written whole
            kept = [line for line in found[1:-1] if float(line.split(",")[0]) <= done / self.epoch]
        for path in self.folder.iterdir():
            number = PICTURE.fullmatch(path.name)
            if number and not (kept and int(number[1]) <= done):
                path.unlink()
        lines = "".join(f"{line}\n" for line in (header, *kept))
        self._write(self.folder / ABOUT, json.dumps(about).encode())
        self._write(table, lines.encode())

    def record(
        self,
        step: int,
        seconds: float,
        losses: tuple[float | None, float | None] = (None, None),
        scores: Mapping[str, Any] = {},
        picture: bytes = b"",
    ) -> None:
        """Appends a record after so many steps and `seconds` of training.

        `losses` are the critic's and the model's, `scores` are by column, `picture` is a PNG.
        """
        first = (step / self.epoch, step / self.steps, seconds, *losses)
        values: dict[str, Any] = {**dict(zip(FIRST, first, strict=True)), **scores}
        told = ("" if (each := values.get(name)) is None else repr(each) for name in self.columns)
        with harmless(self.folder.parent):
            if picture:  # first, so that a reader who sees the line finds the picture
                self._write(self.folder / f"samples-{step:06}.png", picture)
            append(self.folder / TABLE, (",".join(told) + "\n").encode())

    def _write(self, path: Path, content: bytes) -> None:
        write_atomically(path, content, self.drafts, sync=False)


def append(path: Path, line: bytes) -> None:
    """Appends a line whole or not at all. Raises OSError, and for a file that is gone."""
    with open(path, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError:
            file.truncate(end)
            raise
