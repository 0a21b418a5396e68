"""The figures of the image studies: functions from a frame of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure

from bench.render.figures import COLOURS, GREY, Look, key, legend, looks, panels, rank
from bench.render.pixels import mosaic
from bench.render.tables import lam
from bench.studies.images.runs import cells, gone, names, swept

COLUMNS = 3
KINDS = {"figure4": "dots", "samples": "images", "reconstructions": "images"}
"""Kinds of pictures that are not lines: Figure 4 has few colours, as dots have."""
GREYS = {"sVAE-r": "#777777", "ALICE": "#bbbbbb"}
PAPERS = {"ALICE": "ALICE (paper: with its code's sigmoid)", "sVAE-r": "sVAE-r (paper)"}
STEMS = {"ALICE": "alice", "sVAE-r": "svaer", "inception_score": "_IS", "mse_x": "_MSE"}
"""Parts of the columns of the digitised Figure 7."""
SIDE = 6
"""Images a row in a panel over lambda, of up to 36."""
SHORT = 18
"""Letters of a label that leave room for lambda in a panel over lambda."""
ALONE = 4
"""Panels a row, where no method has several lambdas."""
SCORES = {
    "inception_score": "inception score",
    "mse_x": "MSE of reconstructions",
    "swd": "SWD × 1000",
}


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs whose images are drawn: the first seed of every method and lambda."""
    firsts = [runs.sort_values("seed").iloc[[0]] for runs in cells(frame).values()]
    return pd.concat(firsts, ignore_index=True)


def _row(images: np.ndarray, start: int, n: int) -> np.ndarray:
    """n of the images (n, c, h, w) from `start` on, white where there are none."""
    row = np.full((n, *images.shape[1:]), 255, np.uint8)
    found = images[start : start + n]
    row[: len(found)] = found
    return row


