"""The rules of claims about the toy study, and what its runs say. Imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd

from bench.render import front, intervals
from bench.render.claims import NO_DATA, Claim, claim, decide
from bench.render.front import Equal
from bench.render.intervals import Estimate, Resampled, Share
from bench.render.tables import Cell, Column, Table, lam, number, percent
from bench.render.text import counted, texts
from bench.studies.toy_grid import figures
from bench.studies.toy_grid.published import paper_cells
from bench.studies.toy_grid.runs import (
    CLOSE,
    COLLAPSED,
    GOOD,
    MEAN_POINT,
    TARGETS,
    TENTH,
    TOP,
    at,
)

TEXT = texts("bench.studies.toy_grid")
LAM = 0.1
"""Claim 1 of the paper is about this lambda."""
BOTH = 0.9
"""Claim 1a: at least this share of runs reconstructs."""


# Claim 1 of the paper in parts and our questions about it, each as a rule


@dataclass(frozen=True)
class Interval:
    """An interval of a column: of the runs of one cell, or of the first cell minus the second.

    A claim holds where all of its intervals lie above `least`, and fails where any lies below;
    `sign` is -1 where less is better. The statistic is the mean over configurations, or the
    quantile at the share `quantile`.
    """

    what: str
    column: str
    cells: tuple[tuple[str, float], ...]  # method and lambda
    least: float = 0.0
    sign: int = 1
    quantile: float | None = None


_OURS, _THEIRS = ("svae_r", LAM), ("alice", LAM)
_BOTH, _AT_ZERO = (_OURS, _THEIRS), (("svae_r", 0.0), ("alice", 0.0))
RULES = {
    "1a": [
        Interval("sVAE-r", "close", (_OURS,), least=BOTH),
        Interval("ALICE", "close", (_THEIRS,), least=BOTH),
    ],
    "1b": [Interval(f"IS > {TOP} in", "top", _BOTH)],
    "1b'": [Interval(f"IS > {TOP} with quality in", "top_good", _BOTH)],
    "1c": [
        Interval(f"{name}{more}", column, (cell, (cell[0], 0.0)))
        for name, cell in (("sVAE-r", _OURS), ("ALICE", _THEIRS))
        for column, more in (("top", ""), ("top_good", " with quality"))
    ],
    "1d": [
        Interval(f"IS < {COLLAPSED} in", "collapsed", _BOTH, sign=-1),
        Interval("tenth percentile", "score", _BOTH, quantile=TENTH),
    ],
    "1e": [Interval(f"IS > {TOP} in", "top", _AT_ZERO)],
}
"""The intervals that each verdict reads."""
BESIDE = {"1e": [Interval("with quality", "top_good", _AT_ZERO)]}
"""Intervals that stand in the evidence and that no verdict reads."""
TESTS = sum(map(len, RULES.values()))
"""The family: so many intervals share one level, whatever is trained already."""
FEWEST = 58
"""Configurations that a verdict needs at least.

A share of 90 % shows no miss in so many less often than the level of a bound: .9^58 < .05 / 22.
"""
DIFFER = 6
"""Configurations that have to differ, or no interval of a difference of shares excludes 0.

Of 72 a resample has none of five more often than the level of a bound: (67 / 72)^72 > .05 / 22.
"""
IN_THE_PAPER = {
    "close": f"MSE < {CLOSE}",
    "top": f"IS > {TOP}",
    "top_good": f"IS > {TOP}",  # its bars know no quality
    "collapsed": f"IS < {COLLAPSED}",
    "score": "tenth percentile",
}
"""What the paper's bars say of each column, see `paper_cells`."""
LABELS = {"svae_r": ("sVAE", "sVAE-r"), "alice": ("ALI", "ALICE")}
"""The paper's names of each method, at lambda 0 and above."""


