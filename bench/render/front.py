"""Generation against reconstruction: each method's path over lambda, and scores at equal error.

Lambda weighs differently in each method. So methods are compared where their errors are equal, and
lambda is only the way along a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.render.figures import GREY, colour, legend, panels, rank
from bench.render.intervals import Estimate
from bench.render.tables import Cell, Column, Table, lam, mean, tabulate

KEYS = ["config", "seed"]
"""What runs of one path share."""
REACHED, NEVER, BELOW = "reached", "not reached", "starts below"
"""How a path meets a target."""
METHOD = "svae_r"
"""The method that is compared with every other."""


def crossings(runs: pd.DataFrame, score: str, error: str, target: float) -> pd.DataFrame:
    """What each path of one method scores where its error first falls to the target.

    `runs` has the columns config, seed, lam and the two named. The runs of a configuration and seed
    are a path, ordered by lambda. Returns a frame with index (config, seed) and the columns `score`
    and `outcome`. The score is interpolated linearly in the log error, between the first run of at
    most the target and the run before it. It is NaN where the outcome is not REACHED, as nothing is
    extrapolated. NEVER says that no run is at most the target, BELOW that the first one is already.

    A run whose error is infinite or missing has diverged, and is above every target. The limit of
    the interpolation holds for a path that comes from there: it has the score of its next run. So
    the score of a diverged run never counts. A run that has an error but no score is no point of
    its path, as if it were not trained.
    """
    values = runs[[score, error]].astype(float).set_axis(["score", "error"], axis=1)
    path = pd.concat([runs[[*KEYS, "lam"]], values], axis=1).sort_values([*KEYS, "lam"])
    path["error"] = path["error"].fillna(np.inf)
    path = path[path["score"].notna() | np.isinf(path["error"])]
    path["log"] = np.log(path["error"].clip(lower=np.finfo(float).tiny))
    before = path.groupby(KEYS)[["score", "log"]].shift().add_suffix("_before")
    path = path.join(before).set_index(KEYS)
    low = path[path["error"] <= target]
    first = low[~low.index.duplicated()]
    share = (np.log(target) - first["log"]) / (first["log_before"] - first["log"])
    between = first["score"] + share * (first["score_before"] - first["score"])
    found = pd.DataFrame(index=path.index.unique())
    found["score"] = between.where(share != 0, first["score"])
    found["outcome"] = np.where(found.index.isin(first.index), BELOW, NEVER)
    found["outcome"] = found["outcome"].where(~found.index.isin(share.dropna().index), REACHED)
    return found


def paths(frame: pd.DataFrame, error: str) -> dict[str, str]:
    """The label at the largest lambda of every method with a path, by method, in their order.

    A method has a path where it has an error at several lambdas.
    """
    known = frame[frame[error].notna()].sort_values("lam")
    names = {
        str(method): str(runs["label"].iloc[-1])
        for method, runs in known.groupby("method")
        if runs["lam"].nunique() > 1
    }
    return {method: names[method] for method in sorted(names, key=_place)}


def _place(method: str) -> tuple[int, str]:
    return rank(method), method


@dataclass(frozen=True, eq=False)  # which makes it a key of a dictionary
class Equal:
    """What METHOD and a rival score at one error; `ours` and `theirs` are of `crossings`."""

    goal: str  # the name of the target
    target: float
    rival: str
    labels: tuple[str, str]  # of METHOD and of the rival
    score: str
    heading: str  # of the score
    ours: pd.DataFrame
    theirs: pd.DataFrame

    @property
    def pairs(self) -> pd.DataFrame:
        """Columns ours and theirs, a row a configuration and seed whose paths both reach it."""
        both = {"ours": self.ours["score"], "theirs": self.theirs["score"]}
        return pd.concat(both, axis=1, join="inner").dropna()

    @property
    def means(self) -> pd.DataFrame:
        """The pairs of each configuration, averaged over its seeds: columns ours and theirs."""
        return self.pairs.groupby(level="config").mean()

    @property
    def differences(self) -> pd.Series:
        """Ours minus theirs, by configuration and seed."""
        return self.pairs["ours"] - self.pairs["theirs"]


def equals(
    frame: pd.DataFrame, scores: Mapping[str, str], error: str, targets: Mapping[str, float]
) -> list[Equal]:
    """METHOD against every other method with a path, at each target, by each score.

    `targets` are errors by name, `scores` headings by column. Without a path of METHOD there is
    nothing to compare.
    """
    names = paths(frame, error)
    by_method = {method: frame[frame["method"] == method] for method in names}
    rivals = [method for method in names if method != METHOD and METHOD in names]
    found = []
    for (goal, target), (score, heading) in product(targets.items(), scores.items()):
        at = {m: crossings(runs, score, error, target) for m, runs in by_method.items()}
        for rival in rivals:
            labels = names[METHOD], names[rival]
            found.append(Equal(goal, target, rival, labels, score, heading, at[METHOD], at[rival]))
    return found


def reach(found: pd.DataFrame) -> str:
    """How many paths reach the target, and what the others do, in words for a cell."""
    counts = found["outcome"].value_counts()
    others = ", ".join(f"{counts[why]} {why}" for why in (NEVER, BELOW) if why in counts)
    return f"{counts.get(REACHED, 0)} of {len(found)}" + (f" ({others})" if others else "")


CAPTION = """\
The runs of a configuration and seed over λ are a path. Its score is interpolated in the log MSE, \
where its error first falls to the target. Nothing is extrapolated: a path may not reach a target, \
or start below it. Scores and differences are means over the pairs of which both paths reach the \
target, with seeds averaged first. A diverged run has an infinite error. A path that comes from \
such a run has the score of its next run."""


def table(
    found: Sequence[Equal], estimate: Callable[[Equal], Estimate], caption: str, digits: int = 3
) -> Table:
    """A row for each of `equals`; `estimate` makes the mean difference and its interval.

    It is asked where there are pairs. The `caption` follows on CAPTION.
    """

    def difference(each: Equal) -> str:
        return format(estimate(each), f"+.{digits}f") if len(each.pairs) else "–"

    ours = found[0].labels[0] if found else METHOD
    columns: list[tuple[Column | str, Cell]] = [
        (Column("at", text=True), lambda each: f"{each.goal}, {each.target:.{digits}g}"),
        (Column("against", text=True), lambda each: each.labels[1]),
        (Column("score", text=True), lambda each: each.heading),
        (ours, lambda each: mean(each.means["ours"], digits)),
        ("the other", lambda each: mean(each.means["theirs"], digits)),
        ("difference", difference),
        (f"paths of {ours} that reach it", lambda each: reach(each.ours)),
        ("of the other", lambda each: reach(each.theirs)),
        ("pairs", lambda each: str(len(each.pairs))),
    ]
    if any(each.ours.index.get_level_values("config").nunique() > 1 for each in found):
        columns.append(("configurations", lambda each: str(len(each.means))))
    words = f"{CAPTION} {caption}"
    return tabulate("equal", "At equal reconstruction", words, columns, found)


@dataclass(frozen=True)
class Published:
    """Points of other papers: columns label, lam and the error and score that are drawn.

    They are `apart`, in a panel of their own, where another classifier made their score.
    """

    points: pd.DataFrame
    score: str
    apart: bool


GREYS = ("#777777", "#a3a3a3", "#bbbbbb")
"""Lines of published points."""
PAGE = 13.2
"""Inches that a page shows side by side."""
NEAR = 0.05
"""Two points of a path that are closer, as a share of its extent, have one name."""


def front(
    frame: pd.DataFrame,
    scores: Mapping[str, str],
    error: str,
    targets: Mapping[str, float],
    heading: str,
    anchors: Mapping[str, Mapping[str, float]] | None = None,
    published: Published | None = None,
    dots: bool = True,
) -> Figure:
    """Score against error, a line a method with lambda as its path; better is up and left.

    A point is the mean score and the geometric mean error of the runs at one lambda that did not
    diverge. A method of one lambda is a mark alone. There is a panel for each of the `scores`,
    headings by column; `heading` is that of the error. Upright lines are the `targets`, level lines
    the `anchors` of a score, both by name. `dots` draws every run.
    """
    apart = published is not None and published.apart
    n = len(scores) + apart
    across = n if n < 4 else 2
    figure, grid = panels(n, across, min(5.2, PAGE / across), 3.8, least=0.9, sharex=True)
    known = frame[np.isfinite(frame[error].astype(float)) & (frame[error] > 0)]
    methods = sorted(known["method"].unique(), key=_place)
    for axes, (score, title) in zip(grid, scores.items(), strict=False):
        for method in methods:
            runs = known[(known["method"] == method) & known[score].notna()].sort_values("lam")
            if len(runs):
                _path(axes, runs, score, error, colour(method), method == METHOD)
            if dots:
                style = {"color": colour(method), "s": 7, "alpha": 0.5, "linewidths": 0}
                axes.scatter(runs[error], runs[score], **style)
        level = (anchors or {}).get(score, {})
        for (name, value), style in zip(level.items(), ("--", ":", "-."), strict=False):
            axes.axhline(value, color=GREY, linestyle=style, linewidth=1, label=name)
        axes.set_ylabel(title)
    if published is not None:
        axes = grid[-1] if apart else grid[[*scores].index(published.score)]
        every = published.points.sort_values("lam").groupby("label", sort=False)
        for (_, points), grey in zip(every, GREYS, strict=False):
            _path(axes, points, published.score, error, grey, whole=True)
        if apart:
            axes.set_ylabel(f"{scores[published.score]}, as published")
    for axes in grid:
        axes.set(xscale="log", xlabel=heading)
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelbottom=True)
        for name, value in targets.items():
            axes.axvline(value, color=GREY, linewidth=0.8)
            place = {"ha": "right", "va": "bottom", "rotation": "vertical", "fontsize": 7}
            axes.text(value, 0.02, name, transform=axes.get_xaxis_transform(), **place)
    legend(figure, grid, ncols=4)
    return figure


def _path(axes: Axes, runs: pd.DataFrame, score: str, error: str, paint: str, whole: bool) -> None:
    """Draws a method's means by lambda, and beside them each lambda, or its ends alone.

    A point that is close to one with a lambda beside it has none. A method with a single point has
    its label there.
    """
    values = pd.DataFrame({"lam": runs["lam"], "score": runs[score].astype(float)})
    values["error"] = np.log(runs[error].astype(float))
    middles = values.groupby("lam").mean()
    x, y = np.exp(middles["error"].to_numpy()), middles["score"].to_numpy()
    alone, label = len(x) == 1, str(runs["label"].iloc[-1])
    axes.plot(x, y, color=paint, marker="D" if alone else "o", markersize=3.5, label=label)
    words = [label] if alone else [lam(value) for value in middles.index]
    points = np.column_stack([np.log(x), y])
    extent = np.ptp(points, axis=0)
    points = points / np.where(extent > 0, extent, 1)
    named: list[int] = []
    for i, word in enumerate(words):
        ends = whole or i in (0, len(x) - 1)
        if ends and all(np.hypot(*(points[i] - points[j])) > NEAR for j in named):
            offset, side = ((0, 4), "center") if alone else ((4, 2), "left")
            place = {"xytext": offset, "ha": side, "textcoords": "offset points", "fontsize": 7}
            text = axes.annotate(word, (x[i], y[i]), color=paint, **place)
            # A lambda is short. Room for a method's long name would leave the axes none.
            text.set_in_layout(not alone)
            named.append(i)
