"""Results of images beside others: do they agree within the seeds' spread?"""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from bench.against import LEVEL, verdict
from bench.against import table as filled
from bench.images import frames
from bench.images.tables import by_cell
from bench.store import StoreError
from bench.tables import Table, lam

SCORES = {
    "IS (referee)": "inception_score",
    "Fréchet (referee)": "frechet",
    "SWD × 1000": "swd",
    "MSE of x": "mse_x",
    "IS (ImageNet)": "inception_score_imagenet",
    "FID": "fid",
    "log p(x) ≥, nats": "log_likelihood",
}
LEAST = 1e-6
"""Of a score under a logarithm: a Fréchet distance of nothing can come out below 0."""
HOW = (
    "one spread over seeds for all methods and λ, pooled; of log p(x) in nats, of other scores "
    "relative: their means are geometric, their differences ratios"
)


def table(
    ours: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    heads: tuple[str, str] = ("ours", "theirs"),
) -> Table:
    """Our mean of each score, theirs, and whether the difference is one of seeds.

    Scores above 0 are compared by their logarithms, whose spread over seeds, unlike their own, is
    much the same for every method and lambda: the variance over the seeds of `other`, pooled over
    its cells, with F degrees of freedom. The tolerance for k and n seeds is t s sqrt(1/k + 1/n),
    LEVEL being shared evenly among the rows (Bonferroni). Diverged runs have no scores.

    Raises StoreError if there is nothing in common to compare, or one seed only.
    """
    for setting in frames.SETTINGS if len(other) else ():
        here, there = ours[setting].iloc[0], other[setting].iloc[0]
        if here != there:
            raise StoreError(f"nothing to compare with in {name}: {setting} is {there}, not {here}")
    mine, theirs = by_cell(ours), by_cell(other)
    spreads = {column: _spread(list(theirs.values()), column) for column in SCORES.values()}
    pairs = [
        (cell, what, mine[cell], theirs[cell])
        for cell in mine
        for what, column in SCORES.items()
        if cell in theirs
        and spreads[column] is not None
        and all(len(_values(runs, column)) for runs in (mine[cell], theirs[cell]))
    ]
    if not pairs:
        raise StoreError(f"nothing to compare with in {name}: no common runs with two seeds")
    compared = {cell for cell, *_ in pairs}
    rows = []
    for (_, value), what, here, there in pairs:
        column = SCORES[what]
        a, b = _values(here, column), _values(there, column)
        spread, freedom = spreads[column] or (math.nan, 1)
        t = float(stats.t.ppf(1 - LEVEL / len(pairs) / 2, freedom))
        tolerance = t * spread * math.sqrt(1 / len(a) + 1 / len(b))
        difference = float(a.mean() - b.mean())
        rows.append(
            [
                lam(value),
                str(here["label"].iloc[0]),
                what,
                *(_shown(float(each.mean()), column) for each in (a, b)),
                _shown(difference, column, "× ", "+"),
                _shown(tolerance, column, "× "),
                verdict(abs(difference) <= tolerance),
            ]
        )
    left_out = [
        f"{runs['label'].iloc[0]} at λ = {lam(cell[1])}"
        for cell, runs in mine.items()
        if cell not in compared
    ]
    return filled(rows, name, HOW, left_out, heads)


def _values(runs: pd.DataFrame, column: str) -> pd.Series:
    """A score of each run that has it, on the scale on which it is compared."""
    values = runs[column].dropna().astype(float)
    if column == "log_likelihood":
        return values
    return values.clip(lower=LEAST).map(math.log)


def _spread(cells: list[pd.DataFrame], column: str) -> tuple[float, int] | None:
    """sd over seeds pooled over cells and its degrees of freedom; None if there are none."""
    several = [values for runs in cells if len(values := _values(runs, column)) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    squares = sum(float(values.var()) * (len(values) - 1) for values in several)
    return math.sqrt(squares / freedom), freedom


def _shown(value: float, column: str, ratio: str = "", sign: str = "") -> str:
    if column == "log_likelihood":
        return f"{value:{sign}.2f}"
    return f"{ratio}{math.exp(value):.3f}"