@dataclass(frozen=True)
class Reading:
    """What our runs say of an interval."""

    asked: Interval
    values: Sequence[np.ndarray]  # of each cell, (configurations,)
    found: Resampled | Share
    used: pd.DataFrame  # config and seed of the runs, or of the pairs

    @classmethod
    def of(cls, frame: pd.DataFrame, asked: Interval) -> Reading | None:
        """Returns what the runs of `frame` say, None if they have no pair."""
        runs = [at(frame, *cell) for cell in asked.cells]
        first, last = intervals.paired(runs[0], runs[-1], asked.column)
        if not len(first):
            return None
        values = (first, last)[: len(runs)]
        if asked.quantile is not None:
            found = intervals.quantiles(first, last, asked.quantile)
        elif len(values) > 1:
            found = intervals.difference(first, last)
        else:
            found = Share.of(first)
        keys = ["config", "seed"]
        return cls(asked, values, found, runs[0][keys].merge(runs[-1][keys]))

    @property
    def bounds(self) -> tuple[float, float]:
        """The family-wise interval of what the claim says is above 0."""
        wide, asked = self.found.interval(TESTS), self.asked
        low, high = sorted(asked.sign * (end - asked.least) for end in (wide.low, wide.high))
        return low, high

    @property
    def words(self) -> str:
        """The values and their difference, the family-wise interval and the single one."""
        q, pair = self.asked.quantile, len(self.values) > 1
        ends = [percent(v.mean()) if q is None else number(np.quantile(v, q)) for v in self.values]
        shown = f"{self.asked.what} {' against '.join(ends)}".strip()
        if pair:
            return f"{shown}: {self.found.value:+.3f} {_brackets(self.found, TESTS)}"
        return f"{shown} {_brackets(self.found, TESTS, 100, '.1f')}"

    @property
    def power(self) -> str:
        """The power of the family-wise interval against the paper's own value."""
        bars, asked = paper_cells(), self.asked
        if len(self.values[0]) < FEWEST:
            return f"no power below {FEWEST} configurations"
        known = [
            bars[LABELS[m][lam > 0], lam][IN_THE_PAPER[asked.column]] for m, lam in asked.cells
        ]
        effect = reduce(float.__sub__, known) - asked.least
        if isinstance(self.found, Share):
            chance = self.found.power(known[0], asked.least, TESTS)
        else:
            differ = int((self.values[0] != self.values[-1]).sum())
            if not differ:
                return "power unknown, as all configurations agree"
            if differ < DIFFER:
                return f"power unknown, as runs differ in {counted(differ, 'configuration')}"
            chance = intervals.power(effect, self.found.error, TESTS)
            if math.isnan(chance):
                return "power unknown, as all resamples agree"
        shown = "< 1 %" if chance < 0.005 else f"{100 * chance:.0f} %"
        theirs = f"{effect:+.3f}" if len(known) > 1 else percent(known[0])
        against = ", which speaks against the claim" if asked.sign * effect < 0 else ""
        return f"power {shown} against the paper's {theirs}{against}"


def _brackets(found: Resampled | Share, tests: int, scale: float = 1, form: str = "+.3f") -> str:
    """The interval at the level of so many tests, and the single one, both times `scale`."""
    wide, alone = (
        f"[{scale * each.low:{form}}, {scale * each.high:{form}}]"
        for each in map(found.interval, (tests, 1))
    )
    return f"{wide}, alone {alone}"


