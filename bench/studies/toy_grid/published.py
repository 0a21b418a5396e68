"""What others have published about the toy study: the paper's Figure 3, and ALICE's own runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from bench.render.tables import Column, Table, lam, number, p_value, percent
from bench.render.text import texts
from bench.studies.toy_grid.runs import CLOSE, COLLAPSED, TENTH, TOP, cells

TEXT = texts("bench.studies.toy_grid")
DRAWN = {"IS": "score", "MSE": "mse"}
"""Columns of runs by what the paper's bars count."""
DRAWS = 10_000
"""How often runs are drawn from the paper's bars."""
LEVEL = 0.95
"""The share of draws that are no further away than chance says."""
SHIFT = 0.1
"""The share of runs whose change of bin a distance should find."""


def paper_bars() -> pd.DataFrame:
    """Figure 3 of the paper, digitised: metric, label, lam, bin_lo, bin_hi, percent of 576."""
    path = resources.files("bench.studies.toy_grid") / "paper" / "fig3_digitised.csv"
    with path.open() as file:
        bars = pd.read_csv(file)
    parts = bars["series"].str.partition("-")  # "sVAE-0.1"
    bars["lam"] = parts[2].replace("", "0").astype(float)
    bars["label"] = parts[0].where((parts[0] != "sVAE") | (bars["lam"] == 0), "sVAE-r")
    return bars[["metric", "label", "lam", "bin_lo", "bin_hi", "percent"]]


@cache
def paper_cells() -> Mapping[tuple[str, float], Mapping[str, float]]:
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


@cache
def alice_cells() -> Mapping[tuple[str, float], Mapping[str, float]]:
    """Returns what ALICE's own toy runs say by label and lambda, 576 runs each."""
    path = resources.files("bench.studies.toy_grid") / "paper" / "alice_toy.csv"
    with path.open() as file:
        table = pd.read_csv(file)
    return {
        ("ALICE" if row["lam"] else "ALI", row["lam"]): {
            "IS mean": row["is_mean"],
            f"IS > {TOP}": row["percent_is_above_4.6"] / 100,
            "MSE median": row["mse_median"],
        }
        for row in table.to_dict("records")
    }


def distances(frame: pd.DataFrame, value: float, narrow: pd.DataFrame | None = None) -> Table:
    """Returns how far the runs of each cell lie from the paper's bars, and how far by chance.

    Each distance is the total variation: the least share of runs that would have to change their
    bin. It is that of the first seed, as the paper has one run a configuration. Beside it stand the
    distance from the bars of the paper's other method, and that of `narrow`, runs of narrower
    networks, if given. The caption names the cells at lambda `value` in a sentence, and which are
    beyond chance.
    """
    groups: Any = paper_bars().groupby(["lam", "label"])
    bars = {key: dict(iter(group.groupby("metric"))) for key, group in groups}
    small = {} if narrow is None else _by_cell(narrow)
    paper, rows, told, beyond = paper_cells(), [], [], []
    for (at, label), runs in _by_cell(frame).items():
        if (at, label) not in bars:
            continue
        theirs, beside = bars[at, label], small.get((at, label))
        (other,) = (each for key, each in bars.items() if key[0] == at and key[1] != label)
        found = {metric: _distance(runs, theirs[metric]) for metric in DRAWN}
        row = []
        for metric, each in found.items():
            swapped = _distance(runs, other[metric])
            row += [*each.cells(), f"{percent(swapped.value)} ({percent(swapped.chance)})"]
        centres = (theirs["IS"]["bin_lo"] + theirs["IS"]["bin_hi"]) / 2
        mean = float(centres @ _shares(runs, theirs["IS"]))
        row += [number(mean, 2), number(paper[label, at]["IS mean"], 2)]
        drawn = (runs["mse"] <= theirs["MSE"]["bin_hi"].max()).mean()
        row += [percent(1 - drawn), percent(max(0.0, 1 - theirs["MSE"]["percent"].sum() / 100))]
        for each in (theirs[metric] for metric in DRAWN if small):
            known = beside is not None
            row.append(percent(_between(_shares(beside, each), _drawn(each))) if known else "")
        rows.append([lam(at), label, *row, str(len(runs))])
        words = [f"{metric} {percent(each.value)}" for metric, each in found.items()]
        told += [f"{label} {' and '.join(words)}"] * (at == value)
        beyond += [f"{label} at λ = {lam(at)} by the {m}" for m, each in found.items() if each.far]
    more = ("", ", by chance up to", ", p", ", power", ", to the other method's bars (by chance)")
    heads = [f"{metric}{end}" for metric in DRAWN for end in more]
    columns = [Column("λ"), Column("method", text=True), *map(Column, heads)]
    columns += [Column("IS mean by bins"), Column("paper IS mean by bins", paper=True)]
    columns += [Column("MSE in no bar"), Column("paper MSE in no bar", paper=True)]
    columns += [Column(f"{metric}, scale quick") for metric in DRAWN if small]
    columns.append(Column("configurations"))
    both = [bars[each] for each in bars if each[0] == value]
    apart = (f"{m} {percent(_between(*(_drawn(each[m]) for each in both)))}" for m in DRAWN)
    count, text = len(DRAWN) * len(rows), TEXT["distances"]
    caption = text["caption"].format(
        lam=lam(value),
        told="; ".join(told) or "none",
        apart=" and ".join(apart),
        n=len(beyond),
        all=count,
        verb="exceeds" if len(beyond) == 1 else "exceed",
        expected=f"{(1 - LEVEL) * count:.1f}",
        which=f" ({', '.join(beyond)})" if beyond else "",
        quick=text["quick"] if small else "",
    )
    return Table("distances", text["title"], caption.strip(), columns, rows)


