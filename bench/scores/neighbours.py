"""Compares two sets of features by nearest neighbours: precision, recall, density, coverage.

Kynkäänniemi et al. 2019, *Improved Precision and Recall Metric for Assessing Generative Models*,
and Naeem et al. 2020, *Reliable Fidelity and Diversity Metrics for Generative Models*. The ball of
a feature reaches to its K-th nearest neighbour in its own set; what lies on its border is outside.
All four scores have one K, as in `prdc`, the code of Naeem et al. That code gives the same numbers,
and holds three matrices of all distances at once, so the suite has its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

K = 5  # prdc's; the first paper takes 3 for precision and recall
MOST = 10_000
"""Scores depend on the number of features, so both sets have the same, and at most this many."""
ROWS = 500  # of a block of distances


class Neighbours(NamedTuple):
    """Holds the scores of generated features, and how many features of each set were compared."""

    precision: float  # share of generated features in the ball of a real one
    recall: float  # share of real features in the ball of a generated one
    density: float  # real balls around a generated feature, on average, divided by K
    coverage: float  # share of real balls that hold a generated feature
    n: int


def compare(real: np.ndarray, generated: np.ndarray) -> Neighbours:
    """Returns the scores of the first features (n, d) of both sets, n being equal and at most MOST.

    Raises ValueError for features of another shape, of different d, too few or not finite.
    """
    n = min(len(real), len(generated), MOST)
    real, generated = (np.asarray(each[:n], np.float64) for each in (real, generated))
    if real.ndim != 2 or real.shape != generated.shape or n <= K:
        shapes = f"{real.shape} and {generated.shape}"
        raise ValueError(f"features are {shapes}; allowed: (n, d) twice, with n above {K}")
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        raise ValueError("features are not finite")
    centre = real.mean(0)  # small numbers lose less where they are subtracted
    real, generated = real - centre, generated - centre
    of_real, of_generated = radii(real), radii(generated)
    inside, covered, recalled = np.zeros(n, np.int64), np.zeros(n, bool), np.zeros(n, bool)
    for rows, block in distances(real, generated):
        held = block < of_real[rows, None]
        inside += held.sum(0)
        covered[rows] = held.any(1)
        recalled[rows] = (block < of_generated).any(1)
    shares = float((inside > 0).mean()), float(recalled.mean())
    return Neighbours(*shares, float(inside.mean() / K), float(covered.mean()), n)


def radii(features: np.ndarray) -> np.ndarray:
    """Returns the squared distance (n,) of each feature to its K-th nearest neighbour."""
    found = np.empty(len(features), np.float32)
    for rows, block in distances(features, features):
        found[rows] = np.partition(block, K, axis=1)[:, K]  # the nearest is the feature itself
    return found


def distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields squared distances (rows, m) of features a (n, d) to b (m, d), float32, by blocks.

    They are computed in float64. The rounding to float32 makes equal distances equal, although
    products of other blocks round otherwise.
    """
    of_a, of_b = (np.square(each).sum(1) for each in (a, b))
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        block = of_a[rows, None] + of_b
        tiny = 1e-12 * block  # of what rounds to a distance although features are equal
        block -= 2 * a[rows] @ b.T
        block[block < tiny] = 0
        yield rows, block.astype(np.float32)
