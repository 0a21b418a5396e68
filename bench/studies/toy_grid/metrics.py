"""What a trained model of the toy study is worth; one protocol for every method.

Known anchors (1,024 samples, one split): samples of the toy mixture itself score
4.990 +- 0.006 in inception score and .989 in `high_quality`. The score alone sees only the
balance between the five cells of the plane: uniform noise on [-3, 3]^2 scores 4.89 and
N(0, 4 I) scores 4.83, which is why nothing here quotes it without `high_quality`.
"""

from __future__ import annotations

import numpy as np

from bench.scores.metrics import inception_score
from bench.studies.toy_grid.data import CENTRES, VARIANCE

NEAR = 0.6
"""A sample within three standard deviations of a centre counts as of high quality."""
COVERED = 20
"""A mode is covered by at least this many high-quality samples (of 1,024)."""


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
