"""The figures of the toy study: functions from a frame of runs to a matplotlib figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import GREY, Look, balanced, key, legend, looks, panels, rank
from bench.render.front import Published, labels_of
from bench.render.front import front as over_lambda
from bench.render.tables import lam
from bench.render.text import texts
from bench.studies.toy_grid.data import CENTRES
from bench.studies.toy_grid.published import alice_cells, paper_bars
from bench.studies.toy_grid.runs import (
    CLOSE,
    GOOD,
    NOISE_SCORES,
    TARGETS,
    TOP,
    Cells,
    cells,
    evened,
)

REDUCTIONS = texts("bench.studies.toy_grid")["reductions"]
PICKS = {"best": 1.0, "median": 0.5, "worst": 0.0}
EDGE = 3.5
"""Points are drawn up to this distance from 0 along each axis."""
PAGE = 13.2
"""Inches that a page shows side by side."""
THRESHOLD: dict[str, Any] = {"color": GREY, "linewidth": 1}
OUTLINE: dict[str, Any] = {"fill": False, "edgecolor": GREY, "linewidth": 1}
MOST = 4
"""Methods that stand side by side."""
SHARES = {f"IS > {TOP}": "top", f"MSE < {CLOSE}": "close"}
"""The two shares of runs that heat maps show, by name, and their columns."""
GENERATED = {
    "score": "inception score",
    "high_quality_counted": "quality",
    "top_good": f"share with IS > {TOP} and quality ≥ {GOOD}",
}
"""What is compared at equal reconstruction: columns and their headings."""
SCORES, ERRORS = np.linspace(1, 5, 11), np.linspace(0, 8, 17)
"""Edges of the bins of the paper's Figure 3."""


def _rows(order: Cells, each: int = 1) -> dict[str, Any]:
    """Options of `panels` by which a lambda begins a row, in rows of up to MOST cells.

    A cell has `each` panels.
    """
    counts = Counter(value for _, value, _ in order)
    across = balanced(max(counts.values()), MOST)
    return {"across": each * across, "groups": [each * n for n in counts.values()]}


def _noise(axes: Axes, form: str | None = None, across: bool = False) -> None:
    """A grey line at the score of each kind of noise, named in this form."""
    line = axes.axhline if across else axes.axvline
    for (name, score), style in zip(NOISE_SCORES.items(), ("--", ":"), strict=True):
        label = form and form.format(name=name, score=score)
        line(score, color=GREY, linestyle=style, linewidth=1, label=label)


