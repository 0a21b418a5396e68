"""What every figure shares: style, colours, panels, its files and a digest of what it plots."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

DPI = 150
INK, INK_IN_THE_DARK = "#1b1b1d", "#e8e8e8"
GREY = "#7a7a7a"
"""Reads on white as well as on black: reference lines, and all text of a PNG."""
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": "#80808040",
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.hashsalt": "svae-bench",
    "svg.fonttype": "none",
}
_DARK = f"""<style>@media (prefers-color-scheme: dark) {{
[style*="stroke: {INK}"] {{ stroke: {INK_IN_THE_DARK} !important }}
[style*="fill: {INK}"] {{ fill: {INK_IN_THE_DARK} !important }}
}}</style>"""
_COORDINATES = re.compile(r'\b(d|x|y|transform)="[^"]*"')
_LONG = re.compile(r"(\d\.\d\d)\d+")
"""Digits of coordinates that nobody sees."""

# After Okabe & Ito: colour-blind readers tell them apart, and all read on white and on black.
COLOURS = {"svae_r": "#0072B2", "alice": "#D55E00", "alice_sigmoid": "#009E73"}
COLOURS |= {"alice_minimax": "#C0639D", "critic": "#7A5CC7", "model": "#A87400"}
OTHER = ("#7A5CC7", "#A87400", "#B0413E", "#7C8B00", "#8C6E63", "#B84FD0")
"""Colours of methods that have none of their own."""
DASHES = ((0, (5, 1.5)), (0, (5, 1.2, 1.2, 1.2)), (0, (1.2, 1.2)))
MARKS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "h", "*")
"""Styles of lines and marks of points, which tell methods apart without colours.

The first two methods of ORDER have whole lines.
"""
ORDER = ("svae_r", "alice", "alice_sigmoid", "alice_minimax", "svae_r_density")
"""The methods that come first in every table, legend and figure."""

_PHONE = 3.4
"""Inches that a phone shows."""
_narrow: ContextVar[bool] = ContextVar("narrow", default=False)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a draft that takes the place of this file at the end, so that no half file is left.

    A link at this path is replaced, and the file to which it leads stays. Raises OSError.
    """
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def rank(method: str) -> int:
    """The place of a method in every table and figure; others come after those of ORDER."""
    return ORDER.index(method) if method in ORDER else len(ORDER)


@dataclass(frozen=True)
class Look:
    """How a method is drawn: the colour, the style of its lines, the mark of its points."""

    colour: str
    line: Any = "-"
    mark: str = "o"


def looks(methods: Iterable[str], own: Mapping[str, str] = COLOURS) -> dict[str, Look]:
    """Returns a look of each method, no two alike, in the order of tables.

    Equal sets of methods have equal looks. A method with a colour in `own` has it in every report.
    The others share what is left of OTHER, and share it again where they are more.
    """
    order = sorted({*methods}, key=lambda method: (rank(method), method))
    paint = {method: own[method] for method in order if method in own}
    free, left = [each for each in OTHER if each not in paint.values()], []
    for method in (method for method in order if method not in own):
        left = left or [*free]
        paint[method] = left.pop(sum(method.encode()) % len(left))
    places = [*ORDER, *(method for method in order if method not in ORDER)]

    def look(method: str, place: int) -> Look:
        line = "-" if place < 2 else DASHES[(place - 2) % len(DASHES)]
        return Look(paint[method], line, MARKS[place % len(MARKS)])

    return {method: look(method, places.index(method)) for method in order}


