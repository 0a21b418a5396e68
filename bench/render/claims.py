"""What a claim of the paper is: a rule in words and in code, and its verdict.

A verdict is `holds`, `fails`, `undecided` (the evidence allows both) or `no data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.render.tables import Column, Table

VERDICTS = {1: "holds", -1: "fails", 0: "undecided"}
"""By the sign of an interval that lies on one side of 0; 0 where it does not."""


def decide(low: float, high: float, margin: float | None = None) -> str:
    """The verdict on a claim that holds where its interval lies above 0 and fails below.

    With a margin the claim holds where the interval lies within ± margin, and fails outside.
    """
    if margin is None:
        return VERDICTS[int(low > 0) - int(high < 0)]
    inside, outside = max(-low, high) <= margin, low > margin or high < -margin
    return VERDICTS[int(inside) - int(outside)]


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper says, the rule, and what our runs say."""

    id: str
    text: str
    rule: str
    verdict: str
    evidence: str


def claim(words: Mapping[str, str], id: str, found: tuple[str, str], **values: Any) -> Claim:
    """The claim of these words, `says` and `rule`, with values filled in.

    `found` is its verdict and the evidence.
    """
    return Claim(id, words["says"].format(**values), words["rule"].format(**values), *found)


_WEIGHT = {
    "smoke": (" (smoke: no evidence)", "Smoke runs only show that the suite works."),
    "quick": (" (indicative)", "At this scale verdicts are indicative: the networks are narrow."),
    "paper": ("", ""),
}
FIXED = "Rules were fixed in code before the study was run."


def table(found: Sequence[Claim], scale: str, rules: str = FIXED) -> Table:
    """Each claim with its rule, verdict and evidence; `rules` says when the rules were made."""
    weight, note = _WEIGHT[scale]
    heads = ("claim", "the paper says", "rule", "verdict", "evidence")
    columns = [Column(head, text=True) for head in heads]
    rows = [[c.id, c.text, c.rule, c.verdict + weight, c.evidence] for c in found]
    return Table("claims", "The paper's claims", f"{rules} {note}".strip(), columns, rows)
