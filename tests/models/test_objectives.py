"""The loss functions against values worked out by hand, and the theory they rest on.

At f_q = (0, ln 3) and f_p = (ln 3, -ln 3): sigma is (1/2, 3/4) and (3/4, 1/4).
"""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from bench.check.contracts import reductions
from models import objectives
from models.objectives import OBJECTIVES
from models.stacked import Bank, Shape, xavier

F_Q = (0.0, log(3))
F_P = (log(3), -log(3))

HAND = {
    # name: (value, gradient in f_q, gradient in f_p)
    "density_ratio": (log(128 / 3) / 2, (1 / 4, 3 / 8), (-1 / 8, -3 / 8)),  # (10)
    "symmetric_kl": (-log(3) / 2, (-1 / 2, -1 / 2), (1 / 2, 1 / 2)),  # (14)
    "minimax": (-log(128 / 3) / 2, (-1 / 4, -3 / 8), (1 / 8, 3 / 8)),  # (18)
    "swapped_labels": (log(128 / 9) / 2, (-1 / 4, -1 / 8), (3 / 8, 1 / 8)),  # (19)
    "sigmoid_gap": (-1 / 8, (-1 / 8, -3 / 32), (3 / 32, 3 / 32)),
}


@pytest.mark.parametrize("name", HAND)
def test_known_value_and_gradient_at_known_logits(name: str) -> None:
    f_q = torch.tensor([F_Q], dtype=torch.float64, requires_grad=True)
    f_p = torch.tensor([F_P], dtype=torch.float64, requires_grad=True)
    loss = getattr(objectives, name)(f_q, f_p)
    value, by_f_q, by_f_p = HAND[name]
    assert loss.tolist() == pytest.approx([value], abs=1e-15)
    got_q, got_p = torch.autograd.grad(loss.sum(), (f_q, f_p))
    assert got_q[0].tolist() == pytest.approx(by_f_q, abs=1e-15)
    assert got_p[0].tolist() == pytest.approx(by_f_p, abs=1e-15)


def test_equation_29_adds_lambda_times_the_reconstruction_errors() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    x_rec = torch.zeros(2, 2)  # squared errors 1, 0, 0, 4: mean 5/4
    z = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    z_rec = torch.tensor([[1.0, 3.0], [0.0, 0.0]])  # 1, 0, 0, 0: mean 1/4
    assert objectives.squared_error(x, x_rec, z, z_rec).item() == 1.5
    f_p = torch.tensor(F_P, requires_grad=True)
    matching = objectives.symmetric_kl(torch.tensor(F_Q), f_p)
    x_rec.requires_grad_()
    z_rec.requires_grad_()
    error = objectives.squared_error(x, x_rec, z, z_rec)
    loss = objectives.regularised(matching, 0.1, error)
    assert loss.item() == pytest.approx(-log(3) / 2 + 0.15, abs=1e-6)
    by_f, by_x, by_z = torch.autograd.grad(loss, (f_p, x_rec, z_rec))
    assert by_f.tolist() == [0.5, 0.5]
    # d/dx_rec of 0.1 * mean over 4 of (x - x_rec)^2: -0.05 (x - x_rec)
    assert by_x.flatten().tolist() == pytest.approx([-0.05, 0.0, 0.0, -0.1])
    assert by_z.flatten().tolist() == pytest.approx([0.05, 0.0, 0.0, 0.0])


def test_only_the_minimax_and_sigmoid_losses_vanish_where_the_critic_is_sure() -> None:
    """The paper's vanishing-gradient argument holds for (18), not for the (19) it compares with."""
    size = {}
    for method, objective in OBJECTIVES.items():
        f_p = torch.tensor([[8.0]], dtype=torch.float64, requires_grad=True)
        loss = objective.model(torch.zeros(1, 1, dtype=torch.float64), f_p)
        (gradient,) = torch.autograd.grad(loss.sum(), f_p)
        size[method] = gradient.item()
    assert size["svae_r"] == 1
    assert size["alice"] == pytest.approx(0.99966, abs=1e-5)
    assert size["alice_minimax"] == pytest.approx(3.35e-4, rel=1e-2)
    assert size["alice_sigmoid"] == pytest.approx(3.35e-4, rel=1e-2)


