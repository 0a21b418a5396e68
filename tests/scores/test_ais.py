"""Annealed importance sampling against likelihoods that are known."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.data.ahead import ahead
from bench.scores import ais
from bench.scores.ais import AnnealedRun, Estimate, log_likelihood, mean_and_se, schedule
from bench.scores.latent import (
    LatentModel,
    bernoulli,
    linear_gaussian,
    log_mean_exp,
    trajectory,
    value_and_slope,
)
from bench.speed.baselines.ais import plain_log_likelihood

DOUBLE = torch.float64


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=DOUBLE)


def drawn(model: LatentModel, n: int, seed: int = 0) -> Tensor:
    """n images from the model, by no code of the sampler."""
    return model.simulate(normal(n, model.d, seed=seed), torch.Generator().manual_seed(seed))


def lines(d: int, p: int = 20) -> tuple[Tensor, Tensor, float]:
    """Weight, bias and sd of a linear-Gaussian model whose latent dimensions all count."""
    return normal(p, d, seed=d) / math.sqrt(d), normal(p, seed=1), 2.0


def mlp(d: int, p: int = 24) -> LatentModel:
    """A Bernoulli decoder with one hidden layer of random weights."""
    w1, w2, b = 2 * normal(d, 16, seed=3), normal(16, p, seed=4), normal(p, seed=5)
    return bernoulli(lambda u: (u @ w1).tanh() @ w2 + b, d, DOUBLE)


def to_uniform(u: Tensor) -> Tensor:
    """Maps N(0, 1) to the uniform distribution on [-1, 1]: 2 Phi(u) - 1."""
    return 2 * torch.special.ndtr(u) - 1


def linear_gaussian_log_prob(weight: Tensor, bias: Tensor, sd: float, x: Tensor) -> Tensor:
    """log p(x) (n,) under `linear_gaussian`, exactly: x ~ N(b, W W^T + sd^2 I)."""
    noise = sd**2 * torch.eye(len(bias), dtype=bias.dtype, device=bias.device)
    return MultivariateNormal(bias, weight @ weight.T + noise).log_prob(x)


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
            log_lik = model.log_likelihood(u, image.expand(samples, -1))
        log_ratio = ((eps.square() - u.square()) / 2 + log_scale).sum(-1)
        bounds.append(log_mean_exp((log_lik + log_ratio).double()))
    return torch.stack(bounds)


def quadrature(model: LatentModel, x: Tensor) -> Tensor:
    """log p(x) (n,) for d = 1 or 2 by a rectangle rule over u in [-8, 8]^d."""
    axis = torch.linspace(-8, 8, 4001 if model.d == 1 else 241, dtype=DOUBLE)
    u = torch.cartesian_prod(*[axis] * model.d).view(-1, model.d)
    log_cell = model.d * (axis[1] - axis[0]).log()
    log_prior = -u.square().sum(-1) / 2 - model.d / 2 * math.log(2 * math.pi) + log_cell
    each = [model.log_likelihood(u, row.expand(len(u), -1)) + log_prior for row in x]
    return torch.stack(each).nan_to_num(-math.inf).logsumexp(-1)


def se(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def gap(estimate: Estimate) -> float:
    """The mean gap of bidirectional Monte Carlo."""
    return mean_and_se(estimate.upper - estimate.lower)[0]


def assert_sandwich(estimate: Estimate, simulated: Tensor, given: Tensor) -> None:
    """Truths between the bounds, to 3 standard errors of the differences, and a small gap."""
    below, above = estimate.lower - simulated.numpy(), estimate.upper - simulated.numpy()
    elsewhere = estimate.log_likelihood - given.numpy()
    assert gap(estimate) <= 0.1
    assert below.mean() <= 3 * se(below)
    assert above.mean() >= -3 * se(above)
    assert_close_below(elsewhere)


def assert_close_below(error: np.ndarray) -> None:
    """Bounds less truths: below 0 to 3 standard errors, and within .1 nats."""
    assert error.mean() <= 3 * se(error)
    assert abs(error.mean()) <= 0.1


@pytest.mark.parametrize("d", [2, 10, 50])
def test_linear_gaussian_truth_lies_between_the_bounds(d: int) -> None:
    line = lines(d)
    model = linear_gaussian(*line)
    x = drawn(model, 32)
    run = AnnealedRun(model, x, simulated=32, temperatures=200, chains=16, leapfrog=8, seed=0)
    truths = (linear_gaussian_log_prob(*line, each) for each in (run.simulated_images, x))
    assert_sandwich(run.finish(), *truths)


@pytest.mark.parametrize("d", [1, 2])
def test_bernoulli_truth_lies_between_the_bounds(d: int) -> None:
    model = mlp(d)
    x = drawn(model, 16)
    run = AnnealedRun(model, x, simulated=16, temperatures=200, chains=16, leapfrog=8, seed=0)
    truths = (quadrature(model, each) for each in (run.simulated_images, x))
    assert_sandwich(run.finish(), *truths)


def test_a_uniform_coordinate_is_folded_into_the_latent_space() -> None:
    """z ~ N(0, 1) and v ~ U(-1, 1): the truth is a sum over z and v themselves."""
    assert to_uniform(torch.tensor([-1.959964, 0, 1.959964])).tolist() == pytest.approx(
        [-0.95, 0, 0.95], abs=1e-6
    )
    w1, w2 = 3 * normal(2, 16, seed=6), normal(16, 24, seed=7)

    def logits(z: Tensor, v: Tensor) -> Tensor:
        return (torch.cat([z, v], -1) @ w1).tanh() @ w2

    model = bernoulli(lambda u: logits(u[:, :1], to_uniform(u[:, 1:])), 2, DOUBLE)
    x = drawn(model, 16)
    z, v = torch.linspace(-8, 8, 321, dtype=DOUBLE), torch.linspace(-1, 1, 201, dtype=DOUBLE)
    v = (v[1:] + v[:-1]) / 2  # midpoints
    grid = torch.cartesian_prod(z, v)
    direct = bernoulli(lambda zv: logits(zv[:, :1], zv[:, 1:]), 2, DOUBLE)
    log_cell = math.log((16 / 320) / len(v) / math.sqrt(2 * math.pi)) - grid[:, 0].square() / 2
    truth = [direct.log_likelihood(grid, row.expand(len(grid), -1)) + log_cell for row in x]
    estimate = log_likelihood(model, x, temperatures=200, chains=16, leapfrog=8, seed=0)
    error = estimate.log_likelihood - torch.stack(truth).logsumexp(-1).numpy()
    assert_close_below(error)


def test_one_trajectory_leaves_its_distribution_as_it_is() -> None:
    """From exact samples of N(u; 0, I) p(x|u)^beta at a step size that often fails."""
    weight, bias, sd = lines(3)
    model, beta, n = linear_gaussian(weight, bias, sd), 0.4, 40_000
    x = drawn(model, 1).expand(n, -1)
    precision = torch.eye(3, dtype=DOUBLE) + beta * weight.T @ weight / sd**2
    root = torch.linalg.cholesky(precision)
    centre = torch.linalg.solve(precision, beta * weight.T @ (x[0] - bias) / sd**2)
    u = centre + torch.linalg.solve_triangular(root.T, normal(n, 3, seed=8).T, upper=True).T
    start = (u, *value_and_slope(model, u, x))
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    step_size = torch.full((n, 1), 0.95, dtype=DOUBLE)
    u, log_lik, slope, moved = trajectory(
        model, x, beta, 3, step_size, *start, normal(n, 3, seed=10), uniform.log()
    )
    assert 0.4 < moved.double().mean() < 0.9
    white = (u - centre) @ root  # N(0, I)
    assert white.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (white.T @ white / n - torch.eye(3)).abs().max() < 4 * math.sqrt(2 / n)
    for kept, again in zip((log_lik, slope), value_and_slope(model, u, x), strict=True):
        torch.testing.assert_close(kept, again, rtol=0, atol=1e-9)


def test_equal_to_a_loop_over_single_images_and_chains() -> None:
    settings: dict[str, Any] = {"temperatures": 60, "chains": 3, "leapfrog": 4, "seed": 5}
    for model in (mlp(2), linear_gaussian(*lines(6))):
        x = drawn(model, 3)
        batched = log_likelihood(model, x, **settings).log_likelihood
        np.testing.assert_allclose(
            batched, plain_log_likelihood(model, x, **settings), rtol=0, atol=1e-9
        )


def test_no_image_depends_on_the_others_or_on_the_cut() -> None:
    model = mlp(2)
    x = drawn(model, 5)
    settings: dict[str, Any] = {"temperatures": 40, "chains": 4, "leapfrog": 5, "seed": 2}
    whole = AnnealedRun(model, x, simulated=3, **settings).finish()
    for batch in (1, 7):
        cut = AnnealedRun(model, x, simulated=3, batch=batch, **settings).finish()
        for name in ("log_likelihood", "lower", "upper"):
            np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=0, atol=1e-9)
    few = log_likelihood(model, x[:2], **settings)
    np.testing.assert_allclose(few.log_likelihood, whole.log_likelihood[:2], rtol=0, atol=1e-9)
    alone = AnnealedRun(model, simulated=2, **settings).finish()
    np.testing.assert_allclose(alone.lower, whole.lower[:2], rtol=0, atol=1e-9)
    np.testing.assert_allclose(alone.upper, whole.upper[:2], rtol=0, atol=1e-9)
    other = log_likelihood(model, x[:2], **{**settings, "seed": 3})
    assert (other.log_likelihood != few.log_likelihood).all()


def test_the_way_back_takes_the_same_step_sizes_in_reverse_order() -> None:
    run = AnnealedRun(mlp(2), simulated=2, temperatures=30, chains=4, leapfrog=3, seed=0)
    there, back = [], []
    while run.t < 29:
        there.append(run.state()["step_size"])
        run.step()
    while run.t < 58:
        run.step()
        back.append(run.state()["step_size"])
    there, back = torch.stack(there[:-1]), torch.stack(back[:-1])  # none at beta 0 and 1
    assert torch.equal(back.flip(0), there) and len(there.unique()) > 10


@pytest.mark.parametrize("stop", [0, 1, 11, 19, 20, 31, 37])
def test_a_resumed_run_ends_with_the_same_bits(stop: int) -> None:
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 12)).requires_grad_(False)
    model = bernoulli(decoder, 3)
    x = drawn(model_in_double(decoder), 3)

    def fresh() -> AnnealedRun:
        return AnnealedRun(
            model, x, simulated=2, temperatures=20, chains=3, leapfrog=3, seed=1, batch=4
        )

    whole, broken, resumed = fresh(), fresh(), fresh()
    for _ in range(stop):
        broken.step()
    resumed.load(load(save(broken.state())))
    assert (resumed.t, resumed.total) == (stop, 38)
    expected, heard = whole.finish(), []
    found = resumed.finish(lambda *now: heard.append(now))
    assert heard == [(t, 38) for t in range(stop + 1, 39)]
    for name in ("log_likelihood", "lower", "upper", "acceptance"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("stop", [0, 5, 19, 27, 38])
def test_numbers_that_are_drawn_ahead_are_the_same(
    stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, also where a run goes on; on a CPU no thread draws."""

    def fresh() -> AnnealedRun:
        settings: dict[str, Any] = {"temperatures": 20, "chains": 3, "leapfrog": 3, "seed": 1}
        return AnnealedRun(mlp(2), drawn(mlp(2), 3), simulated=2, **settings)

    monkeypatch.setattr(ais, "ahead", lambda draws: pytest.fail("a CPU draws by itself"))
    whole, stopped = fresh(), fresh()
    for _ in range(stop):
        stopped.step()
    threads, now = set(), ais._draws

    def noted(*given: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for each in now(*given):
            threads.add(threading.get_ident())
            yield each

    monkeypatch.setattr(ais, "_draws", lambda *given: ahead(noted(*given)))
    resumed = fresh()
    resumed.load(load(save(stopped.state())))
    expected, found = whole.finish(), resumed.finish()
    for name in ("log_likelihood", "lower", "upper", "acceptance"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert threads and threading.get_ident() not in threads


class Waits(TorchDispatchMode):
    """Notes operations that make a GPU's caller wait, or that take a tensor of the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, leaves = func._overloadpacket, tree_leaves((args, kwargs))
        elsewhere = any(isinstance(each, Tensor) and each.device.type == "cpu" for each in leaves)
        waiting = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        if elsewhere or name in waiting:
            self.found.append(name.__name__)
        return func(*args, **(kwargs or {}))


def test_a_gpu_gets_the_numbers_of_a_step_and_never_waits() -> None:
    """On "meta", which stands for a GPU: forward, the way back and both turns."""
    layer = nn.Linear(3, 12, device="meta").requires_grad_(False)
    model = bernoulli(layer, 3, device="meta")
    settings: dict[str, Any] = {"temperatures": 5, "chains": 3, "leapfrog": 2, "seed": 1}
    run = AnnealedRun(model, torch.zeros(2, 12), simulated=2, batch=4, **settings)
    with Waits() as mode:
        for _ in range(run.total):
            run.step()
    assert {*mode.found} == {"lift_fresh", "log", "_to_copy"}  # of numpy's numbers
    assert mode.found.count("_to_copy") == 2 * 2 * (5 - 2)  # two copies for each trajectory


@pytest.mark.gpu
def test_a_gpu_estimates_what_a_cpu_does() -> None:
    """In float64 no chain turns another way; images, step sizes and both bounds are the same."""
    weights = [2 * normal(4, 16, seed=3), normal(16, 24, seed=4), normal(24, seed=5)]
    found = []
    for device in ("cpu", "cuda"):
        w1, w2, b = (weight.to(device) for weight in weights)
        model = bernoulli(lambda u, w1=w1, w2=w2, b=b: (u @ w1).tanh() @ w2 + b, 4, DOUBLE, device)
        x = drawn(mlp(4), 6)
        settings: dict[str, Any] = {"temperatures": 50, "chains": 4, "leapfrog": 5, "seed": 2}
        run = AnnealedRun(model, x, simulated=3, **settings)
        for _ in range(run.total // 3):
            run.step()
        resumed = AnnealedRun(model, x, simulated=3, **settings)
        resumed.load(load(save(run.state())))
        found.append((run.finish(), resumed.finish()))
    ((cpu, _), (gpu, resumed)) = found
    for name in ("log_likelihood", "lower", "upper", "acceptance"):
        np.testing.assert_allclose(getattr(gpu, name), getattr(cpu, name), rtol=0, atol=1e-6)
        assert np.array_equal(getattr(resumed, name), getattr(gpu, name))


def model_in_double(decoder: nn.Module) -> LatentModel:
    return bernoulli(lambda u: decoder(u.float()).double(), 3, DOUBLE)


def test_a_state_of_another_run_is_refused() -> None:
    settings: dict[str, Any] = {"temperatures": 20, "chains": 3, "leapfrog": 3}
    state = AnnealedRun(mlp(1), simulated=2, seed=1, **settings).state()
    with pytest.raises(ValueError, match=r"\[1, 20, 3, 3, 0, 2\]; allowed: \[2, 20, 3, 3, 0, 2\]"):
        AnnealedRun(mlp(1), simulated=2, seed=2, **settings).load(state)


def test_codes_the_decoder_fails_on_count_as_impossible() -> None:
    """nan above half a standard deviation: the rest of the line gives all of p(x)."""
    whole = mlp(1)

    def log_lik(u: Tensor, x: Tensor) -> Tensor:
        return torch.where(u[:, 0] > 0.5, math.nan, 1.0) * whole.log_likelihood(u, x)

    x = drawn(whole, 32)
    model = LatentModel(1, log_lik, whole.simulate, DOUBLE)
    estimate = log_likelihood(model, x, temperatures=150, chains=64, leapfrog=8, seed=0)
    error = estimate.log_likelihood - quadrature(model, x).numpy()
    assert_close_below(error)


def test_a_decoder_that_always_fails_never_looks_converged() -> None:
    model = bernoulli(lambda u: u.sum(-1, keepdim=True).expand(-1, 4) * math.nan, 2, DOUBLE)
    estimate = AnnealedRun(
        model, simulated=2, temperatures=5, chains=2, leapfrog=2, seed=0
    ).finish()
    assert (estimate.lower == -math.inf).all() and gap(estimate) == math.inf


def test_a_single_step_scores_prior_codes_and_the_true_one() -> None:
    """x is almost u itself: under the code behind it log p(x|u) is -p/2 and a constant."""
    d, sd, images = 20, 0.01, 50
    model = linear_gaussian(torch.eye(d, dtype=DOUBLE), torch.zeros(d, dtype=DOUBLE), sd)
    estimate = AnnealedRun(model, simulated=images, temperatures=2, chains=3, seed=0).finish()
    expected = -d / 2 - d * math.log(sd * math.sqrt(2 * math.pi))
    assert estimate.upper.mean() == pytest.approx(expected, abs=4 * math.sqrt(d / 2 / images))
    assert estimate.lower.max() < expected - 1000
    assert math.isnan(estimate.acceptance)


def test_few_temperatures_show_in_the_gap() -> None:
    weight, bias, _ = lines(50)
    model = linear_gaussian(weight, bias, 0.5)
    few = AnnealedRun(model, simulated=16, temperatures=5, chains=4, seed=0).finish()
    more = AnnealedRun(model, simulated=16, temperatures=100, chains=4, seed=0).finish()
    assert gap(few) > 2 * gap(more) and gap(few) > 3


def test_a_trained_vae_is_at_least_its_importance_weighted_bound() -> None:
    torch.manual_seed(0)
    x = bars(2000)
    encoder = nn.Sequential(nn.Linear(36, 48), nn.Tanh(), nn.Linear(48, 8))
    decoder = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 36))
    model = bernoulli(decoder, 4)
    weights = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(weights, lr=3e-3)
    for _ in range(800):
        rows = x[torch.randint(len(x), (100,))]
        mean, log_sd = encoder(rows).chunk(2, -1)
        u = mean + log_sd.exp() * torch.randn_like(mean)
        kl = (mean.square() + (2 * log_sd).exp() - 1) / 2 - log_sd
        loss = (kl.sum(-1) - model.log_likelihood(u, rows)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    for weight in weights:
        weight.requires_grad_(False)
    x = bars(32)
    run = AnnealedRun(model, x, simulated=16, temperatures=200, chains=8, leapfrog=8, seed=0)
    estimate = run.finish()
    mean, log_sd = encoder(x).chunk(2, -1)
    generator = torch.Generator().manual_seed(0)
    bounds = [
        importance_weighted_bound(model, x, mean, log_sd, samples, generator).numpy()
        for samples in (1, 1000)
    ]
    assert bounds[0].mean() < bounds[1].mean()
    assert gap(estimate) < 1
    above = estimate.log_likelihood - bounds[1]
    assert above.mean() >= -3 * se(above)
    assert abs(above.mean()) < 0.3


def bars(n: int) -> Tensor:
    """Stand-in bits (n, 36): each row and column of 6 x 6 pixels is set with probability .2."""
    on = torch.rand(n, 2, 6) < 0.2
    clean = on[:, 0, :, None] | on[:, 1, None, :]
    return (clean ^ (torch.rand(n, 6, 6) < 0.05)).flatten(1).float()


def test_the_importance_weighted_bound_of_the_exact_posterior_is_exact() -> None:
    """Every weight is then p(x): orthogonal columns make that posterior's covariance diagonal."""
    columns, _ = torch.linalg.qr(normal(20, 5, seed=1))
    weight, bias, sd = columns * torch.arange(1.0, 6, dtype=DOUBLE), normal(20, seed=2), 0.7
    model = linear_gaussian(weight, bias, sd)
    x = drawn(model, 4)
    variance = 1 / (1 + weight.square().sum(0) / sd**2)
    mean = variance * ((x - bias) @ weight) / sd**2
    log_sd = variance.sqrt().log().expand_as(mean)
    generator = torch.Generator().manual_seed(0)
    bound = importance_weighted_bound(model, x, mean, log_sd, 7, generator)
    truth = linear_gaussian_log_prob(weight, bias, sd, x)
    torch.testing.assert_close(bound, truth, rtol=0, atol=1e-9)


def test_schedule_is_a_sigmoid_from_0_to_1() -> None:
    beta = np.array(schedule(9))
    assert beta[0] == 0 and beta[-1] == 1
    np.testing.assert_allclose(beta + beta[::-1], 1)
    logit = np.linspace(-4, 4, 9)[1:-1]
    sigmoid = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(beta[1:-1], (sigmoid - 0.0179862) / (1 - 2 * 0.0179862), atol=1e-7)


def test_bad_input_is_refused() -> None:
    settings: dict[str, Any] = {"temperatures": 3, "chains": 1, "leapfrog": 1, "seed": 0}
    for name, least in (("temperatures", 2), ("chains", 1), ("leapfrog", 1)):
        with pytest.raises(ValueError, match=f"{name} is 0; allowed: {least} or more"):
            AnnealedRun(mlp(1), simulated=1, **{**settings, name: 0})
    with pytest.raises(ValueError, match="no image"):
        AnnealedRun(mlp(1), **settings)
