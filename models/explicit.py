"""Models whose joints have densities, and the methods that the densities allow: the theory study's.

Encoder and decoder are Gaussians with learned means and deviations, and the data's density is
known. So log p(x, z) and log q(x, z) are known at every point. So are the optimal critic (11),
estimates of the divergences between the joints, and their gradients. Models of images and of the
toy study have no such densities.

Points have shape (batch, d). A model without code has d = 0 for z: then the joints are q(x) and
p(x), as in equations (20) to (24).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.methods import PENALTY
from models.objectives import OBJECTIVES, Objective, completed, squared_error

LEAST, MOST = 0.05, 4.0
"""Bounds of the deviations of a model's Gaussians: no density and no sample is unbounded."""


class Data(Protocol):
    """Describes data: q(x) and its density."""

    def log_density(self, x: Tensor) -> Tensor:
        """Returns log q(x), (batch,), at x (batch, d)."""
        ...


def log_normal(x: Tensor, mean: Tensor | float = 0.0, log_sd: Tensor | float = 0.0) -> Tensor:
    """Returns log N(x; mean, sd^2) in nats, summed over the last axis."""
    log_sd = torch.as_tensor(log_sd, dtype=x.dtype, device=x.device)
    return -(
        0.5 * ((x - mean) * (-log_sd).exp()).square() + log_sd + 0.5 * math.log(2 * math.pi)
    ).sum(-1)


def log_mixture(x: Tensor, mean: Tensor, log_sd: Tensor) -> Tensor:
    """Returns the log density of equal Gaussians (k, d) at x (batch, d), (batch,), float64.

    The squares are multiplied out, so that products of matrices do the work, in parts that fit a
    cache.
    """
    mean, log_sd, d = mean.double(), log_sd.double(), x.shape[1]
    weight = (-2 * log_sd).exp()
    slope, curve = (mean * weight).mT, -0.5 * weight.mT
    constant = -0.5 * (mean.square() * weight).sum(1) - log_sd.sum(1)
    constant -= 0.5 * d * math.log(2 * math.pi) + math.log(len(mean))
    parts = x.double().split(128)
    logs = (torch.addmm(constant, u, slope).addmm_(u.square(), curve) for u in parts)
    return torch.cat([each.logsumexp(1) for each in logs])


class Affine(nn.Module):
    """W u + b, with Xavier's weights and no bias at first; torch's own warns of 0 inputs."""

    def __init__(self, rng: np.random.Generator, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = (6 / (d_in + d_out)) ** 0.5
        weight = rng.uniform(-bound, bound, (d_out, d_in)).astype(np.float32)
        self.weight = nn.Parameter(torch.from_numpy(weight))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, u: Tensor) -> Tensor:
        """Returns (batch, d_out) of u (batch, d_in)."""
        return nn.functional.linear(u, self.weight, self.bias)


