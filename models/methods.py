"""Every method of the image studies is a pair of functions: the critic's loss and the model's loss.

`matching` makes a pair of each joint-matching method of `models.objectives`. The other methods of
Table 1 and Table 2 stand below, each with its equation. A loss takes networks by role and a batch
that draws noise by name, and returns one number to minimise. The model's parameters stand still
while the critic learns; the critic's stand still while the model learns.

Signs are this paper's: f -> log p - log q, label 1 = decoder pair (11). MNIST's critics see grey
images: real images, and the decoder's means in [0, 1]. MNIST's likelihoods are of a fresh
binarization of each batch.

To add a method, write its pair and one line in `METHODS`.
"""

import math
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from models.batch import Batch, Networks, decode, encode, generate, judge, prior
from models.mnist import bernoulli_log_density, normal_log_density
from models.objectives import OBJECTIVES, Objective, density_ratio, regularised

CriticLoss = Callable[[Networks, Batch], Tensor]
ModelLoss = Callable[[Networks, Batch, float], Tensor]

PENALTY = MARGIN = 10.0  # the weight of WGAN-GP's penalty, and EB-GAN's margin
DENSITY_SD = 0.05  # `svae_r_density` has p(x|z) = N(mean, 0.05^2)
CONTRAST_SAMPLES = 8
"""Adaptive contrast takes the moments of q(z|x) from so many codes of each image."""


@dataclass(frozen=True)
class Method:
    """Describes one method: its losses, networks, settings and names."""

    critic: CriticLoss | None
    model: ModelLoss
    parts: Mapping[str, str]  # role -> name in PARTS of models.mnist or models.colour
    label: str
    label_cycle: str = ""  # at lambda > 0, or empty if lambda has no meaning
    critic_steps: int = 1  # at least so many updates of the critic a step
    betas: tuple[float, float] = (0.5, 0.999)  # Adam
    clip: float = 0.0  # bound on the critic's parameters; 0: none

    def critic_updates(self, asked: int) -> int:
        """Returns the critic's updates a step: what a study asks for, or more by the method."""
        return max(asked, self.critic_steps)


# The paper's family -------------------------------------------------------------------------


def absolute_error(nets: Networks, batch: Batch, z: Tensor, z_x: Tensor, x_z: Tensor) -> Tensor:
    """Returns the reconstruction terms of the authors' code: mean absolute errors of x and z."""
    x_rec = decode(nets, batch, z_x, "noise of the cycle")
    z_rec = encode(nets, batch, x_z, "eps of the cycle")
    return (batch.x - x_rec).abs().mean() + (z - z_rec).abs().mean()


@cache
def matching(
    objective: Objective,
    sample: Callable[[Networks, Batch, Tensor], Tensor] = decode,
    error: Callable[[Networks, Batch, Tensor, Tensor, Tensor], Tensor] = absolute_error,
) -> Method:
    """Returns a joint-matching method, with the reconstruction error of (29) at lambda > 0.

    `sample` returns x ~ p(x|z). `error` returns the error from z, the code of x and the image of z.
    """

    def pairs(nets: Networks, batch: Batch) -> tuple[Tensor, ...]:
        """Returns f_q and f_p of both pairs, and z ~ p(z), z_x ~ q(z|x), x_z ~ p(x|z)."""
        z, z_x = prior(nets, batch), encode(nets, batch, batch.x)
        x_z = sample(nets, batch, z)
        f_q = judge(nets, batch, batch.x, z_x, "q")
        return f_q, judge(nets, batch, x_z, z, "p"), z, z_x, x_z

    def critic(nets: Networks, batch: Batch) -> Tensor:
        return objective.critic(*pairs(nets, batch)[:2])

    def model(nets: Networks, batch: Batch, lam: float) -> Tensor:
        f_q, f_p, *coded = pairs(nets, batch)
        loss = objective.model(f_q, f_p)
        return regularised(loss, lam, error(nets, batch, *coded)) if lam else loss

    parts = {"encoder": "implicit", "decoder": "conv", "critic": "f(x, z)"}
    return Method(critic, model, parts, objective.label, objective.label_cycle)


def noisy(nets: Networks, batch: Batch, z: Tensor) -> Tensor:
    """Returns x ~ p(x|z), (n, c, h, w); the gradient passes through the sample."""
    return nets["decoder"](z) + DENSITY_SD * batch.normal("noise of x", *batch.x.shape[1:])


def nats(nets: Networks, batch: Batch, z: Tensor, z_x: Tensor, x_z: Tensor) -> Tensor:
    """Returns the reconstruction terms of (29) as printed: -E log p(x|z) - E log q(z|x) in nats.

    The authors' code weighs errors per element. Per element of MNIST's 784, a lambda of nats weighs
    the squared error of x by lambda * 784 / (2 * 0.05^2).
    """
    log_p = normal_log_density(batch.x, nets["decoder"](z_x), math.log(DENSITY_SD))
    log_q = normal_log_density(z, *nets["encoder"].moments(x_z))
    return -(log_p + log_q).mean()


# Likelihoods --------------------------------------------------------------------------------


