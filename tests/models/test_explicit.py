"""Models with densities: the densities, the divergences and what each method follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from models.explicit import (
    EXPLICIT,
    LEAST,
    MOST,
    Affine,
    Batch,
    Conditional,
    JointCritic,
    Joints,
    gaussian_kl,
    log_mixture,
    log_normal,
    moments,
)


class Gauss:
    """N(mean, covariance) as data."""

    def __init__(self, d: int) -> None:
        root = torch.eye(d) + 0.3 * torch.ones(d, d).tril(-1)
        self.law = MultivariateNormal(torch.arange(d) / 2.0, scale_tril=root)

    def log_density(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)


def linear(d: int = 2, k: int = 3, seed: int = 0) -> Joints:
    rng = np.random.default_rng(seed)
    joints = Joints(Conditional(rng, d, k, sd=0.7), Conditional(rng, k, d, sd=0.9), Gauss(d))
    with torch.no_grad():
        for part in (joints.encoder, joints.decoder):
            bias = part.affine()[1]
            bias.copy_(torch.linspace(-0.3, 0.4, len(bias)))
    return joints


def batch(joints: Joints, n: int, seed: int = 1) -> Batch:
    torch.manual_seed(seed)
    law = joints.data.law  # type: ignore[attr-defined]
    d = len(law.mean)
    k = len(joints.encoder.affine()[1])
    x, z = law.sample((n,)), torch.randn(n, k)
    return Batch(x, z, *joints.pairs(x, z, torch.randn(n, k), torch.randn(n, d)))


def gradient(loss: Tensor, part: torch.nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
    return torch.cat([each.flatten() for each in found]).double()


def test_densities_are_those_of_gaussians():
    rng = np.random.default_rng(0)
    part = Conditional(rng, 2, 3, [8, 8], sd=0.3)
    u, out = torch.randn(5, 2), torch.randn(5, 3)
    mean, log_sd = part.moments(u)
    wanted = np.sum(stats.norm.logpdf(out, mean.detach(), log_sd.exp().detach()), 1)
    np.testing.assert_allclose(part.log_density(out, u).detach(), wanted, rtol=1e-5)
    assert ((log_sd.exp() > LEAST) & (log_sd.exp() < MOST)).all()
    # A sample lies eps deviations from the mean.
    assert torch.allclose(part.sample(u, torch.ones(5, 3)), mean + log_sd.exp())
    assert Conditional(rng, 2, 1, sd=0.3).moments(u)[1].exp()[0].item() == pytest.approx(0.3)


def test_a_model_without_code_has_the_ratio_of_marginals():
    rng = np.random.default_rng(0)
    joints = Joints(Conditional(rng, 1, 0), Conditional(rng, 0, 1, sd=0.5), Gauss(1))
    x = torch.linspace(-2, 2, 5)[:, None]
    wanted = stats.norm.logpdf(x, 0, 0.5) - stats.norm.logpdf(x, 0, 1)
    np.testing.assert_allclose(joints(x, x[:, :0]).detach(), wanted[:, 0], rtol=1e-5)


def test_closed_forms_agree_with_samples_and_with_torch():
    joints = linear()
    law = joints.data.law  # type: ignore[attr-defined]
    q, p = moments(joints, law.mean.double(), law.covariance_matrix.double())
    mine = MultivariateNormal(*q), MultivariateNormal(*p)
    for a, b, one, other in ((q, p, *mine), (p, q, *mine[::-1])):
        assert gaussian_kl(a, b).item() == pytest.approx(kl_divergence(one, other).item())
    pairs = batch(joints, 200_000)
    for x, z, (mean, covariance) in ((pairs.x, pairs.z_x, q), (pairs.x_z, pairs.z, p)):
        points = torch.cat([x, z], 1).detach().double()
        assert torch.allclose(points.mean(0), mean, atol=0.02)
        assert torch.allclose(points.T.cov(), covariance, atol=0.03)
    for sign, x, z, wanted in (
        (-1, pairs.x, pairs.z_x, gaussian_kl(q, p)),
        (1, pairs.x_z, pairs.z, gaussian_kl(p, q)),
    ):
        ratio = sign * joints(x, z).detach().double()
        gap = (ratio.mean() - wanted).item()
        assert gap == pytest.approx(0, abs=4 * ratio.std().item() / math.sqrt(len(ratio)))


METHODS = {
    # by the encoder and by the decoder, as weights of KL(p||q) and KL(q||p)
    "vae": ((0, 1), (0, 1)),
    "vae_z": ((1, 0), (1, 0)),
    "vae_xz": ((1, 1), (1, 1)),
    "svae_exact": ((1, 1), (1, 1)),
    "svae_r": ((0, 1), (1, 0)),
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_follows_its_divergence_at_the_optimal_critic(method: str):
    joints, n, parts = linear(), 20_000, 40
    law = joints.data.law  # type: ignore[attr-defined]
    q, p = moments(joints, law.mean.double(), law.covariance_matrix.double())
    exact = gaussian_kl(p, q), gaussian_kl(q, p)
    for player, weights in zip(("encoder", "decoder"), METHODS[method], strict=True):
        part = getattr(joints, player)
        each = (w * gradient(kl, part) for w, kl in zip(weights, exact, strict=True))
        wanted = torch.stack([*each]).sum(0)
        each = torch.stack(
            [
                gradient(EXPLICIT[method].model(joints, joints.held(), batch(joints, n, i)), part)
                for i in range(parts)
            ]
        )
        error = each.std(0) / math.sqrt(parts)
        assert ((each.mean(0) - wanted).abs() < 4.5 * error + 1e-6).all()
        assert (error.norm() / wanted.norm()).item() < 0.05  # the test can tell


def test_the_optimal_critic_is_held():
    joints = linear()
    pairs = batch(joints, 10)
    held = joints.held()
    x = pairs.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(held(x, pairs.z).sum(), x)
    assert slope.abs().sum() > 0  # the gradient passes through the pairs
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(held(pairs.x, pairs.z).sum(), list(joints.parameters()))


def test_the_penalty_wants_a_slope_of_one():
    rng, n = np.random.default_rng(0), 6
    critic, pairs = JointCritic(rng, 3, []), [torch.randn(n, d) for d in (2, 1, 1, 2)]
    one = Batch(pairs[0], pairs[1], pairs[2], pairs[3])
    (layer,) = critic.net
    assert isinstance(layer, Affine)
    for length in (1.0, 3.0):
        with torch.no_grad():
            layer.weight.copy_(length * torch.tensor([[0.6, 0.0, 0.8]]))
        f_q, f_p = one.logits(critic)
        loss = EXPLICIT["joint_wgan_gp"].critic
        assert loss is not None
        penalty = loss(critic, one, torch.rand(n, 1)) - (f_q.mean() - f_p.mean())
        assert penalty.item() == pytest.approx(10 * (length - 1) ** 2, abs=1e-4)


def test_logits_belong_to_their_pairs():
    pairs = [torch.randn(4, d) for d in (2, 1, 1, 2)]
    one = Batch(pairs[0], pairs[1], pairs[2], pairs[3])
    f_q, f_p = one.logits(lambda x, z: x.sum(1) * z.sum(1))
    assert torch.equal(f_q, one.x.sum(1) * one.z_x.sum(1))
    assert torch.equal(f_p, one.x_z.sum(1) * one.z.sum(1))


def test_log_normal_sums_over_the_last_axis_alone():
    found = log_normal(torch.zeros(3, 1, 2), torch.ones(5, 2), 0.0)
    assert found.shape == (3, 5)
    assert float(found[0, 0]) == pytest.approx(2 * stats.norm.logpdf(0, 1))


def test_the_density_of_a_mixture():
    x, mean, log_sd = torch.randn(300, 2), torch.randn(7, 2), torch.randn(7, 2) / 3
    each = stats.norm.pdf(x[:, None], mean, log_sd.exp()).prod(2)
    np.testing.assert_allclose(log_mixture(x, mean, log_sd), np.log(each.mean(1)), rtol=1e-5)