def perceptron(rng: np.random.Generator, sizes: Sequence[int]) -> nn.Sequential:
    """Returns a ReLU network whose layers have these numbers of inputs and outputs."""
    layers = [each for d in pairwise(sizes) for each in (Affine(rng, *d), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _raw(sd: float) -> float:
    """Returns the number that `Conditional` turns into this deviation."""
    return math.log((sd - LEAST) / (MOST - sd))


class Conditional(nn.Module):
    """A Gaussian given u: N(mean(u), diag sd(u)^2), with deviations from LEAST to MOST.

    Without hidden layers the mean is linear in u and the deviations do not depend on u.
    """

    net: nn.Sequential
    spread: nn.Parameter

    def __init__(
        self,
        rng: np.random.Generator,
        d_in: int,
        d_out: int,
        hidden: Sequence[int] = (),
        sd: float = 1.0,
    ) -> None:
        """Draws the weights; `sd` is the deviation, with hidden layers about it."""
        super().__init__()
        self.net = perceptron(rng, [d_in, *hidden, (2 if hidden else 1) * d_out])
        self.spread = nn.Parameter(torch.full((d_out,), _raw(sd)))

    def moments(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log deviation of the Gaussian at each u, (batch, d_out) each."""
        mean, *spread = self.net(u).split(len(self.spread), -1)
        raw = self.spread + spread[0] if spread else self.spread.expand_as(mean)
        return mean, (LEAST + (MOST - LEAST) * raw.sigmoid()).log()

    def affine(self) -> tuple[Tensor, Tensor]:
        """Returns W and b of a model without hidden layers."""
        (layer,) = self.net
        assert isinstance(layer, Affine)
        return layer.weight, layer.bias

    def widen(self, sd: float) -> None:
        """Sets the deviation of a model without hidden layers."""
        with torch.no_grad():
            self.spread.fill_(_raw(sd))

    def sample(self, u: Tensor, eps: Tensor) -> Tensor:
        """Returns a sample for each u, (batch, d_out); the gradient passes through it."""
        mean, log_sd = self.moments(u)
        return mean + log_sd.exp() * eps

    def log_density(self, out: Tensor, u: Tensor) -> Tensor:
        """Returns the log density of `out` (batch, d_out) at each u, (batch,), in nats."""
        return log_normal(out, *self.moments(u))


class Joints(nn.Module):
    """Both joints of a model: q(x) q(z|x) and p(z) p(x|z), where p(z) is N(0, I)."""

    encoder: Conditional
    decoder: Conditional

    def __init__(self, encoder: Conditional, decoder: Conditional, data: Data) -> None:
        super().__init__()
        self.encoder, self.decoder, self.data = encoder, decoder, data

    def pairs(self, x: Tensor, z: Tensor, eps_z: Tensor, eps_x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z ~ q(z|x) and x ~ p(x|z), the codes of x and the samples from z."""
        return self.encoder.sample(x, eps_z), self.decoder.sample(z, eps_x)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Returns log p(x, z) - log q(x, z), (batch,): the optimal critic (11)."""
        log_p = log_normal(z) + self.decoder.log_density(x, z)
        return log_p - self.data.log_density(x) - self.encoder.log_density(z, x)

    def held(self) -> "Critic":
        """Returns the optimal critic (11) of the model as it is now.

        The gradient with respect to the model's parameters does not pass through it.
        """
        fixed = {name: each.detach() for name, each in self.named_parameters()}
        return lambda x, z: functional_call(self, fixed, (x, z))


Critic = Callable[[Tensor, Tensor], Tensor]
"""Returns f, (batch,), of pairs (x, z)."""


class JointCritic(nn.Module):
    """f(x, z) of a perceptron that sees x and z together."""

    def __init__(self, rng: np.random.Generator, d_in: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = perceptron(rng, [d_in, *hidden, 1])

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Returns f, (batch,)."""
        return self.net(torch.cat([x, z], -1)).squeeze(-1)


@dataclass(frozen=True)
class Batch:
    """Holds a batch: x ~ q(x), z ~ p(z), their partners z_x ~ q(z|x) and x_z ~ p(x|z)."""

    x: Tensor
    z: Tensor
    z_x: Tensor
    x_z: Tensor

    def logits(self, f: Critic) -> tuple[Tensor, Tensor]:
        """Returns f_q of encoder pairs and f_p of decoder pairs, (batch,) each."""
        x, z = torch.cat([self.x, self.x_z]), torch.cat([self.z_x, self.z])
        f_q, f_p = f(x, z).chunk(2)
        return f_q, f_p


ModelLoss = Callable[[Joints, Critic, Batch], Tensor]
CriticLoss = Callable[[Critic, Batch, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """Describes one method: what the critic minimises, what the model minimises, and its names.

    A method without a critic is trained by the densities themselves.
    """

    critic: CriticLoss | None
    model: ModelLoss
    label: str
    label_cycle: str = ""
    betas: tuple[float, float] = (0.5, 0.999)  # Adam's, as in the toy study


def forward_kl(joints: Joints, f: Critic, batch: Batch) -> Tensor:
    """Returns an estimate of KL(q||p), which is -L_x of (1) up to a constant (2)."""
    return -joints(batch.x, batch.z_x).mean(-1)


def annealed(joints: Joints, batch: Batch, weight: float) -> Tensor:
    """Returns minus the bound (1), whose KL(q(z|x)||p(z)) has a weight; Bowman et al. 2016."""
    log_q = joints.encoder.log_density(batch.z_x, batch.x)
    kl = log_q - log_normal(batch.z_x)
    return (weight * kl - joints.decoder.log_density(batch.x, batch.z_x)).mean(-1)


def reverse_kl(joints: Joints, f: Critic, batch: Batch) -> Tensor:
    """Returns an estimate of KL(p||q), which is -L_z of (5) up to a constant (6)."""
    return joints(batch.x_z, batch.z).mean(-1)


def both_kl(joints: Joints, f: Critic, batch: Batch) -> Tensor:
    """Returns an estimate of KL_s, which is -L_xz of (7) up to a constant."""
    return forward_kl(joints, f, batch) + reverse_kl(joints, f, batch)


def exact(joints: Joints, f: Critic, batch: Batch) -> Tensor:
    """Returns (14) with the log densities of held samples, see `completed`."""
    matching = OBJECTIVES["svae_r"].model(*batch.logits(f))
    log_p = joints.decoder.log_density(batch.x, batch.z_x.detach())
    log_q = joints.encoder.log_density(batch.z, batch.x_z.detach())
    return completed(matching, log_p, log_q)


def classify(f: Critic, batch: Batch, between: Tensor) -> Tensor:
    """Returns the critic's logistic regression (10)."""
    return OBJECTIVES["svae_r"].critic(*batch.logits(f))


def penalised(f: Critic, batch: Batch, between: Tensor) -> Tensor:
    """Returns (25) for a critic of pairs, plus 10 (|df| - 1)^2; Gulrajani et al. 2017, (3).

    The penalty is of pairs that lie `between` (batch, 1) an encoder pair and a decoder pair.
    """
    pair = [
        torch.lerp(a, b, between).detach().requires_grad_()
        for a, b in ((batch.x, batch.x_z), (batch.z_x, batch.z))
    ]
    slopes = torch.autograd.grad(f(*pair).sum(), pair, create_graph=True)
    excess = torch.cat(slopes, -1).norm(dim=-1) - 1
    f_q, f_p = batch.logits(f)
    return f_q.mean() - f_p.mean() + PENALTY * excess.square().mean()


def matching(objective: Objective, critic: CriticLoss = classify) -> tuple[CriticLoss, ModelLoss]:
    """Returns the pair of losses of a joint-matching method of `models.objectives`."""

    def model(joints: Joints, f: Critic, batch: Batch) -> Tensor:
        return objective.model(*batch.logits(f))

    return critic, model


EXPLICIT: Mapping[str, Method] = {
    "vae": Method(None, forward_kl, "VAE"),
    "vae_z": Method(None, reverse_kl, "VAE of codes"),
    "vae_xz": Method(None, both_kl, "exact KL_s"),
    "svae_exact": Method(classify, exact, "sVAE-exact"),
    "joint_wgan_gp": Method(
        *matching(OBJECTIVES["svae_r"], penalised), "WGAN-GP of pairs", betas=(0.0, 0.9)
    ),
    **{
        name: Method(*matching(objective), objective.label, objective.label_cycle)
        for name, objective in OBJECTIVES.items()
    },
}
"""Every method that the theory study can train, by its name."""


def moments(
    joints: Joints, mean: Tensor, covariance: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns mean and covariance of (x, z) under q and under p, for a linear model.

    `mean` (d,) and `covariance` (d, d) are those of Gaussian data, in the precision of the result.
    """

    def linear(part: Conditional) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = part.affine()
        _, log_sd = part.moments(weight.new_zeros(1, weight.shape[1]))
        return weight.to(mean), bias.to(mean), (2 * log_sd[0]).exp().diag().to(mean)

    def joint(m: Tensor, c: Tensor, part: Conditional) -> tuple[Tensor, Tensor]:
        """Returns the moments of (u, v): u ~ N(m, c), v given u."""
        weight, bias, noise = linear(part)
        upper = torch.cat([c, c @ weight.mT], 1)
        lower = torch.cat([weight @ c, weight @ c @ weight.mT + noise], 1)
        return torch.cat([m, weight @ m + bias]), torch.cat([upper, lower])

    of_q = joint(mean, covariance, joints.encoder)
    k = len(of_q[0]) - len(mean)
    zero, one = mean.new_zeros(k), torch.eye(k).to(mean)
    of_p = [each.roll(-k, -1) for each in joint(zero, one, joints.decoder)]
    return of_q, (of_p[0], of_p[1].roll(-k, -2))


def gaussian_kl(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Returns KL(a||b) in nats of Gaussians with these means (d,) and covariances (d, d)."""
    root_a, root_b = (torch.linalg.cholesky(each[1]) for each in (a, b))
    spread = torch.linalg.solve_triangular(root_b, root_a, upper=False)
    apart = torch.linalg.solve_triangular(root_b, (b[0] - a[0])[:, None], upper=False)
    logs = root_b.diagonal().log().sum() - root_a.diagonal().log().sum()
    return 0.5 * (spread.square().sum() + apart.square().sum() - len(a[0])) + logs


def cycle(joints: Joints, batch: Batch, eps_z: Tensor, eps_x: Tensor) -> Tensor:
    """Returns the reconstruction errors of (29) as in the toy study, see `squared_error`."""
    x_rec = joints.decoder.sample(batch.z_x, eps_x)
    z_rec = joints.encoder.sample(batch.x_z, eps_z)
    return squared_error(batch.x, x_rec, batch.z, z_rec)
