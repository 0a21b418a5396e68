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
WEIGHT = {
    "smoke": ("no evidence", "Smoke runs only show that the suite works."),
    "quick": ("indicative", "At this scale verdicts are indicative: the networks are narrow."),
    "paper": ("", ""),
}
"""What a verdict weighs at each scale, in a word and in a sentence."""
FIXED = "Rules were fixed in code before the study was run."
HEADS = ("claim", "verdict", "the paper says", "evidence", "rule")


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


@dataclass(frozen=True)
class Claims(Table):
    """All claims of a study: a table whose Markdown is a line per claim."""

    def markdown(self) -> str:
        """A line per claim, and when the rules were made."""
        lines = (
            f"- **{id} {verdict}**: {says} *{evidence}.* Rule: {rule}"
            for id, verdict, says, evidence, rule in self.rows
        )
        return "\n".join([*lines, "", self.caption, ""])


def table(found: Sequence[Claim], scale: str, rules: str = FIXED) -> Claims:
    """The claims with verdict, evidence and rule; `rules` says when the rules were made."""
    word, note = WEIGHT[scale]
    weight = f" ({word})" if word else ""
    columns = [Column(head, text=True) for head in HEADS]
    rows = [[c.id, c.verdict + weight, c.text, c.evidence, c.rule] for c in found]
    return Claims("claims", "The paper's claims", f"{rules} {note}".strip(), columns, rows)
