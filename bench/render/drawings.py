"""What of one training can be drawn, on a terminal as on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = tuple[np.ndarray, np.ndarray]
"""Places along the horizontal axis and the values there, (n,) each, float64."""


@dataclass(frozen=True)
class Curves:
    """Lines over one axis, by name, which `x` names."""

    title: str
    x: str
    lines: Mapping[str, Line]

    @property
    def finite(self) -> dict[str, Line]:
        """Returns the lines without points that are not finite, and only those with points."""
        kept = {}
        for name, (x, y) in self.lines.items():
            there = np.isfinite(x) & np.isfinite(y)
            if there.any():
                kept[name] = (x[there], y[there])
        return kept

    @property
    def wide(self) -> bool:
        """Says whether a logarithmic scale suits: values are positive and span two decades."""
        values = [y for _, y in self.finite.values()]
        every = np.concatenate(values) if values else np.ones(1)
        return bool(every.min() > 0 and every.max() > 100 * every.min())


@dataclass(frozen=True)
class Cloud:
    """Sets of points (n, 2), by name; the first lies behind the others."""

    title: str
    points: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """Images (n, c, h, w), uint8; `beside` has as many, each of which belongs to one of them."""

    title: str
    images: np.ndarray
    beside: np.ndarray | None = None


@dataclass(frozen=True)
class Field:
    """Numbers on a square (h, w), 0 or more, whose first row is the lowest."""

    title: str
    values: np.ndarray

    @property
    def grey(self) -> np.ndarray:
        """Returns an image (h, w), uint8, with the highest row on top; the largest is white."""
        values = np.nan_to_num(self.values[::-1], posinf=0.0).clip(0)
        return (255 * values / (values.max() or 1)).astype(np.uint8)


Drawing = Curves | Cloud | Pictures | Field


def curves_over(
    title: str,
    x: str,
    at: Sequence[float] | np.ndarray,
    lines: Mapping[str, Sequence[float]] | Mapping[str, np.ndarray],
) -> Curves:
    """Returns curves over the same places; lines of another length are left out."""
    places = np.asarray(at, float)
    found = {name: np.asarray(each, float) for name, each in lines.items() if len(each) == len(at)}
    return Curves(title, x, {name: (places, each) for name, each in found.items()})


def of_row(row: Mapping[str, Any]) -> list[Drawing]:
    """Returns the curves of a row: lists of numbers as long as a list of a column `trace_...`.

    Lists by name of one column share a chart, and so do lists of several columns.
    """
    found: list[Drawing] = []
    for trace in (name for name in row if name.startswith("trace_") and _numbers(row[name])):
        at, x = row[trace], trace.removeprefix("trace_")
        alone = {n: each for n, each in row.items() if _numbers(each) and n != trace}
        groups = {" and ".join(n for n in alone if len(alone[n]) == len(at)): alone}
        groups |= {n: each for n, each in row.items() if isinstance(each, dict)}
        for name, lines in groups.items():
            lists = {key: each for key, each in lines.items() if _numbers(each)}
            curves = curves_over(_words(name), x, at, lists)
            found += [curves] if curves.lines else []
    return found


def of_arrays(arrays: Mapping[str, np.ndarray]) -> list[Drawing]:
    """Returns drawings of what is kept of a training, which `Study.arrays` returns.

    Arrays (n, 2) are points, (n, c, h, w) images, (n, n) densities on a square, (n,) lines.
    """
    found: list[Drawing] = []
    shown = {name: arrays[name] for name in ("x", "samples", "x_rec") if name in arrays}
    shown |= {name: each for name, each in arrays.items() if len(each)}
    points = {name: each for name, each in shown.items() if each.ndim == 2 and each.shape[1] == 2}
    images = {name: each for name, each in shown.items() if each.ndim == 4 and len(each)}
    if points:
        found.append(Cloud("Points", points))
    pair = {"x", "x_rec"} <= images.keys() and len(images["x"]) == len(images["x_rec"])
    if pair:
        title = "Test images, each above its reconstruction"
        found.append(Pictures(title, images.pop("x"), images.pop("x_rec")))
    named = {"x": "Test images", "samples": "Generated images"}
    found += [Pictures(named.get(name, _words(name)), each) for name, each in images.items()]
    for name, each in shown.items():
        if each.ndim == 2 and each.shape[0] == each.shape[1] > 2:
            found.append(Field(_words(name), each))
        elif each.ndim == 1 and each.dtype.kind in "iuf":
            found.append(curves_over(_words(name), "place", [*range(len(each))], {name: each}))
    return found


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int | float) for each in value)


def _words(name: str) -> str:
    return name.replace("_", " ")
