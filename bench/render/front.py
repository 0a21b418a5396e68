"""Generation against reconstruction: each method's path over lambda, and scores at equal error.

Lambda weighs differently in each method. So methods are compared where their errors are equal, and
lambda is only the way along a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.cli import UsageError
from bench.render.figures import GREY, Look, legend, looks, panels, rank
from bench.render.intervals import Estimate
from bench.render.tables import Cell, Column, Table, lam, mean, tabulate

KEYS = ["config", "seed"]
"""What runs of one path share."""
REACHED, NEVER, BELOW = "reached", "not reached", "starts below"
UNTRAINED = "not trained to the end"
"""How a path meets a target."""
METHOD = "svae_r"
"""The method that is compared with every other, unless the user names a baseline."""


def crossings(runs: pd.DataFrame, score: str, error: str, target: float) -> pd.DataFrame:
    """What each path of one method scores where its error first falls to the target.

    `runs` has the columns config, seed, lam and the two named. The runs of a configuration and seed
    are a path, ordered by lambda. Returns a frame with index (config, seed) and the columns
    `score`, `first`, `outcome` and `lams`, which are those of the path. The score is interpolated
    linearly in the log error, between the first run of at most the target and the run before it;
    `first` is the score of that first run. Both are NaN where the outcome is not REACHED, as
    nothing is extrapolated. NEVER says that no run is at most the target, BELOW that the first one
    is already. A path that lacks the largest lambda of the method, or the smallest, may still be
    neither: it is UNTRAINED.

    A run whose error is infinite or missing has diverged, and is above every target. The limit of
    the interpolation holds for a path that comes from there: it has the score of its next run. So
    the score of a diverged run never counts. A run that has an error but no score is no point of
    its path, as if it were not trained.
    """
    values = runs[[score, error]].astype(float).set_axis(["score", "error"], axis=1)
    path = pd.concat([runs[[*KEYS, "lam"]], values], axis=1)
    path = path.sort_values([*KEYS, "lam"], ignore_index=True)
    path["error"] = path["error"].fillna(np.inf)
    path = path[path["score"].notna() | np.isinf(path["error"])]
    path["log"] = np.log(path["error"].clip(lower=np.finfo(float).tiny))
    before = path.groupby(KEYS)[["score", "log"]].shift().add_suffix("_before")
    path = path.join(before).set_index(KEYS)
    low = path[path["error"] <= target]
    first = low[~low.index.duplicated()]
    share = (np.log(target) - first["log"]) / (first["log_before"] - first["log"])
    between = first["score"] + share * (first["score_before"] - first["score"])
    found, ends = pd.DataFrame(index=path.index.unique()), path.groupby(level=KEYS)["lam"]
    found["lams"] = ends.agg(tuple)
    found["score"] = between.where(share != 0, first["score"])
    found["first"] = first["score"].where(share.notna())
    starts, stops = ends.min() == path["lam"].min(), ends.max() == path["lam"].max()
    low_at_all = found.index.isin(first.index)
    found["outcome"] = np.where(low_at_all, BELOW, NEVER)
    found.loc[~np.where(low_at_all, starts, stops), "outcome"] = UNTRAINED
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


def find_baseline(frame: pd.DataFrame, name: str) -> str:
    """Returns the method of these runs that has this name or label, "" for no name.

    Raises UsageError if there is none.
    """
    there = frame[["method", "label"]].drop_duplicates().astype(str)
    found = there["method"][(there == name).any(axis=1)]
    if name and not len(found):
        allowed = ", ".join(sorted({*there["method"]}, key=_place))
        raise UsageError(f"--baseline {name}; allowed: methods with results here: {allowed}")
    return str(found.iloc[0]) if name else ""


def labels_of(frame: pd.DataFrame, method: str) -> str:
    """Returns all labels of a method, by lambda: "sVAE, sVAE-r"."""
    runs = frame[frame["method"] == method].sort_values("lam", kind="stable")
    return ", ".join(runs["label"].unique())


@dataclass(frozen=True, eq=False)  # which makes it a key of a dictionary
class Equal:
    """What two methods score at one error; `ours` and `theirs` are of `crossings`."""

    goal: str  # the name of the target
    target: float
    rival: str  # the second method
    labels: tuple[str, str]  # of both methods
    score: str
    heading: str  # of the score
    ours: pd.DataFrame
    theirs: pd.DataFrame

    @property
    def pairs(self) -> pd.DataFrame:
        """Columns ours and theirs, a row a configuration and seed whose paths both reach it."""
        return self._scores().dropna()

    @property
    def means(self) -> pd.DataFrame:
        """The pairs of each configuration, averaged over its seeds: columns ours and theirs."""
        return self.pairs.groupby(level="config").mean()

    @property
    def misses(self) -> int:
        """How many paths of pairs never reach the target."""
        return int((self._scores("outcome") == NEVER).to_numpy().sum())

    @property
    def firsts(self) -> pd.DataFrame:
        """The `means` of the first runs that reach the target: nothing is interpolated."""
        return self._scores("first").loc[self.pairs.index].groupby(level="config").mean()

    def counting(self, worst: float) -> pd.DataFrame:
        """Returns the `means` if a path that never reaches the target has the score `worst`."""
        scores = self._scores().mask(self._scores("outcome") == NEVER, worst).dropna()
        return scores.groupby(level="config").mean()

    def _scores(self, column: str = "score") -> pd.DataFrame:
        """Columns ours and theirs, a row a configuration and seed of which both have a path."""
        both = {"ours": self.ours[column], "theirs": self.theirs[column]}
        return pd.concat(both, axis=1, join="inner")

    @property
    def differences(self) -> pd.Series:
        """Ours minus theirs, by configuration and seed."""
        return self.pairs["ours"] - self.pairs["theirs"]


def equals(
    frame: pd.DataFrame,
    scores: Mapping[str, str],
    error: str,
    targets: Mapping[str, float],
    baseline: str = "",
) -> list[Equal]:
    """METHOD against every other method with a path, at each target, by each score.

    With a `baseline` every other method stands against that one instead. `targets` are errors by
    name, `scores` headings by column. Without a path of METHOD, or of the baseline, there is
    nothing to compare.
    """
    names, fixed = paths(frame, error), baseline or METHOD
    by_method = {method: frame[frame["method"] == method] for method in names}
    others = [method for method in names if method != fixed and fixed in names]
    pairs = [(method, baseline) if baseline else (METHOD, method) for method in others]
    found = []
    for (goal, target), (score, heading) in product(targets.items(), scores.items()):
        at = {m: crossings(runs, score, error, target) for m, runs in by_method.items()}
        for a, b in pairs:
            labels = names[a], names[b]
            found.append(Equal(goal, target, b, labels, score, heading, at[a], at[b]))
    return found


def reach(found: pd.DataFrame) -> str:
    """How many paths reach the target, and what the others do, in words for a cell."""
    counts = found["outcome"].value_counts()
    others = ", ".join(f"{counts[why]} {why}" for why in (NEVER, BELOW, UNTRAINED) if why in counts)
    return f"{counts.get(REACHED, 0)} of {len(found)}" + (f" ({others})" if others else "")


CAPTION = """\
The runs of a configuration and seed over λ are a path. Its score is interpolated in the log MSE, \
where its error first falls to the target. Nothing is extrapolated: a path may not reach a target, \
or start below it. Scores and differences are means over the pairs of which both paths reach the \
target, with seeds averaged first. A diverged run has an infinite error. A path that comes from \
such a run has the score of its next run."""


def table(
    found: Sequence[Equal],
    estimate: Callable[[Equal], Estimate],
    caption: str,
    digits: int = 3,
    baseline: str = "",
    more: Sequence[tuple[Column | str, Cell]] = (),
) -> Table:
    """A row for each of `equals`; `estimate` makes the mean difference and its interval.

    It is asked where there are pairs. The `caption` follows on CAPTION, and columns of `more` on
    the difference. A row is named by its first method where all stand against a `baseline`, else by
    its second.
    """

    def difference(each: Equal) -> str:
        return format(estimate(each), f"+.{digits}f") if len(each.pairs) else "–"

    first, other = found[0].labels if found else (METHOD, baseline)
    head, side, names = "against", 1, (first, "the other")
    if baseline:
        head, side, names = "method", 0, ("the method", other)
    columns: list[tuple[Column | str, Cell]] = [
        (Column("at", text=True), lambda each: f"{each.goal}, {each.target:.{digits}g}"),
        (Column(head, text=True), lambda each: each.labels[side]),
        (Column("score", text=True), lambda each: each.heading),
        (names[0], lambda each: mean(each.means["ours"], digits)),
        (names[1], lambda each: mean(each.means["theirs"], digits)),
        ("difference", difference),
        *more,
        (f"paths of {names[0]} that reach it", lambda each: reach(each.ours)),
        (f"of {names[1]}", lambda each: reach(each.theirs)),
        ("pairs", lambda each: str(len(each.pairs))),
    ]
    if any(each.ours.index.get_level_values("config").nunique() > 1 for each in found):
        columns.append(("configurations", lambda each: str(len(each.means))))
    title = "At equal reconstruction" + (f", each method against {other}" if baseline else "")
    return tabulate("equal", title, f"{CAPTION} {caption}", columns, found)


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
SIZE = 7
"""The size of letters beside points, which is in points of 1/72 inch."""
SIDES = ((4, 2, "left", "bottom"), (-4, 2, "right", "bottom"), (0, 4, "center", "bottom"))
SIDES += ((4, -2, "left", "top"), (-4, -2, "right", "top"), (0, -4, "center", "top"))
"""Where a word may stand beside its point: offsets in points, and how it is aligned."""


def front(
    frame: pd.DataFrame,
    scores: Mapping[str, str],
    error: str,
    targets: Mapping[str, float],
    heading: str,
    anchors: Mapping[str, Mapping[str, float]] | None = None,
    published: Published | None = None,
    dots: bool = True,
    baseline: str = "",
) -> Figure:
    """Score against error, a line a method with lambda as its path; better is up and left.

    A point is the mean score and the geometric mean error of the runs at one lambda that did not
    diverge. A method of one lambda is a mark alone. There is a panel for each of the `scores`,
    headings by column; `heading` is that of the error. Upright lines are the `targets`, level lines
    the `anchors` of a score, both by name. `dots` draws every run. The line of the `baseline` is
    broad if the user names one.
    """
    apart = published is not None and published.apart
    n = len(scores) + apart
    across = n if n < 4 else 2
    figure, grid = panels(n, across, min(5.2, PAGE / across), 3.8, least=0.9, sharex=True)
    known = frame[np.isfinite(frame[error].astype(float)) & (frame[error] > 0)]
    whole, found = baseline or METHOD, looks(frame["method"])
    methods = sorted(known["method"].unique(), key=lambda m: (m != whole, _place(m)))
    drawn: dict[Axes, list[_Path]] = {axes: [] for axes in grid}
    for axes, (score, title) in zip(grid, scores.items(), strict=False):
        for method in methods:
            runs = known[(known["method"] == method) & known[score].notna()].sort_values("lam")
            if len(runs):
                path = _Path.of(runs, score, error, found[method], whole=method == whole)
                drawn[axes].append(path)
            if dots:
                style = {"color": found[method].colour, "s": 7, "alpha": 0.5, "linewidths": 0}
                axes.scatter(runs[error], runs[score], **style)
        for path in sorted(drawn[axes], key=lambda path: [*found].index(path.method)):
            path.draw(axes, broad=path.method == baseline)
        level = (anchors or {}).get(score, {})
        for (name, value), style in zip(level.items(), ("--", ":", "-."), strict=False):
            axes.axhline(value, color=GREY, linestyle=style, linewidth=1, label=name)
        axes.set_ylabel(title)
    if published is not None:
        axes = grid[-1] if apart else grid[[*scores].index(published.score)]
        every = published.points.sort_values("lam").groupby("label", sort=False)
        for (_, points), grey in zip(every, GREYS, strict=False):
            drawn[axes].append(_Path.of(points, published.score, error, Look(grey), whole=True))
            drawn[axes][-1].draw(axes)
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
            place = {"ha": "right", "va": "bottom", "rotation": "vertical", "fontsize": SIZE}
            axes.text(value, 0.02, name, transform=axes.get_xaxis_transform(), **place)
    legend(figure, grid, ncols=4)
    figure.draw_without_rendering()  # says where the points lie
    for axes in grid:
        _name(axes, drawn[axes])
    return figure


@dataclass(frozen=True)
class _Path:
    """The means of a method by lambda, and the words beside them."""

    method: str
    label: str
    look: Look
    x: np.ndarray
    y: np.ndarray
    words: Mapping[int, str]  # by the index of their point

    @property
    def alone(self) -> bool:
        """Whether there is a single point, which has the method's label beside it."""
        return len(self.x) == 1

    @classmethod
    def of(cls, runs: pd.DataFrame, score: str, error: str, look: Look, whole: bool) -> _Path:
        """Returns the path of these runs, with all lambdas as its words or the ends alone.

        A point that is close to one with a word has none.
        """
        values = pd.DataFrame({"lam": runs["lam"], "score": runs[score].astype(float)})
        values["error"] = np.log(runs[error].astype(float))
        middles = values.groupby("lam").mean()
        x, y = np.exp(middles["error"].to_numpy()), middles["score"].to_numpy()
        label = str(runs["label"].iloc[-1])
        every = [label] if len(x) == 1 else [lam(value) for value in middles.index]
        points = np.column_stack([np.log(x), y])
        extent = np.ptp(points, axis=0)
        points = points / np.where(extent > 0, extent, 1)
        words: dict[int, str] = {}
        for i in range(len(x)) if whole else dict.fromkeys((0, len(x) - 1)):
            if all(np.hypot(*(points[i] - points[j])) > NEAR for j in words):
                words[i] = every[i]
        method = str(runs["method"].iloc[0]) if "method" in runs else ""
        return cls(method, label, look, x, y, words)

    def draw(self, axes: Axes, broad: bool = False) -> None:
        """Draws the line and its marks."""
        style = {"color": self.look.colour, "linestyle": self.look.line, "marker": self.look.mark}
        size = {"markersize": 4, "linewidth": 3 if broad else 1.5}
        axes.plot(self.x, self.y, label=self.label, **style, **size)


