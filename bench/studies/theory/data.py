"""Draws data with a known density, and all random numbers of a training of the theory study."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.spec import generator
from bench.studies.theory.spec import DESCENT, MODES, SUPPORTS, TheorySpec
from bench.studies.toy_grid.data import CENTRES, VARIANCE
from models.explicit import log_normal

BATCHES = 100
"""Batches of an epoch: data are fresh samples, so an epoch has no natural length."""
CORRELATION = 0.8
"""Of neighbouring coordinates of the Gaussian data: rho^|i - j|."""


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians with these centres (k, d) and one deviation in all directions."""

    centres: np.ndarray
    sd: float

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Returns n points (n, d), float32."""
        centres = self.centres[rng.integers(len(self.centres), size=n)]
        return (centres + self.sd * rng.standard_normal(centres.shape)).astype(np.float32)

    def log_density(self, x: Tensor) -> Tensor:
        """Returns log q(x), (batch,), in nats."""
        centres = torch.from_numpy(self.centres).to(x)
        each = log_normal(x[:, None, :], centres, math.log(self.sd))
        return each.logsumexp(1) - math.log(len(self.centres))


@dataclass(frozen=True)
class Gaussian:
    """One Gaussian with this mean (d,) and covariance (d, d)."""

    mean: np.ndarray
    covariance: np.ndarray

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Returns n points (n, d), float32."""
        root = np.linalg.cholesky(self.covariance)
        noise = rng.standard_normal((n, len(self.mean)))
        return (self.mean + noise @ root.T).astype(np.float32)

    def log_density(self, x: Tensor) -> Tensor:
        """Returns log q(x), (batch,), in nats."""
        root = torch.from_numpy(np.linalg.cholesky(self.covariance)).to(x)
        mean = torch.from_numpy(self.mean).to(x)
        white = torch.linalg.solve_triangular(root, (x - mean).mT, upper=False).mT
        return log_normal(white) - root.diagonal().log().sum()


def data_of(spec: TheorySpec) -> Mixture | Gaussian:
    """Returns the data of a training's experiment."""
    if spec.experiment == MODES:
        return Mixture(np.array([[-2.0], [2.0]]), 0.5)
    if spec.experiment == SUPPORTS:
        return Mixture(CENTRES, math.sqrt(VARIANCE))
    d = spec.dimension
    if spec.experiment == DESCENT:
        apart = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
        return Gaussian(np.ones(d), CORRELATION**apart)
    return Gaussian(np.zeros(d), np.eye(d))


def dimensions(spec: TheorySpec) -> tuple[int, int]:
    """Returns the dimensions of x and of z. The one Gaussian on two modes has no code."""
    known = {MODES: (1, 0), SUPPORTS: (2, 2)}
    return known.get(spec.experiment, (spec.dimension, spec.dimension))


@dataclass(frozen=True)
class Draw:
    """Holds what one training sees in one batch of n, float32.

    x is (n, d), z (n, k). critic_eps (critic_steps, n, k + d + 1) is the noise of encoder and
    decoder, and a uniform number. model_eps (model_steps, n, 2 k + 2 d) is the noise of encoder and
    decoder, and of the encoder and decoder that close the cycle.
    """

    x: Tensor
    z: Tensor
    critic_eps: Tensor
    model_eps: Tensor


def draws(spec: TheorySpec, purpose: str, device: str, n: int | None = None) -> Iterator[Draw]:
    """Yields batches without end, drawn an epoch at a time outside the tensor program."""
    rng, data, (d, k) = generator(spec.stream, purpose), data_of(spec), dimensions(spec)
    size, batches = n or spec.batch, 1 if n else BATCHES

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((batches, *shape), dtype=np.float32)

    while True:
        x = data.sample(batches * size, rng).reshape(batches, size, d)
        critic = normal(spec.critic_steps, size, k + d + 1)
        critic[..., -1] = rng.random(critic.shape[:-1], dtype=np.float32)
        arrays = x, normal(size, k), critic, normal(max(spec.model_steps, 1), size, 2 * (k + d))
        on_device = (torch.from_numpy(each).to(device) for each in arrays)
        for each in zip(*on_device, strict=True):
            yield Draw(*each)
