"""From stored rows of the toy study to the data frames that tables and figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.render.figures import rank
from bench.render.text import texts
from bench.spec import columns
from bench.studies.study import Study
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
TEXT = texts("bench.studies.toy_grid")
_VARIED = [
    name for name in columns(ToySpec) if name not in ("study", "scale", "seed", *ToySpec.UNPAIRED)
]
"""What makes a configuration."""
Cells = list[tuple[str, float, pd.DataFrame]]
"""Label, lambda and runs."""


def runs(study: Study, results: Path, scale: str) -> pd.DataFrame:
    """One row a finished training, ready to be counted.

    Beside the stored columns there are `score` and `mse`: the inception score and MSE of x, which
    count diverged runs as 1 and infinity. `top`, `top_good`, `collapsed` and `close` are verdicts
    on each run.
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
    counted = {"score": 1.0, "mse": np.inf, "high_quality_counted": 0.0}
    stored = ("inception_score", "mse_x", "high_quality")
    for (name, worst), column in zip(counted.items(), stored, strict=True):
        frame[name] = frame[column].where(frame["status"] != "diverged", worst)
    frame["top"] = frame["score"] > TOP
    frame["top_good"] = frame["top"] & (frame["high_quality_counted"] >= GOOD)
    frame["collapsed"] = frame["score"] < COLLAPSED
    frame["close"] = frame["mse"] < CLOSE
    frame.attrs |= {"bad": len(bad), "other_precision": len(every) - len(frame)}
    return frame


def own(study: Study, scale: str, frame: pd.DataFrame) -> list[ToySpec]:
    """Returns the trainings of the study's own grid at every seed that was begun."""
    return study.specs(scale, **_begun(frame))


def missing(study: Study, scale: str, frame: pd.DataFrame) -> int:
    """Returns how many trainings a complete study would have beside these.

    They are of the study's own grid. A method, lambda or learning rate that is not its own counts
    with all configurations where it was begun.
    """
    ids = {spec.id for spec in own(study, scale, frame)}
    for method, value, rate in set(zip(frame["method"], frame["lam"], frame["lr"], strict=True)):
        cell = study.specs(scale, [method], [value], [rate], **_begun(frame))
        ids |= {spec.id for spec in cell}
    return len(ids - set(frame["id"]))


def _begun(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns the number of seeds and the precision of the runs, as options of `Study.specs`."""
    precision = frame["precision"].iloc[0]
    known = {"precision": precision} if precision in ToySpec.PRECISIONS else {}
    return {"seeds": int(frame["seed"].max()) + 1, **known}


def part(grid: Sequence[ToySpec], frame: pd.DataFrame, used: Sequence[pd.DataFrame]) -> str:
    """Returns on which part of the study's own grid the runs rest that were `used`, in words.

    `grid` has the trainings of the complete grid; `frame` has the settings of configurations that
    are not among them.
    """
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
        words = f"on {len(known)} of {len(own)} configurations"
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
    seeds = len({spec.seed for spec in grid})
    counts = pd.concat(runs.groupby("config")["seed"].nunique() for runs in used)
    if counts.min() < seeds:
        span = " to ".join(map(str, dict.fromkeys((counts.min(), counts.max()))))
        words += f"; {span} of {seeds} seeds each"
    return words


def at_own_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that figures and claims are about.

    They are those at the study's own learning rate, or at the smallest there is.
    """
    rates = set(frame["lr"])
    return frame[frame["lr"] == (ToySpec.lr if ToySpec.lr in rates else min(rates))]


def at(frame: pd.DataFrame, method: str, value: float) -> pd.DataFrame:
    """The runs of a method at one lambda."""
    return frame[(frame["method"] == method) & (frame["lam"] == value)]


def cells(frame: pd.DataFrame) -> Cells:
    """(label, lambda, runs), by lambda and within it in the order of the methods."""
    groups: Any = frame.groupby(["lam", "label"])
    found = [(str(label), float(value), runs) for (value, label), runs in groups]
    return sorted(found, key=lambda cell: (cell[1], rank(cell[2]["method"].iloc[0])))


def paper_bars() -> pd.DataFrame:
    """Figure 3 of the paper, digitised: metric, label, lam, bin_lo, bin_hi, percent of 576."""
    path = resources.files("bench.studies.toy_grid") / "paper" / "fig3_digitised.csv"
    with path.open() as file:
        bars = pd.read_csv(file)
    parts = bars["series"].str.partition("-")  # "sVAE-0.1"
    bars["lam"] = parts[2].replace("", "0").astype(float)
    bars["label"] = parts[0].where((parts[0] != "sVAE") | (bars["lam"] == 0), "sVAE-r")
    return bars[["metric", "label", "lam", "bin_lo", "bin_hi", "percent"]]


def paper_cells() -> dict[tuple[str, float], dict[str, float]]:
    """Returns what Figure 3 says by label and lambda.

    They are the mean score by bin centres, three shares, and a quantile, interpolated in its bin.
    """
    found = {}
    for key, cell in paper_bars().groupby(["label", "lam"]):
        scores, errors = (cell[cell["metric"] == metric] for metric in ("IS", "MSE"))
        centres = (scores["bin_lo"] + scores["bin_hi"]) / 2
        top, close = scores["bin_lo"] >= TOP - 1e-9, errors["bin_hi"] <= CLOSE
        low, below = scores["bin_hi"] <= COLLAPSED, scores["percent"].cumsum()
        edges = [scores["bin_lo"].iloc[0], *scores["bin_hi"]]
        found[key] = {
            "IS mean": (centres * scores["percent"]).sum() / scores["percent"].sum(),
            f"IS > {TOP}": scores.loc[top, "percent"].sum() / 100,
            f"IS < {COLLAPSED}": scores.loc[low, "percent"].sum() / 100,
            "tenth percentile": float(np.interp(TENTH * below.iloc[-1], [0, *below], edges)),
            f"MSE < {CLOSE}": errors.loc[close, "percent"].sum() / 100,
        }
    return found
