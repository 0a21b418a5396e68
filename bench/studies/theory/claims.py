"""The claims about sections 2 to 4: what trainings say, and the rules that judge it.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bench.render import intervals
from bench.render.claims import NO_DATA, VERDICTS, Claim, claim
from bench.render.text import texts
from bench.studies.theory.figures import PLAYERS, TENTH
from bench.studies.theory.runs import LEAST, away, most_updates, paired, part, traced
from bench.studies.theory.spec import DESCENT, EXACT, JOINT, MODES, SUPPORTS, VANISHING
from bench.studies.toy_grid import runs as toy
from bench.studies.toy_grid.claims import FEWEST

Values = Sequence[tuple[str, np.ndarray]]
"""What each interval is of, and its values, one a training or a pair of trainings."""


FLOOR = 1e-6
"""Divergences below so many nats count as so many in logarithms."""


def _log_ratio(a: pd.DataFrame, b: pd.DataFrame, column: str) -> np.ndarray:
    """Returns log10 of a over b, a number a seed: the mean over the configurations of both."""
    x, y, seeds = paired(a, b, column)
    logs = np.log10(np.maximum(x, FLOOR)) - np.log10(np.maximum(y, FLOOR))
    return pd.Series(logs).groupby(seeds).mean().to_numpy()


class Evidence:
    """Holds the values that each rule reads."""

    def __init__(self, frame: pd.DataFrame, grid: pd.DataFrame | None) -> None:
        self.frame, self.grid = frame, grid

    def at(self, experiment: str, method: str, critic: str, **more: Any) -> pd.DataFrame:
        """Returns the trainings of a method in an experiment at lambda 0."""
        values = {"experiment": experiment, "method": method, "critic": critic, "lam": 0.0}
        return part(self.frame, **values, **more)

    def five(self, method: str, critic: str) -> pd.DataFrame:
        """Returns trainings on five Gaussians, at the larger number of the critic's updates."""
        return most_updates(self.at(SUPPORTS, method, critic))

    def along(self, name: str, least: bool = False) -> np.ndarray:
        """Returns what was traced of sVAE away from the optimum, a number a seed.

        It is the mean over stops and dimensions, or the least.
        """
        stops = away(self.at(DESCENT, "svae_r", JOINT))
        if not len(stops):
            return np.array([])
        by = stops.groupby("seed")[name]
        return (by.min() if least else by.mean()).to_numpy()

    def value(self) -> Values:
        stops = away(self.at(DESCENT, "svae_r", JOINT))
        if not len(stops):
            return []
        ratio = stops["value"] / stops["kl_s"]
        return [("value / KL_s", ratio.groupby(stops["seed"]).mean().to_numpy())]

    def cosine(self, least: bool = False) -> Values:
        names = [f"{player} svae_r kl_s" for player in PLAYERS]
        return [(name.split()[0], self.along(name, least)) for name in names]

    def lowers(self) -> Values:
        found = []
        for what, choose in self._kinds():
            here = choose("svae_r", JOINT)
            logs = pd.Series(np.log10(here["kl_s"].clip(lower=FLOOR) / here["kl_s_start"]))
            found.append((what, logs.groupby(here["seed"]).mean().to_numpy()))
        return found

    def mended(self) -> Values:
        return [
            (what, _log_ratio(choose("svae_exact", JOINT), choose("svae_r", JOINT), "kl_s"))
            for what, choose in self._kinds()
        ]

    def _kinds(self) -> Sequence[tuple[str, Callable[[str, str], pd.DataFrame]]]:
        return [("Gaussian data", partial(self.at, DESCENT)), ("five Gaussians", self.five)]

    def replaced(self) -> Values:
        names = [f"{player} alice svae_r" for player in PLAYERS]
        return [(name.split()[0], self.along(name)) for name in names]

    def reached(self) -> Values:
        a, b = (self.at(DESCENT, method, JOINT) for method in ("alice", "svae_r"))
        return [("log10 ratio", _log_ratio(a, b, "kl_s"))]

    def sure(self) -> Values:
        here = part(self.frame, experiment=VANISHING)
        here = here[here["distance"] == here["distance"].max()]
        below, above = [], []
        for _, row in here.iterrows():
            stops = traced(row)
            size, other = (
                stops[f"gradient {name}"].clip(lower=1e-300).to_numpy()
                for name in ("svae_r", "alice_minimax")
            )
            below.append(math.log10(size[-1] / other[-1]) - 1)
            above.append(math.log10(2 * size[-1] / size[:-1].max()))
        names = "log10 of .1 (14) / (18)", "log10 of 2 (14) / its largest before"
        return [*zip(names, map(np.array, (below, above)), strict=True)]

    def in_the_toy(self) -> Values:
        if self.grid is None:
            return []
        here = self.grid[(self.grid["lam"] == 0) & self.grid["method"].isin(["svae_r", "alice"])]
        ends = [{m: float(t[-1]) for m, t in each} for each in here["decoder_gradient"]]
        below = [e["alice_minimax"] < TENTH * e["svae_r"] for e in ends]
        shares = pd.Series(below, index=here["config"], dtype=float).groupby(level=0).mean()
        return [("share of runs", shares.to_numpy())]

    def mends_both(self) -> Values:
        both, forward, reverse = (self.five(m, EXACT) for m in ("vae_xz", "vae", "vae_z"))
        found = ("quality", forward, "high_quality"), ("modes", reverse, "modes")
        return [(what, np.subtract(*paired(both, other, name)[:2])) for what, other, name in found]

    def inherits(self) -> Values:
        found = []
        for what, choose in (("two modes", partial(self.at, MODES)), ("five Gaussians", self.five)):
            a, b = (choose(method, EXACT) for method in ("svae_r", "vae_xz"))
            found.append((f"log10 ratio, {what}", _log_ratio(a, b, "kl_s")))
        return found

    def fewer(self) -> Values:
        if self.grid is None:
            return []
        found = []
        for value in (0.0, 0.1):
            a, b = (toy.at(self.grid, method, value) for method in ("svae_r", "alice"))
            x, y = intervals.paired(a, b, "modes_counted")
            found.append((f"modes at λ = {value:g}", x - y))
        return found

    def prior(self) -> Values:
        vae = self.at(SUPPORTS, "vae", EXACT)
        return [
            (f"log10 ratio at {steps} : 1", _log_ratio(here, vae, "prior_pq"))
            for steps, here in self._by_updates("svae_r")
        ]

    def prior_at_best(self) -> Values:
        a, b = (self.five(method, EXACT) for method in ("svae_r", "vae"))
        return [("log10 ratio", _log_ratio(a, b, "prior_pq"))]

    def _by_updates(self, method: str) -> list[tuple[int, pd.DataFrame]]:
        here = self.at(SUPPORTS, method, JOINT)
        return [
            (steps, part(here, critic_steps=steps)) for steps in sorted({*here["critic_steps"]})
        ]

    def free(self) -> Values:
        others = dict(self._by_updates("joint_wgan_gp"))
        return [
            (f"log10 ratio at {steps} : 1", _log_ratio(here, others[steps], "energy_x"))
            for steps, here in self._by_updates("svae_r")
            if steps in others
        ]


