"""The figures of the toy study: functions from a frame of runs to a matplotlib figure."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import GREY, colour, key, legend, panels, rank
from bench.render.tables import lam
from bench.render.text import texts
from bench.studies.toy_grid.data import CENTRES
from bench.studies.toy_grid.runs import CLOSE, GOOD, NOISE_SCORES, TOP, Cells, cells, paper_bars

REDUCTIONS = texts("bench.studies.toy_grid")["reductions"]
PICKS = {"best": 1.0, "median": 0.5, "worst": 0.0}
THRESHOLD: dict[str, Any] = {"color": GREY, "linewidth": 1}
OUTLINE: dict[str, Any] = {"fill": False, "edgecolor": GREY, "linewidth": 1}
SCORES, ERRORS = np.linspace(1, 5, 11), np.linspace(0, 8, 17)
"""Edges of the bins of the paper's Figure 3."""


def _colours(here: Cells) -> dict[str, str]:
    """The colour of each label, in their order."""
    return {label: colour(str(runs["method"].iloc[0])) for label, _, runs in here}


def _noise(axes: Axes, form: str | None = None, across: bool = False) -> None:
    """A grey line at the score of each kind of noise, named in this form."""
    line = axes.axhline if across else axes.axvline
    for (name, score), style in zip(NOISE_SCORES.items(), ("--", ":"), strict=True):
        label = form and form.format(name=name, score=score)
        line(score, color=GREY, linestyle=style, linewidth=1, label=label)


def figure3(frame: pd.DataFrame) -> Figure:
    """Figure 3: share of runs by inception score and by MSE, the paper's bars as grey outlines."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(2 * len(lams), 2, 5.2, 2.5)
    for (left, right), value in zip(grid.reshape(-1, 2), lams, strict=True):
        runs = frame[frame["lam"] == value]
        _bars(left, runs, "IS", "score", SCORES)
        _bars(right, runs, "MSE", "mse", ERRORS)
        _noise(left, "{name}: {score}" if value == lams[0] else None)
        left.set_xlabel("inception score (bins of 0.4)")
        right.set_xlabel("MSE of x (bins of 0.5)")
        for axes, place in ((left, "upper center"), (right, "upper right")):
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set(ylabel="% of runs", yticks=[y for y in axes.get_yticks() if y <= 100])
            lines = len(axes.get_legend_handles_labels()[0])
            axes.set_ylim(top=(1 + 0.16 * lines) * axes.get_ylim()[1])  # room for the legend
            axes.legend(fontsize=8, loc=place).set_in_layout(False)
    return figure


def _bars(axes: Axes, frame: pd.DataFrame, metric: str, column: str, edges: np.ndarray) -> None:
    """The share of each method's runs in each bin, the paper's share outlined."""
    here, paper = cells(frame), paper_bars()
    paint = _colours(here)
    ours = frame.assign(
        x=frame[column], percent=100 / frame.groupby("label")["id"].transform("size")
    )
    paper["x"] = (paper["bin_lo"] + paper["bin_hi"]) / 2
    paper = paper[(paper["metric"] == metric) & (paper["lam"] == frame["lam"].iloc[0])]
    for bars, style in (
        (ours, {"palette": paint, "alpha": 1, "linewidth": 0}),
        (paper, {"palette": dict.fromkeys(paint, GREY), **OUTLINE}),
    ):
        drawn = bars[np.isfinite(bars["x"]) & bars["label"].isin(paint)]
        common: dict[str, Any] = {"x": "x", "weights": "percent", "bins": [*edges], "ax": axes}
        common |= {"hue": "label", "hue_order": [*paint], "multiple": "dodge", "shrink": 0.9}
        if len(drawn):
            sns.histplot(drawn, legend=False, **common, **style)
    for label, _, runs in here:
        more = f"{runs['top_good'].mean():.0%} > {TOP} with quality"
        if metric == "MSE":
            more = f"{(runs['mse'] > edges[-1]).mean():.0%} above {edges[-1]:.0f}"
        axes.bar(0, 0, color=paint[label], label=f"{label} (n = {len(runs)}; {more})")
    if {*paper["label"]} & {*paint}:
        axes.bar(0, 0, label="paper (n = 576)", **OUTLINE)
    axes.set_xlim(edges[0], edges[-1])


def profile(frame: pd.DataFrame) -> Figure:
    """Share of runs above each inception score; below, only with high quality."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(2 * len(lams), len(lams), 3.4, 2.6, sharex=True, sharey=True)
    for column, value in zip(grid.reshape(2, -1).T, lams, strict=True):
        here = frame[frame["lam"] == value]
        paint = _colours(cells(here))
        for axes, least in zip(column, (0, GOOD), strict=True):
            # A run of too little quality stays in the share and is above no score.
            score = here["score"].where(here["high_quality_counted"] >= least, 0.0)
            sns.ecdfplot(
                x=score,
                hue=here["label"],
                hue_order=[*paint],
                palette=paint,
                complementary=True,
                legend=False,
                ax=axes,
            )
            key(axes, paint)
            _noise(axes, "{name}: {score}")
            axes.axvline(TOP, label=f"top bin: {TOP}", **THRESHOLD)
            axes.set(xlim=(1, 5), ylim=(0, 1.02), xlabel="inception score")
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set_ylabel(f"… and with quality ≥ {GOOD}" if least else "share of runs above")
        column[0].legend(fontsize=8, loc="lower left").set_in_layout(False)
    return figure


