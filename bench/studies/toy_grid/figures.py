"""The figures of the toy study: functions from a frame of runs to a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import colour, panels
from bench.render.tables import lam
from bench.studies.toy_grid import frames
from bench.studies.toy_grid.data import CENTRES
from bench.studies.toy_grid.frames import CLOSE, GOOD, TOP
from bench.studies.toy_grid.tables import cells

REDUCTIONS = {"svae_r": "mean of f (14)", "alice": "non-saturating (19)"}
REDUCTIONS |= {"alice_minimax": "minimax (18)", "alice_sigmoid": "mean of σ(f)"}


def _noise(axes: Axes, label: bool = True) -> None:
    for (name, score), style in zip(frames.NOISE_SCORES.items(), ("--", ":"), strict=True):
        text = f"{name}: {score}" if label else None
        axes.axvline(score, color="#777777", linestyle=style, linewidth=1, label=text)


def figure3(frame: pd.DataFrame) -> Figure:
    """Figure 3: share of runs by inception score and by MSE, the paper's bars as grey outlines."""
    bars = frames.paper_bars()
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(len(lams), 2, 5.2, 2.3)
    for row, value in zip(grid, lams, strict=True):
        for axes, metric, column in zip(row, ("IS", "MSE"), ("score", "mse"), strict=True):
            edges = np.linspace(1, 5, 11) if metric == "IS" else np.linspace(0, 8, 17)
            here = cells(frame[frame["lam"] == value])
            step = (edges[1] - edges[0]) * 0.9 / len(here)
            for i, (label, _, runs) in enumerate(here):
                left = edges[:-1] + 0.05 * (edges[1] - edges[0]) + i * step
                share = 100 * np.histogram(runs[column], edges)[0] / len(runs)
                method = str(runs["method"].iloc[0])
                top = f"{runs['top_good'].mean():.0%} > {TOP}"
                axes.bar(
                    left,
                    share,
                    step,
                    align="edge",
                    color=colour(method),
                    label=f"{label} (n = {len(runs)}; {top} with quality)"
                    if metric == "IS"
                    else label,
                )
                known = bars.query("metric == @metric and label == @label and lam == @value")
                if len(known):
                    axes.bar(
                        left,
                        known["percent"],
                        step,
                        align="edge",
                        fill=False,
                        edgecolor="#888888",
                        linewidth=1,
                        label="paper (n = 576)" if i == len(here) - 1 else None,
                    )
            if metric == "IS":
                _noise(axes, label=value == lams[0])
            axes.set_xlim(edges[0], edges[-1])
            axes.set_ylabel("% of runs")
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
            axes.legend(fontsize=7, loc="upper center" if metric == "IS" else "upper right")
    grid[-1, 0].set_xlabel("inception score (bins of 0.4)")
    grid[-1, 1].set_xlabel("MSE of x (bins of 0.5; runs above 8 not drawn)")
    return figure


def profile(frame: pd.DataFrame) -> Figure:
    """Share of runs above each inception score; below, only with high quality."""
    lams = sorted(frame["lam"].unique())
    figure, grid = panels(2, len(lams), 3.6, 2.6, sharex=True, sharey=True)
    at = np.linspace(1, 5, 401)
    for j, value in enumerate(lams):
        for i, counted in enumerate((None, GOOD)):
            axes = grid[i, j]
            for label, _, runs in cells(frame[frame["lam"] == value]):
                good = runs.loc[runs["high_quality_counted"] >= (counted or 0), "score"]
                above = (good.to_numpy() > at[:, None]).sum(1) / len(runs)
                method = str(runs["method"].iloc[0])
                axes.plot(at, above, color=colour(method), label=label)
            _noise(axes)
            axes.axvline(TOP, color="black", linewidth=0.8, label=f"top bin: {TOP}")
            axes.set_ylim(0, 1.02)
            if i == 0:
                axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
                axes.legend(fontsize=7, loc="lower left")
            else:
                axes.set_xlabel("inception score")
    grid[0, 0].set_ylabel("share of runs above")
    grid[1, 0].set_ylabel(f"… and with quality ≥ {GOOD}")
    return figure


def scatter(frame: pd.DataFrame) -> Figure:
    """Every run: its inception score against its MSE and against its high-quality share."""
    figure, grid = panels(1, 2, 5.2, 4.0, sharey=True)
    markers = dict(zip(sorted(frame["lam"].unique()), "o^sDvP*Xp", strict=False))
    for label, value, runs in cells(frame):
        method = str(runs["method"].iloc[0])
        style = {
            "s": max(3, min(14, 5000 / len(frame))),
            "alpha": 0.6,
            "linewidths": 0,
            "marker": markers.get(value, "o"),
            "color": colour(method),
        }
        name = f"{label}, λ = {lam(value)}"
        grid[0, 0].scatter(runs["mse"].clip(upper=20), runs["score"], label=name, **style)
        grid[0, 1].scatter(runs["high_quality_counted"], runs["score"], **style)
    left, right = grid[0]
    left.set_xscale("symlog", linthresh=0.01)
    left.set_xlim(left=0)
    left.axvline(CLOSE, color="black", linewidth=0.8)
    left.set_xlabel(f"MSE of x (line: {CLOSE}; above 20 drawn at 20)")
    left.set_ylabel("inception score")
    right.axvline(GOOD, color="black", linewidth=0.8)
    right.set_xlabel(f"share of high-quality samples (line: {GOOD})")
    for axes in grid[0]:
        axes.axhline(TOP, color="black", linewidth=0.8, label=f"top bin: {TOP}")
        for (name, score), style in zip(frames.NOISE_SCORES.items(), ("--", ":"), strict=True):
            axes.axhline(score, color="#777777", linestyle=style, linewidth=1, label=name)
    entries = left.get_legend_handles_labels()
    figure.legend(*entries, loc="outside right center", fontsize=8, markerscale=2)
    return figure


