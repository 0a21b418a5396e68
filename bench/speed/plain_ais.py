"""The yardstick: annealed importance sampling as a plain loop over images and single chains.

Tests hold `bench.scores.ais` to this loop's numbers, and `bench.speed` to its speed. It sees the
same random numbers and evaluates as many gradients, one for each leapfrog step.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bench.scores.ais import GIVEN, draw, schedule
from bench.scores.latent import LatentModel


def plain_log_likelihood(
    model: LatentModel,
    x: Tensor,
    *,
    temperatures: int,
    chains: int,
    leapfrog: int = 10,
    seed: int,
) -> np.ndarray:
    """Lower bounds of log p(x) in nats (n,), float64, for images x (n, p)."""
    each = [_Image(model, row[None], seed, i) for i, row in enumerate(x)]
    return np.array([image.anneal(temperatures, chains, leapfrog) for image in each])


class _Image:
    """One image, x (1, p), and the chains that are run for it one after the other."""

    def __init__(self, model: LatentModel, x: Tensor, seed: int, i: int) -> None:
        self.model, self.x, self.seed, self.i = model, x, seed, i

    def anneal(self, temperatures: int, chains: int, leapfrog: int) -> float:
        beta, step_size, rate = schedule(temperatures), 0.1, 0.65
        log_w = np.zeros(chains)
        points = [self.at(u[None]) for u in self.draw(0, chains)[0]]
        for t in range(1, temperatures):
            for k, (_, log_lik, _) in enumerate(points):
                log_w[k] += (beta[t] - beta[t - 1]) * log_lik
            if t == temperatures - 1:
                break
            moves = 0
            for k, (momentum, uniform) in enumerate(zip(*self.draw(t, chains), strict=True)):
                start = points[k]
                end, momentum_end = self.leap(start, momentum, beta[t], step_size, leapfrog)
                before = self.energy(start, momentum, beta[t])
                after = self.energy(end, momentum_end, beta[t])
                if uniform < math.exp(min(0.0, before - after)):
                    points[k] = end
                    moves += 1
            step_size = min(max(step_size * (1.02 if rate > 0.65 else 0.98), 1e-4), 0.5)
            rate = 0.9 * rate + 0.1 * moves / chains
        return float(np.logaddexp.reduce(log_w) - math.log(chains))

    def draw(self, t: int, chains: int) -> tuple[Tensor, np.ndarray]:
        normal, uniform = draw(self.seed, (GIVEN, self.i), t, chains, self.model.d)
        return torch.from_numpy(normal).to(self.x), uniform

    def at(self, u: Tensor) -> tuple[Tensor, float, Tensor]:
        """u (1, d) with log p(x|u) and its gradient."""
        u = u.detach().requires_grad_()
        log_lik = self.model.log_likelihood(u, self.x).squeeze()
        (slope,) = torch.autograd.grad(log_lik, u)
        return u.detach(), log_lik.item(), slope

    def leap(
        self,
        point: tuple[Tensor, float, Tensor],
        momentum: Tensor,
        beta: float,
        step_size: float,
        leapfrog: int,
    ) -> tuple[tuple[Tensor, float, Tensor], Tensor]:
        for _ in range(leapfrog):
            u, _, slope = point
            momentum = momentum + step_size / 2 * (beta * slope - u)
            point = self.at(u + step_size * momentum)
            u, _, slope = point
            momentum = momentum + step_size / 2 * (beta * slope - u)
        return point, momentum

    def energy(self, point: tuple[Tensor, float, Tensor], momentum: Tensor, beta: float) -> float:
        u, log_lik, _ = point
        return float(u.square().sum() + momentum.square().sum()) / 2 - beta * log_lik