def toy_claims(
    frame: pd.DataFrame, resting: Callable[[Sequence[pd.DataFrame]], str] | None = None
) -> list[Claim]:
    """Returns claims 1a to 1e, from the rows of `at_own_rate`.

    `resting` says in words on which part of an incomplete grid the runs of a verdict rest.
    """
    values = {"lam": LAM, "close": CLOSE, "both": percent(BOTH), "top": TOP, "good": GOOD}
    values |= {"collapsed": COLLAPSED}
    found = []
    for id, asked in RULES.items():
        read, more = (
            [reading for each in asks if (reading := Reading.of(frame, each))]
            for asks in (asked, BESIDE.get(id, []))
        )
        verdict = _verdict(read) if len(read) == len(asked) else NO_DATA
        evidence = [
            f"{each.words}, {each.power}" if verdict == "undecided" else each.words for each in read
        ]
        evidence += [each.words for each in more]
        if read:
            counts = dict.fromkeys(str(len(each.values[0])) for each in read)
            evidence.append(f"over {' and '.join(counts)} configurations")
        outcome = verdict, "; ".join(evidence) or "no runs"
        one = claim(TEXT["claims"][id], id, outcome, **values)
        words = resting([each.used for each in read]) if resting and read else ""
        found.append(replace(one, part=words))
    return found


def _verdict(read: Sequence[Reading]) -> str:
    """Returns the verdict: all intervals have to lie above, and none may lie below."""
    if min(len(each.values[0]) for each in read) < FEWEST:
        return "undecided"
    lows, highs = zip(*(each.bounds for each in read), strict=True)
    return decide(min(lows), min(highs))


# Our questions at equal reconstruction, which are a family of their own

EQUAL = {"1f": "alice", "1g": "alice_minimax", "1h": "alice_sigmoid"}
"""The rival of each question."""
MEASURES = {"score": "", "top_good": "'"}
"""What the questions read, and what their ids end in. Quality alone passes a single mode."""
COMPARED = figures.GENERATED | {"top": f"share with IS > {TOP}"}
"""What is compared at equal reconstruction: columns and their headings."""
WORST = {"score": 1.0, "high_quality_counted": 0.0, "top": 0.0, "top_good": 0.0}
"""The worst values, which a path that never reaches the error may count with."""
EQUAL_TESTS = len(EQUAL) * len(TARGETS) * len(MEASURES)
"""The family: so many intervals share one level, whatever is trained already."""


@dataclass(frozen=True)
class Gain(Resampled):
    """The difference of two methods at equal error, and two others that no verdict reads."""

    first: Resampled  # between the first runs that reach the error, without interpolation
    worst: Resampled | None  # if paths that never reach it count as WORST; None if all do


def at_equal_error(frame: pd.DataFrame, baseline: str = "") -> dict[Equal, Gain | None]:
    """Every two methods of `front.equals` at each target: what is gained, None without pairs."""
    found = front.equals(frame, COMPARED, "mse", TARGETS, baseline)

    def resampled(each: Equal) -> Gain | None:
        whole, first = _difference(each.means), _difference(each.firsts)
        return Gain(whole.value, whole.found, first, _at_worst(each)) if whole and first else None

    with ThreadPoolExecutor() as pool:  # resampling takes nearly all of the time, without Python
        return dict(zip(found, pool.map(resampled, found), strict=True))


def _difference(means: pd.DataFrame) -> Resampled | None:
    return intervals.difference(*means.to_numpy().T) if len(means) else None


def _at_worst(each: Equal) -> Resampled | None:
    return _difference(each.counting(WORST[each.score])) if each.misses else None


def equal_table(found: Mapping[Equal, Gain | None], baseline: str = "") -> Table:
    """The table of what `at_equal_error` found, with family-wise intervals."""
    tests = len(found) if baseline else EQUAL_TESTS

    def interval(each: Equal) -> Estimate:
        gain = found[each]
        assert gain
        return gain.interval(tests)

    def at_first(each: Equal) -> str:
        gain = found[each]
        return f"{gain.first.interval(tests)}" if gain else "–"

    def at_worst(each: Equal) -> str:
        gain = found[each]
        worst = gain.worst if gain else _at_worst(each)  # there may be no pair that reaches it
        return f"{worst.interval(tests)}" if worst else "–"

    level = TEXT["baseline" if baseline else "paper"]["level"].format(n=tests)
    caption = TEXT["equal"].format(mean=MEAN_POINT, level=level, lams=_lams(found))
    more: list[tuple[Column | str, Cell]] = [("at the first λ that reaches it", at_first)]
    if any(each.misses for each in found):
        more.append(("if a path short of it counts as the worst", at_worst))
        caption += f" {TEXT['at_worst']}"
    return front.table([*found], interval, caption, baseline=baseline, more=more)