Box = tuple[float, float, float, float]
"""Left, low, right and high end."""


def _cover(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(axes: Axes, drawn: Sequence[_Path]) -> None:
    """Writes each word beside its point, on the first side on which it covers no other word.

    A word that covers another on every side is left out.
    """
    scale = 72 / cast(Figure, axes.get_figure()).dpi
    taken: list[Box] = []
    for path in drawn:
        for i, word in path.words.items():
            x, y = axes.transData.transform((path.x[i], path.y[i])) * scale
            width = 0.62 * SIZE * len(word)
            for dx, dy, ha, va in (SIDES[2:] + SIDES[:2]) if path.alone else SIDES:
                left = x + dx - width * {"left": 0.0, "center": 0.5, "right": 1.0}[ha]
                low = y + dy - SIZE * {"bottom": 0.0, "top": 1.0}[va]
                box = left, low, left + width, low + SIZE
                if not any(_cover(box, other) for other in taken):
                    break
            else:
                continue
            taken.append(box)
            place = {"xytext": (dx, dy), "ha": ha, "va": va, "textcoords": "offset points"}
            at = (path.x[i], path.y[i])
            text = axes.annotate(word, at, color=path.look.colour, fontsize=SIZE, **place)
            # A lambda is short. Room for a method's long name would leave the axes none.
            text.set_in_layout(not path.alone)
