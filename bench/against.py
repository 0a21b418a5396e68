"""One set of results beside another: do they agree within the seeds' spread?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench.frames import CLOSE, GOOD, TOP
from bench.store import StoreError
from bench.tables import Column, Table, cells, lam

LEVEL = 0.05
"""Family-wise: results that differ by nothing but seeds disagree somewhere once in 20 times."""

STATISTICS = {
    "IS mean": "score",
    f"share IS > {TOP}": "top",
    f"share IS > {TOP}, quality ≥ {GOOD}": "top_good",
    f"share MSE < {CLOSE}": "close",
}


def table(ours: pd.DataFrame, other: pd.DataFrame, name: Path) -> Table:
    """Our mean of each statistic, theirs, and whether the difference is one of seeds.

    Only configurations that both have count. A statistic of one seed is its mean over
    configurations; its spread is the standard deviation of that over the seeds of `other`, or
    that of one configuration changing its verdict where it is smaller. The tolerance for a
    difference of means over k and n seeds is t s sqrt(1/k + 1/n), with t at LEVEL shared evenly
    among the rows (Bonferroni). Raises StoreError if `other` has fewer than two seeds.
    """
    if other.empty:
        raise StoreError(f"{name} has no results of this study and scale to compare with")
    seeds = other["seed"].nunique()
    if seeds < 2:
        raise StoreError(f"{name} has one seed only: no spread to compare with")
    pairs = [
        (label, value, runs, theirs)
        for label, value, runs in cells(ours)
        for theirs in [other[(other["label"] == label) & (other["lam"] == value)]]
        if len(theirs)
    ]
    tests = len(pairs) * len(STATISTICS)
    rows = []
    for label, value, runs, theirs in pairs:
        common = set(runs["config"]) & set(theirs["config"])
        for what, column in STATISTICS.items():
            a, b = (_by_seed(each, column, common) for each in (runs, theirs))
            spread = max(b.std(ddof=1), 1 / len(common) if column != "score" else 1e-3)
            t = stats.t.ppf(1 - LEVEL / tests / 2, len(b) - 1)
            tolerance = t * spread * np.sqrt(1 / len(a) + 1 / len(b))
            gap = a.mean() - b.mean()
            rows.append(
                [
                    lam(value),
                    label,
                    what,
                    f"{a.mean():.3f}",
                    f"{b.mean():.3f}",
                    f"{gap:+.3f}",
                    f"{tolerance:.3f}",
                    "agrees" if abs(gap) <= tolerance else "DIFFERS",
                ]
            )
    differing = sum(row[-1] == "DIFFERS" for row in rows)
    verdict = f"{differing} of {len(rows)} differ" if differing else f"All {len(rows)} agree"
    return Table(
        "against",
        f"{verdict} within the spread of the {seeds} seeds of {name}. Tolerance: Student's t at "
        f"a family-wise level of {LEVEL}, times the seeds' standard deviation.",
        [
            Column("λ"),
            Column("method", text=True),
            Column("statistic", text=True),
            Column("ours"),
            Column("theirs"),
            Column("difference"),
            Column("tolerance"),
            Column("verdict", text=True),
        ],
        rows,
    )


def _by_seed(runs: pd.DataFrame, column: str, configs: set[str]) -> np.ndarray:
    kept = runs[runs["config"].isin(configs)]
    return kept.astype({column: float}).groupby("seed")[column].mean().to_numpy()


def agrees(found: Table) -> bool:
    """Whether no row of `table` differs."""
    return all(row[-1] == "agrees" for row in found.rows)