PICKS = {"best": 1.0, "median": 0.5, "worst": 0.0}


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs whose points are drawn: best, median and worst score of each label and lambda."""
    picked = []
    for label, value, runs in cells(frame):
        ranked = runs.sort_values(["score", "id"], ignore_index=True)
        for name, quantile in PICKS.items():
            run = ranked.iloc[round(quantile * (len(ranked) - 1))]
            picked.append({**run.to_dict(), "pick": name, "label": label, "lam": value})
    return pd.DataFrame(picked)


def points(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """Generated and reconstructed points of the best, median and worst run of each cell."""
    picked = shown(frame)
    stored = samples.set_index("id")
    order = cells(frame)
    rows, columns = len(order), 2 * len(PICKS)
    figure = Figure(figsize=(1.7 * columns, 1.75 * rows))  # equal panels: no layout to work out
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.05, 0.03, 0.995, 0.975, wspace=0.1, hspace=0.16)
    for row, (label, value, _) in zip(grid, order, strict=True):
        here = picked[(picked["label"] == label) & (picked["lam"] == value)]
        for j, (_, run) in enumerate(here.iterrows()):
            for axes, column in ((row[2 * j], "samples"), (row[2 * j + 1], "x_rec")):
                _cloud(axes, stored, str(run["id"]), column)
                if column == "samples":
                    axes.set_title(f"{run['pick']}: IS {run['score']:.2f}", fontsize=8)
                else:
                    axes.set_title(f"MSE {run['mse']:.2f}", fontsize=8)
        row[0].set_ylabel(f"{label}\nλ = {lam(value)}", fontsize=8)
    for j in range(2 * len(PICKS)):
        grid[-1, j].set_xlabel("reconstructed" if j % 2 else "generated", fontsize=8)
    return figure


def _cloud(axes: Axes, stored: pd.DataFrame, id: str, column: str) -> None:
    axes.set_xlim(-3.5, 3.5)
    axes.set_ylim(-3.5, 3.5)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.plot(*CENTRES.T, "+", color="#999999", markersize=6, zorder=0)
    if id not in stored.index:
        axes.text(0, 0, "not stored", ha="center", va="center", fontsize=7)
        return
    xy = np.asarray(stored.loc[id, column], dtype=float).reshape(-1, 2)
    xy = np.nan_to_num(xy, nan=1e9, posinf=1e9, neginf=-1e9)
    axes.scatter(*xy.T, s=3, alpha=0.6, linewidths=0, color="#333333")
    outside = int((np.abs(xy) > 3.5).any(1).sum())
    if outside:
        axes.text(3.4, -3.3, f"{outside} outside", ha="right", fontsize=6)


def gradient(frame: pd.DataFrame) -> Figure:
    """Size over training of the gradient that each reduction would send to the decoder."""
    order = cells(frame)
    columns = min(len(order), 2 if len(order) <= 4 else 3)
    rows = -(-len(order) // columns)
    figure, grid = panels(rows, columns, 3.1, 2.5, sharey=True)
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
            axes.plot(share, middle, color=paint, label=REDUCTIONS.get(method, method))
            axes.fill_between(share, low, high, color=paint, alpha=0.12, linewidth=0)
        axes.set_yscale("log")
        axes.set_title(f"trained as {label}, λ = {lam(value)}", fontsize=8, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("share of training")
    for row in grid:
        row[0].set_ylabel("gradient at x, RMS")
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid.flat]
    named = {label: handle for pair in pairs for handle, label in pair}
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


CAPTIONS: dict[str, tuple[Callable[..., Figure], str, str]] = {
    "figure3": (
        figure3,
        "Figure 3: distribution of the runs over inception score and MSE",
        "Bars: ours, in the paper's bins. Grey outlines: the paper's bars, digitised (576 "
        "full-size runs each, unpublished classifier). Grey lines: scores of pure noise, which "
        "the top bin (above 4.6) contains; the legend gives the share of runs that are in it and "
        "also have at least 0.8 of their samples within 3 sd of a centre.",
    ),
    "profile": (
        profile,
        "Share of runs above each inception score",
        "Lower row: counting only runs with a share of high-quality samples of at least 0.8. "
        "A curve further up and right is better. Grey lines: scores of pure noise.",
    ),
    "scatter": (
        scatter,
        "Inception score against MSE and against quality, every run",
        "Runs on the upper left reconstruct and score; runs on the upper right of the second "
        "panel score because they generate the mixture.",
    ),
    "points": (
        points,
        "Generated and reconstructed points of the best, median and worst run",
        "256 points each; crosses are the centres of the five Gaussians (sd 0.2). Runs are "
        "ranked by inception score.",
    ),
    "gradient": (
        gradient,
        "Gradient that reaches the decoder over training",
        "Median over runs, band from the 10th to the 90th percentile. Every reduction is asked of "
        "the same critic and decoder, whichever trained them.",
    ),
}
