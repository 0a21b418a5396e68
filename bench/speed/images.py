"""How fast images train here, and how fast their likelihood is estimated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bench.data import load as data
from bench.engine import cost
from bench.scores.ais import log_likelihood
from bench.scores.latent import LatentModel, linear_gaussian
from bench.speed.plain_ais import plain_log_likelihood
from bench.speed.plain_images import Batch, PlainTrainer
from bench.speed.turns import TURN, Line, in_turns, steps_a_turn
from bench.studies import STUDIES
from bench.studies.cuda import allow_tf32
from bench.studies.images.cost import decoder_flops, step_flops
from bench.studies.images.evaluate import annealed_run, test_bits
from bench.studies.images.study import ImageSpec
from bench.studies.images.train import Trainer

LEAST = {
    "mnist": {"cpu": 1.05, "cuda": 5.0},
    "cifar10": {"cpu": 1.2, "cuda": 4.0},
}
"""Training steps a second against the plain loop, at least."""
TEMPERATURES = 8
"""Of a timed annealing: all but the first and the last cost the same."""


def sections() -> Iterator[Iterator[Line]]:
    """Everything that is measured; on stand-in images, which cost what others do."""
    yield training("cpu", "mnist")
    yield training("cpu", "cifar10")
    yield convolutional_annealing()
    yield linear_annealing()
    if torch.cuda.is_available():
        yield training("cuda", "mnist")
        yield training("cuda", "cifar10")


def spec(scale: str, study: str = "mnist") -> ImageSpec:
    """sVAE-r at this scale on stand-ins, which cost the same: three networks and the cycle."""
    given = {"data": STUDIES[study].axes["smoke"]["data"]}
    return STUDIES[study].specs(scale, methods=["svae_r"], lams=[0.1], given=given)[0]


def trained(one: ImageSpec, device: str) -> Callable[[], float]:
    """Steps a second of the suite's trainer."""
    trainer = Trainer(one, data.load(one.data).train, device)
    trainer.nets.train()
    return steps_a_turn(trainer.advance, 1)


def plain(one: ImageSpec, device: str, frugal: bool = True) -> Callable[[], float]:
    """Steps a second of the plain loop with its DataLoader."""
    trainer = PlainTrainer(one, device, frugal=frugal)
    loader = trainer.loader(data.load(one.data).train)

    def epochs() -> Iterator[Batch]:
        while True:
            yield from trainer.epoch(loader)

    batches = epochs()
    return steps_a_turn(lambda: trainer.updates(*next(batches)), 1)


def products(device: str) -> Callable[[], float]:
    """FLOP/s of batched matrix products."""
    return lambda: cost.matmul_rate(device, budget=TURN)


def training(device: str, study: str) -> Iterator[Line]:
    allow_tf32(False)
    for scale in ("quick", "paper"):
        one = spec(scale, study)
        rivals = (
            trained(one, device),
            trained(replace(one, precision="bf16"), device),
            plain(one, device),
            plain(one, device, frugal=False),
            products(device),
        )
        turns = in_turns(*rivals)
        flops = step_flops(one.method, True, one.width, one.data) * one.batch
        wasteful = statistics.median(ours / other for ours, _, _, other, _ in turns)
        yield (
            f"steps/s, images : plain loop with DataLoader, {study} at {scale} scale, {device}",
            f"{_ratio_and_share([(a, c, e) for a, _, c, _, e in turns], flops)}; {wasteful:.2f} x "
            "where that loop also computes the critic's gradient in the model's step",
            f">= {LEAST[study][device]} x",
        )
        yield (
            f"the same with products in bf16 : that loop in float32, {study} at {scale} scale, "
            f"{device}",
            f"{statistics.median(rounded / other for _, rounded, other, _, _ in turns):.2f} x",
            f">= {LEAST[study][device]} x",
        )


def convolutional_annealing() -> Iterator[Line]:
    one = spec("quick")
    images = data.load(one.data)
    trainer = Trainer(one, images.train)
    trainer.nets.eval()
    x = test_bits(one, images, None)
    turns = annealing(annealed_run(trainer, x).model, x, one.chains, one.leapfrog)
    yield (
        f"AIS, {len(x)} images x {one.chains} chains : one by one, decoder of mnist at quick scale",
        _ratio_and_share(turns, 2 * decoder_flops(one.method, one.width, one.data)),
        ">= 4 x",
    )


def linear_annealing() -> Iterator[Line]:
    d, p, images, chains = 50, 20, 100, 16
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(n, generator=generator) for n in ((p, d), (p,), (images, p)))
    turns = annealing(linear_gaussian(weight / d**0.5, bias, 2.0), x, chains, 10)
    yield (
        f"AIS, {images} images x {chains} chains : one by one, linear-Gaussian of {d} dimensions",
        _ratio_and_share(turns, 2 * 2 * d * p),
        ">= 20 x",
    )


def annealing(model: LatentModel, x: Tensor, chains: int, leapfrog: int) -> list[tuple[float, ...]]:
    """Gradients of single chains a second, in turns: all chains at once, one by one, products."""

    def rate(estimate: Callable[..., object], x: Tensor) -> Callable[[], float]:
        gradients = len(x) * chains * (leapfrog * (TEMPERATURES - 2) + 1)

        def turn() -> float:
            start = time.perf_counter()
            estimate(model, x, temperatures=TEMPERATURES, chains=chains, leapfrog=leapfrog, seed=0)
            return gradients / (time.perf_counter() - start)

        return turn

    return in_turns(rate(log_likelihood, x), rate(plain_log_likelihood, x[:2]), products("cpu"))


def _ratio_and_share(turns: list[tuple[float, ...]], flops: float) -> str:
    """First rival to second, and the first's share of the third's rate at so many FLOP a step."""
    ratio = statistics.median(ours / other for ours, other, _ in turns)
    share = statistics.median(ours * flops / rate for ours, _, rate in turns)
    rate = statistics.median(rate for _, _, rate in turns)
    return f"{ratio:.2f} x, {share:.0%} of {rate / 1e9:.0f} GFLOP/s in products"
