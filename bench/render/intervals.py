"""Paired comparison of two methods over equal configurations, with honest intervals.

Configurations are the unit: seeds of one configuration are averaged before anything is resampled,
so that more seeds sharpen a configuration's value but don't pose as more configurations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 10_000
SEED = 2018
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval over configurations."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def student(values: np.ndarray) -> tuple[float, float]:
    """Mean of values (n,) and half its 95 % interval by Student's t; infinite for n below 2."""
    n, error = len(values), math.inf
    if n > 1:
        t = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))
        error = t * float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) if n else math.nan, error


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """Percentile bootstrap over the first axis of `values` (n, ...).

    `statistic` maps (resamples, n, ...) to (resamples,).
    """
    n = len(values)
    draws = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    found = statistic(values[draws])
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return Estimate(float(statistic(values[None])[0]), float(low), float(high))


def paired(a: pd.DataFrame, b: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of both, a row a configuration, averaged over the seeds that both have."""
    keys = ["config", "seed"]
    both = a[[*keys, column]].merge(b[[*keys, column]], on=keys, suffixes=("_a", "_b"))
    both = both.astype({f"{column}_a": float, f"{column}_b": float})
    mean = both.groupby("config", sort=True)[[f"{column}_a", f"{column}_b"]].mean()
    return mean[f"{column}_a"].to_numpy(), mean[f"{column}_b"].to_numpy()


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of a - b over pairs."""
    return bootstrap(a - b, lambda d: d.mean(1))


def improvement(a: pd.DataFrame, b: pd.DataFrame, column: str, larger: bool = True) -> Estimate:
    """Probability that a is better than b in the same configuration and seed, ties half."""
    keys = ["config", "seed"]
    both = a[[*keys, column]].merge(b[[*keys, column]], on=keys, suffixes=("_a", "_b"))
    x, y = (both[f"{column}_{side}"].to_numpy() for side in ("ab" if larger else "ba"))
    wins = (x > y) + 0.5 * (x == y)
    by_config = pd.Series(wins, index=both["config"]).groupby(level=0).mean()
    return bootstrap(by_config.to_numpy(), lambda w: w.mean(1))


def spread(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Difference of standard deviations over configurations, sd(a) - sd(b), resampled in pairs."""
    return bootstrap(
        np.stack([a, b], 1), lambda v: v[..., 0].std(1, ddof=1) - v[..., 1].std(1, ddof=1)
    )


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on pairs; 1 where all are equal."""
    d = np.subtract(a, b, out=np.zeros(len(a)), where=a != b)  # two infinities are equal
    return float(stats.wilcoxon(d).pvalue) if d.any() else 1.0


def detectable(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest mean difference that so many pairs, so noisy, find in four cases of five.

    (z_.975 + z_.8) standard errors of the mean difference; NaN where all pairs differ equally,
    which says nothing of what could have been found.
    """
    d = a - b
    z = np.sum(stats.norm.ppf([0.5 + LEVEL / 2, POWER]))
    noisy = len(d) > 1 and np.ptp(d) > 0
    return float(z * d.std(ddof=1) / np.sqrt(len(d))) if noisy else float("nan")
