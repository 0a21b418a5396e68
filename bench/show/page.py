"""Writes what bench.show shows as one page, with its figures inside."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from bench.render.drawings import Cloud, Curves, Drawing, Field, Pictures
from bench.render.figures import GREY, MARKS, OTHER, Picture, panels, whole
from bench.render.html import template
from bench.render.pixels import mosaic, png
from bench.show import terminal
from bench.show.details import Details

if TYPE_CHECKING:
    from bench.show.printed import Listing

PAINT = ("#0072B2", "#D55E00", "#009E73", "#C0639D", *OTHER)
"""Colours of lines; they read on white and on black."""
ACROSS, SIDE = 16, 640
"""Images in a row of a mosaic, and the width of a mosaic and of a square, in a page's pixels."""


@dataclass(frozen=True)
class Shown:
    """A figure of the page: its file as a data URI, and how wide it is; 0 is its own width."""

    title: str
    source: str
    kind: str = "lines"
    width: int = 0


def write(path: Path, title: str, table: Listing | None, runs: Sequence[Details]) -> None:
    """Writes the page. Raises OSError if it can't be written."""
    figures = {
        one.id: [each for drawing in one.drawings for each in _shown(drawing)] for one in runs
    }
    rows = [row["id"] for row in table.rows] if table else []
    linked = {short: f"run-{one.id}" for one in runs for short in rows if one.id.startswith(short)}
    known = {"title": title, "table": table, "runs": runs, "figures": figures, "linked": linked}
    text = template("runs.html.j2").render(**known)
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _shown(drawing: Drawing) -> list[Shown]:
    """Returns the figures of a drawing, none where there is nothing finite."""
    if isinstance(drawing, Curves):
        return [Shown(drawing.title, _lines(drawing))] if drawing.finite else []
    if isinstance(drawing, Cloud):
        behind, *others = drawing.points
        pairs = {name: f"{name}, in front of {behind}" for name in others} or {behind: behind}
        return [Shown(title, _dots(drawing, name), "dots") for name, title in pairs.items()]
    if isinstance(drawing, Field):
        return [Shown(drawing.title, _uri(drawing.grey), "pixels", SIDE // 2)]
    return [Shown(drawing.title, *_mosaic(drawing))]


def _lines(curves: Curves) -> str:
    def draw() -> Figure:
        figure, (axes,) = panels(1, 1, 5.2, 3)
        for i, (name, (x, y)) in enumerate(curves.finite.items()):
            mark = MARKS[i % len(MARKS)] if len(x) < 30 else None
            axes.plot(x, y, color=PAINT[i % len(PAINT)], marker=mark, ms=3, lw=1.2, label=name)
        axes.set_xlabel(curves.x)
        axes.set_yscale("log" if curves.wide else "linear")
        axes.legend(fontsize=8)
        return figure

    return _drawn(Picture("curves", draw, curves.title, ""), "svg", "image/svg+xml")


def _dots(cloud: Cloud, name: str) -> str:
    behind = next(iter(cloud.points))

    def draw() -> Figure:
        figure, (axes,) = panels(1, 1, 3.4, 3.4)
        reach = terminal.reach(cloud)
        for each, paint in ((behind, GREY), (name, PAINT[0])):
            axes.plot(*cloud.points[each].T, ".", color=paint, ms=3)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        return figure

    return _drawn(Picture("points", draw, cloud.title, "", "dots"), "png", "image/png")


def _drawn(picture: Picture, end: str, kind: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{picture.name}.{end}"
        picture.write(path)
        return _data(kind, path.read_bytes())


def _mosaic(pictures: Pictures) -> tuple[str, str, int]:
    """Returns rows of images, each above those that belong to it."""
    images, beside = pictures.images, pictures.beside
    own = images.shape[-1]
    rows: list[np.ndarray] = []
    for start in range(0, len(images), ACROSS):
        for each in (images, beside) if beside is not None else (images,):
            row = each[start : start + ACROSS]
            blank = np.full((ACROSS - len(row), *row.shape[1:]), 255, np.uint8)
            rows.append(np.concatenate([row, blank]))
    pixels = mosaic(np.concatenate(rows), len(rows), ACROSS)
    return _uri(pixels), "pixels", min(SIDE, 2 * ACROSS * own)


def _uri(pixels: np.ndarray) -> str:
    return _data("image/png", png(Image.fromarray(pixels)))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
