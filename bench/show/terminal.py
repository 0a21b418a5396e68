"""Draws curves, points and images as characters, with colours where a terminal has them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from bench.render.drawings import Cloud, Curves, Drawing, Field, Line, Pictures

PIPE = 100
"""Columns of what is no terminal."""
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0))
"""After Okabe & Ito; all read on white and on black."""
MARKS = "x+o#*"
"""What tells lines apart without colours."""
GREY = (140, 140, 140)
RAMP = " .:-=+*#%@"
"""Characters from black to white, for images without colours."""
TILE = 16
"""Most columns of one image of a mosaic."""
REACH = 3.5
"""Points are shown from -REACH to REACH at least."""


def console(pipe: int = PIPE) -> Console:
    """Returns a console on standard output, of the terminal's width, or of `pipe` columns."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty() and "COLUMNS" not in found._environ:
        found = Console(highlight=False, markup=False, emoji=False, width=pipe)
    return found


def coloured(on: Console) -> bool:
    """Says whether the console shows colours."""
    return on.color_system is not None and not on.no_color


def drawn(drawing: Drawing, on: Console, width: int, height: int = 14) -> RenderableType:
    """Returns a drawing of at most so many columns; a chart has so many lines."""
    width = max(width, 24)
    title = Text(drawing.title, style="bold")
    if isinstance(drawing, Curves):
        lines, log = drawing.finite, drawing.wide
        if not lines:
            return Group(title, Text("no finite value"))
        label = f"{drawing.x} (vertical: logarithmic)" if log else drawing.x
        chart = _chart(lines, width, height, coloured(on), label, log=log)
        return Group(title, _key(lines, coloured(on)), chart)
    if isinstance(drawing, Cloud):
        return Group(title, *_clouds(drawing, on, width))
    if isinstance(drawing, Field):
        return Group(title, image(drawing.grey, on, width))
    return Group(title, *_mosaics(drawing, on, width))


def _mark(at: int, colour: bool) -> str:
    return "braille" if colour else MARKS[at % len(MARKS)]


def _key(names: Mapping[str, Any], colour: bool, first: int = 0) -> Text:
    """Returns a line that says which colour, or mark, each name has."""
    text = Text()
    for at, name in enumerate(names, first):
        style = Style(color=Color.from_rgb(*COLOURS[at % len(COLOURS)])) if colour else Style()
        text.append("━━" if colour else MARKS[at % len(MARKS)] * 2, style)
        text.append(f" {name}   ")
    return text


