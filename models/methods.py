"""Every method of the image studies as a pair of functions: the critic's loss and the model's.

The joint-matching methods are those of `models.objectives`: `matching` makes a pair of each. The
rivals of Table 1 and Table 2 stand below, each with its equation. A pair is asked with the
networks, by role, and a batch that draws noise by name; it returns one number to be minimised.
While the critic learns, the model's parameters stand still, and the other way round.

Signs are this paper's: f -> log p - log q, label 1 = decoder pair (11). "Critics see means":
generated images are the decoder's means in [0, 1], real ones grey images. Likelihoods are of a
fresh binarization of each batch.

To add a method, write its pair and one line in `METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from models.mnist import bernoulli_log_density, normal_log_density
from models.objectives import OBJECTIVES, Objective, density_ratio, regularised, symmetric_kl

Networks = Any
"""`models.mnist.ImageNetworks`: networks by role, e.g. nets["encoder"](x, eps)."""


class Batch(Protocol):
    """Real images x (n, c, h, w), in [0, 1] for MNIST, and noise: equal names, equal numbers."""

    x: Tensor

    def noise(self, name: str, *shape: int) -> Tensor:
        """What codes and noise are drawn from, (n, *shape): N(0, I) for MNIST."""
        ...

    def normal(self, name: str, *shape: int) -> Tensor:
        """N(0, I) of (n, *shape)."""
        ...

    def uniform(self, name: str, *shape: int) -> Tensor:
        """U[0, 1) of (n, *shape)."""
        ...


CriticLoss = Callable[[Networks, Batch], Tensor]
ModelLoss = Callable[[Networks, Batch, float], Tensor]


@dataclass(frozen=True)
class Method:
    """One method: losses, the networks it plays with, its own settings and its names."""

    critic: CriticLoss | None
    model: ModelLoss
    parts: Mapping[str, str]  # role -> name in PARTS of models.mnist or models.colour
    label: str
    label_cycle: str = ""  # at lambda > 0; empty where lambda has no meaning
    critic_steps: int = 1  # at least so many updates of the critic for each of the model
    betas: tuple[float, float] = (0.5, 0.999)  # Adam
    clip: float = 0.0  # bound on the critic's parameters, 0 for none

    def critic_updates(self, asked: int) -> int:
        """Of each step, where a study asks for so many: no fewer than the method needs."""
        return max(asked, self.critic_steps)


def encode(nets: Networks, batch: Batch, x: Tensor, name: str = "eps") -> Tensor:
    """z ~ q(z|x), (n, d)."""
    encoder = nets["encoder"]
    draw = batch.normal if hasattr(encoder, "moments") else batch.noise
    return encoder(x, draw(name, *encoder.eps_shape))


def prior(nets: Networks, batch: Batch) -> Tensor:
    """z ~ p(z), (n, d)."""
    return batch.noise("z", nets.shape.d_z)


def decode(nets: Networks, batch: Batch, z: Tensor, name: str = "noise") -> Tensor:
    """x ~ p(x|z), or its mean, (n, c, h, w)."""
    return nets["decoder"](z, *_own_noise(nets["decoder"], batch, name))


def judge(
    nets: Networks, batch: Batch, x: Tensor, z: Tensor, name: str, critic: str = "critic"
) -> Tensor:
    """f(x, z), (n,)."""
    return nets[critic](x, z, *_own_noise(nets[critic], batch, f"{critic}'s {name}"))


def _own_noise(network: Any, batch: Batch, name: str) -> list[Tensor]:
    """The noise that a network takes beside its inputs; only those of `models.colour` do."""
    shapes: Sequence[tuple[int, ...]] = getattr(network, "noise", ())
    return [batch.noise(f"{name} {i}", *shape) for i, shape in enumerate(shapes)]


def bits(batch: Batch) -> Tensor:
    """A fresh binarization of x: pixel i is 1 with probability x_i."""
    return (batch.uniform("bits", *batch.x.shape[1:]) < batch.x).to(batch.x.dtype)


# The paper's family -------------------------------------------------------------------------


def absolute_error(x: Tensor, x_rec: Tensor, z: Tensor, z_rec: Tensor) -> Tensor:
    """The reconstruction terms of (29) in the authors' code: mean absolute errors of x and z."""
    return (x - x_rec).abs().mean() + (z - z_rec).abs().mean()


