"""Draws the toy data and all random numbers of a training, outside the tensor program."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bench.spec import generator
from bench.studies.toy_grid.spec import N_TRAIN, ToySpec

CENTRES = np.array([(0, 0), (2, 2), (-2, -2), (2, -2), (-2, 2)], dtype=np.float64)
VARIANCE = 0.04  # ALICE's toy data are five equal Gaussians; its code uses `std_x` as a variance

N_TEST = 1024


def mixture(n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns n points (n, 2), float32, from the five Gaussians."""
    centres = CENTRES[rng.integers(len(CENTRES), size=n)]
    return (centres + np.sqrt(VARIANCE) * rng.standard_normal((n, 2))).astype(np.float32)


def posterior_logits(x: np.ndarray) -> np.ndarray:
    """Returns logits (n, 5) of the exact posterior over the Gaussians for points (n, 2)."""
    squared = np.square(x[:, None, :] - CENTRES).sum(-1)
    return -squared / (2 * VARIANCE)


class ToyData(NamedTuple):
    """Holds the fixed sets of one training; every array is (n, 2), float32."""

    x_train: np.ndarray
    z_train: np.ndarray
    x_test: np.ndarray
    z_test: np.ndarray


def toy_data(stream: str) -> ToyData:
    """Returns training and test points of the mixture, and as many codes from N(0, I)."""
    rng = generator(stream, "data")
    x = mixture(N_TRAIN + N_TEST, rng)
    z = rng.standard_normal((N_TRAIN + N_TEST, 2), dtype=np.float32)
    return ToyData(x[:N_TRAIN], z[:N_TRAIN], x[N_TRAIN:], z[N_TRAIN:])


class Epoch(NamedTuple):
    """Holds what one training sees in one epoch of n batches, features before the batch.

    x and z are (n, 2, batch). critic_eps (n, 2, 2, critic_steps * batch) is the noise of encoder
    and decoder for all updates of the critic. model_eps (n, model_steps, 4, 2, batch) is the noise
    of encoder and decoder, then of the encoder and decoder that close the cycle.

    kept has (n, depth, width, samples) of encoder, decoder and critic: whether dropout keeps a
    hidden unit. An encoder's samples are those of critic_eps, then of each update of the model,
    the cycle's last; a decoder's are alike. A critic's samples are the encoder pairs and the
    decoder pairs of each of its updates, then of each update of the model. Without dropout kept is
    empty.
    """

    x: np.ndarray
    z: np.ndarray
    critic_eps: np.ndarray
    model_eps: np.ndarray
    kept: tuple[np.ndarray, ...]


def epochs(spec: ToySpec) -> Iterator[Epoch]:
    """Yields the epochs of a training without end, each with its own order of x and of z."""
    sets = toy_data(spec.stream)
    order, noise = generator(spec.stream, "batches"), generator(spec.stream, "noise")
    n = N_TRAIN // spec.batch
    drops = generator(spec.stream, "dropout")
    updates = spec.critic_steps + 2 * spec.model_steps, spec.critic_steps + spec.model_steps
    samples = updates[0] * spec.batch, updates[0] * spec.batch, 2 * updates[1] * spec.batch
    hidden = list(zip(spec.depths, spec.widths, samples, strict=True)) if spec.dropout else []

    def batches(points: np.ndarray) -> np.ndarray:
        rows = order.permutation(N_TRAIN)[: n * spec.batch]
        return points[rows].reshape(n, spec.batch, 2).swapaxes(1, 2)

    def normal(*size: int) -> np.ndarray:
        return noise.standard_normal((n, *size), dtype=np.float32)

    def kept(size: tuple[int, int, int]) -> np.ndarray:
        return drops.random((n, *size), dtype=np.float32) >= spec.dropout

    while True:
        yield Epoch(
            batches(sets.x_train),
            batches(sets.z_train),
            normal(2, 2, spec.critic_steps * spec.batch),
            normal(spec.model_steps, 4, 2, spec.batch),
            tuple(map(kept, hidden)),
        )
