"""The figures of the image studies: functions from a frame of runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.render.figures import colour, panels
from bench.render.tables import lam
from bench.studies.images import frames
from bench.studies.images.tables import SWEPT

COLUMNS = 3


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs whose images are drawn: the first seed of every method and lambda."""
    firsts = [runs.sort_values("seed").iloc[[0]] for runs in frames.cells(frame)]
    return pd.concat(firsts, ignore_index=True)


def mosaic(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(n, c, h, w) -> one image (rows * h, columns * w) or (…, 3), white where there are none."""
    n, c, h, w = images.shape
    sheet = np.full((rows * columns, c, h, w), 255, np.uint8)
    sheet[: min(n, len(sheet))] = images[: len(sheet)]
    tiles = sheet.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(rows * h, columns * w, c).squeeze()


def figure4(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """Samples and, where there is an encoder, reconstructions of every method."""
    stored = samples.set_index("id")
    picked = shown(frame)
    rows = -(-len(picked) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 3.6, rows * 1.12))
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.97, wspace=0.04, hspace=0.2)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (_, run) in zip(grid.flat, picked.iterrows(), strict=False):
        _sheet(axes, stored, run)
    return figure


def _sheet(axes: Axes, stored: pd.DataFrame, run: pd.Series) -> None:
    axes.set_title(f"{run['label']}, λ = {lam(run['lam'])}", fontsize=8, loc="left", pad=2)
    images = pictures(stored, str(run["id"]))
    if not images:
        axes.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=7)
        return
    samples, x, x_rec = images["samples"], images["x"], images["x_rec"]
    if not len(samples):
        axes.text(0.5, 0.5, "diverged", ha="center", va="center", fontsize=7)
        return
    left = mosaic(samples, 4, 8)
    gap = np.full((left.shape[0], left.shape[1] // 32, *left.shape[2:]), 255, np.uint8)
    pairs = x[:0]
    if len(x_rec):
        pairs = np.concatenate([x[:8], x_rec[:8], x[8:16], x_rec[8:16]])
    sheet = np.concatenate([left, gap, mosaic(pairs, 4, 8)], 1)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")


def pictures(stored: pd.DataFrame, id: str) -> dict[str, np.ndarray]:
    """What is kept of a training by name, uint8 (n, c, h, w), none if it diverged; {}: nothing."""
    if id not in stored.index:
        return {}
    kept = stored.loc[[id]].to_dict("records")[0]
    shape = (-1, *(int(side) for side in kept["shape"]))
    return {
        name: np.frombuffer(kept[name], np.uint8).reshape(shape)
        for name in ("samples", "x", "x_rec")
    }


def sweep(frame: pd.DataFrame) -> Figure:
    """Inception score and MSE over lambda, every seed a dot, ALICE's own sweep in grey."""
    published = frames.alice_sweep()
    figure, grid = panels(1, 2, 5.0, 3.4)
    smallest = float(published["lam"].iloc[1]) / 10
    known = (("inception_score", "inception_sd"), ("mse", "mse_sd"))
    for axes, column, (value, sd) in zip(grid[0], ("inception_score", "mse_x"), known, strict=True):
        at = published["lam"].clip(lower=smallest)
        axes.errorbar(
            at, published[value], published[sd], color="#888888", label="ALICE's own (paper)"
        )
        for method in SWEPT:
            runs = frame[(frame["method"] == method) & frame[column].notna()]
            if not len(runs):
                continue
            at = runs["lam"].clip(lower=smallest)
            axes.plot(at, runs[column], "o", color=colour(method), markersize=4, alpha=0.7)
            means = runs.groupby("lam")[column].mean()
            axes.plot(
                means.index.to_series().clip(lower=smallest),
                means,
                color=colour(method),
                label=method,
            )
        axes.set_xscale("log")
        axes.set_xlabel(f"λ (0 drawn at {smallest:g})")
        axes.legend(fontsize=7)
    grid[0, 0].set_ylabel("inception score (each by its own classifier)")
    grid[0, 1].set_ylabel("MSE of reconstructions")
    return figure


LOSSES = (
    "Of single batches, at 64 steps, on a scale that is linear within [-1, 1] and logarithmic "
    "beyond; linear where losses stay within a decade."
)
"""What `curves` shows."""


def curves(frame: pd.DataFrame) -> Figure:
    """Losses of critic and model over training, every seed a line."""
    cells = frames.cells(frame)
    columns = 5
    rows = -(-len(cells) // columns)
    figure, grid = panels(rows, columns, 2.3, 1.7, sharex=True)
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    for i, (axes, runs) in enumerate(zip(grid.flat, cells, strict=False)):
        for _, run in runs.iterrows():
            for label, paint in (("critic", "#D55E00"), ("model", "#0072B2")):
                loss = run[f"{label}_loss"]
                if label == "critic" and not np.any(loss):
                    continue  # a method without a critic
                axes.plot(run["trace_step"], loss, color=paint, linewidth=0.8, label=label)
        first = runs.iloc[0]
        axes.set_title(f"{first['label']}, λ = {lam(first['lam'])}", fontsize=7, loc="left")
        axes.tick_params(labelsize=6)
        if i >= len(cells) - columns:  # the last of its column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step", fontsize=6)
        low, high = axes.get_ylim()
        # Within a decade, or where it is linear, a logarithmic axis may show no number or odd ones.
        if max(-low, high) > 1 and (low <= 0 or high > 10 * low):
            axes.set_yscale("symlog", linthresh=1.0)
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, fontsize=8)
    return figure