def matching(objective: Objective) -> Method:
    """A joint-matching objective, (10) for the critic, with the cycle of (29) at lambda > 0."""

    def critic(nets: Networks, batch: Batch) -> Tensor:
        z = prior(nets, batch)
        f_q = judge(nets, batch, batch.x, encode(nets, batch, batch.x), "q")
        f_p = judge(nets, batch, decode(nets, batch, z), z, "p")
        return objective.critic(f_q, f_p)

    def model(nets: Networks, batch: Batch, lam: float) -> Tensor:
        x, z = batch.x, prior(nets, batch)
        z_x, x_z = encode(nets, batch, x), decode(nets, batch, z)
        loss = objective.model(judge(nets, batch, x, z_x, "q"), judge(nets, batch, x_z, z, "p"))
        if not lam:
            return loss
        x_rec = decode(nets, batch, z_x, "noise of the cycle")
        z_rec = encode(nets, batch, x_z, "eps of the cycle")
        return regularised(loss, lam, absolute_error(x, x_rec, z, z_rec))

    parts = {"encoder": "implicit", "decoder": "conv", "critic": "f(x, z)"}
    return Method(critic, model, parts, objective.label, objective.label_cycle)


DENSITY_SD = 0.05
"""p(x|z) = N(mean, 0.05^2) in `svae_r_density`."""


def _noisy(nets: Networks, batch: Batch, z: Tensor) -> tuple[Tensor, Tensor]:
    """x ~ p(x|z) and the mean; the gradient passes through the sample."""
    mean = nets["decoder"](z)
    return mean + DENSITY_SD * batch.normal("noise of x", *batch.x.shape[1:]), mean


def density_critic(nets: Networks, batch: Batch) -> Tensor:
    """(10) on x and z sampled from explicit densities."""
    z = prior(nets, batch)
    f_q = judge(nets, batch, batch.x, encode(nets, batch, batch.x), "q")
    return density_ratio(f_q, judge(nets, batch, _noisy(nets, batch, z)[0], z, "p"))


