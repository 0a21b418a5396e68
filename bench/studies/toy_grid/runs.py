"""From stored rows of the toy study to the data frames that tables and figures are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.cli import UsageError
from bench.render.figures import rank
from bench.render.text import counted, texts
from bench.spec import columns
from bench.studies.study import Study
from bench.studies.toy_grid.data import CENTRES, VARIANCE
from bench.studies.toy_grid.spec import ToySpec

TOP = 4.6
"""A run above this inception score is in the top bin of the paper's Figure 3."""
GOOD = 0.8
"""Least share of high-quality samples of a run that really generates the mixture."""
CLOSE = 0.5
"""A run below this MSE is in the first bin of the paper's Figure 3."""
COLLAPSED = 1.4
"""A run below this inception score is in the lowest bin of the paper's Figure 3."""
TENTH = 0.1
"""The share of configurations below the score that says how bad bad configurations are."""
NOISE_SCORES = {"uniform noise on [-3, 3]²": 4.89, "N(0, 4I)": 4.83}
"""Inception scores of samples that know nothing of the data, see bench.scores.metrics."""
MEAN_POINT = VARIANCE + CENTRES.var(axis=0).mean()
"""The MSE of who reconstructs every point as the mean of the data: their variance a coordinate."""
TARGETS = {"half": MEAN_POINT / 2, "a quarter": MEAN_POINT / 4}
"""The errors at which methods are compared, by what they are of MEAN_POINT."""
TEXT = texts("bench.studies.toy_grid")
_VARIED = [
    name for name in columns(ToySpec) if name not in ("study", "scale", "seed", *ToySpec.UNPAIRED)
]
"""What makes a configuration."""
SETTINGS = {"lr": ToySpec.lr, "dropout": 0.0}
"""The study's own values of fields of which tables alone show others; rows may lack a field."""
Cells = list[tuple[str, float, pd.DataFrame]]
"""Label, lambda and runs."""


def runs(study: Study, results: Path, scale: str) -> pd.DataFrame:
    """One row a finished training, ready to be counted.

    Beside the stored columns there are `score` and `mse`: the inception score and MSE of x, which
    count diverged runs as 1 and infinity. `modes_counted` is 0 for diverged runs. `top`,
    `top_good`, `collapsed` and `close` are verdicts on each run. `ratio` is that of the critic's
    updates to the model's, `updates` the sum of both.
    All rows have one precision (float32 where there is any); `attrs["other_precision"]` counts
    the others and `attrs["bad"]` the files that could not be read.
    """
    table, bad = study.load(results, scale)
    every = table.to_pandas()
    there = sorted(set(every["precision"]))  # a newer version of the suite may know others
    precision = min(there, key=[*ToySpec.PRECISIONS, *there].index, default=None)
    # The order of the files says nothing; that of the trainings does.
    by = ["lr", "lam", "label", "config", "seed"]
    frame = every[every["precision"] == precision].sort_values(by, ignore_index=True)
    counted = {"score": 1.0, "mse": np.inf, "high_quality_counted": 0.0, "modes_counted": 0.0}
    stored = ("inception_score", "mse_x", "high_quality", "modes")
    for (name, worst), column in zip(counted.items(), stored, strict=True):
        frame[name] = frame[column].where(frame["status"] != "diverged", worst)
    frame["top"] = frame["score"] > TOP
    frame["top_good"] = frame["top"] & (frame["high_quality_counted"] >= GOOD)
    frame["collapsed"] = frame["score"] < COLLAPSED
    frame["close"] = frame["mse"] < CLOSE
    steps = frame["critic_steps"], frame["model_steps"]
    frame["ratio"] = [Fraction(critic, model) for critic, model in zip(*steps, strict=True)]
    frame["updates"] = sum(steps)
    frame.attrs |= {"bad": len(bad), "other_precision": len(every) - len(frame)}
    return frame


def own(study: Study, scale: str, frame: pd.DataFrame) -> list[ToySpec]:
    """Returns the trainings of the study's own grid at every seed begun at its settings."""
    return study.specs(scale, **_begun(at_own_rate(frame)))