def _distortion(nets: Networks, batch: Batch, z: Tensor) -> Tensor:
    """Returns -E log p(x|z), in nats, of a decoder's own density, or of bits of x.

    Bits are a fresh binarization: pixel i is 1 with probability x_i.
    """
    decoder, x = nets["decoder"], batch.x
    if hasattr(decoder, "log_density"):
        return -decoder.log_density(x, z).mean()
    bits = (batch.uniform("bits", *x.shape[1:]) < x).to(x.dtype)
    return -bernoulli_log_density(bits, decoder.logits(z)).mean()


def vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -L_x of (1) with the KL of a Gaussian q(z|x); Kingma & Welling 2014, (10)."""
    mean, log_sd = nets["encoder"].moments(batch.x)
    z = mean + log_sd.exp() * batch.normal("eps", *nets["encoder"].eps_shape)
    kl = 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1)
    return _distortion(nets, batch, z) + kl.mean()


def flow_vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -L_x of (1) with q(z|x) known at its samples; Rezende & Mohamed 2015, (15)."""
    eps = batch.normal("eps", *nets["encoder"].eps_shape)
    z, log_q = nets["encoder"].sample(batch.x, eps)
    return _distortion(nets, batch, z) + (log_q - normal_log_density(z, 0.0, 0.0)).mean()


def avb_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns the loss of f(x, z) -> log p(z) - log q(z|x); Mescheder et al. 2017, (3.3)."""
    z_x = encode(nets, batch, batch.x)
    return density_ratio(nets["critic"](batch.x, z_x), nets["critic"](batch.x, prior(nets, batch)))


def avb(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E log p(x|z) - E f, where -f replaces the KL; Mescheder et al. 2017, (3.7)."""
    z_x = encode(nets, batch, batch.x)
    return _distortion(nets, batch, z_x) - nets["critic"](batch.x, z_x).mean()


