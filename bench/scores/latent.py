"""Models with a Gaussian latent space, and what can be said of log p(x) without annealing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from models.mnist import bernoulli_log_density


@dataclass(frozen=True)
class LatentModel:
    """u ~ N(0, I_d), x ~ p(x|u). Other priors are maps of u, injected noise is part of u.

    `log_likelihood` takes u (n, d) and x (n, p), gives log p(x|u) (n,) in nats and is
    differentiable in u; a value that is not finite counts as probability 0. `simulate` takes
    u (n, d) and a generator on the CPU and gives x (n, p).
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
    """Independent bits x (n, p) in {0, 1}; `decode_logits` takes (n, d) to their logits (n, p)."""

    def log_likelihood(u: Tensor, x: Tensor) -> Tensor:
        return bernoulli_log_density(x, decode_logits(u))

    def simulate(u: Tensor, generator: torch.Generator) -> Tensor:
        p = decode_logits(u).sigmoid()
        return (torch.rand(p.shape, generator=generator).to(p) < p).to(p)

    return LatentModel(d, log_likelihood, simulate, dtype, device)


def to_uniform(u: Tensor) -> Tensor:
    """Maps N(0, 1) to the uniform distribution on [-1, 1]: 2 Phi(u) - 1."""
    return 2 * torch.special.ndtr(u) - 1


def linear_gaussian(weight: Tensor, bias: Tensor, sd: float) -> LatentModel:
    """x = W u + b + sd N(0, I_p): weight (p, d), bias (p,), whose dtype is the model's."""
    p, d = weight.shape
    constant = p * math.log(sd * math.sqrt(2 * math.pi))

    def log_likelihood(u: Tensor, x: Tensor) -> Tensor:
        return -(x - bias - u @ weight.T).square().sum(-1) / (2 * sd**2) - constant

    def simulate(u: Tensor, generator: torch.Generator) -> Tensor:
        centre = u @ weight.T + bias
        eps = torch.randn(centre.shape, generator=generator, dtype=torch.float64)
        return centre + sd * eps.to(centre)

    return LatentModel(d, log_likelihood, simulate, weight.dtype, weight.device)


def linear_gaussian_log_prob(weight: Tensor, bias: Tensor, sd: float, x: Tensor) -> Tensor:
    """log p(x) (n,) under `linear_gaussian`, exactly: x ~ N(b, W W^T + sd^2 I)."""
    noise = sd**2 * torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
    return MultivariateNormal(bias, weight @ weight.T + noise).log_prob(x)


def value_and_slope(model: LatentModel, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x|u) (n,), -inf where it is not finite, and its gradient in u (n, d)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_lik = model.log_likelihood(u, x)
        (slope,) = torch.autograd.grad(log_lik.sum(), u)
    return _finite(log_lik.detach()), slope


def _finite(log_lik: Tensor) -> Tensor:
    return torch.where(log_lik.isfinite(), log_lik, -math.inf)


def log_mean_exp(log_w: Tensor) -> Tensor:
    """log of the mean of exp over the last axis."""
    return log_w.logsumexp(-1) - math.log(log_w.shape[-1])


def importance_weighted_bound(
    model: LatentModel,
    x: Tensor,
    mean: Tensor,
    log_sd: Tensor,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """IWAE's lower bound (n,) of log p(x), in float64 (Burda et al. 2016, equation 8).

    q(u|x) = N(mean, exp(log_sd)^2), both (n, d), for images x (n, p); one image at a time, so
    `samples` is also the number of rows in one call. `generator` lives where the images do.
    """
    bounds = []
    for image, centre, log_scale in zip(x, mean, log_sd, strict=True):
        eps = torch.randn((samples, model.d), generator=generator, dtype=x.dtype, device=x.device)
        u = centre + log_scale.exp() * eps
        with torch.no_grad():
            log_lik = _finite(model.log_likelihood(u, image.expand(samples, -1)))
        log_ratio = ((eps.square() - u.square()) / 2 + log_scale).sum(-1)
        bounds.append(log_mean_exp((log_lik + log_ratio).double()))
    return torch.stack(bounds)
