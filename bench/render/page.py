"""What a report says of the runs of a study at one scale, and the files that it becomes.

A report is a folder: report.html, report.md, every table as .md, .tex and .csv, and every figure
as .svg or .png, most of them once more for phones. figures.json says what each figure plots. Most
reports have an explorer as well, see `bench.render.explore`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from bench.cli import duration
from bench.render import draw
from bench.render.claims import Claims
from bench.render.explore import EXPLORER, Explorer
from bench.render.figures import DPI, Picture, whole
from bench.render.html import template
from bench.render.tables import Table, unbroken
from bench.render.text import counted

FIGURES, HTML = "figures.json", "report.html"


def scored(frame: pd.DataFrame) -> str:
    """Returns how long scoring took by the clock, in words, where the rows know it."""
    took = frame.get("evaluation_seconds", pd.Series(dtype=float)).sum()
    return f", and scoring {duration(took, 3)} by the clock" if took else ""


def spent(frame: pd.DataFrame) -> str:
    """Returns how long cores and GPUs trained these rows, such as "14 h of cores".

    Older rows do not know their processor's seconds: those of the clock stand for them, which other
    programs lengthen. They are counted unless all are.
    """
    clock, on_gpu = frame["train_seconds"], frame["device"].eq("cuda")
    processor, older = frame["cpu_seconds"].fillna(clock), frame["cpu_seconds"].isna()[~on_gpu]
    some = "" if older.all() else f"{counted(older.sum(), 'training')} "
    cores = f"cores ({some}by the clock)" if older.any() else "cores"
    parts = {cores: processor[~on_gpu], "GPUs": clock[on_gpu]}
    found = {name: duration(part.sum(), 3) for name, part in parts.items() if len(part)}
    return " and ".join(f"{time} of {name}" for name, time in found.items())


@dataclass(frozen=True)
class Page:
    """Pictures, claims and tables in the order in which they are read."""

    frame: pd.DataFrame  # one row a training
    parts: Sequence[Picture | Table]
    warnings: Sequence[str] = ()  # that stand above everything
    notes: Sequence[str] = ()  # that stand below
    missing: int = 0  # trainings that a complete study would have beside these
    shown: Collection[str] = ()  # ids of the trainings whose samples are in the pictures
    title: str = ""  # the command gives it one
    intro: str = (
        ""  # paragraphs that come before the first part, in Markdown's **bold** and *emphasis*
    )
    explorer: Explorer | None = None  # that lies beside the report

    @property
    def tables(self) -> dict[str, Table]:
        """Tables and claims by name."""
        return {part.name: part for part in self.parts if isinstance(part, Table)}

    @property
    def pictures(self) -> list[Picture]:
        """The figures alone."""
        return [part for part in self.parts if isinstance(part, Picture)]

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs of the introduction."""
        return self.intro.split("\n\n") if self.intro else []

    @property
    def main(self) -> Table | None:
        """The table that the terminal shows: the first."""
        tables = (table for table in self.tables.values() if not isinstance(table, Claims))
        return next(tables, None)

    @property
    def origin(self) -> str:
        """One paragraph: how many runs, made by which code, on what."""
        frame = self.frame

        def kinds(column: str) -> str:
            values = frame[column].dropna().map(str).unique()
            return ", ".join(sorted(values)) or "unknown"

        commits = frame["commit"].map(lambda c: c[:10] if isinstance(c, str) else "unknown")
        dirty = " with uncommitted changes" if frame["dirty"].eq(True).any() else ""
        recorded = frame["graph"].eq(True).sum()
        graphs = f"{recorded:,} with CUDA graphs; " if recorded else ""
        return (
            f"{counted(len(frame), 'training')}, {counted(frame['seed'].nunique(), 'seed')}, "
            f"{counted(frame['config'].nunique(), 'configuration')}; "
            f"commit {', '.join(sorted(set(commits)))}{dirty}; torch {kinds('torch')}, "
            f"numpy {kinds('numpy')}, Python {kinds('python')}; {kinds('device')} "
            f"({kinds('device_name')}), {kinds('precision')}, threads a process: "
            f"{kinds('threads')}, stacks of {kinds('stack_size')}; {graphs}"
            f"training took {spent(frame)}{scored(frame)}."
        )

    def texts(self) -> dict[str, str]:
        """Every text file but the HTML, by name; equal rows give equal texts."""
        texts, parts = {}, [f"# {self.title}", *self.warnings, *self.paragraphs]
        for part in self.parts:
            if isinstance(part, Picture):
                body = f"![{part.title}]({part.files[0]})\n\n{part.caption}"
            else:
                body = texts[f"{part.name}.md"] = part.markdown()
                texts[f"{part.name}.tex"] = part.latex()
                texts[f"{part.name}.csv"] = part.csv()
            parts.append(f"## {part.title}\n\n{body}")
        parts += ["## How these results were made", *self.notes, self.origin]
        texts["report.md"] = "\n\n".join(part.strip() for part in parts) + "\n"
        return {
            name: unbroken(text) if name.endswith(".md") else text for name, text in texts.items()
        }

    def write(self, folder: Path) -> None:
        """Writes every file and draws the pictures. Raises OSError if that can't be.

        Each file is replaced in one step; other files in the folder stay.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.texts().items():
            _write(folder / name, text)
        digests = {"plotted": draw.write(self.pictures, folder)}
        files = [name for picture in self.pictures for name in picture.files]
        digests["files"] = {name: sha256(folder / name) for name in files}
        _write(folder / FIGURES, json.dumps(digests, indent=1) + "\n")
        _write(folder / HTML, self.html(folder))
        if self.explorer:
            _write(folder / EXPLORER, self.explorer.html())

    def html(self, folder: Path) -> str:
        """The page for a browser; the pictures lie in this folder."""
        return template("report.html.j2").render(
            page=self, width=lambda name: _width(folder / name)
        )


def _write(path: Path, text: str) -> None:
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _width(png: Path) -> int:
    """The width of an image in a browser's pixels, of which an inch has 96; 0 without a file."""
    if not png.is_file():
        return 0
    with Image.open(png) as image:
        return round(image.width * 96 / DPI)


def sha256(path: Path) -> str:
    """The digest of a file, "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def damage(frame: pd.DataFrame) -> list[str]:
    """A note on the files that could not be read, `attrs["bad"]` of a frame, if there are any."""
    bad = frame.attrs["bad"]
    return [f"{bad} damaged file(s) were left out; bench.run sets them aside."] if bad else []