def _lams(found: Iterable[Equal]) -> str:
    """The values of lambda that paths of all methods have, and how many paths have them."""
    by_method = {}
    for each in found:
        by_method |= zip(each.labels, (each.ours["lams"], each.theirs["lams"]), strict=True)
    counts = Counter(chain.from_iterable(by_method.values()))
    return "; ".join(
        f"{', '.join(map(lam, lams))} ({counted(n, 'path')})" for lams, n in counts.most_common()
    )


def equal_claims(
    found: Mapping[Equal, Gain | None],
    resting: Callable[[Sequence[pd.DataFrame]], str] | None = None,
    whole: Mapping[str, pd.MultiIndex] | None = None,
) -> list[Claim]:
    """Returns claims 1f to 1h, each about a rival by a score, from `at_equal_error`.

    Rivals other than ALICE have claims where they have runs. `resting` is that of `toy_claims`, and
    asked of `whole_paths`.
    """
    claimed, targets = [], " and at ".join(f"{value:.3g}" for value in TARGETS.values())
    for (id, rival), (score, end) in product(EQUAL.items(), MEASURES.items()):
        read = {each: found[each] for each in found if (each.rival, each.score) == (rival, score)}
        if not read and rival != "alice":
            continue
        known = {each: gain for each, gain in read.items() if gain}
        verdict = _equal_verdict(known) if len(known) == len(TARGETS) else NO_DATA
        evidence = [_equal_words(each, gain) for each, gain in read.items()]
        if known:
            counts = dict.fromkeys(str(len(each.means)) for each in known)
            evidence.append(f"over {' and '.join(counts)} configurations")
        outcome = verdict, "; ".join(evidence) or "no paths of both"
        values: dict[str, Any] = {"score": figures.GENERATED[score], "targets": targets}
        values["rival"] = next((each.labels[1] for each in read), LABELS["alice"][1])
        one = claim(TEXT["claims"][f"equal{end}"], id + end, outcome, **values)
        # A path that does not reach a target was trained: it is part of what the claim rests on.
        if known and resting and whole:
            paths = whole["svae_r"].intersection(whole[rival])
            one = replace(one, part=resting([paths.to_frame(index=False)]))
        claimed.append(one)
    return claimed


def _equal_verdict(known: Mapping[Equal, Resampled]) -> str:
    """Returns the verdict: both intervals have to lie above 0, and neither may lie below."""
    if min(len(each.means) for each in known) < FEWEST:
        return "undecided"
    wide = [gain.interval(EQUAL_TESTS) for gain in known.values()]
    return decide(min(each.low for each in wide), min(each.high for each in wide))


def _equal_words(each: Equal, gain: Gain | None) -> str:
    """The means of both and their difference with its intervals, or which paths cross.

    Beside it stand the difference without interpolation, and the one that counts paths that never
    reach the error as the worst.
    """
    if not gain:
        both = zip(each.labels, (each.ours, each.theirs), strict=True)
        return f"at {each.goal} " + ", ".join(f"{name} {front.reach(runs)}" for name, runs in both)
    ours, theirs = each.means.mean()
    ends = f"{number(ours)} against {number(theirs)}: {gain.value:+.3f}"
    words = f"at {each.goal} {ends} {_brackets(gain, EQUAL_TESTS)}"
    more = {"at the first λ that reaches it": gain.first}
    if gain.worst:
        more[f"{counted(each.misses, 'path')} short of it counted as the worst"] = gain.worst
    beside = (f"{k}: {v.value:+.3f} {_brackets(v, EQUAL_TESTS)}" for k, v in more.items())
    return f"{words} ({', '.join(beside)})"