def density_model(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """(29) as printed, with log p(x|z) and log q(z|x) in nats; lambda weighs nats.

    Per element, as the authors' code weighs its errors, a lambda of nats weighs the squared error
    of x by lambda * 784 / (2 * 0.05^2), 784 being the numbers of an image of MNIST.
    """
    x, z = batch.x, prior(nets, batch)
    z_x, (x_z, _) = encode(nets, batch, x), _noisy(nets, batch, z)
    loss = symmetric_kl(judge(nets, batch, x, z_x, "q"), judge(nets, batch, x_z, z, "p"))
    if not lam:
        return loss
    log_p = normal_log_density(x, nets["decoder"](z_x), math.log(DENSITY_SD))
    log_q = normal_log_density(z, *nets["encoder"].moments(x_z))
    return loss - lam * (log_p + log_q).mean()


# Likelihoods --------------------------------------------------------------------------------


def _distortion(nets: Networks, batch: Batch, z: Tensor) -> Tensor:
    """-E log p(x|z), in nats: of a decoder's own density, or of bits of x."""
    decoder = nets["decoder"]
    if hasattr(decoder, "log_density"):
        return -decoder.log_density(batch.x, z).mean()
    return -bernoulli_log_density(bits(batch), decoder.logits(z)).mean()


def vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-L_x of (1) with a Gaussian q(z|x), its KL in closed form; Kingma & Welling 2014, (10)."""
    mean, log_sd = nets["encoder"].moments(batch.x)
    z = mean + log_sd.exp() * batch.normal("eps", *nets["encoder"].eps_shape)
    kl = 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1)
    return _distortion(nets, batch, z) + kl.mean()


def flow_vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-L_x of (1), q(z|x) being known at its samples; Rezende & Mohamed 2015, (15)."""
    eps = batch.normal("eps", *nets["encoder"].eps_shape)
    z, log_q = nets["encoder"].sample(batch.x, eps)
    return _distortion(nets, batch, z) + (log_q - normal_log_density(z, 0.0, 0.0)).mean()


def avb_critic(nets: Networks, batch: Batch) -> Tensor:
    """f(x, z) -> log p(z) - log q(z|x); Mescheder et al. 2017, (3.3), T = -f."""
    z_x = encode(nets, batch, batch.x)
    return density_ratio(nets["critic"](batch.x, z_x), nets["critic"](batch.x, prior(nets, batch)))


def avb(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-E log p(x|z) - E f, f in the place of the KL; Mescheder et al. 2017, (3.7)."""
    z_x = encode(nets, batch, batch.x)
    return _distortion(nets, batch, z_x) - nets["critic"](batch.x, z_x).mean()


CONTRAST_SAMPLES = 8
"""Other codes of each image from which adaptive contrast takes the moments of q(z|x)."""


def _contrast(nets: Networks, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """z ~ q(z|x) and the moments of q(z|x), no gradient through these: (n, d) each.

    They are those of codes other than z: a code measured by moments that it is itself a part of
    can't go far from them, and nothing would keep q from collapsing.
    """
    z = encode(nets, batch, batch.x)
    with torch.no_grad():
        others = [encode(nets, batch, batch.x, f"eps {i}") for i in range(CONTRAST_SAMPLES)]
        codes = torch.stack(others)
        sd = codes.std(0).clamp_min(1e-2)
    return z, codes.mean(0), sd


def avb_ac_critic(nets: Networks, batch: Batch) -> Tensor:
    """As `avb_critic` against r(z|x), a Gaussian of q's moments; Mescheder et al. 2017, (4.1)."""
    z, mean, sd = _contrast(nets, batch)
    f_q = nets["critic"](batch.x, (z - mean) / sd)
    return density_ratio(f_q, nets["critic"](batch.x, prior(nets, batch)))


def avb_ac(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-E log p(x|z) + E[log r(z|x) - log p(z)] - E f; Mescheder et al. 2017, (4.2), algorithm 2."""
    z, mean, sd = _contrast(nets, batch)
    log_r = normal_log_density(z, mean, sd.log())
    gap = log_r - normal_log_density(z, 0.0, 0.0) - nets["critic"](batch.x, (z - mean) / sd)
    return _distortion(nets, batch, z) + gap.mean()


def aae_critic(nets: Networks, batch: Batch) -> Tensor:
    """f(z) -> log p(z) - log q(z); Makhzani et al. 2015, section 2."""
    z_x = encode(nets, batch, batch.x)
    return density_ratio(nets["critic"](z_x), nets["critic"](prior(nets, batch)))


def aae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Reconstruction, and codes that pass for the prior's; Makhzani et al. 2015, section 2."""
    z_x = encode(nets, batch, batch.x)
    return _distortion(nets, batch, z_x) + softplus(-nets["critic"](z_x)).mean()


def as_vae_critic(nets: Networks, batch: Batch) -> Tensor:
    """Two critics: f_x -> log q(x, z) - log p(x) p(z), f_z -> log p(x, z) - log q(x) q(z).

    Pu et al. 2017, (10) and (11) with their labels: here each f is the ratio of a joint to the
    product of the other's marginals, by density_ratio with the joint in the place of p.
    """
    z, z_x = prior(nets, batch), encode(nets, batch, batch.x)
    x_z = nets["decoder"](z)

    def f(critic: str, x: Tensor, z: Tensor, name: str) -> Tensor:
        return judge(nets, batch, x, z, name, critic)

    # An independent partner for each is the next one in the batch.
    first = density_ratio(
        f("critic_x", x_z.roll(1, 0), z, "product"), f("critic_x", batch.x, z_x, "joint")
    )
    second = density_ratio(
        f("critic_z", batch.x, z_x.roll(1, 0), "product"), f("critic_z", x_z, z, "joint")
    )
    return first + second


def as_vae(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-E_q[log p(x|z) - f_x] - E_p[log q(z|x) - f_z]; Pu et al. 2017, (12)."""
    z, z_x = prior(nets, batch), encode(nets, batch, batch.x)
    x_z = nets["decoder"](z)
    log_q = normal_log_density(z, *nets["encoder"].moments(x_z))
    f_x = judge(nets, batch, batch.x, z_x, "joint", "critic_x")
    f_z = judge(nets, batch, x_z, z, "joint", "critic_z")
    return _distortion(nets, batch, z_x) - log_q.mean() + f_x.mean() + f_z.mean()


# Generators without an encoder --------------------------------------------------------------


def gan_critic(nets: Networks, batch: Batch) -> Tensor:
    """f(x) -> log p(x) - log q(x), equation (22); Goodfellow et al. 2014, (1)."""
    f_q = nets["critic"](batch.x)
    return density_ratio(f_q, nets["critic"](decode(nets, batch, prior(nets, batch))))


def gan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-E_p log sigma(-f), equation (24): the non-saturating GAN."""
    return softplus(nets["critic"](decode(nets, batch, prior(nets, batch)))).mean()


def wgan_critic(nets: Networks, batch: Batch) -> Tensor:
    """E_p f - E_q f for a clipped f, equation (25); Arjovsky et al. 2017, algorithm 1."""
    f_p = nets["critic"](decode(nets, batch, prior(nets, batch)))
    return f_p.mean() - nets["critic"](batch.x).mean()


def wgan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """-E_p f, equation (25)."""
    return -nets["critic"](decode(nets, batch, prior(nets, batch))).mean()


PENALTY = 10.0


def wgan_gp_critic(nets: Networks, batch: Batch) -> Tensor:
    """(25) and 10 (|df/dx| - 1)^2 between real and generated; Gulrajani et al. 2017, (3)."""
    x, x_z = batch.x, decode(nets, batch, prior(nets, batch)).detach()
    between = torch.lerp(x, x_z, batch.uniform("between", 1, 1, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(nets["critic"](between).sum(), between, create_graph=True)
    excess = slope.flatten(1).norm(dim=1) - 1
    gap = nets["critic"](x_z).mean() - nets["critic"](x).mean()
    return gap + PENALTY * excess.square().mean()


MARGIN = 10.0


def ebgan_critic(nets: Networks, batch: Batch) -> Tensor:
    """Energy of real images down, of generated ones up to a margin of 10; Zhao et al. 2017, (1)."""
    energy = nets["critic"](decode(nets, batch, prior(nets, batch)))
    return nets["critic"](batch.x).mean() + (MARGIN - energy).relu().mean()


def ebgan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Energy of generated images; Zhao et al. 2017, (2)."""
    return nets["critic"](decode(nets, batch, prior(nets, batch))).mean()


def _parts(encoder: str = "", decoder: str = "conv", **critics: str) -> dict[str, str]:
    return ({"encoder": encoder} if encoder else {}) | {"decoder": decoder} | critics


_JOINT = {"critic": "f(x, z)"}
_TWO = {"critic_x": "f(x, z)", "critic_z": "f(x, z)"}

METHODS: dict[str, Method] = {
    **{name: matching(objective) for name, objective in OBJECTIVES.items()},
    "svae_r_density": Method(
        density_critic,
        density_model,
        _parts("gaussian", "conv, no noise", **_JOINT),
        "sVAE-density",
        "sVAE-r-density",
    ),
    "vae": Method(None, vae, _parts("gaussian", "bernoulli"), "VAE"),
    "nf_vae": Method(None, flow_vae, _parts("planar", "bernoulli"), "NF (k = 80)"),
    "iaf_vae": Method(None, flow_vae, _parts("autoregressive", "bernoulli"), "IAF"),
    "avb": Method(avb_critic, avb, _parts("implicit", "bernoulli", **_JOINT), "AVB"),
    "avb_ac": Method(avb_ac_critic, avb_ac, _parts("implicit", "bernoulli", **_JOINT), "AVB-AC"),
    "aae": Method(aae_critic, aae, _parts("implicit", "bernoulli", critic="f(z)"), "AAE"),
    "as_vae": Method(as_vae_critic, as_vae, _parts("gaussian", "density", **_TWO), "AS-VAE"),
    "gan": Method(gan_critic, gan, _parts(decoder="mlp", critic="f(x), mlp"), "GAN"),
    "dcgan": Method(gan_critic, gan, _parts(critic="f(x)"), "DCGAN"),
    "wgan": Method(wgan_critic, wgan, _parts(critic="f(x)"), "WGAN", critic_steps=5, clip=0.01),
    "wgan_gp": Method(
        wgan_gp_critic,
        wgan,
        _parts(critic="f(x), layer norm"),
        "WGAN-GP",
        critic_steps=5,
        betas=(0.0, 0.9),
    ),
    "wgan_gp_residual": Method(
        wgan_gp_critic,
        wgan,
        _parts(decoder="residual", critic="f(x), residual"),
        "WGAN-GP ResNet",
        critic_steps=5,
        betas=(0.0, 0.9),
    ),
    "ebgan": Method(ebgan_critic, ebgan, _parts(critic="energy"), "EB-GAN"),
}


def label(method: str, lam: float) -> str:
    """The name a table gives to `method` at this lambda, e.g. sVAE at 0 and sVAE-r above."""
    found = OBJECTIVES.get(method) or METHODS[method]
    return found.label_cycle if lam > 0 and found.label_cycle else found.label