def missing(study: Study, scale: str, frame: pd.DataFrame) -> int:
    """Returns how many trainings a complete study would have beside these.

    They are of the study's own grid, of what is `to_complete`. A method, lambda, learning rate or
    dropout that is not its own counts with the seeds where it was begun.
    """
    ids = {spec.id for spec in _wanted(study, own(study, scale, frame), at_own_rate(frame))}
    for setting, rows in by_setting(frame):
        given: dict[str, Any] = {"given": {name: [value] for name, value in setting.items()}}
        for method, value in set(zip(rows["method"], rows["lam"], strict=True)):
            begun = _begun(at(rows, method, value))
            cell = study.specs(scale, [method], [value], **given, **begun)
            ids |= {spec.id for spec in _wanted(study, cell, rows)}
    return len(ids - set(frame["id"]))


def _wanted(study: Study, specs: Sequence[ToySpec], frame: pd.DataFrame) -> list[ToySpec]:
    """Returns the trainings of these specs that are `to_complete` the runs."""
    goal = to_complete({spec.config for spec in specs}, parts(study, specs), frame)
    return [spec for spec in specs if (spec.config, spec.seed) in goal]


def _begun(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns the number of seeds and the precision of the runs, as options of `Study.specs`."""
    precision = frame["precision"].iloc[0]
    known = {"precision": precision} if precision in ToySpec.PRECISIONS else {}
    return {"seeds": int(frame["seed"].max()) + 1, **known}


def by_setting(frame: pd.DataFrame) -> Iterator[tuple[dict[str, float], pd.DataFrame]]:
    """Yields each combination of values of SETTINGS and its rows, first those of `at_own_rate`."""
    names = [name for name in SETTINGS if name in frame]
    own = at_own_rate(frame)[names].iloc[0].to_list()
    groups: Any = frame.groupby(names)
    for values, rows in sorted(groups, key=lambda group: [*group[0]] != own):
        yield dict(zip(names, values, strict=True)), rows


def parts(study: Study, grid: Sequence[ToySpec]) -> list[set[str]]:
    """Returns the configurations of a grid's balanced parts, the 32nd and the eighth.

    A part that a grid does not have, or that is all of it, is empty.
    """
    whole, found = {spec.config for spec in grid}, []
    for size in ("1/32", "1/8"):
        here = set()
        with suppress(UsageError):
            here = {spec.config for spec in study.fraction(grid, size)}
        found.append(here if here < whole else set())
    return found


def to_complete(
    whole: Collection[str], fractions: Sequence[set[str]], frame: pd.DataFrame
) -> set[tuple[str, int]]:
    """Returns the configurations that complete these runs, of the `whole`, and the seeds of each.

    `fractions` are the grid's `parts`. The first seed asks for all configurations, or for the
    eighth where this and no others were begun. A further seed asks for those of the first, or for a
    part where this and no others were begun, or for all if it has others than the first.
    """
    first, found = {*whole}, set()
    for seed in range(int(frame["seed"].max()) + 1):
        begun = {*whole} & {*frame.loc[frame["seed"] == seed, "config"]}
        is_part = bool(begun) and begun in (fractions if seed else fractions[1:])
        asked = begun if is_part else first if begun <= first else {*whole}
        first = first if seed else asked
        found |= {(config, seed) for config in asked}
    return found


def part(
    grid: Sequence[ToySpec],
    fractions: Sequence[set[str]],
    frame: pd.DataFrame,
    used: Sequence[pd.DataFrame],
) -> str:
    """Returns on which part of the study's own grid the runs rest that were `used`, in words.

    `grid` has the trainings of the complete grid and `fractions` its `parts`: a verdict without the
    eighth is indicative. `frame` has the settings of configurations that are not among them.
    """
    eighth = fractions[1]
    own = {spec.config: vars(spec) for spec in grid}
    levels = {name: {row[name] for row in own.values()} for name in _VARIED}

    def fields(values: dict[str, set[Any]]) -> str:
        named = (
            f"{TEXT['fields'].get(name, name.replace('_', ' '))} "
            + ", ".join(f"{value:g}" for value in sorted(found))
            for name, found in values.items()
            if found
        )
        return ", ".join(named)

    def configurations(here: frozenset[str]) -> str:
        known = [own[config] for config in sorted(here) if config in own]
        there = {name: {row[name] for row in known} for name in _VARIED}
        on = "on_eighth" if eighth == here else "on_part"
        words = TEXT[on].format(n=len(known), all=len(own))
        if narrowed := fields({name: v for name, v in there.items() if v != levels[name]}):
            words += f": {narrowed}"
        others = frame[frame["config"].isin(here - own.keys())]
        if len(others):
            there = {name: {*others[name]} for name in _VARIED}
            apart = fields({name: v for name, v in there.items() if v != levels[name]})
            n = others["config"].nunique()
            if not known:
                return f"on {n} configurations of other settings: {apart}"
            words += f" and on {n} others: {apart}"
        return words

    words = " and ".join(configurations(each) for each in {frozenset(u["config"]): 0 for u in used})
    if any(eighth - {*runs["config"]} for runs in used):
        words = TEXT["indicative"] + words
    seeds = len({spec.seed for spec in grid})
    counts = pd.concat(runs.groupby("config")["seed"].nunique() for runs in used)
    fewest = counts.groupby(level=0).min()
    if fewest.nunique() == 1 and fewest.iloc[0] < seeds:
        words += f"; {fewest.iloc[0]} of {counted(seeds, 'seed')} each"
    elif more := seeds_of(fewest):
        words += f"; {more}"
    return words


def seeds_of(counts: pd.Series) -> str:
    """Returns how many configurations have how many seeds, in words, without the most frequent."""
    groups = Counter(counts.to_list())
    told = [
        f"{counted(n, 'configuration')} {'has' if n == 1 else 'have'} {counted(seeds, 'seed')}"
        for seeds, n in sorted(groups.items(), reverse=True)
        if seeds != groups.most_common()[0][0]
    ]
    return ", ".join(told)


def evened(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs of a cell, each so often that all configurations weigh the same."""
    if not runs["config"].duplicated().any():
        return runs
    sizes = runs.groupby("config")["config"].transform("size")
    return runs.loc[runs.index.repeat(math.lcm(*sizes.unique()) // sizes)]


def at_own_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that figures and claims are about.

    They are those at the study's own learning rate and dropout, or at the smallest there is.
    """
    for name, value in SETTINGS.items():
        if name in frame:
            there = set(frame[name])
            frame = frame[frame[name] == (value if value in there else min(there))]
    return frame


def whole_paths(frame: pd.DataFrame, lams: Collection[float]) -> dict[str, pd.MultiIndex]:
    """Returns the configurations and seeds of each method that have runs at all these lambdas."""
    here = frame[frame["lam"].isin(lams)]
    found = {}
    for method in frame["method"].unique():
        runs = here[here["method"] == method].groupby(["config", "seed"])["lam"].nunique()
        found[str(method)] = runs[runs == len(lams)].index
    return found


def per_cell(frame: pd.DataFrame, rows: str, columns: str) -> str:
    """Returns how many runs a cell of a heat map has, in words: of one method at one lambda."""
    counts = frame.groupby(["lam", "label", rows, columns]).size()
    return " to ".join(map(str, dict.fromkeys((counts.min(), counts.max()))))


def at(frame: pd.DataFrame, method: str, value: float) -> pd.DataFrame:
    """The runs of a method at one lambda."""
    return frame[(frame["method"] == method) & (frame["lam"] == value)]


def cells(frame: pd.DataFrame) -> Cells:
    """(label, lambda, runs), by lambda and within it in the order of the methods."""
    groups: Any = frame.groupby(["lam", "label"])
    found = [(str(label), float(value), runs) for (value, label), runs in groups]
    return sorted(found, key=lambda cell: (cell[1], rank(cell[2]["method"].iloc[0])))
