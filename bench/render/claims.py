"""What a claim of the paper is: a rule in code, and its verdict.

A verdict is `holds`, `fails`, `undecided` (the evidence allows both) or `no data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.render.tables import Column, Table

VERDICTS = {1: "holds", -1: "fails", 0: "undecided"}


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper says, the rule, and what our runs say."""

    id: str
    text: str
    rule: str
    verdict: str
    evidence: str


_WEIGHT = {
    "smoke": ("smoke: no evidence", "Smoke runs only show that the suite works."),
    "quick": ("indicative", "At this scale verdicts are indicative: the networks are narrow."),
    "paper": ("", ""),
}


FIXED = "Rules were fixed in code before the study was run."


def table(found: Sequence[Claim], scale: str, rules: str = FIXED) -> Table:
    """Each claim with its rule, verdict and evidence; `rules` says when the rules were made."""
    weight, note = _WEIGHT[scale]
    return Table(
        "claims",
        "The paper's claims",
        f"{rules} {note}".strip(),
        [
            Column("claim", text=True),
            Column("the paper says", text=True),
            Column("rule", text=True),
            Column("verdict", text=True),
            Column("evidence", text=True),
        ],
        [
            [c.id, c.text, c.rule, c.verdict + (f" ({weight})" if weight else ""), c.evidence]
            for c in found
        ],
    )
