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

RESAMPLES = 100_000
"""So many that the tails of an interval at the level of a dozen tests have 200 resamples each."""
CHUNK = 5_000
"""Resamples that are held in memory at once."""
SEED = 2018
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, infinite where no spread is known."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """The value and its interval, each in the format `form`, three signed digits by default."""
        if math.isnan(self.value):
            return "of no seed that both have"
        value, low, high = (f"{x:{form or '+.3f'}}" for x in (self.value, self.low, self.high))
        return f"{value} (no spread)" if math.isinf(self.high) else f"{value} [{low}, {high}]"


def critical(alpha: float, freedom: int) -> float:
    """The value that Student's |t| exceeds with probability `alpha` at `freedom` degrees."""
    return float(stats.t.ppf(1 - alpha / 2, freedom))


def student(values: np.ndarray, tests: int = 1) -> Estimate:
    """The mean of values (n,) by Student's t: infinite for one value, NaN for none.

    The level is shared among so many tests (Bonferroni).
    """
    n, error = len(values), math.inf
    mean = float(values.mean()) if n else math.nan
    if n > 1:
        error = critical((1 - LEVEL) / tests, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - error, mean + error)


def t_test(values: np.ndarray) -> float:
    """Returns the two-sided p of Student's t-test on values (n,) of mean 0; NaN for fewer than two.

    It is 0 where all values are equal and not 0, and 1 where all are 0.
    """
    n = len(values)
    if n < 2:
        return math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    if not error:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))


@dataclass(frozen=True)
class Resampled:
    """A value and what the bootstrap gave for it, (RESAMPLES,)."""

    value: float
    found: np.ndarray

    def interval(self, tests: int = 1) -> Estimate:
        """Returns the percentile interval at LEVEL, shared among so many tests (Bonferroni)."""
        tail = 100 * (1 - LEVEL) / 2 / tests
        low, high = np.percentile(self.found, [tail, 100 - tail])
        return Estimate(self.value, float(low), float(high))

    @property
    def error(self) -> float:
        """The standard error: the sd over the resamples."""
        return float(self.found.std())


@dataclass(frozen=True)
class Share:
    """A share of n configurations, with an interval that is exact where it is near 0 or 1.

    The interval is that of Clopper and Pearson. Where a configuration's value is a mean over seeds,
    n is the number of ones and zeros with the same standard error (Korn and Graubard, 1998).
    """

    value: float
    n: float

    @classmethod
    def of(cls, values: np.ndarray) -> Share:
        """Returns the mean of values (n,), each from 0 to 1."""
        share, spread = round(float(values.mean()), 12), float(values.var())
        ones = share * (1 - share) / spread if spread else 1.0
        return cls(share, len(values) * max(ones, 1.0))

    def interval(self, tests: int = 1) -> Estimate:
        """Returns the interval at LEVEL, shared among so many tests (Bonferroni)."""
        tail, ones = (1 - LEVEL) / 2 / tests, self.value * self.n
        zeros = self.n - ones
        low = stats.beta.ppf(tail, ones, zeros + 1) if ones > 0 else 0.0
        high = stats.beta.ppf(1 - tail, ones + 1, zeros) if zeros > 0 else 1.0
        return Estimate(self.value, float(low), float(high))

    def power(self, truth: float, bound: float, tests: int = 1) -> float:
        """Returns the probability that the interval excludes `bound`, if the share is `truth`.

        That is for an interval on the side of `truth`, at LEVEL shared among so many tests
        (Bonferroni). The number of ones is binomial, of n rounded.
        """
        n, tail = round(self.n), (1 - LEVEL) / 2 / tests
        ones = np.arange(n + 1)
        # An end of Clopper and Pearson's interval is the share at which the count has this tail.
        above = truth > bound
        at_bound = stats.binom.sf(ones - 1, n, bound) if above else stats.binom.cdf(ones, n, bound)
        return float(stats.binom.pmf(ones, n, truth)[at_bound < tail].sum())


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] | None = None
) -> Resampled:
    """Returns a statistic of `values` (n, ...), resampled over the first axis.

    `statistic` maps (resamples, n, ...) to (resamples,); by default it is the mean of values (n,).
    """
    n, rng = len(values), np.random.default_rng(SEED)
    if statistic is None:
        # How often each distinct value is drawn is multinomial, and shares have few of them.
        distinct, counts = np.unique(values, return_counts=True)
        found = rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n
        value = float(values.mean())
    else:
        sizes = [CHUNK] * (RESAMPLES // CHUNK)
        found = np.concatenate([statistic(values[rng.integers(n, size=(k, n))]) for k in sizes])
        value = float(statistic(values[None])[0])
    # Shares of 0.9 that were summed in another order are the same share.
    return Resampled(round(value, 12), found.round(12))


def together(values: np.ndarray) -> list[Resampled]:
    """Returns the mean of each column of `values` (n, k), over the same resamples of its rows."""
    n, rng = len(values), np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES // CHUNK):
        drawn = rng.integers(n, size=(CHUNK, n)) + n * np.arange(CHUNK)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=CHUNK * n).reshape(CHUNK, n)
        found.append(counts @ values / n)
    means = zip(values.mean(0), np.concatenate(found).T, strict=True)
    return [Resampled(round(float(value), 12), column.round(12)) for value, column in means]


def power(effect: float, error: float, tests: int = 1) -> float:
    """Returns the probability that an interval at LEVEL, shared among `tests`, excludes 0.

    The truth is `effect`, 0 lies on the other side of it, and estimates are normal around it with
    this standard error. NaN for an error of 0, which says nothing of what could have been found.
    """
    z = stats.norm.ppf(1 - (1 - LEVEL) / 2 / tests)
    return float(stats.norm.cdf(abs(effect) / error - z)) if error > 0 else math.nan


def both(a: pd.DataFrame, b: pd.DataFrame, column: str) -> pd.DataFrame:
    """The values of `column` in both, a row and index a configuration and seed that both have."""
    keys = ["config", "seed"]
    found = a[[*keys, column]].merge(b[[*keys, column]], on=keys, suffixes=("_a", "_b"))
    return found.set_index(keys).astype(float)


def paired(a: pd.DataFrame, b: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of both, a row a configuration, averaged over the seeds that both have."""
    x, y = both(a, b, column).groupby(level="config", sort=True).mean().to_numpy().T
    return x, y


def difference(a: np.ndarray, b: np.ndarray) -> Resampled:
    """Returns the mean of a - b over pairs."""
    return bootstrap(a - b)


def improvement(a: pd.DataFrame, b: pd.DataFrame, column: str, larger: bool = True) -> Resampled:
    """Returns the probability that a is better in the same configuration and seed, ties half."""
    pairs = both(a, b, column)
    x, y = pairs.to_numpy().T if larger else pairs.to_numpy().T[::-1]
    wins = pd.Series((x > y) + 0.5 * (x == y), index=pairs.index)
    return bootstrap(wins.groupby(level="config").mean().to_numpy())


def quantiles(a: np.ndarray, b: np.ndarray, share: float) -> Resampled:
    """Returns the difference of the quantiles of a and of b at this share, resampled in pairs."""

    def gap(pairs: np.ndarray) -> np.ndarray:
        return np.subtract(*np.quantile(pairs, share, axis=1).T)

    return bootstrap(np.stack([a, b], 1), gap)


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
