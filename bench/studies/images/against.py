"""Results of images beside others: do they agree within the seeds' spread?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from bench.cli import UsageError
from bench.render.compare import LEVEL, verdict
from bench.render.compare import table as filled
from bench.render.tables import Table, lam
from bench.studies.images import frames
from bench.studies.images.tables import by_cell

SCORES = {
    "IS (referee)": "inception_score",
    "Fréchet (referee)": "frechet",
    "SWD × 1000": "swd",
    "MSE of x": "mse_x",
    "IS (ImageNet)": "inception_score_imagenet",
    "FID": "fid",
    "log p(x) ≥, nats": "log_likelihood",
}
MOST = 1000
"""Of a ratio that is printed."""
LEAST = 1e-3
"""Of a score under a logarithm: a Fréchet distance of nothing can come out below 0."""
SHARED = (*frames.SETTINGS, "classifier_sha256")
"""Columns in which runs that are compared don't differ. Images may, and then it is said: of a data
set there are copies that are not the published files to the last pixel."""


def table(
    ours: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    heads: tuple[str, str] = ("ours", "theirs"),
) -> Table:
    """Our mean of each score, theirs, and whether the difference is one of seeds.

    Scores above 0 are compared by their logarithms, whose spread over seeds is less unlike from
    method to method and lambda to lambda than their own. It is taken to be one: the variance over
    the seeds of `other`, pooled over its cells, with F degrees of freedom. The tolerance for k and
    n seeds is t s sqrt(1/k + 1/n), LEVEL being shared evenly among the rows (Bonferroni). Diverged
    runs have no scores; a cell where only one side has any left differs.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """
    nothing = f"nothing to compare with in {name}"
    if not len(other):
        raise UsageError(f"{nothing}: no {ours['study'].iloc[0]} at {ours['scale'].iloc[0]} scale")
    for column in SHARED:
        here, there = (set(runs[column].dropna()) for runs in (ours, other))
        if here and there and here != there:
            raise UsageError(f"{nothing}: {column} is {_words(there)}, not {_words(here)}")
    mine, theirs = by_cell(ours), by_cell(other)
    common = [(mine[cell], theirs[cell]) for cell in mine if cell in theirs]
    if not common:
        raise UsageError(f"{nothing}: no method in common at one λ")
    spreads = {
        what: found
        for what, column in SCORES.items()
        if (found := _spread(list(theirs.values()), column)) is not None
    }
    if not spreads:
        raise UsageError(f"{nothing}: it has one seed only")
    rows = [_divergence(*both) for both in common if any(map(_diverged, both))]
    pairs = [
        (what, here, *values)
        for here, there in common
        for what in spreads
        if all(map(len, values := [_values(runs, SCORES[what]) for runs in (here, there)]))
    ]
    for what, here, a, b in pairs:
        spread, freedom = spreads[what]
        t = float(stats.t.ppf(1 - LEVEL / len(pairs) / 2, freedom))
        tolerance = t * spread * math.sqrt(1 / len(a) + 1 / len(b))
        difference = float(a.mean() - b.mean())
        rows.append(
            [
                *_cell(here),
                what,
                *(_shown(float(each.mean()), SCORES[what]) for each in (a, b)),
                _shown(difference, SCORES[what], "× ", "+"),
                _shown(tolerance, SCORES[what], "× "),
                verdict(abs(difference) <= tolerance),
            ]
        )
    lone = [_cell(runs) for cell, runs in mine.items() if cell not in theirs]
    left_out = [f"{label} at λ = {value}" for value, label in lone]
    images, others = (set(runs["data_sha256"].dropna()) for runs in (ours, other))
    if others - images:
        digests = ", ".join(sorted(each[:12] for each in others - images))
        name += f" (whose images are not all ours: {digests})"
    freedom = max(freedom for _, freedom in spreads.values())
    how = (
        f"one spread over seeds taken for all methods and λ, pooled ({freedom} degrees of freedom "
        "or fewer); of log p(x) in nats, of other scores relative: their means are geometric, "
        "their differences ratios; of diverged runs Fisher's exact test"
    )
    return filled(rows, name, how, left_out, heads)


def _cell(runs: pd.DataFrame) -> list[str]:
    return [lam(float(runs["lam"].iloc[0])), str(runs["label"].iloc[0])]


def _words(values: set) -> str:
    return ", ".join(sorted(map(str, values)))


def _diverged(runs: pd.DataFrame) -> int:
    return int((runs["status"] == "diverged").sum())


def _divergence(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """A row on how many diverged: by Fisher's exact test, or where one side has no run left."""
    gone = [(_diverged(runs), len(runs)) for runs in (here, there)]
    p = float(stats.fisher_exact(np.array([[k, n - k] for k, n in gone])).pvalue)
    lost = [k == n for k, n in gone]
    return [
        *_cell(here),
        "diverged",
        *(f"{k} of {n}" for k, n in gone),
        f"p = {p:.2f}",
        f"{LEVEL}",
        verdict(p >= LEVEL and lost[0] == lost[1]),
    ]


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
    if value > math.log(MOST):
        return f"> {ratio}{MOST}"
    return f"{ratio}{math.exp(value):.3f}"
