"""What others have published about the toy study: the paper's Figure 3, and ALICE's own runs."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd

from bench.render.tables import Column, Table, lam, percent
from bench.render.text import texts
from bench.studies.toy_grid.runs import CLOSE, COLLAPSED, TENTH, TOP, cells

TEXT = texts("bench.studies.toy_grid")
DRAWN = {"IS": "score", "MSE": "mse"}
"""Columns of runs by what the paper's bars count."""
DRAWS = 10_000
"""How often runs are drawn from the paper's bars."""


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


def alice_cells() -> dict[tuple[str, float], dict[str, float]]:
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


def distances(frame: pd.DataFrame, value: float) -> Table:
    """Returns how far the runs of each cell lie from the paper's bars, and how far by chance.

    Each distance is the total variation: the least share of runs that would have to change their
    bin. The caption names the cells at lambda `value` in a sentence, and which are beyond chance.
    """
    bars, rows, told, beyond = paper_bars(), [], [], []
    for label, at, runs in cells(frame):
        theirs = bars[(bars["label"] == label) & (bars["lam"] == at)]
        if theirs.empty:
            continue
        found = {
            metric: _distance(runs, column, theirs[theirs["metric"] == metric])
            for metric, column in DRAWN.items()
        }
        shown = [percent(each) for pair in found.values() for each in pair]
        rows.append([lam(at), label, *shown, str(runs["config"].nunique())])
        each = {
            m: f"{m} {percent(d)} (by chance up to {percent(c)})" for m, (d, c) in found.items()
        }
        if at == value:
            told.append(f"{label} {' and '.join(each.values())}")
        beyond += [f"{label} at λ = {lam(at)} by the {m}" for m, (d, c) in found.items() if d > c]
    heads = [f"{metric}{more}" for metric in DRAWN for more in ("", ", by chance up to")]
    columns = [Column("λ"), Column("method", text=True), *map(Column, [*heads, "configurations"])]
    words = TEXT["distances"]
    sentence = words["sentence"].format(lam=lam(value), told="; ".join(told)) if told else ""
    which = f" ({', '.join(beyond)})" if beyond else ""
    count = words["beyond"].format(n=len(beyond), all=len(DRAWN) * len(rows), which=which)
    caption = f"{sentence} {count} {words['caption']}".strip()
    return Table("distances", words["title"], caption, columns, rows)


def _distance(runs: pd.DataFrame, column: str, bars: pd.DataFrame) -> tuple[float, float]:
    """Returns the distance of our shares of each bin from the paper's `bars`, and that of chance.

    The seeds of a configuration share its weight. Of as many runs from the paper's bars as we have
    configurations, one sample in 20 is further away than chance says.
    """
    last = np.nextafter(bars["bin_hi"].iloc[-1], np.inf)  # which has the highest score
    edges = [*bars["bin_lo"], last, np.inf]
    theirs = bars["percent"].to_numpy() / 100
    theirs = np.append(theirs, max(0.0, 1 - theirs.sum()))  # above the last bin, which is not drawn
    theirs /= theirs.sum()
    n = runs["config"].nunique()
    weights = 1 / (n * runs.groupby("config")[column].transform("size"))
    ours, _ = np.histogram(runs[column], edges, weights=weights)
    drawn = np.random.default_rng(0).multinomial(n, theirs, size=DRAWS) / n
    chance = np.abs(drawn - theirs).sum(axis=1) / 2
    return float(np.abs(ours - theirs).sum() / 2), float(np.quantile(chance, 0.95))