def _draw(
    axes: Axes,
    run: Any,
    stored: pd.DataFrame,
    kind: str,
    lay: Callable[..., np.ndarray],
    letters: int = 40,
) -> None:
    """A run's images, uint8 (n, c, h, w) by name, as `lay` lays them out, or why there are none.

    Above them stands lambda beside a label of so many `letters`, or else below it.
    """
    between = "\n" if len(run["label"]) > letters else ", "
    title = f"{run['label']}{between}λ = {lam(run['lam'])}"
    axes.set_title(title, loc="left", fontsize=8, pad=2)
    images = {
        name: np.frombuffer(kept[name], np.uint8).reshape(-1, *map(int, kept["shape"]))
        for kept in stored[stored.index == run["id"]].to_dict("records")
        for name in ("samples", "x", "x_rec")
    }
    if len(images.get(kind, ())):
        axes.imshow(lay(**images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        why = "diverged" if gone(run) else "not stored"
        axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=7)


def figure4(frame: pd.DataFrame, load: Callable[[], pd.DataFrame]) -> Figure:
    """Samples and, where there is an encoder, reconstructions of every method."""

    def lay(samples: np.ndarray, x: np.ndarray, x_rec: np.ndarray) -> np.ndarray:
        left = mosaic(samples, 4, 8)
        right = np.full_like(left, 255)  # white, so that samples are of one size in all panels
        gap = right[:, : left.shape[1] // 32]
        if len(x_rec):
            pairs = np.concatenate([_row(each, i, 8) for i in (0, 8) for each in (x, x_rec)])
            right = mosaic(pairs, 4, 8)
        return np.concatenate([left, gap, right], 1)

    stored, picked = load(), shown(frame)
    figure, grid = panels(len(picked), COLUMNS, 3.6, 1.25, least=0.35)
    for axes, (_, run) in zip(grid, picked.iterrows(), strict=True):
        axes.set_axis_off()
        _draw(axes, run, stored, "samples", lay)
        axes.set_anchor("W")
    return figure


def sweep(frame: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Inception score and MSE over lambda, every seed a dot, ALICE's own sweep in grey.

    Nothing is `published` of other images than MNIST. A score that no run has has no panel.
    """
    known = {"inception_score": ("inception_score", "inception_sd"), "mse_x": ("mse", "mse_sd")}
    if published is None:
        known = {name: each for name, each in known.items() if frame[name].notna().any()}
    figure, grid = panels(len(known), 2, 5.0, 3.4)
    lams = frame["lam"] if published is None else published["lam"]
    smallest = float(lams[lams > 0].min()) / 10 if (lams > 0).any() else 1e-3
    ours = frame.assign(lam=frame["lam"].clip(smallest))
    called, found = names(swept(frame)), looks(frame["method"])
    found = {method: look for method, look in found.items() if method in called}
    for axes, (column, (value, sd)) in zip(grid, known.items(), strict=True):
        if published is not None:
            bars = published["lam"].clip(smallest), published[value], published[sd]
            axes.errorbar(*bars, color=GREY, label="ALICE's own (paper)")
        for method, look in found.items():
            runs = ours[ours["method"] == method]
            style: dict[str, Any] = {"x": "lam", "y": column, "color": look.colour, "legend": False}
            sns.lineplot(runs, errorbar=None, linestyle=look.line, ax=axes, **style)
            style |= {"s": 16, "alpha": 0.7, "linewidth": 0, "marker": look.mark}
            sns.scatterplot(runs, ax=axes, **style)
        key(axes, {called[method]: look for method, look in found.items()})
        axes.set(xscale="log", xlabel=f"λ (0 drawn at {smallest:g})", ylabel=SCORES[column])
    legend(figure, grid, ncols=4)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Losses of critic and model over training, every seed a line."""
    groups = list(cells(frame).values())
    figure, grid = panels(len(groups), 5, 2.3, 1.8, narrow=2)
    for axes, runs in zip(grid, groups, strict=True):
        for _, run in runs.iterrows():
            for label in ("critic", "model"):
                loss, paint = run[f"{label}_loss"], COLOURS[label]
                if label == "model" or np.any(loss):  # not of a method without a critic
                    axes.plot(run["trace_step"], loss, color=paint, linewidth=0.8, label=label)
        run = runs.iloc[0]
        axes.set_title(f"{run['label']}\nλ = {lam(run['lam'])}", loc="left", fontsize=8)
        axes.tick_params(labelsize=8)
        low, high = axes.get_ylim()
        # Within a decade, or where it is linear, a logarithmic axis may show no number or odd ones.
        if max(-low, high) > 1 and (low <= 0 or high > 10 * low):
            axes.set_yscale("symlog", linthresh=1.0)
    legend(figure, grid, ncols=2)
    return figure


@dataclass(frozen=True)
class Boxes:
    """Boxes of one method or publication: quartiles and whiskers by lambda."""

    label: str
    paint: str
    stats: dict[float, dict[str, Any]]
    paper: bool = False

    def draw(self, axes: Axes, places: Sequence[float], width: float) -> None:
        """Draws them at these places; the paper's have quartiles alone, and no caps."""
        line = {"color": self.paint}
        key(axes, {self.label: Look(self.paint)})
        axes.bxp(  # seaborn draws boxes of samples alone, and the paper gives quartiles
            list(self.stats.values()),
            positions=places,
            widths=width,
            patch_artist=True,
            manage_ticks=False,
            showfliers=not self.paper,
            showcaps=not self.paper,
            boxprops={
                "facecolor": self.paint,
                "edgecolor": self.paint,
                "alpha": None if self.paper else 0.4,
            },
            medianprops={"color": "#444444"} if self.paper else line,
            whiskerprops=line,
            capprops=line,
            flierprops={"markersize": 3, "markeredgecolor": self.paint},
        )


def boxes(
    frame: pd.DataFrame, scored: dict[str, pd.DataFrame], published: pd.DataFrame | None
) -> Figure:
    """Boxes over seeds of each score at each lambda, published boxes grey beside them.

    `scored` has the runs by score. Published inception scores have a panel of their own, as they
    are by ImageNet's classifier.
    """
    here, found = swept(frame), looks(frame["method"])
    called, known = names(here), [] if published is None else published["likely_true_lambda"]
    lams = sorted({*known, *here["lam"]})
    drawn: list[tuple[str, str, list[Boxes]]] = []
    for column, runs in scored.items():
        ours = []
        for method in sorted(called, key=rank):
            stats = _quartiles(runs[runs["method"] == method], column)
            ours.append(Boxes(called[method], found[method].colour, stats))
        theirs = []
        if published is not None and column != "swd":
            theirs = [
                Boxes(PAPERS[name], grey, _published(published, name, column), paper=True)
                for name, grey in GREYS.items()
            ]
        if column == "inception_score" and theirs:
            drawn.append((column, "the paper's inception score", theirs))
            theirs = []
        drawn.append((column, SCORES[column], [*theirs, *ours]))
    figure, grid = panels(len(drawn), 2 if len(drawn) % 2 == 0 else 3, 5.2, 3.0)
    for axes, (column, heading, groups) in zip(grid, drawn, strict=True):
        width = 0.8 / len(groups)
        for i, group in enumerate(groups):
            shift = (i - (len(groups) - 1) / 2) * width
            group.draw(axes, [lams.index(at) + shift for at in group.stats], 0.9 * width)
        for between in np.arange(len(lams) - 1) + 0.5:
            axes.axvline(between, color=GREY, linewidth=0.3)
        axes.set_xticks(range(len(lams)), [lam(v) for v in lams], rotation=45, fontsize=8)
        axes.set(xlabel="λ", ylabel=heading, xlim=(-0.6, len(lams) - 0.4))
        axes.grid(visible=False, axis="x")
        if column == "swd":
            axes.axhline(scored[column]["swd_real"].mean(), color=GREY, linestyle=":")
    legend(figure, grid, ncols=5)
    return figure


def _quartiles(runs: pd.DataFrame, column: str) -> dict[float, dict[str, Any]]:
    """What boxes over our seeds of one method show, by lambda."""
    groups = cells(runs[runs[column].notna()])
    return {at: boxplot_stats(each[column])[0] for (_, at), each in groups.items()}


def _published(boxes: Any, method: str, column: str) -> dict[float, dict[str, Any]]:
    """Quartiles where the figure could be read; of ALICE's MSE the median alone."""
    stem, found = STEMS[method] + STEMS[column], {}
    for row in boxes.to_dict("records"):
        middle = row[f"{stem}_med"]
        low, high = (row.get(f"{stem}_{q}", middle) for q in ("q1", "q3"))
        box = {"med": middle, "q1": low, "q3": high, "whislo": low, "whishi": high}
        found[float(row["likely_true_lambda"])] = box
    return found


def panels_over_lambda(frame: pd.DataFrame, load: Callable[[], pd.DataFrame], kind: str) -> Figure:
    """Each method a row, each lambda a column; methods at one lambda fill rows below.

    `kind`: "samples" or "x_rec". First seed.
    """

    def lay(samples: np.ndarray, x: np.ndarray, x_rec: np.ndarray) -> np.ndarray:
        sheet = samples[: SIDE * SIDE]
        if kind == "x_rec":  # every row of real images above its reconstructions
            starts = range(0, 3 * SIDE, SIDE)
            sheet = np.concatenate([_row(each, i, SIDE) for i in starts for each in (x, x_rec)])
        return mosaic(sheet, SIDE, SIDE)

    stored, picked = load(), shown(frame)
    rows = _laid_out(picked)
    across = max(map(len, rows))
    figure, grid = panels(len(rows) * across, across, 1.9, 2.05)
    for axes in grid:
        axes.set_axis_off()
    for row, ids in zip(grid.reshape(-1, across), rows, strict=True):
        for axes, id in zip(row, ids, strict=False):
            for run in picked[picked["id"] == id].to_dict("records"):
                _draw(axes, run, stored, kind, lay, SHORT)
    return figure


def _laid_out(picked: pd.DataFrame) -> list[list[str]]:
    """Rows of ids, "" where nothing stands."""
    by_method = {
        str(method): dict(zip(runs["lam"], runs["id"], strict=True))
        for method, runs in picked.groupby("method")
    }
    lams = sorted({value for runs in by_method.values() if len(runs) > 1 for value in runs})
    order = sorted(by_method, key=rank)
    rows = [[by_method[m].get(v, "") for v in lams] for m in order if len(by_method[m]) > 1]
    alone = [id for m in order if len(by_method[m]) == 1 for id in by_method[m].values()]
    columns = len(lams) if rows else ALONE
    return rows + [alone[i : i + columns] for i in range(0, len(alone), columns)]
