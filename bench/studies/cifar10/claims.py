"""Claims 3 to 5 of the paper, each as a rule; see `bench.studies.cifar10.page.RULES`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from bench.render.claims import VERDICTS, Claim
from bench.studies.images import frames
from bench.studies.images.claims import SPREAD, gain

HIGH = 10.0
"""The lambda at which generation is compared with that at 0."""
COMPARABLE = 0.2
RIVALS = {"alice": "ALICE", "alice_sigmoid": "ALICE with its code's sigmoid"}
WORSE = {"swd": 1, "mse_x": 1, "inception_score": -1}
"""Sign of a change for the worse: a distance, an error and a score."""


def photo_claims(frame: pd.DataFrame, study: str) -> list[Claim]:
    """Claim 3 by the distance; for CIFAR-10 also 4 by the inception score and the MSE, and 5."""
    rivals = [method for method in RIVALS if study == "cifar10" or method == "alice"]
    found = [
        _trade(frame, rival, "swd", f"3{part}", "sliced Wasserstein distance")
        for part, rival in zip("ab", rivals, strict=False)
    ]
    if study == "cifar10":
        scored, judge = frames.judged(frame)
        found += [
            _trade(scored, rival, "inception_score", f"4{part}", f"inception score ({judge})")
            for part, rival in zip("ab", rivals, strict=True)
        ]
        found += [_reconstruct(frame, ("svae_r", *rivals)), *_table2(scored, judge)]
    return found


def _trade(frame: pd.DataFrame, rival: str, column: str, id: str, name: str) -> Claim:
    """Whether the rival generates worse at high lambda than at 0, and sVAE-r does not."""
    changes = [_worse(frame, method, column) for method in (rival, "svae_r")]
    verdict, evidence = "no data", f"no scores of both at λ = 0 and {HIGH:g}"
    if all(len(change) for change in changes):
        verdict = "undecided"
        theirs, ours = map(_Change.of, changes)
        more = _Change.of(changes[0] - changes[1])
        lost = _diverged(frame, "svae_r")
        if theirs.low > 0 >= ours.low and more.low > 0 and not lost:
            verdict = "holds"
        elif ours.low > 0 or theirs.high < 0:
            verdict = "fails"
        evidence = f"change for the worse {theirs} against sVAE-r's {ours}, difference {more}"
    evidence += _lost(frame, (rival, "svae_r"))
    return Claim(
        id,
        f"As λ grows {RIVALS[rival]} stops generating, sVAE-r does not.",
        f"from λ = 0 to {HIGH:g} the {name} of {rival} gets worse beyond the seeds' spread (95 % "
        "interval, Student's t over the differences of equal seeds), that of svae_r does not, the "
        "first gets worse by more than the second (likewise), and no training of svae_r diverges; "
        "fails where svae_r's gets worse beyond the spread or the rival's gets better; diverged "
        "runs score 1 and have no distance",
        verdict,
        evidence,
    )


def _diverged(frame: pd.DataFrame, method: str) -> int:
    """Trainings at lambda 0 and at HIGH."""
    runs = frame[(frame["method"] == method) & frame["lam"].isin((0.0, HIGH))]
    return int((runs["status"] == "diverged").sum())


def _lost(frame: pd.DataFrame, methods: Sequence[str]) -> str:
    counts = {method: _diverged(frame, method) for method in methods}
    return "".join(f"; {n} of {method} diverged" for method, n in counts.items() if n)


def _reconstruct(frame: pd.DataFrame, methods: Sequence[str]) -> Claim:
    """Whether every method's error falls."""
    changes = {method: _worse(frame, method, "mse_x") for method in methods}
    verdict, evidence = "no data", f"no errors of all at λ = 0 and {HIGH:g}"
    if all(len(change) for change in changes.values()):
        found = {method: _Change.of(change) for method, change in changes.items()}
        verdict = "holds" if all(change.high < 0 for change in found.values()) else "undecided"
        if any(change.low > 0 for change in found.values()):
            verdict = "fails"
        evidence = ", ".join(f"{method} {change}" for method, change in found.items())
    evidence += _lost(frame, methods)
    return Claim(
        "4c",
        "As λ grows both reconstruct better.",
        f"from λ = 0 to {HIGH:g} the MSE of reconstructions falls beyond the seeds' spread, as in "
        f"4a, for each of {', '.join(methods)}; fails where any rises so; diverged runs have none",
        verdict,
        evidence,
    )


@dataclass(frozen=True)
class _Change:
    """A mean over seeds and its 95 % interval, infinite for one seed."""

    mean: float
    error: float

    @classmethod
    def of(cls, change: pd.Series) -> _Change:
        """By seed; seeds without a value don't count."""
        change = change.dropna()
        error = math.inf
        if len(change) > 1:
            t = float(stats.t.ppf(0.975, len(change) - 1))
            error = t * float(change.std()) / math.sqrt(len(change))
        return cls(float(change.mean()), error)

    @property
    def low(self) -> float:
        return self.mean - self.error

    @property
    def high(self) -> float:
        return self.mean + self.error

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "of no seed that both have"
        if math.isinf(self.error):
            return f"{self.mean:+.2f} (one seed, no spread)"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def _worse(frame: pd.DataFrame, method: str, column: str) -> pd.Series:
    """The change for the worse from lambda 0 to HIGH, by seed."""
    sign = WORSE[column]
    runs = frame[frame["method"] == method].set_index("seed")
    values = runs[column].astype(float)
    if column == "inception_score":
        values = values.where(runs["status"] != "diverged", 1.0)
    before, after = (values[runs["lam"] == lam] for lam in (0.0, HIGH))
    return sign * (after - before).dropna()


def _table2(frame: pd.DataFrame, judge: str) -> list[Claim]:
    """Claim 5: sVAE's inception score beside those of other methods."""

    def at_zero(method: str) -> pd.DataFrame:
        return frame[(frame["method"] == method) & (frame["lam"] == 0)]

    ours, found = at_zero("svae_r"), []
    for id, method, name in (
        ("5a", "wgan_gp", "comparable to WGAN-GP's"),
        ("5b", "alice", "better than ALI's"),
        ("5c", "dcgan", "better than DCGAN's"),
    ):
        rival, verdict, evidence = at_zero(method), "no data", "no runs"
        if len(ours) and len(rival):
            difference, error, evidence = gain(ours, rival)
            low, high = difference - error, difference + error
            verdict = VERDICTS[int(low > 0) - int(high < 0)]
            if id == "5a":
                inside = max(-low, high) <= COMPARABLE
                outside = low > COMPARABLE or high < -COMPARABLE
                verdict = "holds" if inside else "fails" if outside else "undecided"
        rule = (
            f"the 95 % interval of the difference lies within ± {COMPARABLE:g} (fails: outside)"
            if id == "5a"
            else "the 95 % interval of the difference excludes 0"
        )
        found.append(
            Claim(
                id,
                f"sVAE's inception score is {name}.",
                f"at equal protocol, by the same classifier ({judge}), {rule}; {SPREAD}",
                verdict,
                evidence,
            )
        )
    return found
