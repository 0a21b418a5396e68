"""One set of results beside another: do they agree within the spread of the seeds?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.render.intervals import critical
from bench.render.tables import Column, Table, lam

LEVEL = 0.05
"""Family-wise: results that differ by nothing but seeds disagree somewhere once in 20 times."""

NONE, DIFFERS = "no difference found", "DIFFERS"
"""What the last cell of a row says."""

Cells = Mapping[Any, pd.DataFrame]
"""Runs of one method at one lambda by a name of both, with columns `lam`, `label` and `config`."""


@dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds and its degrees of freedom."""

    sd: float
    freedom: int

    @classmethod
    def pooled(cls, groups: Iterable[pd.Series]) -> Spread | None:
        """The spread within groups of one value a seed, pooled; None if no group has two seeds."""
        several = [values for values in groups if len(values) > 1]
        freedom = sum(len(values) - 1 for values in several)
        if not freedom:
            return None
        squares = sum(float(values.var()) * (len(values) - 1) for values in several)
        return cls(math.sqrt(squares / freedom), freedom)

    def tolerance(self, tests: int, *n: float) -> float:
        """Of the difference of two means over so many values each, at LEVEL shared among `tests`.

        Student's t, t s sqrt(1/k + 1/n); Bonferroni.
        """
        scale = math.sqrt(sum(1 / each for each in n))
        return critical(LEVEL / tests, self.freedom) * self.sd * scale


def plain(ours: float, theirs: float, difference: float, tolerance: float) -> list[str]:
    """Both means, their difference and what is tolerated, as cells of a row."""
    return [f"{ours:.3f}", f"{theirs:.3f}", f"{difference:+.3f}", f"{tolerance:.3f}"]


@dataclass(frozen=True)
class Statistic:
    """What is compared of the runs of a cell."""

    heading: str
    values: Callable[[pd.DataFrame], pd.Series]  # one a run, NaN where it has none
    spread: Callable[[pd.DataFrame], Spread]  # over the seeds, of a cell of the other results
    shown: Callable[[float, float, float, float], list[str]] = plain


def comparison(
    ours: Cells,
    theirs: Cells,
    statistics: Sequence[Statistic],
    name: str,
    how: str,
    heads: tuple[str, str] = ("ours", "theirs"),
    first: Sequence[Sequence[str]] = (),
) -> Table:
    """Our mean of each statistic in each common cell, theirs, and whether they differ by seeds.

    Seeds of a configuration are averaged first, then configurations are. `name` says what ours are
    beside, `how` what is tolerated; `first` are rows of other tests, which end with `verdict`.
    """
    common = [(here, theirs[cell]) for cell, here in ours.items() if cell in theirs]
    tests = [
        (statistic, both, values)
        for both in common
        for statistic in statistics
        if all(map(len, values := [statistic.values(runs).dropna() for runs in both]))
    ]
    rows = list(first)
    for statistic, both, values in tests:
        pairs = zip(both, values, strict=True)
        a, b = (float(each.groupby(runs["config"]).mean().mean()) for runs, each in pairs)
        tolerance = statistic.spread(both[1]).tolerance(len(tests), *map(len, values))
        shown = statistic.shown(a, b, a - b, tolerance)
        agrees = verdict(abs(a - b) <= tolerance)
        rows.append([*named(both[0]), statistic.heading, *shown, agrees])
    differing = sum(row[-1] == DIFFERS for row in rows)
    beyond = f"{differing} of {len(rows)} differ beyond"
    outcome = beyond if differing else f"None of {len(rows)} is found to differ beyond"
    caption = (
        f"{outcome} the spread of the seeds of {name}. Tolerance: Student's t at a "
        f"family-wise level of {LEVEL}. {how}"
    )
    lone = [named(runs) for cell, runs in ours.items() if cell not in theirs]
    if left_out := ", ".join(f"{label} at λ = {value}" for value, label in lone):
        caption += f" Not compared, nothing in common: {left_out}."
    names = ("λ", "method", "statistic", *heads, "difference", "tolerance", "verdict")
    columns = [Column(each, text=each in ("method", "statistic", "verdict")) for each in names]
    return Table("against", "Against other results", caption, columns, rows)


def named(runs: pd.DataFrame) -> list[str]:
    """The first cells of a row: lambda and method."""
    return [lam(float(runs["lam"].iloc[0])), str(runs["label"].iloc[0])]


def verdict(agrees: bool) -> str:
    """The last cell of a row. Tests that find nothing don't show that results are equal."""
    return NONE if agrees else DIFFERS


def agrees(found: Table) -> bool:
    """Whether no row of `table` differs."""
    return all(row[-1] != DIFFERS for row in found.rows)
