"""The figures of the toy study: functions from a frame of runs to a matplotlib figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import colour, legend, panels
from bench.render.tables import lam
from bench.render.text import texts
from bench.studies.toy_grid.data import CENTRES
from bench.studies.toy_grid.runs import CLOSE, GOOD, NOISE_SCORES, TOP, Cells, cells, paper_bars

REDUCTIONS = texts("bench.studies.toy_grid")["reductions"]
PICKS = {"best": 1.0, "median": 0.5, "worst": 0.0}
BLACK: dict[str, Any] = {"color": "black", "linewidth": 0.8}


def _paint(runs: pd.DataFrame) -> str:
    return colour(str(runs["method"].iloc[0]))


def _noise(axes: Axes, form: str | None = None, across: bool = False) -> None:
    """A grey line at the score of each kind of noise, named in this form."""
    line = axes.axhline if across else axes.axvline
    for (name, score), style in zip(NOISE_SCORES.items(), ("--", ":"), strict=True):
        label = form and form.format(name=name, score=score)
        line(score, color="#777777", linestyle=style, linewidth=1, label=label)


def figure3(frame: pd.DataFrame) -> Figure:
    """Figure 3: share of runs by inception score and by MSE, the paper's bars as grey outlines."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(len(lams), 2, 5.2, 2.3)
    for (left, right), value in zip(grid, lams, strict=True):
        here = cells(frame[frame["lam"] == value])
        _bars(left, here, "IS", "score", np.linspace(1, 5, 11))
        _bars(right, here, "MSE", "mse", np.linspace(0, 8, 17))
        _noise(left, "{name}: {score}" if value == lams[0] else None)
        for axes, place in ((left, "upper center"), (right, "upper right")):
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set(ylabel="% of runs", yticks=[y for y in axes.get_yticks() if y <= 100])
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
            axes.legend(fontsize=7, loc=place)
    grid[-1, 0].set_xlabel("inception score (bins of 0.4)")
    grid[-1, 1].set_xlabel("MSE of x (bins of 0.5; runs above 8 not drawn)")
    return figure


def _bars(axes: Axes, here: Cells, metric: str, column: str, edges: np.ndarray) -> None:
    """The share of each cell's runs in each bin, the paper's share outlined."""
    paper = paper_bars().groupby(["metric", "label", "lam"])["percent"]
    step = edges[1] - edges[0]
    width = step * 0.9 / len(here)
    for i, (label, value, runs) in enumerate(here):
        left = edges[:-1] + 0.05 * step + i * width
        share = 100 * np.histogram(runs[column], edges)[0] / len(runs)
        good = f" (n = {len(runs)}; {runs['top_good'].mean():.0%} > {TOP} with quality)"
        name = label + good if metric == "IS" else label
        axes.bar(left, share, width, align="edge", color=_paint(runs), label=name)
        if (metric, label, value) in paper.groups:
            style = {"fill": False, "edgecolor": "#888888", "linewidth": 1}
            text = "paper (n = 576)" if i == len(here) - 1 else None
            known = paper.get_group((metric, label, value))
            axes.bar(left, known, width, align="edge", label=text, **style)
    axes.set_xlim(edges[0], edges[-1])


