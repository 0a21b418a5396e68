"""What every figure shares: style, colours, panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.hashsalt": "svae-bench",
    "svg.fonttype": "none",
}

# Okabe & Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = {"svae_r": "#0072B2", "alice": "#D55E00", "alice_minimax": "#CC79A7"}
COLOURS |= {"alice_sigmoid": "#009E73"}
OTHER = ["#E69F00", "#56B4E9", "#000000", "#F0E442"]


def colour(method: str) -> str:
    """The method's own colour; a method without one always gets the same of the others."""
    return COLOURS.get(method) or OTHER[sum(method.encode()) % len(OTHER)]


def panels(rows: int, columns: int, width: float, height: float, **kw) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kw)


def legend(figure: Figure, grid: Iterable[Axes], **kw: Any) -> None:
    """One legend for all panels, each label once."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    named = {label: handle for pair in pairs for handle, label in pair}
    figure.legend(named.values(), named.keys(), **kw)


@dataclass(frozen=True)
class Picture:
    """One figure of a report; it is drawn when the report is written."""

    name: str
    draw: Callable[[], Figure]
    title: str
    caption: str