@dataclass(frozen=True)
class Rule:
    """Says which intervals a claim reads, so many of them, and between which bounds they lie.

    A claim holds where all intervals lie within, and fails where any lies outside.
    """

    read: Callable[[Evidence], Values]
    low: float = -math.inf
    high: float = math.inf
    intervals: int = 1

    def judge(self, evidence: Evidence) -> tuple[str, str]:
        """Returns verdict and evidence."""
        found = [(what, values[~np.isnan(values)]) for what, values in self.read(evidence)]
        if len(found) < self.intervals or not all(len(values) for _, values in found):
            return NO_DATA, "no trainings"
        each = [(what, len(v), intervals.student(v, TESTS)) for what, v in found]
        # Values that agree entirely decide only if they are as many as the toy study asks for.
        if any(1 < len(values) < FEWEST and not np.ptp(values) for _, values in found):
            return VERDICTS[0], "all trainings agree, which a few may do by chance"
        inside = all(self.low < e.low and e.high < self.high for *_, e in each)
        outside = any(e.high < self.low or e.low > self.high for *_, e in each)
        words = "; ".join(f"{what} {e:+.3g}" for what, _, e in each)
        counts = " and ".join(dict.fromkeys(str(n) for _, n, _ in each))
        return VERDICTS[int(inside) - int(outside)], f"{words} (n = {counts})"


RULES: Mapping[str, Rule] = {
    "6a": Rule(Evidence.value, low=0.95, high=1.05),
    "6b": Rule(Evidence.cosine, low=0.95, intervals=2),
    "6c": Rule(partial(Evidence.cosine, least=True), low=0, intervals=2),
    "6d": Rule(Evidence.lowers, high=0, intervals=2),
    "6e": Rule(Evidence.mended, high=0, intervals=2),
    "7a": Rule(Evidence.replaced, low=0.9, intervals=2),
    "7b": Rule(Evidence.reached, low=-0.1, high=0.1),
    "8a": Rule(Evidence.sure, low=0, intervals=2),
    "8b": Rule(Evidence.in_the_toy, low=0.5),
    "9a": Rule(Evidence.mends_both, low=0, intervals=2),
    "9b": Rule(Evidence.inherits, low=-0.1, high=0.1, intervals=2),
    "9c": Rule(Evidence.fewer, low=0, intervals=2),
    "10a": Rule(Evidence.prior, high=0, intervals=2),
    "10b": Rule(Evidence.prior_at_best, high=0),
    "11": Rule(Evidence.free, high=0.1, intervals=2),
}
"""The intervals that each verdict reads, and their bounds."""
TESTS = sum(rule.intervals for rule in RULES.values())
"""The family: so many intervals share one level, whatever is trained already."""


def theory_claims(frame: pd.DataFrame, grid: pd.DataFrame | None) -> list[Claim]:
    """Returns the claims about sections 2 to 4, from our runs and the toy study's."""
    evidence, words = Evidence(frame, grid), texts("bench.studies.theory")["claims"]
    return [claim(words[id], id, rule.judge(evidence), least=LEAST) for id, rule in RULES.items()]