def profile(frame: pd.DataFrame) -> Figure:
    """Share of runs above each inception score; below, only with high quality."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(2, len(lams), 3.6, 2.6, sharex=True, sharey=True)
    at = np.linspace(1, 5, 401)
    for column, value in zip(grid.T, lams, strict=True):
        for axes, least in zip(column, (0, GOOD), strict=True):
            for label, _, runs in cells(frame[frame["lam"] == value]):
                good = runs.loc[runs["high_quality_counted"] >= least, "score"]
                above = (good.to_numpy() > at[:, None]).sum(1) / len(runs)
                axes.plot(at, above, color=_paint(runs), label=label)
            _noise(axes, "{name}: {score}")
            axes.axvline(TOP, label=f"top bin: {TOP}", **BLACK)
            axes.set_ylim(0, 1.02)
        column[0].set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
        column[0].legend(fontsize=7, loc="lower left")
        column[1].set_xlabel("inception score")
    grid[0, 0].set_ylabel("share of runs above")
    grid[1, 0].set_ylabel(f"… and with quality ≥ {GOOD}")
    return figure


def scatter(frame: pd.DataFrame) -> Figure:
    """Every run: its inception score against its MSE and against its high-quality share."""
    figure, grid = panels(1, 2, 5.2, 4.0, sharey=True)
    left, right = grid[0]
    markers = dict(zip(sorted(frame["lam"].unique()), "o^sDvP*Xp", strict=False))
    size = max(3, min(14, 5000 / len(frame)))
    for label, value, runs in cells(frame):
        style = {"s": size, "alpha": 0.6, "linewidths": 0, "color": _paint(runs)}
        style |= {"marker": markers.get(value, "o"), "label": f"{label}, λ = {lam(value)}"}
        left.scatter(runs["mse"].clip(upper=20), runs["score"], **style)
        right.scatter(runs["high_quality_counted"], runs["score"], **style)
    left.set_xscale("symlog", linthresh=0.01)
    left.set_xlim(left=0)
    left.axvline(CLOSE, **BLACK)
    left.set(xlabel=f"MSE of x (line: {CLOSE}; above 20 drawn at 20)", ylabel="inception score")
    right.axvline(GOOD, **BLACK)
    right.set_xlabel(f"share of high-quality samples (line: {GOOD})")
    for axes in grid[0]:
        axes.axhline(TOP, label=f"top bin: {TOP}", **BLACK)
        _noise(axes, "{name}", across=True)
    legend(figure, grid[0], loc="outside right center", fontsize=8, markerscale=2)
    return figure


def picked(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """The runs of a cell whose points are drawn: best, median and worst score."""
    ranked = runs.sort_values(["score", "id"], ignore_index=True)
    return {name: ranked.iloc[round(place * (len(ranked) - 1))] for name, place in PICKS.items()}


def shown(frame: pd.DataFrame) -> set[str]:
    """The ids of all runs whose points are drawn."""
    return {str(run["id"]) for *_, runs in cells(frame) for run in picked(runs).values()}


def points(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """Generated and reconstructed points of the best, median and worst run of each cell."""
    stored, order = samples.set_index("id"), cells(frame)
    rows, columns = len(order), 2 * len(PICKS)
    figure = Figure(figsize=(1.7 * columns, 1.75 * rows))  # equal panels: no layout to work out
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.05, 0.03, 0.995, 0.975, wspace=0.1, hspace=0.16)
    for row, (label, value, runs) in zip(grid, order, strict=True):
        for (pick, run), pair in zip(picked(runs).items(), row.reshape(-1, 2), strict=True):
            titles = f"{pick}: IS {run['score']:.2f}", f"MSE {run['mse']:.2f}"
            for axes, column, title in zip(pair, ("samples", "x_rec"), titles, strict=True):
                _cloud(axes, stored, str(run["id"]), column)
                axes.set_title(title, fontsize=8)
        row[0].set_ylabel(f"{label}\nλ = {lam(value)}", fontsize=8)
    for j, axes in enumerate(grid[-1]):
        axes.set_xlabel("reconstructed" if j % 2 else "generated", fontsize=8)
    return figure


def _cloud(axes: Axes, stored: pd.DataFrame, id: str, column: str) -> None:
    axes.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xticks=[], yticks=[])
    axes.plot(*CENTRES.T, "+", color="#999999", markersize=6, zorder=0)
    if id not in stored.index:
        axes.text(0, 0, "not stored", ha="center", va="center", fontsize=7)
        return
    xy = np.asarray(stored.loc[id, column], dtype=float).reshape(-1, 2)
    xy = np.nan_to_num(xy, nan=1e9, posinf=1e9, neginf=-1e9)
    axes.scatter(*xy.T, s=3, alpha=0.6, linewidths=0, color="#333333")
    if outside := int((np.abs(xy) > 3.5).any(1).sum()):
        axes.text(3.4, -3.3, f"{outside} outside", ha="right", fontsize=6)


def gradient(frame: pd.DataFrame) -> Figure:
    """Size over training of the gradient that each reduction would send to the decoder."""
    order = cells(frame)
    columns = min(len(order), 2 if len(order) <= 4 else 3)
    figure, grid = panels(-(-len(order) // columns), columns, 3.1, 2.5, sharey=True)
    for axes in grid.flat[len(order) :]:
        axes.set_visible(False)
    for axes, (label, value, runs) in zip(grid.flat, order, strict=False):
        traces = [dict(each) for each in runs["decoder_gradient"]]
        share = np.linspace(0, 1, len(runs["trace_epoch"].iloc[0]))
        for method in dict.fromkeys(method for trace in traces for method in trace):
            # A method that joined the registry later is missing from older rows.
            values = np.stack([np.asarray(t[method], float) for t in traces if method in t])
            low, middle, high = np.nanpercentile(values, [10, 50, 90], axis=0)
            paint = colour(method)
            axes.plot(share, middle, color=paint, label=REDUCTIONS.get(method, [method])[-1])
            axes.fill_between(share, low, high, color=paint, alpha=0.12, linewidth=0)
        axes.set_yscale("log")
        axes.set_title(f"trained as {label}, λ = {lam(value)}", fontsize=8, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("share of training")
    for row in grid:
        row[0].set_ylabel("gradient at x, RMS")
    legend(figure, grid.flat, loc="outside upper center", ncols=4, fontsize=8)
    return figure