class TestContract:
    """What every method of the registry keeps; a new one is covered by being there."""

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_its_reductions_keep_all_contracts(self, name: str) -> None:
        found = reductions.of_objective(name)
        assert [each.contract for each in found] == [*reductions.REDUCTION, reductions.ALIKE]
        assert not [each for each in found if each.text]


class Gaussian:
    """N(mean, covariance) of the plane, a joint (x, z) with known density."""

    def __init__(self, mean: tuple[float, float], covariance: list[list[float]]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.law = torch.distributions.MultivariateNormal(
            self.mean, torch.tensor(covariance, dtype=torch.float64)
        )

    def kl(self, other: Gaussian) -> float:
        """KL(self || other) in closed form."""
        inverse = other.law.covariance_matrix.inverse()
        gap = other.mean - self.mean
        trace = (inverse @ self.law.covariance_matrix).diagonal().sum()
        dets = other.law.covariance_matrix.det().log() - self.law.covariance_matrix.det().log()
        return ((trace - 2 + gap @ inverse @ gap + dets) / 2).item()


P = Gaussian((0.5, -0.3), [[1.0, 0.6], [0.6, 1.5]])
Q = Gaussian((-0.4, 0.2), [[1.4, -0.3], [-0.3, 0.8]])


def f_star(points: torch.Tensor) -> torch.Tensor:
    """(11): log p(x, z) - log q(x, z)."""
    return P.law.log_prob(points) - Q.law.log_prob(points)


def test_equation_14_at_the_optimal_critic_is_the_symmetric_kl() -> None:
    torch.manual_seed(0)
    n = 200_000
    f_q, f_p = f_star(Q.law.sample((n,))), f_star(P.law.sample((n,)))
    estimate = objectives.symmetric_kl(f_q, f_p).item()
    error = ((f_q.var() + f_p.var()) / n).sqrt().item()
    truth = P.kl(Q) + Q.kl(P)
    assert abs(estimate - truth) < 3 * error
    assert error < truth / 100  # the test could have seen a deviation


def test_equation_15_is_never_positive() -> None:
    """l of (14) at f* is at most 0, up to Monte Carlo error, whatever the two joints."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    n = 20_000
    for scale in np.geomspace(1e-2, 1, 30):  # from nearly equal joints to far ones
        factors = np.eye(2) + scale * rng.normal(size=(2, 2, 2))
        p, q = (
            Gaussian(tuple(scale * rng.normal(size=2)), (a @ a.T + 0.1 * np.eye(2)).tolist()).law
            for a in factors
        )
        of_q, of_p = q.sample((n,)), p.sample((n,))
        f_q, f_p = (p.log_prob(x) - q.log_prob(x) for x in (of_q, of_p))
        error = ((f_q.var() + f_p.var()) / n).sqrt().item()
        assert -objectives.symmetric_kl(f_q, f_p).item() <= 4 * error


def test_a_trained_critic_recovers_the_log_density_ratio() -> None:
    """Minimising (10) leads to (11): correlation above 0.99 on fresh points."""
    torch.manual_seed(0)
    shape = Shape(2, 2, 64, 1)
    weights = xavier(shape, np.random.default_rng(0))
    bank = Bank(shape, [weights], torch.device("cpu"), torch.float32)
    adam = torch.optim.Adam([bank.parameters], lr=2e-3)
    for step in range(1500):
        adam.param_groups[0]["lr"] = 2e-3 * (1 - step / 1500)
        pairs = torch.cat([law.sample((512,)) for law in (Q.law, P.law)]).float()
        f = bank(pairs.T[None]).squeeze(1)
        adam.zero_grad(set_to_none=False)
        objectives.density_ratio(f[:, :512], f[:, 512:]).sum().backward()
        adam.step()
    fresh = torch.cat([law.sample((2000,)) for law in (Q.law, P.law)])
    with torch.no_grad():
        f = bank(fresh.float().T[None])[0, 0]
    correlation = np.corrcoef(f.numpy(), f_star(fresh).numpy())[0, 1]
    assert correlation > 0.99
