"""Runs annealed importance sampling as a plain loop over images and single chains.

The loop sees the same random numbers as `bench.scores.ais`. It evaluates as many gradients, one
for each leapfrog step.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bench.scores.ais import GIVEN, draw, schedule
from bench.scores.latent import LatentModel

Point = tuple[Tensor, float, Tensor]
"""u (1, d), log p(x|u) and its gradient (1, d)."""


def plain_log_likelihood(
    model: LatentModel,
    x: Tensor,
    *,
    temperatures: int,
    chains: int,
    leapfrog: int = 10,
    seed: int,
) -> np.ndarray:
    """Returns lower bounds of log p(x) in nats (n,), float64, for images x (n, p)."""
    each = enumerate(x.split(1))
    return np.array([_anneal(model, x, seed, i, temperatures, chains, leapfrog) for i, x in each])


def _anneal(
    model: LatentModel, x: Tensor, seed: int, i: int, temperatures: int, chains: int, leapfrog: int
) -> float:
    """Returns the bound of image i, x (1, p), from chains that run one after the other."""
    beta, step_size, rate = schedule(temperatures), 0.1, 0.65
    log_w = np.zeros(chains)

    def at(u: Tensor) -> Point:
        u = u.detach().requires_grad_()
        log_lik = model.log_likelihood(u, x).squeeze()
        (slope,) = torch.autograd.grad(log_lik, u)
        return u.detach(), log_lik.item(), slope

    def drawn(t: int) -> tuple[Tensor, np.ndarray]:
        normal, uniform = draw(seed, (GIVEN, i), t, chains, model.d)
        return torch.from_numpy(normal).to(x), uniform

    points = [at(u[None]) for u in drawn(0)[0]]
    for t in range(1, temperatures):
        for k, (_, log_lik, _) in enumerate(points):
            log_w[k] += (beta[t] - beta[t - 1]) * log_lik
        if t == temperatures - 1:
            break
        moves = 0
        for k, (start, uniform) in enumerate(zip(*drawn(t), strict=True)):
            point, momentum = points[k], start
            for _ in range(leapfrog):
                momentum = momentum + step_size / 2 * _force(point, beta[t])
                point = at(point[0] + step_size * momentum)
                momentum = momentum + step_size / 2 * _force(point, beta[t])
            gain = _energy(points[k], start, beta[t]) - _energy(point, momentum, beta[t])
            if uniform < math.exp(min(0.0, gain)):
                points[k] = point
                moves += 1
        step_size = min(max(step_size * (1.02 if rate > 0.65 else 0.98), 1e-4), 0.5)
        rate = 0.9 * rate + 0.1 * moves / chains
    return float(np.logaddexp.reduce(log_w) - math.log(chains))


def _force(point: Point, beta: float) -> Tensor:
    u, _, slope = point
    return beta * slope - u


def _energy(point: Point, momentum: Tensor, beta: float) -> float:
    u, log_lik, _ = point
    return float(u.square().sum() + momentum.square().sum()) / 2 - beta * log_lik