def scatter(frame: pd.DataFrame) -> Figure:
    """Every run: its inception score against its MSE and against its high-quality share."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(2 * len(lams), 2, 5.2, 2.6)
    size = max(3, min(14, 5000 / len(frame)))
    for (left, right), value in zip(grid.reshape(-1, 2), lams, strict=True):
        here = cells(frame[frame["lam"] == value])
        for (label, paint), (*_, runs) in zip(_colours(here).items(), here, strict=True):
            style: dict[str, Any] = {"s": size, "alpha": 0.6, "linewidths": 0}
            style |= {"color": paint, "label": label}
            left.scatter(runs["mse"].clip(upper=20), runs["score"], **style)
            right.scatter(runs["high_quality_counted"], runs["score"], **style)
        left.set_xscale("symlog", linthresh=0.01)
        left.set(xlim=(0, 25), xlabel=f"MSE of x (line: {CLOSE}; above 20 drawn at 20)")
        right.set(xlim=(-0.02, 1.02), xlabel=f"share of high-quality samples (line: {GOOD})")
        left.axvline(CLOSE, **THRESHOLD)
        right.axvline(GOOD, **THRESHOLD)
        for axes in (left, right):
            axes.axhline(TOP, label=f"top bin: {TOP}", **THRESHOLD)
            _noise(axes, "{name}", across=True)
            axes.set(ylim=(0.9, 5.1), ylabel="inception score")
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
    legend(figure, grid, ncols=4)
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
    figure, grid = panels(2 * len(PICKS) * len(order), 2 * len(PICKS), 1.8, 2.0, narrow=2)
    for row, (label, value, runs) in zip(grid.reshape(len(order), -1, 2), order, strict=True):
        name = "\n".join(textwrap.wrap(f"{label}, λ = {lam(value)}", 24))
        for pair, (pick, run) in zip(row, picked(runs).items(), strict=True):
            titles = f"{pick}: IS {run['score']:.2f}", f"its MSE: {run['mse']:.2f}"
            for axes, column, title in zip(pair, ("samples", "x_rec"), titles, strict=True):
                _cloud(axes, stored, run, column)
                axes.set_title(title, fontsize=8)
                axes.set_xlabel("generated" if column == "samples" else "reconstructed", fontsize=8)
            pair[0].set_ylabel(name, fontsize=8)
    return figure


def _cloud(axes: Axes, stored: pd.DataFrame, run: pd.Series, column: str) -> None:
    id = str(run["id"])
    axes.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xticks=[], yticks=[])
    axes.plot(*CENTRES.T, "+", color=GREY, markersize=6, zorder=0)
    if id not in stored.index:
        axes.text(0, 0, "not stored", ha="center", va="center", fontsize=7)
        return
    xy = np.asarray(stored.loc[id, column], dtype=float).reshape(-1, 2)
    xy = np.nan_to_num(xy, nan=1e9, posinf=1e9, neginf=-1e9)
    axes.scatter(*xy.T, s=3, alpha=0.6, linewidths=0, color=colour(str(run["method"])))
    if outside := int((np.abs(xy) > 3.5).any(1).sum()):
        axes.text(3.4, -3.3, f"{outside} outside", ha="right", fontsize=6)


def gradient(frame: pd.DataFrame) -> Figure:
    """Size over training of the gradient that each reduction would send to the decoder."""
    order = cells(frame)
    figure, grid = panels(len(order), 2 if len(order) <= 4 else 3, 3.4, 2.5, sharey=True)
    for axes, (label, value, runs) in zip(grid, order, strict=True):
        # A method that joined the registry later is missing from older rows.
        traces = pd.DataFrame(
            {"method": method, "share": step / (len(sizes) - 1), "size": size}
            for trace in runs["decoder_gradient"]
            for method, sizes in trace
            for step, size in enumerate(sizes)
        )
        paint = {name: colour(name) for name in sorted(traces["method"].unique(), key=rank)}
        sns.lineplot(
            traces,
            x="share",
            y="size",
            hue="method",
            hue_order=[*paint],
            palette=paint,
            estimator="median",
            errorbar=("pi", 80),
            legend=False,
            ax=axes,
        )
        key(axes, {REDUCTIONS.get(name, name): paint[name] for name in paint})
        axes.set(yscale="log", xlabel="share of training", ylabel="gradient at x, RMS")
        axes.set_title(f"trained as {label}, λ = {lam(value)}", fontsize=8, loc="left")
    legend(figure, grid, ncols=4)
    return figure


def updates(frame: pd.DataFrame) -> Figure:
    """Mean inception score by the numbers of updates a batch, each method and lambda a panel.

    Every panel has the numbers of updates that any panel has; a cell without runs says so.
    """
    order, names = cells(frame), ("critic_steps", "model_steps")
    rows, columns = (sorted(frame[name].unique()) for name in names)
    across = max(sum(value == each for _, value, _ in order) for _, each, _ in order)
    figure, grid = panels(len(order), across, 2.6, 2.2, narrow=2)
    for axes, (label, value, runs) in zip(grid, order, strict=True):
        means = runs.pivot_table(index=names[0], columns=names[1], values="score")
        means = means.reindex(index=rows, columns=columns)
        for y, x in np.argwhere(means.isna().to_numpy()):
            axes.text(x + 0.5, y + 0.5, "not\ntrained", ha="center", va="center", fontsize=7)
        sns.heatmap(means, vmin=1, vmax=5, annot=True, fmt=".2f", cbar=False, ax=axes)
        axes.set_title(f"{label}, λ = {lam(value)}", loc="left", fontsize=8)
        axes.set(xlabel="model updates", ylabel="critic updates")
        axes.grid(visible=False)
    return figure
