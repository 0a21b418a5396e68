"""The figures of CIFAR-10 and CelebA: functions from a frame of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import colour, panels
from bench.render.tables import lam
from bench.studies.images import frames
from bench.studies.images.figures import mosaic, pictures, shown
from bench.studies.images.tables import SWEPT

GREY = {"ALICE": "#bbbbbb", "sVAE-r": "#777777"}
PAPERS = {"ALICE": "ALICE (paper: with its code's sigmoid)", "sVAE-r": "sVAE-r (paper)"}
SIDE = 6
"""Images a row in a panel, of up to 36."""
COLUMNS = 4
"""Panels a row, where no method has several lambdas."""


SCORES = {
    "inception_score": "inception score",
    "mse_x": "MSE of reconstructions",
    "swd": "sliced Wasserstein distance × 1000",
}


def swept(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs that are compared over lambda, by each score that there is of them."""
    judged = frames.judged(frame)[0]
    runs = {name: judged if name == "inception_score" else frame for name in SCORES}
    here = {name: each[each["method"].isin(SWEPT)] for name, each in runs.items()}
    return {name: each for name, each in here.items() if each[name].notna().any()}


def figure7(frame: pd.DataFrame, paper: bool) -> Figure:
    """Boxes over seeds of each score at each lambda, the paper's boxes grey beside them."""
    scored = swept(frame)
    here = frame[frame["method"].isin(SWEPT)]
    boxes = frames.csv("cifar10", "fig7_digitised.csv")
    lams = sorted({*(boxes["likely_true_lambda"] if paper else ()), *here["lam"]})
    figure, grid = panels(1, len(scored), 4.6, 3.4)
    for axes, (column, runs) in zip(grid[0], scored.items(), strict=True):
        shown = [("ours", method) for method in SWEPT if (here["method"] == method).any()]
        if paper and column != "swd":
            shown = [("paper", "ALICE"), ("paper", "sVAE-r"), *shown]
        width = 0.8 / len(shown)
        for i, (whose, method) in enumerate(shown):
            at = [k + (i - (len(shown) - 1) / 2) * width for k in range(len(lams))]
            if whose == "paper":
                _published(axes, boxes, method, column, lams, at, width)
            else:
                _ours(axes, runs[runs["method"] == method], column, lams, at, width)
        axes.set_xticks(range(len(lams)), [lam(v) for v in lams], rotation=45, fontsize=7)
        axes.set_xlabel("λ")
        axes.set_ylabel(SCORES[column])
        if column == "swd":
            axes.axhline(runs["swd_real"].mean(), color="#888888", linestyle=":")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _ours(
    axes: Axes,
    runs: pd.DataFrame,
    column: str,
    lams: list[float],
    at: list[float],
    width: float,
) -> None:
    method = str(runs["method"].iloc[0])
    values = [runs.loc[runs["lam"] == value, column].dropna().to_numpy() for value in lams]
    kept = [(place, v) for place, v in zip(at, values, strict=True) if len(v)]
    if not kept:
        return
    drawn = axes.boxplot(
        [v for _, v in kept],
        positions=[place for place, _ in kept],
        widths=0.9 * width,
        patch_artist=True,
        manage_ticks=False,
        medianprops={"color": colour(method)},
        flierprops={"markersize": 3},
    )
    for box in drawn["boxes"]:
        box.set(facecolor=colour(method), alpha=0.4, edgecolor=colour(method))
    axes.plot([], [], color=colour(method), label=method)


def _published(
    axes: Axes,
    boxes: pd.DataFrame,
    method: str,
    column: str,
    lams: list[float],
    at: list[float],
    width: float,
) -> None:
    """Quartiles where the figure could be read; of ALICE's MSE the median alone."""
    stem = {"ALICE": "alice", "sVAE-r": "svaer"}[method]
    stem += {"inception_score": "_IS", "mse_x": "_MSE"}[column]
    found = {float(row["likely_true_lambda"]): row for row in boxes.to_dict("records")}
    for value, place in zip(lams, at, strict=True):
        if value not in found:
            continue
        middle = found[value][f"{stem}_med"]
        low, high = (found[value].get(f"{stem}_{q}", middle) for q in ("q1", "q3"))
        stats = {"med": middle, "q1": low, "q3": high, "whislo": low, "whishi": high}
        axes.bxp(
            [stats],
            positions=[place],
            widths=0.9 * width,
            showfliers=False,
            showcaps=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": GREY[method], "edgecolor": GREY[method]},
            medianprops={"color": "#444444"},
        )
    axes.plot([], [], color=GREY[method], label=PAPERS[method])


def panels_over_lambda(frame: pd.DataFrame, samples: pd.DataFrame, kind: str) -> Figure:
    """Each method a row, each lambda a column; methods at one lambda fill rows below.

    `kind`: "samples" or "x_rec". First seed.
    """
    picked = shown(frame)
    stored = samples.set_index("id")
    rows = _laid_out(picked)
    figure, grid = panels(len(rows), max(map(len, rows)), 1.9, 2.05)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, ids in zip(grid, rows, strict=True):
        for axes, id in zip(row, ids, strict=False):
            for run in picked[picked["id"] == id].to_dict("records"):
                title = f"{run['label']}, λ = {lam(run['lam'])}"
                axes.set_title(title, fontsize=8, loc="left", pad=2)
                missing = "diverged" if run["status"] == "diverged" else "not stored"
                _panel(axes, pictures(stored, run["id"]), kind, missing)
    return figure


def _laid_out(picked: pd.DataFrame) -> list[list[str]]:
    """Rows of ids, "" where nothing stands."""
    by_method = {
        str(method): dict(zip(runs["lam"], runs["id"], strict=True))
        for method, runs in picked.sort_values("label").groupby("method", sort=False)
    }
    lams = sorted({value for runs in by_method.values() if len(runs) > 1 for value in runs})
    order = sorted(by_method, key=lambda m: SWEPT.index(m) if m in SWEPT else len(SWEPT))
    rows = [[by_method[m].get(v, "") for v in lams] for m in order if len(by_method[m]) > 1]
    alone = [id for m in order if len(by_method[m]) == 1 for id in by_method[m].values()]
    columns = len(lams) if rows else COLUMNS
    return rows + [alone[i : i + columns] for i in range(0, len(alone), columns)]


def _panel(axes: Axes, images: dict[str, np.ndarray], kind: str, missing: str) -> None:
    """`missing` stands where there are no images of this kind."""
    if not len(images.get(kind, ())):
        axes.text(0.5, 0.5, missing, ha="center", va="center", fontsize=7)
        return
    shown = images[kind][: SIDE * SIDE]
    if kind == "x_rec":  # every row of real images above its reconstructions
        rows = [
            each[i : i + SIDE] for i in range(0, 3 * SIDE, SIDE) for each in (images["x"], shown)
        ]
        shown = np.concatenate(rows)
    axes.imshow(mosaic(shown, SIDE, SIDE), interpolation="nearest")