def _by_cell(frame: pd.DataFrame) -> dict[tuple[float, str], pd.DataFrame]:
    """The first run of each configuration, by lambda and label."""
    return {
        (value, label): runs.sort_values("seed").drop_duplicates("config")
        for label, value, runs in cells(frame)
    }


@dataclass(frozen=True)
class Distance:
    """A distance, the one that chance reaches, and how probable both are.

    `p` is the probability of this distance by chance, and `power` that of one beyond chance if a
    SHIFT of runs left the most frequent bin.
    """

    value: float
    chance: float
    p: float
    power: float

    @property
    def far(self) -> bool:
        """Whether the distance is beyond chance."""
        return self.value > self.chance

    def cells(self) -> list[str]:
        """Returns its cells of a table."""
        return [percent(self.value), percent(self.chance), p_value(self.p), percent(self.power)]


def _distance(runs: pd.DataFrame, bars: pd.DataFrame) -> Distance:
    """Returns the distance of our shares of each bin from the paper's `bars` of one metric.

    Chance draws as many runs from the bars as we have.
    """
    theirs, n = _drawn(bars), len(runs)
    random = np.random.default_rng(0)

    def far(shares: np.ndarray) -> np.ndarray:
        return _between(random.multinomial(n, shares, size=DRAWS) / n, theirs)

    others = np.arange(len(theirs)) != theirs.argmax()
    moved = np.where(others, theirs * (1 + SHIFT / theirs[others].sum()), theirs - SHIFT)
    value, draws = float(_between(_shares(runs, bars), theirs)), far(theirs)
    chance = float(np.quantile(draws, LEVEL))
    p, power = float((draws >= value).mean()), float((far(moved) > chance).mean())
    return Distance(value, chance, p, power)


def _shares(runs: pd.DataFrame, bars: pd.DataFrame) -> np.ndarray:
    """Returns our share of each bin, of the runs within the bars; 0 if there is none."""
    edges = [*bars["bin_lo"], np.nextafter(bars["bin_hi"].iloc[-1], np.inf)]  # the highest score
    found, _ = np.histogram(runs[DRAWN[bars["metric"].iloc[0]]], edges)
    return found / (found.sum() or 1)


def _drawn(bars: pd.DataFrame) -> np.ndarray:
    """Returns the paper's share of each bin; bars were digitised, so they don't sum to 100 %."""
    shares = bars["percent"].to_numpy(float)
    return shares / shares.sum()


def _between(a: np.ndarray, b: np.ndarray) -> Any:
    """Returns the distance of shares from others, along the last axis; 1 if one has no runs.

    It is rounded, so that equal distances are equal on every processor: p counts them.
    """
    return np.maximum(np.maximum(a - b, 0).sum(-1), np.maximum(b - a, 0).sum(-1)).round(9)
