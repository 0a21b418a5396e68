"""What a claim is: a rule in words and in code, and its verdict.

A claim is a sentence of the paper, or a question of ours. A verdict is `holds`, `fails`,
`undecided` (the evidence allows both), `not tested` (the models of this scale can't carry the
claim) or `no data`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.render.tables import Column, Table

VERDICTS = {1: "holds", -1: "fails", 0: "undecided"}
"""By the sign of an interval that lies on one side of 0; 0 where it does not."""
UNTESTED = "not tested"
"""The verdict on a claim that the models of a scale can't carry; the evidence says why."""
NO_DATA = "no data"
"""The verdict on a claim without the runs that its rule reads."""
WEIGHT = {
    "smoke": ("no evidence", "Smoke runs only show that the suite works."),
    "quick": ("indicative", "At this scale verdicts are indicative: the networks are narrow."),
    "paper": ("", ""),
}
"""What a verdict weighs at each scale, in a word and in a sentence."""
FIXED = """\
The table of rules that changed says which were made or changed when results were known. Those \
judge the runs that were known."""
PAPER, OURS = "the paper", "our question"
"""Whose a claim is."""
TITLE, QUESTIONS = "The paper's claims", "Our questions"
HEADS = ("claim", "whose", "verdict", "what it says", "evidence", "rule")
CHANGES = ("claim", "date", "what changed", "why", "results known then")


def decide(low: float, high: float, margin: float | None = None) -> str:
    """Returns the verdict on a claim that holds where its interval lies above 0 and fails below.

    With a margin the claim holds where the interval lies within ± margin, and fails outside.
    """
    if margin is None:
        return VERDICTS[int(low > 0) - int(high < 0)]
    inside, outside = max(-low, high) <= margin, low > margin or high < -margin
    return VERDICTS[int(inside) - int(outside)]


@dataclass(frozen=True)
class Claim:
    """One claim: what it says, the rule, and what our runs say."""

    id: str
    text: str
    rule: str
    verdict: str
    evidence: str
    whose: str = PAPER
    part: str = ""  # on which part of an incomplete study the verdict rests
    cells: Collection[tuple[str, float]] = ()  # method and lambda of the runs that the rule reads


def claim(
    words: Mapping[str, str],
    id: str,
    found: tuple[str, str],
    cells: Collection[tuple[str, float]] = (),
    **values: Any,
) -> Claim:
    """Returns the claim of these words, `says` and `rule`, with values filled in.

    `found` is its verdict and the evidence. Words with `ours` make a question of ours.
    """
    says, rule = (words[name].format(**values) for name in ("says", "rule"))
    return Claim(id, says, rule, *found, OURS if words.get("ours") else PAPER, cells=cells)


@dataclass(frozen=True)
class Claims(Table):
    """All claims of a study: a table whose Markdown is a line per claim."""

    @property
    def groups(self) -> list[tuple[str, str, list[Sequence[str]]]]:
        """Returns anchor, heading and rows of the paper's claims, then of our questions."""
        found = []
        for name, heading, whose in (("claims", TITLE, PAPER), ("questions", QUESTIONS, OURS)):
            if rows := [row for row in self.rows if row[1] == whose]:
                found.append((self.name if heading == self.title else name, heading, rows))
        return found

    def markdown(self) -> str:
        """Returns a line per claim, our questions under their own heading, and the caption."""
        lines = []
        for name, heading, rows in self.groups:
            lines += [] if name == self.name else ["", f"## {heading}", ""]
            lines += [
                f"- **{id} {verdict}**: {says} *{evidence}.* Rule: {rule}"
                for id, _, verdict, says, evidence, rule in rows
            ]
        return "\n".join([*lines, "", self.caption, ""]).lstrip("\n")


def table(found: Sequence[Claim], scale: str, rules: str = FIXED) -> Claims:
    """Returns the claims with verdict, evidence and rule; `rules` says how they were made."""
    word, note = WEIGHT[scale]
    columns = [Column(head, text=True) for head in HEADS]
    rows = []
    for each in found:
        part = each.part if each.verdict in VERDICTS.values() else ""
        limits = "; ".join(filter(None, ["" if each.verdict == UNTESTED else word, part]))
        verdict = f"{each.verdict} ({limits})" if limits else each.verdict
        rows.append([each.id, each.whose, verdict, each.text, each.evidence, each.rule])
    return Claims("claims", TITLE, f"{rules} {note}".strip(), columns, rows)


def changes(listed: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the table of every rule that was ever changed, from `[[changes]]` of a text.toml."""
    columns = [Column(head, text=True, long=head not in ("claim", "date")) for head in CHANGES]
    names = ("claim", "date", "what", "why", "known")
    rows = [[str(each[name]) for name in names] for each in listed]
    caption = "A rule that is not listed is as it was before its study was run."
    return Table("changes", "Rules that changed", caption, columns, rows)
