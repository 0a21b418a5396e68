"""One set of results beside another: do they agree within the spread of the seeds?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from bench.render.tables import Column, Table

LEVEL = 0.05
"""Family-wise: results that differ by nothing but seeds disagree somewhere once in 20 times."""


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
        t = float(stats.t.ppf(1 - LEVEL / tests / 2, self.freedom))
        return t * self.sd * math.sqrt(sum(1 / each for each in n))


def verdict(agrees: bool) -> str:
    """The last cell of a row."""
    return "agrees" if agrees else "DIFFERS"


def table(
    rows: Sequence[Sequence[str]],
    name: str,
    how: str,
    left_out: Sequence[str],
    heads: tuple[str, str] = ("ours", "theirs"),
) -> Table:
    """Rows end with `verdict`; `name` says what ours are beside, `how` what is tolerated."""
    differing = sum(row[-1] != "agrees" for row in rows)
    outcome = f"All {len(rows)} agree within"
    if differing:
        outcome = f"{differing} of {len(rows)} differ beyond"
    skipped = f" Not compared, nothing in common: {', '.join(left_out)}." if left_out else ""
    return Table(
        "against",
        "Against other results",
        f"{outcome} the spread of the seeds of {name}. Tolerance: Student's t at a "
        f"family-wise level of {LEVEL}, {how}.{skipped}",
        [
            Column("λ"),
            *(Column(head, text=True) for head in ("method", "statistic")),
            *map(Column, (*heads, "difference", "tolerance")),
            Column("verdict", text=True),
        ],
        rows,
    )


def agrees(found: Table) -> bool:
    """Whether no row of `table` differs."""
    return all(row[-1] == "agrees" for row in found.rows)
