"""The table that puts one set of results beside another, filled by each kind of study."""

from __future__ import annotations

from collections.abc import Sequence

from bench.render.tables import Column, Table

LEVEL = 0.05
"""Family-wise: results that differ by nothing but seeds disagree somewhere once in 20 times."""


def table(
    rows: Sequence[Sequence[str]],
    name: str,
    how: str,
    left_out: Sequence[str],
    heads: tuple[str, str] = ("ours", "theirs"),
) -> Table:
    """Rows end with `verdict`; `name` says what ours are beside, `how` what is tolerated."""
    differing = sum(row[-1] != "agrees" for row in rows)
    verdict = f"All {len(rows)} agree within"
    if differing:
        verdict = f"{differing} of {len(rows)} differ beyond"
    skipped = f" Not compared, nothing in common: {', '.join(left_out)}." if left_out else ""
    return Table(
        "against",
        "Against other results",
        f"{verdict} the spread of the seeds of {name}. Tolerance: Student's t at a "
        f"family-wise level of {LEVEL}, {how}.{skipped}",
        [
            Column("λ"),
            Column("method", text=True),
            Column("statistic", text=True),
            *map(Column, heads),
            Column("difference"),
            Column("tolerance"),
            Column("verdict", text=True),
        ],
        rows,
    )


def verdict(agrees: bool) -> str:
    return "agrees" if agrees else "DIFFERS"


def agrees(found: Table) -> bool:
    """Whether no row of `table` differs."""
    return all(row[-1] == "agrees" for row in found.rows)
