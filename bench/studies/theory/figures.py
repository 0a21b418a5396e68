"""The figures of the theory study: functions from a frame of runs to a matplotlib figure."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from bench.render.figures import COLOURS, GREY, Look, key, legend, looks, panels
from bench.render.text import texts
from bench.studies.theory.runs import LEAST, most_updates, part, traces
from bench.studies.theory.spec import (
    DESCENT,
    EXACT,
    JOINT,
    LINE,
    MODES,
    SQUARE,
    SUPPORTS,
    VANISHING,
)
from bench.studies.toy_grid.data import CENTRES

REDUCTIONS = texts("bench.studies.toy_grid")["reductions"]
DIVERGENCES = {"kl_s": "KL_s", "kl_pq": "KL(p‖q)", "kl_qp": "KL(q‖p)"}
PAINT = {"kl_s": "#0072B2", "kl_pq": "#D55E00", "kl_qp": "#009E73", "believed": "#7A5CC7"}
PLAYERS = ("decoder", "encoder")
OBJECTIVE = {"vae": "KL(q‖p), (1)", "vae_z": "KL(p‖q), (5)", "vae_xz": "(7)"}
OWN = {"vae": "#7A5CC7", "vae_z": "#8A8A00", "vae_xz": "#A87400", "svae_exact": "#009E73"}
"""Colours that tell the methods of this study apart from those of all studies."""
DARKEST = {"density_x": 0.8, "density_z": 0.5}
"""The density that has the full colour: about the data's own peak, and thrice the prior's."""
TENTH = 0.1
LEAST_DRAWN = 1e-3
"""Divergences below so many nats are drawn there."""


def modes(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """One Gaussian on two modes: the density at the end of each training, a panel a method."""
    here, stored = part(frame, experiment=MODES), samples.set_index("id")["density_x"]
    groups = [*here.groupby("rank", sort=True)]
    figure, grid = panels(len(groups), 3, 3.4, 2.2, sharex=True, narrow=2)
    x = np.linspace(*LINE)
    data = np.exp(-((x[:, None] - [-2, 2]) ** 2) / (2 * 0.25)).sum(1) / np.sqrt(2 * np.pi)
    paint = _paint(here)
    for axes, (_, runs) in zip(grid, groups, strict=True):
        method = str(runs["method"].iloc[0])
        axes.fill_between(x, data, color=GREY, alpha=0.3, linewidth=0, label="data q(x)")
        for id in runs["id"]:
            if id in stored.index:
                axes.plot(x, stored[id], color=paint[method], linewidth=1, label="model p(x)")
        axes.set_title(_objective(runs.iloc[0]), loc="left", fontsize=8)
        axes.set(ylim=(0, 0.85), xlabel="x", ylabel="density")
    legend(figure, grid, ncols=2)
    return figure


def _paint(frame: pd.DataFrame) -> dict[str, str]:
    """Returns the colour of each method of the frame."""
    found = looks(frame["method"], COLOURS | OWN)
    return {method: look.colour for method, look in found.items()}


def _objective(run: pd.Series) -> str:
    """Returns a method's name with the divergence that it is trained by, in short lines."""
    method, name = str(run["method"]), str(run["name"])
    title = f"{name}: {OBJECTIVE[method]}" if method in OBJECTIVE else name
    return textwrap.fill(title, 18)


