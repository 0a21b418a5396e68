"""The paper, method by method: what the critic minimises and what the model minimises.

Every method here matches the encoder joint q(x, z) = q(x) q(z|x) with the decoder joint
p(x, z) = p(z) p(x|z) through one critic f(x, z), whose logit carries the paper's sign:

    f -> log p(x, z) - log q(x, z),    label 1 = decoder pair                          (11)

so a method is a pair of reductions of logits. `f_q` holds f on encoder pairs (x, code of x),
`f_p` on decoder pairs (sample from z, z); both have shape (*stack, batch) and a reduction
returns (*stack,): it averages over the batch and never over the stack, so that many models
train side by side without touching one another.

Equation numbers are those of Chen et al., *Symmetric Variational Autoencoder and Connections to
Adversarial Learning*, AISTATS 2018. The paper maximises; everything below is minimised.

To add a method, write its reduction and one line in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

Reduction = Callable[[Tensor, Tensor], Tensor]


def density_ratio(f_q: Tensor, f_p: Tensor) -> Tensor:
    """The critic's logistic regression, equation (10) with its sign turned.

    -E_q log(1 - sigma(f)) - E_p log sigma(f); its minimiser is the log density ratio (11).
    """
    return softplus(f_q).mean(-1) + softplus(-f_p).mean(-1)


def symmetric_kl(f_q: Tensor, f_p: Tensor) -> Tensor:
    """sVAE and sVAE-r: E_p f - E_q f, equation (14); at f* the symmetric KL divergence (15)."""
    return f_p.mean(-1) - f_q.mean(-1)


def swapped_labels(f_q: Tensor, f_p: Tensor) -> Tensor:
    """ALI and ALICE, non-saturating: equation (19), the loss of ALICE's published toy code."""
    return softplus(f_p).mean(-1) + softplus(-f_q).mean(-1)


def minimax(f_q: Tensor, f_p: Tensor) -> Tensor:
    """ALI as first written, equation (18): the critic's own objective with the sign turned.

    Where the critic is sure, its gradient vanishes like 1 - sigma(|f|); that of (14) and (19)
    does not. The paper's vanishing-gradient argument is about this form.
    """
    return logsigmoid(f_p).mean(-1) + logsigmoid(-f_q).mean(-1)


def sigmoid_gap(f_q: Tensor, f_p: Tensor) -> Tensor:
    """E_p sigma(f) - E_q sigma(f): what ALICE's released CIFAR-10 and CelebA code minimises.

    Neither paper prints it. It bounds f by sigma and so saturates on both sides.
    """
    return f_p.sigmoid().mean(-1) - f_q.sigmoid().mean(-1)


def squared_error(x: Tensor, x_rec: Tensor, z: Tensor, z_rec: Tensor) -> Tensor:
    """The reconstruction terms of (29) for the toy study, to be weighted by lambda.

    Mean squared error of x plus that of z, each over batch and coordinates: the log densities
    log p(x|z) and log q(z|x) of unit-scale Gaussians up to constants, as in ALICE's toy code.
    Inputs have shape (*stack, batch, d); the result has shape (*stack,).
    """
    return (x - x_rec).square().mean((-2, -1)) + (z - z_rec).square().mean((-2, -1))


def regularised(matching: Tensor, lam: Tensor | float, error: Tensor) -> Tensor:
    """Equation (29): a matching loss plus lambda times the reconstruction error, each (*stack,)."""
    return matching + lam * error


@dataclass(frozen=True)
class Objective:
    """One method: the critic's loss, the model's loss, and its names in tables."""

    critic: Reduction
    model: Reduction
    label: str  # at lambda = 0
    label_cycle: str  # at lambda > 0, with the reconstruction terms of (29)


OBJECTIVES: dict[str, Objective] = {
    "svae_r": Objective(density_ratio, symmetric_kl, "sVAE", "sVAE-r"),
    "alice": Objective(density_ratio, swapped_labels, "ALI", "ALICE"),
    "alice_minimax": Objective(density_ratio, minimax, "ALI-minimax", "ALICE-minimax"),
    "alice_sigmoid": Objective(density_ratio, sigmoid_gap, "ALI-sigmoid", "ALICE-sigmoid"),
}
