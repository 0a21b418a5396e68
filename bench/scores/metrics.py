"""What generated images and points are worth, in numpy and float64; one protocol for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax


def inception_score(
    logits: np.ndarray, splits: int, shuffle: bool = True, seed: int = 0
) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)) of classifier logits (n, classes): mean and sd over splits.

    Salimans et al. 2016; the same numbers as torch-fidelity's `isc_features_to_metric`, whose
    permutation it draws, so that sorted samples don't fall into single-class splits.

    Raises ValueError for fewer samples than splits and for logits that are not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"splits is {splits}; allowed: 1 to the number of samples, {n}")
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite")
    if shuffle:
        logits = logits[np.random.RandomState(seed).permutation(n)]
    log_p = log_softmax(logits, axis=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        log_marginal = np.logaddexp.reduce(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - log_marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


@dataclass(frozen=True)
class Gaussian:
    """The first two moments of a set of features: mean (d,) and covariance (d, d), float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Moments of features (n, d), the covariance over n - 1.

        Raises ValueError for fewer than 2 samples and for features that are not finite.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features are {features.shape}; allowed: (n, d) with n at least 2")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        covariance = np.atleast_2d(np.cov(features, rowvar=False))
        return cls(features.mean(0), covariance)

    def root(self) -> np.ndarray:
        """The symmetric square root of the covariance; rounding below 0 counts as 0."""
        values, axes = np.linalg.eigh(self.covariance)
        return axes * np.sqrt(values.clip(0)) @ axes.T


def frechet_distance(a: np.ndarray | Gaussian, b: np.ndarray | Gaussian) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of features (n, d), squared.

    |m_a - m_b|^2 + tr A + tr B - 2 tr (A B)^(1/2), as Heusel et al. 2017 report it. The last trace
    is the sum of the singular values of A^(1/2) B^(1/2), which needs no inverse and no root of a
    product that isn't symmetric, so that covariances of any rank are safe. A set that is compared
    often may be given as its `Gaussian`.

    Raises ValueError for features that are not finite, fewer than 2, or of different d.
    """
    a, b = (each if isinstance(each, Gaussian) else Gaussian.of(each) for each in (a, b))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features have {len(a.mean)} and {len(b.mean)} dimensions")
    cross = np.linalg.svd(a.root() @ b.root(), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(np.square(a.mean - b.mean).sum() + max(spread, 0))