def _contrast(nets: Networks, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns z ~ q(z|x), and mean and sd of q(z|x) without gradient, (n, d) each.

    The moments are of codes other than z. A code can't go far from moments that it is a part of, so
    nothing would keep q from collapsing.
    """
    z = encode(nets, batch, batch.x)
    with torch.no_grad():
        others = [encode(nets, batch, batch.x, f"eps {i}") for i in range(CONTRAST_SAMPLES)]
        codes = torch.stack(others)
        return z, codes.mean(0), codes.std(0).clamp_min(1e-2)


def avb_ac_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns the critic's loss of AVB with a Gaussian r(z|x); Mescheder et al. 2017, (4.1)."""
    z, mean, sd = _contrast(nets, batch)
    f_q = nets["critic"](batch.x, (z - mean) / sd)
    return density_ratio(f_q, nets["critic"](batch.x, prior(nets, batch)))


def avb_ac(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E log p(x|z) + E[log r(z|x) - log p(z)] - E f; Mescheder et al. 2017, (4.2)."""
    z, mean, sd = _contrast(nets, batch)
    log_r = normal_log_density(z, mean, sd.log())
    gap = log_r - normal_log_density(z, 0.0, 0.0) - nets["critic"](batch.x, (z - mean) / sd)
    return _distortion(nets, batch, z) + gap.mean()


def aae_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns the loss of f(z) -> log p(z) - log q(z); Makhzani et al. 2015, section 2."""
    z_x = encode(nets, batch, batch.x)
    return density_ratio(nets["critic"](z_x), nets["critic"](prior(nets, batch)))


def aae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E log p(x|z) - E log sigma(f); Makhzani et al. 2015, section 2."""
    z_x = encode(nets, batch, batch.x)
    return _distortion(nets, batch, z_x) + softplus(-nets["critic"](z_x)).mean()


def as_vae_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns the loss of f_x -> log q(x, z) - log p(x) p(z), f_z -> log p(x, z) - log q(x) q(z).

    Pu et al. 2017, (10) and (11) with their labels. Each f is the log ratio of a joint to a product
    of marginals, by `density_ratio` with the joint in the place of p.
    """
    z, z_x = prior(nets, batch), encode(nets, batch, batch.x)
    x, x_z = batch.x, nets["decoder"](z)

    def ratio(critic: str, product: tuple[Tensor, Tensor], joint: tuple[Tensor, Tensor]) -> Tensor:
        f_product = judge(nets, batch, *product, "product", critic)
        return density_ratio(f_product, judge(nets, batch, *joint, "joint", critic))

    # The next element of the batch is an independent partner.
    of_x = ratio("critic_x", (x_z.roll(1, 0), z), (x, z_x))
    return of_x + ratio("critic_z", (x, z_x.roll(1, 0)), (x_z, z))


def as_vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E_q[log p(x|z) - f_x] - E_p[log q(z|x) - f_z]; Pu et al. 2017, (12)."""
    z, z_x = prior(nets, batch), encode(nets, batch, batch.x)
    x_z = nets["decoder"](z)
    log_q = normal_log_density(z, *nets["encoder"].moments(x_z))
    f_x = judge(nets, batch, batch.x, z_x, "joint", "critic_x")
    f_z = judge(nets, batch, x_z, z, "joint", "critic_z")
    return _distortion(nets, batch, z_x) - log_q.mean() + f_x.mean() + f_z.mean()


# Generators without an encoder --------------------------------------------------------------


def _logits(nets: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns f_q of real images and f_p of generated images, (n,) each."""
    return nets["critic"](batch.x), nets["critic"](generate(nets, batch))


def gan_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns the loss of f(x) -> log p(x) - log q(x), (22); Goodfellow et al. 2014, (1)."""
    return density_ratio(*_logits(nets, batch))


def gan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E_p log sigma(-f), equation (24), of the non-saturating GAN."""
    return softplus(nets["critic"](generate(nets, batch))).mean()


def wgan_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns E_p f - E_q f for a clipped f, (25); Arjovsky et al. 2017, algorithm 1."""
    f_q, f_p = _logits(nets, batch)
    return f_p.mean() - f_q.mean()


def wgan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns -E_p f, equation (25)."""
    return -nets["critic"](generate(nets, batch)).mean()


def wgan_gp_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns (25) plus 10 (|df/dx| - 1)^2 between the images; Gulrajani et al. 2017, (3)."""
    x, x_z = batch.x, generate(nets, batch).detach()
    between = torch.lerp(x, x_z, batch.uniform("between", 1, 1, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(nets["critic"](between).sum(), between, create_graph=True)
    excess = slope.flatten(1).norm(dim=1) - 1
    gap = nets["critic"](x_z).mean() - nets["critic"](x).mean()
    return gap + PENALTY * excess.square().mean()


def ebgan_critic(nets: Networks, batch: Batch) -> Tensor:
    """Returns f of real images plus (10 - f) of generated, if positive; Zhao et al. 2017, (1)."""
    of_x, of_generated = _logits(nets, batch)
    return of_x.mean() + (MARGIN - of_generated).relu().mean()


def ebgan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Returns f, the energy, of generated images; Zhao et al. 2017, (2)."""
    return nets["critic"](generate(nets, batch)).mean()


class _Methods(ChainMap[str, Any]):
    """Makes a method of an objective when it is looked up."""

    def __getitem__(self, name: str) -> Method:
        found = super().__getitem__(name)
        return matching(found) if isinstance(found, Objective) else found


_GAUSSIAN = {"encoder": "gaussian", "decoder": "bernoulli"}
_IMPLICIT = {"encoder": "implicit", "decoder": "bernoulli"}
_TWO = {"encoder": "gaussian", "decoder": "density", "critic_x": "f(x, z)", "critic_z": "f(x, z)"}
_CONV = {"decoder": "conv", "critic": "f(x)"}
_GP = partial(Method, wgan_gp_critic, wgan, critic_steps=5, betas=(0.0, 0.9))

METHODS: MutableMapping[str, Method] = _Methods(
    {
        "svae_r_density": replace(
            matching(OBJECTIVES["svae_r"], noisy, nats),
            parts={"encoder": "gaussian", "decoder": "conv, no noise", "critic": "f(x, z)"},
            label="sVAE-density",
            label_cycle="sVAE-r-density",
        ),
        "vae": Method(None, vae, _GAUSSIAN, "VAE"),
        "nf_vae": Method(None, flow_vae, {**_GAUSSIAN, "encoder": "planar"}, "NF (k = 80)"),
        "iaf_vae": Method(None, flow_vae, {**_GAUSSIAN, "encoder": "autoregressive"}, "IAF"),
        "avb": Method(avb_critic, avb, {**_IMPLICIT, "critic": "f(x, z)"}, "AVB"),
        "avb_ac": Method(avb_ac_critic, avb_ac, {**_IMPLICIT, "critic": "f(x, z)"}, "AVB-AC"),
        "aae": Method(aae_critic, aae, {**_IMPLICIT, "critic": "f(z)"}, "AAE"),
        "as_vae": Method(as_vae_critic, as_vae, _TWO, "AS-VAE"),
        "gan": Method(gan_critic, gan, {"decoder": "mlp", "critic": "f(x), mlp"}, "GAN"),
        "dcgan": Method(gan_critic, gan, _CONV, "DCGAN"),
        "wgan": Method(wgan_critic, wgan, _CONV, "WGAN", critic_steps=5, clip=0.01),
        "wgan_gp": _GP({"decoder": "conv", "critic": "f(x), layer norm"}, "WGAN-GP"),
        "wgan_gp_residual": _GP(
            {"decoder": "residual", "critic": "f(x), residual"}, "WGAN-GP ResNet"
        ),
        "ebgan": Method(ebgan_critic, ebgan, {"decoder": "conv", "critic": "energy"}, "EB-GAN"),
    },
    OBJECTIVES,
)
"""Every method by its name: methods of `OBJECTIVES`, then these methods."""


def label(method: str, lam: float) -> str:
    """Returns a method's name in tables at this lambda, e.g. sVAE at 0 and sVAE-r above."""
    found = METHODS[method]
    return found.label_cycle if lam > 0 and found.label_cycle else found.label
