"""What each reduction is at the optimal critic f*, and whose gradient each player follows.

The joints are linear and Gaussian, of (x, z) with 1 + 1 and with 3 + 2 dimensions. f* is (11) at
the parameters as they are. It is held, as the algorithm holds the critic. KLs of q and p are closed
forms. Expectations of f*, a quadratic, are exact by quadrature. All else is a quadrature that two
orders agree on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import normalize

from models import objectives


@dataclass(frozen=True)
class Joint:
    """The joint u ~ N(mean, root root'), v|u ~ N(slope u + offset, sd^2) of one player.

    (u, v) is (x, z) of an encoder and (z, x) of a decoder. The last three fields are the player's
    parameters: of one player, or of a stack of players.
    """

    mean: Tensor
    root: Tensor
    slope: Tensor
    offset: Tensor
    sd: Tensor

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.slope, self.offset, self.sd

    def player(self, *stack: int) -> Joint:
        """Returns the joint with parameters to differentiate by."""
        slope, offset, sd = (
            of.expand(*stack, *of.shape).clone().requires_grad_() for of in self.parameters
        )
        return replace(self, slope=slope, offset=offset, sd=sd)

    def held(self) -> Joint:
        slope, offset, sd = (of.detach() for of in self.parameters)
        return replace(self, slope=slope, offset=offset, sd=sd)

    def pairs(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (u, v) as functions of noise and parameters."""
        u = self.mean + noise[..., : len(self.mean)] @ self.root.mT
        centre = u @ self.slope.mT + self.offset[..., None, :]
        return u, centre + self.sd[..., None, :] * noise[..., len(self.mean) :]

    def given(self, u: Tensor, v: Tensor) -> Tensor:
        """Returns the log density of v given u."""
        centre = u @ self.slope.mT + self.offset[..., None, :]
        return Normal(centre, self.sd[..., None, :]).log_prob(v).sum(-1)

    def log(self, u: Tensor, v: Tensor) -> Tensor:
        return MultivariateNormal(self.mean, scale_tril=self.root).log_prob(u) + self.given(u, v)

    def law(self, *, v_first: bool) -> MultivariateNormal:
        """Returns the joint as one Gaussian."""
        cov, k = self.root @ self.root.mT, len(self.offset)
        cross = self.slope @ cov
        noise = self.sd.square().diag()
        whole = torch.cat(
            [torch.cat([cov, cross.mT], 1), torch.cat([cross, cross @ self.slope.mT + noise], 1)]
        )
        mean = torch.cat([self.mean, self.slope @ self.mean + self.offset])
        if v_first:
            mean, whole = mean.roll(k), whole.roll((k, k), (0, 1))
        return MultivariateNormal(mean, whole)


def joint(*numbers: object) -> Joint:
    return Joint(*(torch.tensor(of, dtype=torch.float64) for of in numbers))


@dataclass(frozen=True)
class Case:
    """An encoder's joint q, a decoder's joint p and the order of a converged quadrature."""

    q: Joint
    p: Joint
    order: int


CASES = {
    "2": Case(
        joint([0.0], [[1.0]], [[0.5]], [0.0], [0.6]),
        joint([0.0], [[1.0]], [[0.8]], [0.0], [0.7]),
        order=32,
    ),
    "5": Case(
        joint(
            [0.2, -0.1, 0.2],
            [[1.0, 0.0, 0.0], [-0.1, 1.0, 0.0], [0.2, -0.1, 0.8]],
            [[0.6, 0.1, 0.2], [-0.1, 0.5, -0.3]],
            [0.2, -0.1],
            [0.75, 0.85],
        ),
        joint(
            [0.0, 0.0],
            [[1.0, 0.0], [0.0, 1.0]],
            [[0.6, -0.1], [-0.1, 0.5], [0.3, -0.3]],
            [0.1, -0.1, 0.1],
            [0.8, 0.9, 0.7],
        ),
        order=14,
    ),
}


@cache
def quadrature(dimensions: int, order: int) -> tuple[Tensor, Tensor]:
    """Returns nodes (n, 1, dimensions) and weights of standard Gaussian noise, by Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    line, weight = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    grid = torch.cartesian_prod(*[line] * dimensions).reshape(-1, dimensions)
    product = torch.cartesian_prod(*[weight] * dimensions).reshape(-1, dimensions).prod(-1)
    counts = product > 1e-15
    return grid[counts, None], product[counts]


def loss(
    name: str, q: Joint, p: Joint, noise: tuple[Tensor, Tensor], cycle: bool = False
) -> Tensor:
    """Returns the model's loss at f*, one number for each batch of noise.

    `completed` is (14) completed. With `cycle` its log densities differentiate through the samples.
    """
    (x_q, z_q), (z_p, x_p) = q.pairs(noise[0]), p.pairs(noise[1])
    q_now, p_now = q.held(), p.held()
    f_q = p_now.log(z_q, x_q) - q_now.log(x_q, z_q)
    f_p = p_now.log(z_p, x_p) - q_now.log(x_p, z_p)
    if name != "completed":
        return getattr(objectives, name)(f_q, f_p)
    if not cycle:
        x_q, z_q, z_p, x_p = (of.detach() for of in (x_q, z_q, z_p, x_p))
    matching = objectives.symmetric_kl(f_q, f_p)
    return objectives.completed(matching, p.given(z_q, x_q), q.given(x_p, z_p))


def gradients(value: Tensor, *players: Joint) -> list[Tensor]:
    """Returns each player's gradient as one vector, (*stack, parameters)."""
    stack = players[0].sd.shape[:-1]
    found = []
    for player in players:
        each = torch.autograd.grad(value.sum(), player.parameters, retain_graph=True)
        found.append(torch.cat([of.reshape(*stack, -1) for of in each], -1))
    return found


def expected(case: Case, name: str, order: int = 0, cycle: bool = False) -> list[Tensor]:
    """Returns the expected loss at f*, the decoder's gradient and the encoder's gradient.

    A node of the quadrature is a batch of one pair of each joint.
    """
    q, p = case.q.player(), case.p.player()
    noise, weight = quadrature(len(q.mean) + len(p.mean), order or case.order)
    value = weight @ loss(name, q, p, (noise, noise), cycle)
    return [value.detach(), *gradients(value, p, q)]


class Divergences:
    """Divergences of q, p and m = (q + p) / 2, with nothing held."""

    def __init__(self, case: Case) -> None:
        self.q, self.p = case.q.player(), case.p.player()
        noise, self.weight = quadrature(len(self.q.mean) + len(self.p.mean), case.order)
        (x_q, z_q), (z_p, x_p) = self.q.pairs(noise), self.p.pairs(noise)
        self.logs = {
            "q": {"q": self.q.log(x_q, z_q), "p": self.p.log(z_q, x_q)},  # on pairs of q
            "p": {"q": self.q.log(x_p, z_p), "p": self.p.log(z_p, x_p)},
        }
        for of in self.logs.values():
            of["m"] = torch.logaddexp(of["q"], of["p"]) - log(2)

    def mean(self, law: str, of: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        """Returns the mean under q, p or m of a function of the three log densities."""
        means = [self.weight @ of(self.logs[each])[:, 0] for each in ("qp" if law == "m" else law)]
        return sum(means, torch.zeros(())) / len(means)

    def kl(self, first: str, second: str) -> Tensor:
        if "m" in (first, second):
            return self.mean(first, lambda logs: logs[first] - logs[second])
        laws = {"q": self.q.law(v_first=False), "p": self.p.law(v_first=True)}
        return kl_divergence(laws[first], laws[second])

    def kl_s(self) -> Tensor:
        return self.kl("p", "q") + self.kl("q", "p")

    def js2(self) -> Tensor:
        """Returns twice the Jensen-Shannon divergence."""
        return self.kl("p", "m") + self.kl("q", "m")

    def triangular(self) -> Tensor:
        """Returns the integral of (p - q)^2 / (p + q)."""
        return 2 * self.mean("m", lambda logs: ((logs["p"] - logs["q"]) / 2).tanh().square())

    def followed(self, name: str) -> list[Tensor]:
        """Returns what the loss's value, the decoder's and the encoder's gradient should be."""
        value, of_p, of_q = IDENTITIES[name](self)
        return [value.detach(), *gradients(of_p, self.p), *gradients(of_q, self.q)]


# A reduction's value at f*, and the divergences whose gradients the decoder and the encoder follow.
IDENTITIES: dict[str, Callable[[Divergences], tuple[Tensor, Tensor, Tensor]]] = {
    "symmetric_kl": lambda d: (d.kl_s(), d.kl("p", "q"), d.kl("q", "p")),
    "minimax": lambda d: (d.js2() - 2 * log(2), d.js2(), d.js2()),
    "swapped_labels": lambda d: (
        d.kl_s() - d.js2() + 2 * log(2),
        2 * d.kl("m", "q"),
        2 * d.kl("m", "p"),
    ),
    "sigmoid_gap": lambda d: (d.triangular() / 2, d.kl("q", "m"), d.kl("p", "m")),
    "completed": lambda d: (d.kl_s() + cross_entropies(d), d.kl_s(), d.kl_s()),
}


def cross_entropies(d: Divergences) -> Tensor:
    """Returns -E_q log p(x|z) - E_p log q(z|x): the means of two quadratics, in closed form."""
    q, p = d.q.law(v_first=False), d.p.law(v_first=True)
    x = len(d.q.mean)
    total = torch.zeros(())
    for of, law, player, u in ((q, p, d.p, slice(x, None)), (p, q, d.q, slice(None, x))):
        # E -log law = KL + entropy; the log density of u alone is taken away again.
        prior = MultivariateNormal(player.mean, scale_tril=player.root)
        alone = MultivariateNormal(of.mean[u], of.covariance_matrix[u, u])
        total = total + kl_divergence(of, law) + of.entropy()
        total = total - kl_divergence(alone, prior) - alone.entropy()
    return total


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def gap(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", IDENTITIES)
def test_value_and_gradients_at_the_optimal_critic(case: Case, name: str) -> None:
    found = expected(case, name)
    assert gap(found, expected(case, name, case.order - 2)) < 1e-7  # the quadrature has converged
    assert gap(found, Divergences(case).followed(name)) < 1e-6


@pytest.mark.parametrize("name", IDENTITIES)
def test_samples_agree_within_three_standard_errors(case: Case, name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    members, batch = 100, 1000
    q, p = case.q.player(members), case.p.player(members)
    shape = (2, members, batch, len(q.mean) + len(p.mean))
    noise_q, noise_p = torch.randn(shape, generator=draw, dtype=torch.float64)
    value = loss(name, q, p, (noise_q, noise_p))
    sampled = [value.detach()[:, None], *gradients(value, p, q)]
    for each, wanted in zip(sampled, Divergences(case).followed(name), strict=True):
        error = each.std(0) / members**0.5
        assert ((each.mean(0) - wanted).abs() < 3 * error).all()
        assert error.norm() < 0.05 * wanted.norm()  # the test could have seen a deviation


def test_the_losses_of_ali_follow_two_forms_of_one_divergence(case: Case) -> None:
    """KL(p||q) - 2 JS = 2 KL(m||q) for the decoder, and its twin for the encoder."""
    d = Divergences(case)
    for first, second, player in (("p", "q", d.p), ("q", "p", d.q)):
        difference = d.kl(first, second) - d.js2() - 2 * d.kl("m", second)
        assert abs(difference.item()) < 1e-6
        assert gradients(difference, player)[0].abs().max() < 1e-6


def test_the_gradient_of_14_is_half_of_that_of_the_symmetric_kl() -> None:
    """The joints of two dimensions, with derivatives by slope and sd taken by hand.

    KL(p||q) = log(s/t) + (a^2 + t^2) / 2 + (1 - 2ab + b^2 (a^2 + t^2)) / 2s^2 - 1 with slopes b and
    a and deviations s and t of encoder and decoder. KL(q||p) has a and b, and s and t, exchanged.
    """
    b, s, a, t = 0.5, 0.6, 0.8, 0.7
    of_x, of_z = a**2 + t**2, b**2 + s**2  # variances
    left_z, left_x = 1 - 2 * a * b + b**2 * of_x, 1 - 2 * a * b + a**2 * of_z
    decoder = [a - b / s**2 + a * (b / s) ** 2, t - 1 / t + t * (b / s) ** 2]
    encoder = [b - a / t**2 + b * (a / t) ** 2, s - 1 / s + s * (a / t) ** 2]
    missing_p = [(a * of_z - b) / t**2, 1 / t - left_x / t**3]
    missing_q = [(b * of_x - a) / s**2, 1 / s - left_z / s**3]
    kl_s = (of_x + of_z + left_z / s**2 + left_x / t**2) / 2 - 2
    assert kl_s == pytest.approx(0.14259, abs=1e-5)

    for name, share, missed in (("symmetric_kl", 0, (0.546, 0.611)), ("completed", 1, (0, 0))):
        value, by_p, by_q = expected(CASES["2"], name)
        if name == "symmetric_kl":
            assert value.item() == pytest.approx(kl_s, abs=1e-6)
        for found, half, rest, gap in zip(
            (by_p, by_q), (decoder, encoder), (missing_p, missing_q), missed, strict=True
        ):
            half, rest = np.array(half), np.array(rest)
            assert found[[0, 2]].numpy() == pytest.approx(half + share * rest, abs=1e-6)
            off = np.linalg.norm(found[[0, 2]].numpy() - half - rest) / np.linalg.norm(half + rest)
            assert off == pytest.approx(gap, abs=1e-3)


def test_through_the_samples_29_does_more_than_descend_the_symmetric_kl(case: Case) -> None:
    """(29) as printed has the cycle: at lambda = 1 its gradient is not that of KL_s."""
    held, cycle = expected(case, "completed"), expected(case, "completed", cycle=True)
    assert cycle[0] == pytest.approx(held[0])
    for without, through in zip(held[1:], cycle[1:], strict=True):
        assert (through - without).norm() > 0.5 * without.norm()


# Critics f(x, z) = a(x) + b(z)


def plane(slope: float, offset: float = 0.0) -> Joint:
    """Returns u ~ N(offset, 1), v ~ N(offset, 1) with the slope as their correlation."""
    centre, spread = offset * (1 - slope), (1 - slope**2) ** 0.5
    return joint([offset], [[1.0]], [[slope]], [centre], [spread])


def functions(t: Tensor) -> Tensor:
    """Returns a rich basis of functions of one variable, at the points (n, 1)."""
    powers = [t**k / 3**k for k in range(7)]
    waves = [wave(k * t) for k in (1, 2, 3) for wave in (torch.sin, torch.cos)]
    bumps = [torch.exp(-((t - centre) ** 2) / 2) for centre in range(-3, 4)]
    return torch.cat([*powers, *waves, *bumps, torch.tanh(t)], -1)


def basis(x: Tensor, z: Tensor) -> Tensor:
    return torch.cat([functions(x), functions(z)], -1)


class Critics:
    """The critic's loss on two joints of the plane, by quadrature."""

    def __init__(self, q: Joint, p: Joint) -> None:
        noise, self.weight = quadrature(2, 48)
        self.q = q.pairs(noise[:, 0])
        self.p = p.pairs(noise[:, 0])[::-1]

    def loss(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Returns (10) of a critic of (n, 1) and (n, 1)."""
        return self.weight @ objectives.density_ratio(f(*self.q), f(*self.p))

    def slopes(self, f: Callable[[Tensor, Tensor], Tensor], of: Callable[..., Tensor]) -> Tensor:
        """Returns the derivatives of the loss at f in the directions of a basis."""
        steps = torch.zeros(of(*self.q).shape[-1], dtype=torch.float64, requires_grad=True)
        value = self.loss(lambda x, z: f(x, z) + (of(x, z) @ steps)[:, None])
        return torch.autograd.grad(value, steps)[0]


def zero(x: Tensor, z: Tensor) -> Tensor:
    return 0 * x


def product(x: Tensor, z: Tensor) -> Tensor:
    return x * z


@pytest.mark.parametrize(("of_q", "of_p"), [(0.6, -0.6), (0.8, 0.1)])
def test_an_additive_critic_does_not_see_how_x_and_z_belong_together(
    of_q: float, of_p: float
) -> None:
    """Once both marginals match, f = 0 is the best additive critic, whatever the correlations."""
    q, p = plane(of_q), plane(of_p)
    critics = Critics(q, p)
    best = critics.loss(zero).item()
    assert best == pytest.approx(2 * log(2), abs=1e-12)
    # The derivative is 0 in every additive direction, and (10) is convex in f: a minimum.
    assert critics.slopes(zero, basis).abs().max() < 1e-8
    draw = torch.Generator().manual_seed(0)
    f_q, f_p, g_q, g_p = 4 * torch.randn(4, 1000, 8, generator=draw, dtype=torch.float64)
    ends = objectives.density_ratio(f_q, f_p) + objectives.density_ratio(g_q, g_p)
    assert (objectives.density_ratio((f_q + g_q) / 2, (f_p + g_p) / 2) < ends / 2).all()
    size = basis(*critics.q).shape[-1]
    for of in normalize(torch.randn(20, size, generator=draw, dtype=torch.float64)):
        assert critics.loss(lambda x, z, of=of: (basis(x, z) @ of)[:, None]) > best

    # Joint critics do better: along x z the loss falls, and at f* it is lower by 2 JS.
    slope = (of_q - of_p) / 2
    assert critics.slopes(zero, product).item() == pytest.approx(slope, abs=1e-8)
    assert critics.loss(lambda x, z: -slope * x * z) < best - slope**2 / 2
    ratio = critics.loss(lambda x, z: (p.log(z, x) - q.log(x, z))[:, None]).item()
    assert best - ratio == pytest.approx(Divergences(Case(q, p, 48)).js2().item(), abs=1e-6)
    assert best - ratio > 0.15


def test_the_best_additive_critic_is_not_the_sum_of_the_marginal_log_ratios() -> None:
    """Of two correlated Gaussians f* is additive: the sum x + z - 1, divided by 1 + rho."""
    rho = 0.5
    q, p = plane(rho), plane(rho, 1.0)
    critics = Critics(q, p)

    def marginals(x: Tensor, z: Tensor) -> Tensor:
        law = [Normal(mean, 1.0) for mean in (1.0, 0.0)]
        return sum((law[0].log_prob(of) - law[1].log_prob(of) for of in (x, z)), 0 * x)

    def best(x: Tensor, z: Tensor) -> Tensor:
        return marginals(x, z) / (1 + rho)

    x, z = critics.q
    assert (best(x, z)[:, 0] - p.log(z, x) + q.log(x, z)).abs().max() < 1e-9
    assert critics.slopes(best, basis).abs().max() < 1e-8
    assert critics.slopes(marginals, basis).abs().max() > 0.05
    assert critics.loss(marginals) - critics.loss(best) > 0.01
