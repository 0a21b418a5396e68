"""What generated images and points are worth, in numpy and float64; one protocol for all."""

from __future__ import annotations

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