def panels(
    n: int,
    across: int,
    width: float,
    height: float,
    narrow: int = 1,
    least: float = 0.65,
    groups: Sequence[int] = (),
    **kw: Any,
) -> tuple[Figure, np.ndarray]:
    """A figure and its n axes, (n,), so many `across`, of panels of this size in inches.

    Each of `groups`, sizes that add up to n, begins a row. On a phone `narrow` of the same panels
    stand in a row, whatever their group. Each shows its own ticks there, and is at `least` so high
    for its width.
    """
    if _narrow.get():
        across, groups = narrow, ()
        width, height = _PHONE / across, _PHONE / across * max(height / width, least)
    groups = groups or [n]
    across = min(across, max(groups))
    downs = [-(-size // across) for size in groups]
    figure = Figure(figsize=(across * width, sum(downs) * height), layout="constrained")
    grid = figure.subplots(sum(downs), across, squeeze=False, **kw)
    parts = np.split(grid, np.cumsum(downs)[:-1])
    kept = [part.flatten()[:size] for part, size in zip(parts, groups, strict=True)]
    for part, size in zip(parts, groups, strict=True):
        for axes in part.flatten()[size:]:
            axes.remove()
    found = np.concatenate(kept)
    for axes in found if _narrow.get() else ():
        axes.tick_params(labelbottom=True, labelleft=True)
    return figure, found


def balanced(n: int, most: int) -> int:
    """Returns how many of n panels stand in a row of at most so many, in rows of equal lengths."""
    return -(-n // -(-n // most))


def key(axes: Axes, named: Mapping[str, Look]) -> None:
    """Gives the legend a line of each look, by label, without drawing it."""
    for label, look in named.items():
        axes.plot([], [], color=look.colour, linestyle=look.line, label=label)


def legend(figure: Figure, grid: Iterable[Axes], ncols: int) -> None:
    """One legend above all panels, each label once, in fewer columns where the labels are long."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    named = {label: handle for pair in pairs for handle, label in pair}
    style: dict[str, Any] = {"loc": "outside upper center", "fontsize": 8, "markerscale": 2}
    for columns in range(2 if _narrow.get() else ncols, 0, -1):
        made = figure.legend(named.values(), named.keys(), ncols=columns, **style)
        if columns == 1 or made.get_window_extent().width <= figure.bbox.width:
            return
        made.remove()


@dataclass(frozen=True)
class Picture:
    """One figure of a report, drawn when the report is written.

    Its `kind` is "lines" (an SVG), "dots" (a PNG) or "images" (a PNG). Lines and dots have another
    file for phones.
    """

    name: str
    draw: Callable[[], Figure]
    title: str
    caption: str
    kind: str = "lines"

    @property
    def files(self) -> list[str]:
        """The names of its files: the wide one, then the one for phones if there is one."""
        end = "svg" if self.kind == "lines" else "png"
        narrow = [] if self.kind == "images" else [f"{self.name}.narrow.{end}"]
        return [f"{self.name}.{end}", *narrow]

    @contextmanager
    def _styled(self, narrow: bool = False) -> Iterator[None]:
        inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        ink = INK if self.kind == "lines" else GREY
        token = _narrow.set(narrow)
        try:
            with mpl.rc_context():
                mpl.rcdefaults()  # a user's own matplotlibrc changes no report
                mpl.rcParams.update(cast(Any, STYLE | dict.fromkeys(inked, ink)))
                yield
        finally:
            _narrow.reset(token)

    def plotted(self) -> str:
        """A digest of what it plots, see `plotted`."""
        with self._styled():
            return plotted(self.draw())

    def write(self, path: Path) -> str:
        """Writes one of its files and returns the digest of what it plots. Raises OSError."""
        with self._styled(narrow=".narrow." in path.name):
            figure = self.draw()
            lines = path.suffix == ".svg"
            figure.savefig(path, dpi=DPI, metadata={"Date": None} if lines else None)
        if lines:
            text = path.read_text("utf-8").replace("<defs>", f"{_DARK}\n<defs>", 1)
            text = _COORDINATES.sub(lambda found: _LONG.sub(r"\1", found[0]), text)
            path.write_text(text, encoding="utf-8")
        elif self.kind == "dots":  # which have few colours
            with Image.open(path) as image:
                few = image.quantize(method=Image.Quantize.FASTOCTREE)
            few.save(path, optimize=True)
        return plotted(figure)


def plotted(figure: Figure) -> str:
    """A digest of what a figure plots: lines, bars, bands, dots, images and words.

    Numbers count to five digits, so that it is the same on every machine.
    """
    digest = hashlib.sha256()
    for axes in figure.axes:
        arrays = [line.get_xydata() for line in axes.lines]
        for patch in axes.patches:
            arrays.append(patch.get_path().transformed(patch.get_patch_transform()).vertices)
        for dots in axes.collections:
            arrays += [dots.get_offsets(), *(path.vertices for path in dots.get_paths())]
        arrays += [image.get_array() for image in axes.images]
        for array in arrays:
            values = np.ma.filled(np.ma.asarray(array, dtype=float), np.nan).ravel()
            least = 1e-9 * np.nanmax(np.abs(values), initial=0, where=np.isfinite(values))
            values[np.abs(values) <= least] = 0  # where sums cancel, what is left is rounding
            digest.update(" ".join(f"{value:.5g}" for value in values).encode())
        words = [axes.get_title("left"), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        words += [text.get_text() for text in axes.texts]
        digest.update("\n".join([*words, *axes.get_legend_handles_labels()[1]]).encode())
    return digest.hexdigest()
