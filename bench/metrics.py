"""What a trained model is worth, in numpy and float64; one protocol for every method.

Known anchors (1,024 samples, one split): samples of the toy mixture itself score
4.990 +- 0.006 in inception score and .989 in `high_quality`. The score alone sees only the
balance between the five cells of the plane: uniform noise on [-3, 3]^2 scores 4.89 and
N(0, 4 I) scores 4.83, which is why nothing here quotes it without `high_quality`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from bench.data import CENTRES, VARIANCE

NEAR = 0.6
"""A sample within three standard deviations of a centre counts as of high quality."""
COVERED = 20
"""A mode is covered by at least this many high-quality samples (of 1,024)."""


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


def posterior_logits(x: np.ndarray) -> np.ndarray:
    """Logits (n, 5) of the exact posterior over the mixture's components for points (n, 2)."""
    squared = np.square(x[:, None, :] - CENTRES).sum(-1)
    return -squared / (2 * VARIANCE)


def toy_metrics(
    samples: np.ndarray,
    x: np.ndarray,
    x_rec: np.ndarray,
    z: np.ndarray,
    z_rec: np.ndarray,
) -> dict[str, float | int]:
    """The columns of one run's scores, from points (n, 2).

    `inception_score` by the exact posterior in one split; `mse_x`, `mse_z` over points and
    coordinates; `high_quality` the share of samples near a centre; `modes` covered, 0 to 5.
    """
    samples, x, x_rec, z, z_rec = (
        np.asarray(points, dtype=np.float64) for points in (samples, x, x_rec, z, z_rec)
    )
    distance = np.linalg.norm(samples[:, None, :] - CENTRES, axis=-1)
    near = distance.min(1) <= NEAR
    counts = np.bincount(distance.argmin(1)[near], minlength=len(CENTRES))
    return {
        "inception_score": inception_score(posterior_logits(samples), splits=1)[0],
        "mse_x": float(np.square(x - x_rec).mean()),
        "mse_z": float(np.square(z - z_rec).mean()),
        "modes": int((counts >= COVERED).sum()),
        "high_quality": float(near.mean()),
    }
