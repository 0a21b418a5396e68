"""Hamiltonian Monte Carlo on N(u; 0, I) p(x|u)^beta, many chains at once."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.scores.latent import LatentModel, value_and_slope

Point = tuple[Tensor, Tensor, Tensor]
"""u (n, d), log p(x|u) (n,) and its gradient (n, d)."""


def trajectory(
    model: LatentModel,
    x: Tensor,
    beta: float,
    leapfrog: int,
    step_size: Tensor,
    start: Point,
    momentum: Tensor,
    log_uniform: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A Hamiltonian move of n chains that leaves N(u; 0, I) p(x|u)^beta invariant (Neal 2011).

    x (n, p), step_size (n, 1), momentum (n, d), log_uniform (n,). Returns the points the chains
    are at afterwards and whether each moved. The gradient at the start is known, so it takes
    one a leapfrog step. A move to where the energy is not finite is never made.
    """
    u, log_lik, slope = start
    p = momentum + step_size / 2 * (beta * slope - u)
    for i in range(leapfrog):
        u = u + step_size * p
        log_lik, slope = value_and_slope(model, u, x)
        whole = step_size if i < leapfrog - 1 else step_size / 2
        p = p + whole * (beta * slope - u)
    before = energy(start[0], start[1], momentum, beta)
    moved = log_uniform < before - energy(u, log_lik, p, beta)
    there = moved[:, None]
    return (
        torch.where(there, u, start[0]),
        torch.where(moved, log_lik, start[1]),
        torch.where(there, slope, start[2]),
        moved,
    )


def energy(u: Tensor, log_lik: Tensor, momentum: Tensor, beta: float) -> Tensor:
    """-log of N(u; 0, I) p(x|u)^beta N(momentum; 0, I) but for a constant, (n,)."""
    return (u.square() + momentum.square()).sum(-1) / 2 - beta * log_lik
