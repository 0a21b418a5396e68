"""One set of results beside another: do they agree within the seeds' spread?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench.cli import UsageError
from bench.render.compare import LEVEL, verdict
from bench.render.compare import table as filled
from bench.render.tables import Table, lam
from bench.studies.toy_grid.frames import CLOSE, GOOD, TOP
from bench.studies.toy_grid.tables import cells

STATISTICS = {
    "IS mean": "score",
    f"share IS > {TOP}": "top",
    f"share IS > {TOP}, quality ≥ {GOOD}": "top_good",
    f"share MSE < {CLOSE}": "close",
    "high quality mean": "high_quality_counted",
    "log10 MSE mean": "log_mse",
}


def table(ours: pd.DataFrame, other: pd.DataFrame, name: Path) -> Table:
    """Our mean of each statistic, theirs, and whether the difference is one of seeds.

    Only configurations that both have count. The spread is the variance over the seeds of `other`
    within a configuration, pooled over the configurations of a cell; the tolerance for C
    configurations with k and n seeds is t s sqrt((1/k + 1/n) / C), with C (n - 1) degrees of
    freedom and LEVEL shared evenly among the rows (Bonferroni). A cell in which all seeds agree
    gets the spread of one seed of one configuration changing its verdict.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """
    found, left_out = [], []
    for label, value, runs in cells(_counted(ours)):
        theirs = _counted(other[(other["label"] == label) & (other["lam"] == value)])
        common = set(runs["config"]) & set(theirs["config"])
        mine, theirs = (each[each["config"].isin(common)] for each in (runs, theirs))
        if not common or theirs["seed"].nunique() < 2:
            left_out.append(f"{label} at λ = {lam(value)}")
            continue
        found.append((label, value, mine, theirs))
    if not found:
        raise UsageError(f"nothing to compare with in {name}: no common runs with two seeds")
    tests = len(found) * len(STATISTICS)
    rows = []
    for label, value, mine, theirs in found:
        for what, column in STATISTICS.items():
            a, b = (each.groupby("config")[column].mean().mean() for each in (mine, theirs))
            tolerance = _tolerance(mine, theirs, column, tests)
            rows.append(
                [
                    lam(value),
                    label,
                    what,
                    f"{a:.3f}",
                    f"{b:.3f}",
                    f"{a - b:+.3f}",
                    f"{tolerance:.3f}",
                    verdict(abs(a - b) <= tolerance),
                ]
            )
    how = "spread over seeds within a configuration"
    return filled(rows, str(name), how, left_out)


def _counted(runs: pd.DataFrame) -> pd.DataFrame:
    """The statistics as numbers; an infinite MSE counts as 1e6."""
    log_mse = np.log10(runs["mse"].clip(1e-6, 1e6).astype(float))
    return runs.assign(log_mse=log_mse).astype(dict.fromkeys(STATISTICS.values(), float))


def _tolerance(mine: pd.DataFrame, theirs: pd.DataFrame, column: str, tests: int) -> float:
    within = theirs.groupby("config")[column].agg(["var", "size"]).query("size > 1")
    freedom = int((within["size"] - 1).sum())
    variance = float((within["var"] * (within["size"] - 1)).sum()) / freedom
    # One verdict among all of a cell's that is otherwise unanimous.
    spread = max(np.sqrt(variance), 1 / np.sqrt(len(theirs)) if variance == 0 else 0.0)
    k, n = (each.groupby("config").size().mean() for each in (mine, theirs))
    t = stats.t.ppf(1 - LEVEL / tests / 2, freedom)
    return float(t * spread * np.sqrt((1 / k + 1 / n) / theirs["config"].nunique()))
