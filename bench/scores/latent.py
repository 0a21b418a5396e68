"""Defines models with a Gaussian latent space, and Hamiltonian trajectories in that space."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.mnist import bernoulli_log_density


@dataclass(frozen=True)
class LatentModel:
    """Models u ~ N(0, I_d), x ~ p(x|u). Other priors are maps of u; injected noise is part of u.

    `log_likelihood` returns log p(x|u) (n,) in nats of u (n, d) and x (n, p). It is differentiable
    in u; a value that is not finite counts as probability 0. `simulate` returns x (n, p) of u
    (n, d), with a generator on the CPU.
    """

    d: int
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    simulate: Callable[[Tensor, torch.Generator], Tensor]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"


def bernoulli(
    decode_logits: Callable[[Tensor], Tensor],
    d: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LatentModel:
    """Returns a model of independent bits x (n, p) with logits `decode_logits(u)`, (n, p)."""

    def log_likelihood(u: Tensor, x: Tensor) -> Tensor:
        return bernoulli_log_density(x, decode_logits(u))

    def simulate(u: Tensor, generator: torch.Generator) -> Tensor:
        p = decode_logits(u).sigmoid()
        return (torch.rand(p.shape, generator=generator).to(p) < p).to(p)

    return LatentModel(d, log_likelihood, simulate, dtype, device)


def linear_gaussian(weight: Tensor, bias: Tensor, sd: float) -> LatentModel:
    """Returns the model x = W u + b + sd N(0, I_p) of weight (p, d) and bias (p,)."""
    p, d = weight.shape
    constant = p * math.log(sd * math.sqrt(2 * math.pi))

    def log_likelihood(u: Tensor, x: Tensor) -> Tensor:
        return -(x - bias - u @ weight.T).square().sum(-1) / (2 * sd**2) - constant

    def simulate(u: Tensor, generator: torch.Generator) -> Tensor:
        centre = u @ weight.T + bias
        eps = torch.randn(centre.shape, generator=generator, dtype=torch.float64)
        return centre + sd * eps.to(centre)

    return LatentModel(d, log_likelihood, simulate, weight.dtype, weight.device)


def value_and_slope(model: LatentModel, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log p(x|u) (n,), -inf where it is not finite, and its gradient in u (n, d)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_lik = model.log_likelihood(u, x)
        (slope,) = torch.autograd.grad(log_lik.sum(), u)
    return torch.where(log_lik.isfinite(), log_lik, -math.inf).detach(), slope


def log_mean_exp(log_w: Tensor) -> Tensor:
    """Returns the log of the mean of exp over the last axis."""
    return log_w.logsumexp(-1) - math.log(log_w.shape[-1])


def trajectory(
    model: LatentModel,
    x: Tensor,
    beta: float,
    leapfrog: int,
    step_size: Tensor,
    u: Tensor,
    log_lik: Tensor,
    slope: Tensor,
    momentum: Tensor,
    log_uniform: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moves n chains so that N(u; 0, I) p(x|u)^beta stays invariant (Hamiltonian; Neal 2011).

    Takes x (n, p), step_size (n, 1), u (n, d), log p(x|u) (n,), its gradient (n, d), momentum
    (n, d) and log_uniform (n,). Returns u, log p(x|u) and gradient after the move, and whether each
    chain moved. A leapfrog step evaluates one gradient. No chain moves if its energy is not finite.
    """

    def energy(u: Tensor, log_lik: Tensor, p: Tensor) -> Tensor:
        """Returns -log of N(u; 0, I) p(x|u)^beta N(p; 0, I), (n,), up to a constant."""
        return (u.square() + p.square()).sum(-1) / 2 - beta * log_lik

    start = u, log_lik, slope
    p = momentum + step_size / 2 * (beta * slope - u)
    for i in range(leapfrog):
        u = u + step_size * p
        log_lik, slope = value_and_slope(model, u, x)
        whole = step_size if i < leapfrog - 1 else step_size / 2
        p = p + whole * (beta * slope - u)
    moved = log_uniform < energy(start[0], start[1], momentum) - energy(u, log_lik, p)
    there = moved[:, None]
    return (
        torch.where(there, u, start[0]),
        torch.where(moved, log_lik, start[1]),
        torch.where(there, slope, start[2]),
        moved,
    )
