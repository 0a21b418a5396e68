"""What a report says of the runs of a study at one scale, and the files that it becomes.

A report is report.html (self-contained), report.md, every table as .md, .tex and .csv, and every
figure as .png and .svg.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
import matplotlib as mpl
import pandas as pd

from bench.render.figures import STYLE, Picture
from bench.render.tables import Table

DPI = 150


@dataclass(frozen=True)
class Page:
    """Tables by name (the terminal shows `claims` and `summary`), pictures and notes."""

    frame: pd.DataFrame  # one row a training
    tables: dict[str, Table]
    pictures: Sequence[Picture]
    notes: Sequence[str]
    missing: int  # trainings that a complete study would have beside these
    shown: set[str]  # ids of the trainings whose samples are in the pictures
    title: str = ""  # the command gives it one

    @property
    def origin(self) -> str:
        """One paragraph: how many runs, made by which code, on what."""
        frame = self.frame

        def kinds(column: str) -> str:
            values = frame[column].dropna().map(str).unique()
            return ", ".join(sorted(values)) or "unknown"

        commits = frame["commit"].map(lambda c: c[:10] if isinstance(c, str) else "unknown")
        dirty = " with uncommitted changes" if frame["dirty"].fillna(True).any() else ""
        return (
            f"{len(frame)} trainings, {frame['seed'].nunique()} seed(s), "
            f"{frame['config'].nunique()} configurations; commit {', '.join(sorted(set(commits)))}"
            f"{dirty}; torch {kinds('torch')}, numpy {kinds('numpy')}, Python {kinds('python')}; "
            f"{kinds('device')} ({kinds('device_name')}), {kinds('precision')}, "
            f"{kinds('threads')} thread(s) a process, stacks of {kinds('stack_size')}; "
            f"{frame['train_seconds'].sum() / 3600:.2f} hours of training in all."
        )

    def texts(self) -> dict[str, str]:
        """Every text file but the HTML, by name; equal rows give equal texts."""
        texts = {}
        parts = [f"# {self.title}", *self.notes, self.origin]
        for table in self.tables.values():
            parts.append(f"## {table.title}\n\n{table.markdown()}")
            texts[f"{table.name}.md"] = table.markdown()
            texts[f"{table.name}.tex"] = table.latex()
            texts[f"{table.name}.csv"] = table.csv()
        parts += [
            f"## {p.title}\n\n![{p.title}]({p.name}.png)\n\n{p.caption}" for p in self.pictures
        ]
        return texts | {"report.md": "\n\n".join(part.strip() for part in parts) + "\n"}

    def write(self, folder: Path) -> None:
        """Writes every file and draws the pictures. Raises OSError if that can't be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.texts().items():
            (folder / name).write_text(text, encoding="utf-8")
        with mpl.rc_context(cast(Any, STYLE)):
            for picture in self.pictures:
                figure = picture.draw()
                figure.savefig(folder / f"{picture.name}.png", dpi=DPI)
                figure.set_layout_engine("none")  # it stands: don't work it out twice
                figure.savefig(folder / f"{picture.name}.svg", metadata={"Date": None})
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader("bench.render"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        html = templates.get_template("report.html.j2").render(
            page=self,
            png=lambda name: base64.b64encode((folder / f"{name}.png").read_bytes()).decode(),
        )
        (folder / "report.html").write_text(html, encoding="utf-8")


def damage(frame: pd.DataFrame) -> list[str]:
    """A note on the files that could not be read, `attrs["bad"]` of a frame, if there are any."""
    bad = frame.attrs["bad"]
    return [f"{bad} damaged file(s) were left out; bench.run sets them aside."] if bad else []