def _chart(
    lines: Mapping[str, Line],
    width: int,
    height: int,
    colour: bool,
    label: str = "",
    log: bool = False,
    scatter: bool = False,
    limits: tuple[float, float] | None = None,
) -> Text:
    """Returns a chart of lines, or of points behind points, as text."""
    import plotext  # a tenth of a second

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    for at, (x, y) in enumerate(lines.values()):
        paint = GREY if scatter and at == 0 else COLOURS[(at - scatter) % len(COLOURS)]
        sign = ("braille" if colour else ".x"[at > 0]) if scatter else _mark(at, colour)
        marker = plotext.marker(sign, pixel=paint) if colour else sign
        signal = figure.signal(x.tolist(), (np.log10(y) if log else y).tolist(), marker=marker)
        if not scatter:
            signal.lines()
        figure.draw(signal)
    figure.label(label)
    for axis, at, most in (("x", 0, width // 12), ("y", 1, height // 4)):
        values = np.concatenate([each[at] for each in lines.values()])
        if at and log:
            values = np.log10(values)
        low, high = limits or (values.min(), values.max())
        # Left to itself, plotext cuts off the beginning of some curves.
        beside = 0 if low < high else abs(low) / 2 or 1.0
        figure.ruler(axis).lim(low - beside, high + beside)
        ticks = _ticks(low, high, most, whole=bool(at and log))
        form = ".3g" if beside else "g"  # one value alone is no round number
        texts = [f"1e{tick:.0f}" if at and log else f"{tick:{form}}" for tick in ticks]
        figure.ruler(axis).ticks(ticks, texts)
    return Text.from_ansi(figure.build().string().rstrip("\n"))


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Returns round numbers between two numbers, about `most`, whole ones if it is so asked."""
    if not low < high:
        return [low]
    step = (high - low) / max(most, 2)
    power = 10.0 ** math.floor(math.log10(step))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= step)
    step = max(1.0, float(math.ceil(step))) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{step * i:.10g}") for i in range(first, last + 1)] or [low]


def _clouds(cloud: Cloud, on: Console, width: int) -> Iterator[RenderableType]:
    """Yields a panel for each set of points in front of the first, side by side where they fit."""
    behind, *others = cloud.points
    panels = []
    beside = len(others) if width >= 40 * len(others) else 1
    size = min(width // max(beside, 1) - 2, 60)
    far = reach(cloud)
    for name in others or [behind]:
        sets = {behind: cloud.points[behind], name: cloud.points[name]}
        lines = {}
        for each, points in sets.items():
            inside = points[(np.abs(points) <= far).all(1)]
            lines[each] = (inside[:, 0], inside[:, 1])
        chart = _chart(lines, size, size // 2, coloured(on), "", False, True, (-far, far))
        outside = len(sets[name]) - len(lines[name][0])
        told = f"{name}, in front of {behind}" if name != behind else name
        told += f" ({outside} beyond {far:.1f} or not finite)" if outside else ""
        panels.append(Group(Text(told), chart))
    if beside == 1:
        yield from panels
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*panels)
    yield grid


def reach(cloud: Cloud) -> float:
    """Returns up to where points are shown: nearly all points that are finite."""
    finite = [np.abs(each[np.isfinite(each)]) for each in cloud.points.values()]
    return max([REACH, *(float(np.quantile(each, 0.99)) for each in finite if len(each))])


def image(pixels: np.ndarray, on: Console, width: int) -> Text:
    """Returns an image (h, w) or (h, w, 3), uint8, in half blocks, or in characters of RAMP.

    Without colours most of an image is blank, whether it is white or black.
    """
    if pixels.shape[1] > width:
        pixels = resized(pixels, width)
    rows = pixels[: len(pixels) // 2 * 2] if len(pixels) > 1 else pixels.repeat(2, 0)
    if coloured(on):
        colours = rows if rows.ndim == 3 else np.stack([rows] * 3, -1)
        return Text("\n").join(map(_half_blocks, colours[::2], colours[1::2]))
    grey = rows.mean(-1) if rows.ndim == 3 else rows.astype(float)
    grey = 255 - grey if np.median(grey) > 127 else grey
    steps = (grey[::2] + grey[1::2]) / 2 / 256 * len(RAMP)
    return Text("\n".join("".join(RAMP[int(step)] for step in line) for line in steps))


def _half_blocks(upper: np.ndarray, lower: np.ndarray) -> Text:
    text = Text()
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
    return text


def resized(pixels: np.ndarray, width: int) -> np.ndarray:
    """Returns an image (h, w) or (h, w, 3), uint8, of this width, by means over areas."""
    from PIL import Image

    height = max(2, round(pixels.shape[0] * width / pixels.shape[1]))
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _mosaics(pictures: Pictures, on: Console, width: int) -> Iterator[RenderableType]:
    """Yields two rows of images, or a row of images above those that belong to them."""
    n, _, _, own = pictures.images.shape
    tile = min(own, TILE)
    across = max(1, min(n, (width + 1) // (tile + 1)))
    sets = [pictures.images[:across], pictures.images[across : 2 * across]]
    if pictures.beside is not None:
        sets = [pictures.images[:across], pictures.beside[:across]]
    for each in sets:
        if len(each):
            yield image(strip(each, tile), on, width)


def strip(images: np.ndarray, tile: int) -> np.ndarray:
    """Returns images (n, c, h, w) in a row, (h', w') or (h', w', 3), each of `tile` columns."""
    grey = images.shape[1] == 1
    tiles: list[np.ndarray] = []
    for each in images:
        pixels = each[0] if grey else np.moveaxis(each, 0, -1)
        pixels = resized(np.ascontiguousarray(pixels), tile)
        gap = np.zeros((len(pixels), 1, *pixels.shape[2:]), np.uint8)
        tiles += [pixels, gap]
    return np.concatenate(tiles[:-1], 1)


def fitted(
    names: Sequence[str], widths: Mapping[str, int], order: Sequence[str], width: int
) -> list[str]:
    """Returns those of these columns that fit into a width, in their order.

    Columns come in by `order` until one does not fit; each takes its width and two blanks.
    """
    kept, used = set[str](), 0
    for name in order:
        used += widths[name] + 2
        if kept and used > width:
            break
        kept.add(name)
    return [name for name in names if name in kept]
