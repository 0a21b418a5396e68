"""This is the paper, method by method: what the critic minimises and what the model minimises.

Every method matches the encoder joint q(x, z) = q(x) q(z|x) with the decoder joint
p(x, z) = p(z) p(x|z) through one critic f(x, z). The critic's logit carries the paper's sign:

    f -> log p(x, z) - log q(x, z),    label 1 = decoder pair                          (11)

So a method is a pair of reductions of logits. `f_q` holds f on encoder pairs (x, code of x),
`f_p` on decoder pairs (sample from z, z). Both have shape (*stack, batch), and a reduction returns
(*stack,). A reduction averages over the batch and never over the stack, so many models train side
by side without touching one another.

Equation numbers refer to Chen et al., *Symmetric Variational Autoencoder and Connections to
Adversarial Learning*, AISTATS 2018. The paper maximises; we minimise everything below.

The critic's optimum is f* = log p - log q (11). A reduction's docstring says what its value is at
f*, and which divergence each player follows. To follow a divergence is to have its gradient while
f* is held. In these docstrings m = (p + q) / 2 and 2 JS = KL(p || m) + KL(q || m). All of this
holds in expectation; tests/models/test_identities.py shows it.

To add a method, write its reduction and one line in `OBJECTIVES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

Reduction = Callable[[Tensor, Tensor], Tensor]


def density_ratio(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Returns the loss of the critic's logistic regression, equation (10) with its sign turned.

    The loss is -E_q log(1 - sigma(f)) - E_p log sigma(f). The log density ratio (11) minimises it.
    """
    return softplus(f_q).mean(-1) + softplus(-f_p).mean(-1)


def symmetric_kl(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Returns E_p f - E_q f (14) of sVAE and sVAE-r; at f* it is the symmetric KL (15).

    The symmetric KL is KL(p || q) + KL(q || p), but the gradient of (14) is not its gradient. The
    decoder follows KL(p || q) alone, and the encoder follows KL(q || p) alone. Both seek modes,
    since each player's own joint comes first. Sønderby et al. 2017, section 3.2, show the decoder's
    half for a GAN. `completed` adds the other halves.
    """
    return f_p.mean(-1) - f_q.mean(-1)


def swapped_labels(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Returns the non-saturating loss of ALI and ALICE (19), as in ALICE's published toy code.

    At f* it is the symmetric KL - 2 JS + 2 log 2. The decoder follows KL(p || q) - 2 JS, as in
    theorem 2.5 of Arjovsky & Bottou 2017 for GANs; this equals 2 KL(m || q). The encoder follows
    KL(q || p) - 2 JS = 2 KL(m || p).
    """
    return softplus(f_p).mean(-1) + softplus(-f_q).mean(-1)


def minimax(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Returns the loss of ALI as first written (18): minus the critic's own loss.

    At f* it is 2 JS - 2 log 2. Both players follow 2 JS: the gradient is that of the value, since
    f* is the optimum of the same expression.

    Its gradient vanishes like 1 - sigma(|f|) where the critic is sure. The gradients of (14) and
    (19) do not vanish. The paper's vanishing-gradient argument is about (18).
    """
    return logsigmoid(f_p).mean(-1) + logsigmoid(-f_q).mean(-1)


def sigmoid_gap(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Returns E_p sigma(f) - E_q sigma(f), the loss of ALICE's CIFAR-10 and CelebA code.

    Neither paper prints this loss. It bounds f by sigma and so saturates on both sides. At f* it is
    half the integral of (p - q)^2 / (p + q). The decoder follows KL(q || m), and the encoder
    follows KL(p || m). Both are at most log 2.
    """
    return f_p.sigmoid().mean(-1) - f_q.sigmoid().mean(-1)


def squared_error(x: Tensor, x_rec: Tensor, z: Tensor, z_rec: Tensor) -> Tensor:
    """Returns the reconstruction terms of (29) for the toy study, which lambda weighs.

    The terms are the mean squared errors of x and of z over batch and coordinates. Up to constants
    they are minus the log densities of unit-scale Gaussians, as in ALICE's toy code. Inputs have
    shape (*stack, batch, d); the result has shape (*stack,).
    """
    return (x - x_rec).square().mean((-2, -1)) + (z - z_rec).square().mean((-2, -1))


def regularised(matching: Tensor, lam: Tensor | float, error: Tensor) -> Tensor:
    """Returns (29): a matching loss plus lambda times the reconstruction error, each (*stack,)."""
    return matching + lam * error


def completed(matching: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Returns the loss of the symmetric KL: (14) minus the mean log densities of both conditionals.

    `matching` is (14), of shape (*stack,). `log_p` is log p(x|z) on encoder pairs, and `log_q` is
    log q(z|x) on decoder pairs; both are in nats, of shape (*stack, batch). The caller holds the
    samples: no gradient passes through the pairs into `log_p` and `log_q`.

    At f* both players follow the symmetric KL, each with the half that (14) lacks. The value is
    the symmetric KL plus two cross entropies. This is (29) at lambda = 1, with samples held. As
    printed, (29) also differentiates through the samples and follows something else.
    """
    return matching - log_p.mean(-1) - log_q.mean(-1)


@dataclass(frozen=True)
class Objective:
    """Describes one method by the critic's loss, the model's loss and its names in tables."""

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