def supports(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """Figures 1 and 2 of the paper: p(x) over the data and q(z) over the prior, optimal critic."""
    return _pairs(_drawn(frame, EXACT), samples)


def learned(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """The same of methods with a learned critic, at the larger number of its updates."""
    return _pairs(_drawn(frame, JOINT), samples)


def _drawn(frame: pd.DataFrame, critic: str) -> pd.DataFrame:
    """Returns a training of each method and lambda on five Gaussians: that of the first seed."""
    here = most_updates(part(frame, experiment=SUPPORTS, critic=critic))
    return here.sort_values(["rank", "lam", "seed"]).drop_duplicates(["rank", "lam"])


def shown(frame: pd.DataFrame) -> set[str]:
    """Returns the ids of trainings whose densities are drawn."""
    parts = [_drawn(frame, critic) for critic in (EXACT, JOINT)]
    return {*pd.concat([*parts, part(frame, experiment=MODES)])["id"]}


def _pairs(here: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    stored, paint = samples.set_index("id"), _paint(here)
    figure, grid = panels(2 * len(here), 4, 2.6, 2.7, narrow=2)
    for (left, right), (_, run) in zip(grid.reshape(-1, 2), here.iterrows(), strict=True):
        _map(left, stored, run, "density_x", paint[run["method"]])
        _map(right, stored, run, "density_z", paint[run["method"]])
        for centre in CENTRES:
            left.add_patch(Circle(centre, 0.6, fill=False, color=GREY, linewidth=0.8))
        for radius in (1, 2, 3):
            right.add_patch(Circle((0, 0), radius, fill=False, color=GREY, linewidth=0.8))
        left.set_title(_objective(run), loc="left", fontsize=8)
        left.set_xlabel(f"p(x): {run['modes']:.0f} modes", fontsize=8)
        right.set_xlabel(f"q(z): holes {run['holes']:.0%} of p(z)", fontsize=8)
    return figure


def _map(axes: Axes, stored: pd.DataFrame, run: pd.Series, column: str, paint: str) -> None:
    ends = SQUARE[:2]
    axes.set(xlim=ends, ylim=ends, aspect="equal", xticks=[], yticks=[])
    if run["id"] not in stored.index or stored.loc[run["id"], column] is None:
        axes.text(0, 0, "not stored", ha="center", va="center", fontsize=7)
        return
    values = np.asarray(stored.loc[run["id"], column], dtype=float)
    side = round(np.sqrt(len(values)))
    shades = LinearSegmentedColormap.from_list("", [f"{paint}00", paint])
    # The root shows what is thin; a hundredth of the peak has a tenth of the colour.
    image = np.sqrt(np.nan_to_num(values.reshape(side, side)))
    most = np.sqrt(DARKEST[column])
    axes.imshow(image, extent=(*ends, *ends), origin="lower", cmap=shades, vmin=0, vmax=most)


def descent(frame: pd.DataFrame) -> Figure:
    """Divergences in closed form along training, and the critic's estimate of KL_s."""
    here = part(frame, experiment=DESCENT)
    groups = [*here.groupby(["rank", "dimension"], sort=True)]
    across = max(1, here["dimension"].nunique())
    figure, grid = panels(len(groups), across, 3.6, 2.3, sharex=True)
    names = {**DIVERGENCES, "believed": "the critic's estimate of KL_s"}
    for axes, (_, runs) in zip(grid, groups, strict=True):
        found = traces(runs)
        found[[*names]] = found[[*names]].clip(lower=LEAST_DRAWN)  # an estimate may be negative
        for name in names:
            _band(axes, found, name, PAINT[name])
        key(axes, {label: Look(PAINT[name]) for name, label in names.items()})
        title = "{label}, {dimension} dimensions".format(**runs.iloc[0])
        axes.set_title(title, loc="left", fontsize=8)
        axes.set(
            yscale="log", ylim=(LEAST_DRAWN, None), xlabel="updates of the model", ylabel="nats"
        )
    legend(figure, grid, ncols=4)
    return figure


def _band(axes: Axes, found: pd.DataFrame, y: str, paint: str) -> None:
    """Draws the median over trainings, and the band of the middle half of them."""
    each = found.groupby("batch")[y]
    middle, (low, high) = each.median(), (each.quantile(share) for share in (0.25, 0.75))
    axes.plot(middle.index, middle, color=paint, linewidth=1.4)
    axes.fill_between(middle.index, low, high, color=paint, alpha=0.2, linewidth=0)


def cosines(frame: pd.DataFrame) -> Figure:
    """Cosines of the gradient that each player follows with its gradients of the divergences."""
    here = part(frame, experiment=DESCENT)
    groups = [*here.groupby("rank", sort=True)]
    figure, grid = panels(2 * len(groups), 2, 4.4, 2.2, sharex=True, sharey=True)
    for row, (_, runs) in zip(grid.reshape(-1, 2), groups, strict=True):
        found = traces(runs)
        found = found[found["kl_s"] > LEAST]
        for axes, player in zip(row, PLAYERS, strict=True):
            for name in DIVERGENCES:
                _band(axes, found, f"{player} follows {name}", PAINT[name])
            key(axes, {label: Look(PAINT[name]) for name, label in DIVERGENCES.items()})
            axes.set_title(f"{runs['label'].iloc[0]}: {player}", loc="left", fontsize=8)
            axes.set(ylim=(-1.05, 1.05), xlabel="updates of the model", ylabel="cosine")
            axes.axhline(0, color=GREY, linewidth=0.8)
    legend(figure, grid, ncols=3)
    return figure


def vanishing(frame: pd.DataFrame) -> Figure:
    """Gradient at a frozen decoder against the critic's excess loss, a panel a distance."""
    here = part(frame, experiment=VANISHING)
    groups = [*here.groupby("distance", sort=True)]
    figure, grid = panels(len(groups), 3, 3.6, 2.4, sharey=True, narrow=1)
    for axes, (distance, runs) in zip(grid, groups, strict=True):
        middle = traces(runs).groupby("batch").median()
        names = [name.split()[1] for name in map(str, middle) if name.startswith("gradient ")]
        found = looks(names)
        for method, look in found.items():
            style: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
            style |= {"marker": look.mark, "markersize": 3, "linewidth": 1.2}
            size = middle[f"gradient {method}"].clip(lower=1e-12)
            axes.plot(middle["excess"].clip(lower=1e-6), size, **style)
        key(axes, {REDUCTIONS.get(method, method): look for method, look in found.items()})
        axes.plot([], [], ":", color=GREY, label="here (18) falls under a tenth of (14)")
        if (place := falls(middle)) is not None:
            axes.axvline(max(place, 1e-6), color=GREY, linestyle=":")
        axes.set_title(f"distance {distance:g} sd", loc="left", fontsize=8)
        axes.set(xscale="log", yscale="log", ylim=(1e-6, 20))
        axes.set(xlabel="excess loss of the critic, nats", ylabel="gradient at x, RMS")
        axes.invert_xaxis()
    legend(figure, grid, ncols=3)
    return figure


def falls(middle: pd.DataFrame) -> float | None:
    """Returns the excess loss at the first stop from which (18) stays under a tenth of (14).

    None if (18) does not stay below. `middle` has a row a stop, in the order of training.
    """
    below = middle["gradient alice_minimax"] < TENTH * middle["gradient svae_r"]
    if not below.iloc[-1]:
        return None
    above = np.flatnonzero(~below.to_numpy())
    return float(middle["excess"].iloc[above[-1] + 1 if len(above) else 0])