def figure3(frame: pd.DataFrame) -> Figure:
    """Figure 3: share of runs by inception score and by MSE, the paper's bars as grey outlines.

    Bars of up to MOST methods stand side by side. More methods have panels of their own.
    """
    lams, found = sorted(frame["lam"].unique()), looks(frame["method"])
    if len(cells(frame)) > MOST * len(lams):
        return _apart(frame)
    figure, grid = panels(2 * len(lams), 2, 5.2, 2.5, least=0.85)
    ncols = 2 if figure.get_figwidth() > 5 else 1  # a phone has no room for two
    for (left, right), value in zip(grid.reshape(-1, 2), lams, strict=True):
        runs = frame[frame["lam"] == value]
        for axes, histogram in ((left, SCORE), (right, ERROR)):
            paint = _bars(axes, runs, found, histogram)
            for label, _, each in cells(runs):
                words = f"{label}: {histogram.share(each)}"
                axes.bar(0, 0, color=paint[label], label=words)
            _outlined(axes, runs)
        _noise(left, "{name}: {score}" if value == lams[0] else None)
        for axes, histogram in ((left, SCORE), (right, ERROR)):
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set_xlabel(f"{histogram.heading} (bins of {np.diff(histogram.edges)[0]:.1f})")
            lines = 1 - (-len(axes.get_legend_handles_labels()[0]) // ncols)
            axes.set_ylim(top=(1 + 0.15 * lines) * axes.get_ylim()[1])  # room for the legend
            style = {"fontsize": 7, "title_fontsize": 7, "handlelength": 1, "columnspacing": 1}
            place = "upper center" if axes is left else "upper right"
            named = axes.legend(title=histogram.said, loc=place, ncols=ncols, **style)
            named.set_in_layout(False)
    return figure


def _apart(frame: pd.DataFrame) -> Figure:
    """Figure 3 with a pair of panels for each method and lambda."""
    order, found = cells(frame), looks(frame["method"])
    layout = _rows(order, 2) | {"across": 4, "width": PAGE / 4, "height": 1.9, "narrow": 2}
    figure, grid = panels(2 * len(order), least=0.85, **layout)
    for (left, right), (label, value, runs) in zip(grid.reshape(-1, 2), order, strict=True):
        for axes, histogram in ((left, SCORE), (right, ERROR)):
            _bars(axes, runs, found, histogram)
            _outlined(axes, runs)
            axes.set_xlabel(histogram.heading, fontsize=8)
            axes.set_ylim(top=1.55 * axes.get_ylim()[1])  # room for words
            words = f"{histogram.said}:\n{histogram.share(runs)}"
            place = {"ha": "center", "va": "top", "transform": axes.transAxes}
            axes.text(0.5, 0.98, words, fontsize=7, **place)
        _noise(left, "{name}: {score}")
        left.set_title(f"{label}, λ = {lam(value)}", loc="left", fontsize=9)
        right.set_ylabel("")
    legend(figure, grid, ncols=3)
    return figure


@dataclass(frozen=True)
class _Histogram:
    """A panel of Figure 3: what it counts, and what words add to the bars."""

    metric: str  # in the paper's bars
    column: str
    heading: str
    edges: np.ndarray
    said: str

    def share(self, runs: pd.DataFrame) -> str:
        """What is `said`, of these runs."""
        even = evened(runs)
        counted = even["top_good"] if self.metric == "IS" else even["mse"] > self.edges[-1]
        return f"{counted.mean():.0%} of {len(runs)}"


SCORE = _Histogram("IS", "score", "inception score", SCORES, f"share > {TOP} with quality")
ERROR = _Histogram("MSE", "mse", "MSE of x", ERRORS, f"share above {ERRORS[-1]:.0f}")


def _bars(
    axes: Axes, frame: pd.DataFrame, found: Mapping[str, Look], histogram: _Histogram
) -> dict[str, str]:
    """Draws the share of each method's runs in each bin, and the paper's share as an outline.

    Returns the colour of each label.
    """
    paint = {label: found[str(of["method"].iloc[0])].colour for label, _, of in cells(frame)}
    even = _even(frame)
    ours = even.assign(
        x=even[histogram.column], percent=100 / even.groupby("label")["id"].transform("size")
    )
    paper = _paper(frame)
    paper = paper[paper["metric"] == histogram.metric]
    for bars, style in (
        (ours, {"palette": paint, "alpha": 1, "linewidth": 0}),
        (paper, {"palette": dict.fromkeys(paint, GREY), **OUTLINE}),
    ):
        drawn = bars[np.isfinite(bars["x"]) & bars["label"].isin(paint)]
        edges = [*histogram.edges]
        common: dict[str, Any] = {"x": "x", "weights": "percent", "bins": edges, "ax": axes}
        common |= {"hue": "label", "hue_order": [*paint], "multiple": "dodge", "shrink": 0.9}
        if len(drawn):
            sns.histplot(drawn, legend=False, **common, **style)
    axes.set_xlim(histogram.edges[0], histogram.edges[-1])
    axes.set(ylabel="% of runs", yticks=[y for y in axes.get_yticks() if y <= 100])
    return paint


def _even(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of all cells, each so often that all configurations of a cell weigh the same."""
    return pd.concat([evened(runs) for _, _, runs in cells(frame)], ignore_index=True)


def _paper(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's bars of the labels and the lambda of these runs, `x` their middles."""
    paper = paper_bars()
    paper["x"] = (paper["bin_lo"] + paper["bin_hi"]) / 2
    return paper[paper["label"].isin(frame["label"]) & (paper["lam"] == frame["lam"].iloc[0])]


def _outlined(axes: Axes, frame: pd.DataFrame) -> None:
    """Names the outlines in the legend, if the paper has any of these runs."""
    if len(_paper(frame)):
        axes.bar(0, 0, label="paper (576)", **OUTLINE)


def front(frame: pd.DataFrame, baseline: str = "") -> Figure:
    """What is generated against the MSE, lambda as the path; ALICE's own runs stand apart."""
    theirs = [
        {"label": "ALICE (its own runs)", "lam": lam}
        | {"mse": known["MSE median"], "score": known["IS mean"]}
        for (_, lam), known in alice_cells().items()
    ]
    noise = {f"{name}: {score}": score for name, score in NOISE_SCORES.items()}
    return over_lambda(
        _even(frame),
        GENERATED,
        "mse",
        TARGETS,
        "MSE of x",
        anchors={"score": noise},
        published=Published(pd.DataFrame(theirs), "score", apart=True),
        dots=False,  # hundreds of configurations hide their means
        baseline=baseline,
    )


def profile(frame: pd.DataFrame) -> Figure:
    """Share of runs above each inception score; below, only with high quality."""
    lams = sorted(frame["lam"].unique())
    width = min(3.4, PAGE / len(lams))
    figure, grid = panels(2 * len(lams), len(lams), width, 2.4, sharex=True, sharey=True)
    found = looks(frame["method"])
    key(grid[0], {labels_of(frame, method): look for method, look in found.items()})
    for column, value in zip(grid.reshape(2, -1).T, lams, strict=True):
        here = frame[frame["lam"] == value]
        for axes, least in zip(column, (0, GOOD), strict=True):
            # A run of too little quality stays in the share and is above no score.
            score = here["score"].where(here["high_quality_counted"] >= least, 0.0)
            for *_, runs in cells(here):
                look = found[str(runs["method"].iloc[0])]
                style: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
                sns.ecdfplot(x=score[evened(runs).index], complementary=True, ax=axes, **style)
            _noise(axes, "{name}: {score}")
            axes.axvline(TOP, label=f"top bin: {TOP}", **THRESHOLD)
            axes.set(xlim=(1, 5), ylim=(0, 1.02), xlabel="inception score")
            axes.set_title(f"λ = {lam(value)}", loc="left", fontsize=9)
            axes.set_ylabel(f"… and with quality ≥ {GOOD}" if least else "share of runs above")
    legend(figure, grid, ncols=4)
    return figure


def scatter(frame: pd.DataFrame) -> Figure:
    """Every run: its inception score against its MSE and against its high-quality share."""
    order, rows, found = cells(frame), _rows(cells(frame), 2), looks(frame["method"])
    width = PAGE / rows["across"]
    figure, grid = panels(2 * len(order), width=width, height=1.9, narrow=2, least=1, **rows)
    for (left, right), (label, value, runs) in zip(grid.reshape(-1, 2), order, strict=True):
        style: dict[str, Any] = {"s": 4, "alpha": 0.6, "linewidths": 0}
        style["color"] = found[str(runs["method"].iloc[0])].colour
        left.scatter(runs["mse"].clip(upper=20), runs["score"], **style)
        right.scatter(runs["high_quality_counted"], runs["score"], **style)
        left.set_xscale("symlog", linthresh=0.001)
        left.set(xlim=(0, 25), xticks=[0, 0.01, 0.1, 1, 10], xlabel="MSE of x")
        left.set_xticklabels(["0", ".01", ".1", "1", "10"])
        left.minorticks_off()
        left.set_ylabel("inception score", fontsize=8)
        right.set(xlim=(-0.02, 1.02), xlabel="quality")
        left.axvline(CLOSE, **THRESHOLD)
        right.axvline(GOOD, **THRESHOLD)
        left.set_title(f"{label}, λ = {lam(value)}", loc="left", fontsize=8)
        for axes in (left, right):
            axes.axhline(TOP, label=f"top bin: {TOP}", **THRESHOLD)
            _noise(axes, "{name}: {score}", across=True)
            axes.set(ylim=(0.9, 5.1), yticks=range(1, 6))
            axes.tick_params(labelsize=7)
    legend(figure, grid, ncols=3)
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
    stored, order, found = samples.set_index("id"), cells(frame), looks(frame["method"])
    rows, side = _rows(order), 2 * EDGE
    width = min(4.4, PAGE / rows["across"])
    figure, grid = panels(len(order), width=width, height=2.5, least=0.8, **rows)
    for axes, (label, value, runs) in zip(grid, order, strict=True):
        picks = picked(runs)
        for place, run in enumerate(picks.values()):
            for row, column in enumerate(("x_rec", "samples")):
                paint = found[str(run["method"])].colour
                _cloud(axes, stored, run, column, (side * place, side * row), paint)
        middles = side * np.arange(len(picks))
        axes.set(xlim=(-EDGE, middles[-1] + EDGE), ylim=(-EDGE, side + EDGE), aspect="equal")
        axes.set_xticks(middles, picks, fontsize=8)
        words = ["reconstructed", "generated"]
        axes.set_yticks([0, side], words, rotation="vertical", va="center", fontsize=8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for line in middles[1:] - EDGE:
            axes.axvline(line, **THRESHOLD)
        axes.axhline(EDGE, **THRESHOLD)
        axes.set_title(f"{label}, λ = {lam(value)}", loc="left", fontsize=9)
    return figure


def _cloud(
    axes: Axes,
    stored: pd.DataFrame,
    run: pd.Series,
    column: str,
    middle: tuple[float, float],
    paint: str,
) -> None:
    """Draws points of a run into the square around `middle`, and the score that they belong to."""
    id, (x, y) = str(run["id"]), middle
    axes.plot(*(CENTRES + middle).T, "+", color=GREY, markersize=6, zorder=0)
    score = f"IS {run['score']:.2f}" if column == "samples" else f"MSE {run['mse']:.2f}"
    axes.text(x, y + EDGE - 0.2, score, ha="center", va="top", fontsize=7)
    if id not in stored.index:
        axes.text(x, y - 1, "not stored", ha="center", va="center", fontsize=7)
        return
    xy = np.asarray(stored.loc[id, column], dtype=float).reshape(-1, 2)
    inside = (np.abs(xy) <= EDGE).all(1)  # and not nan
    style: dict[str, Any] = {"s": 3, "alpha": 0.6, "linewidths": 0}
    axes.scatter(*(xy[inside] + middle).T, color=paint, **style)
    if outside := int((~inside).sum()):
        axes.text(x, y - EDGE + 0.1, f"{outside} outside", ha="center", va="bottom", fontsize=6)


def gradient(frame: pd.DataFrame) -> Figure:
    """Size over training of the gradient that each reduction would send to the decoder."""
    order, rows = cells(frame), _rows(cells(frame))
    size = {"width": min(4.4, PAGE / rows["across"]), "height": 2.1, "narrow": 2, "least": 1}
    figure, grid = panels(len(order), sharey=True, **size, **rows)
    asked = {method for trace in frame["decoder_gradient"] for method, _ in trace}
    found = looks(asked | {*frame["method"]})
    for axes, (label, value, runs) in zip(grid, order, strict=True):
        # A method that joined the registry later is missing from older rows.
        traces: dict[str, list[np.ndarray]] = {}
        for trace in evened(runs)["decoder_gradient"]:
            for method, sizes in trace:
                traces.setdefault(method, []).append(np.asarray(sizes, dtype=float))
        for method in sorted(traces, key=rank):
            lengths = [len(sizes) for sizes in traces[method]]
            shares = {n: np.linspace(0, 1, n) for n in {*lengths}}
            sizes = pd.Series(np.concatenate(traces[method]))
            by_share = sizes.groupby(np.concatenate([shares[n] for n in lengths]))
            band = by_share.quantile(np.array([0.1, 0.5, 0.9])).unstack()
            style: dict[str, Any] = {"color": found[method].colour, "linewidth": 0}
            axes.fill_between(band.index, band[0.1], band[0.9], alpha=0.2, **style)
            style |= {"linewidth": 1.5, "label": REDUCTIONS.get(method, method)}
            axes.plot(band.index, band[0.5], linestyle=found[method].line, **style)
        axes.set(yscale="log", xticks=[0, 0.5, 1])
        axes.set_xlabel("share of training", fontsize=8)
        axes.set_ylabel("gradient at x, RMS", fontsize=8)
        axes.minorticks_off()
        axes.set_title(f"{label}\nλ = {lam(value)}", fontsize=8, loc="left")
    legend(figure, grid, ncols=4)
    return figure


def updates(frame: pd.DataFrame) -> Figure:
    """Shares of runs that score and that reconstruct, by the numbers of updates a batch."""
    return _shares(frame, {"critic_steps": "critic updates", "model_steps": "model updates"})


def ratios(frame: pd.DataFrame) -> Figure:
    """Shares of runs that score and that reconstruct, by the ratio of updates and their sum."""
    return _shares(frame, {"ratio": "critic : model", "updates": "updates in all"})


def _shares(frame: pd.DataFrame, by: dict[str, str]) -> Figure:
    """Two heat maps for each method and lambda, the percentages written into their cells.

    `by` names the columns of the rows and of the columns of a map, with their headings. Every map
    has the values that any map has; a cell without runs has a dash.
    """
    order, (rows, columns) = cells(frame), by
    levels = [sorted(frame[name].unique()) for name in by]
    marks = [[*map(_mark, values)] for values in levels]
    size = {"width": PAGE / 8, "height": 0.9 + 0.26 * len(levels[0])}
    figure, grid = panels(2 * len(order), narrow=2, **size, **_rows(order, 2))
    for pair, (label, value, runs) in zip(grid.reshape(-1, 2), order, strict=True):
        means = 100 * evened(runs).groupby([*by])[["top", "top_good", "close"]].mean()
        shares = {
            name: means[name].unstack().reindex(index=levels[0], columns=levels[1])
            for name in means
        }
        words = {name: each.map("{:.0f}".format) for name, each in shares.items()}
        words["top"] += "\n" + words["top_good"]
        for axes, (what, name) in zip(pair, SHARES.items(), strict=True):
            style: dict[str, Any] = {"vmin": 0, "vmax": 100, "cmap": "viridis", "cbar": False}
            style |= {"annot": words[name], "fmt": "", "annot_kws": {"fontsize": 7}}
            sns.heatmap(shares[name], xticklabels=False, yticklabels=False, ax=axes, **style)
            y, x = 0.5 + np.argwhere(shares[name].isna().to_numpy()).T
            axes.plot(x, y, linestyle="", marker="_", markersize=4, color=GREY)
            axes.set_title(f"{label}\nλ = {lam(value)}: % {what}", loc="left", fontsize=7)
            axes.set_xlabel(by[columns], fontsize=7)
            axes.set_ylabel(by[rows], fontsize=7)
            axes.set_xticks(0.5 + np.arange(len(marks[1])), marks[1], fontsize=7)
            axes.set_yticks(0.5 + np.arange(len(marks[0])), marks[0], fontsize=7)
            axes.tick_params(length=0)
            axes.grid(visible=False)
        pair[1].set(ylabel="", yticklabels=[])
    return figure


def _mark(value: Any) -> str:
    """A number of updates, or a ratio, on an axis."""
    if isinstance(value, Fraction):
        return f"{value.numerator}:{value.denominator}"
    return str(value)
