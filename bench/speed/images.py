"""Measures how fast images train, and how fast annealing estimates their likelihood."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.data import load as data
from bench.scores.ais import log_likelihood
from bench.scores.latent import LatentModel, linear_gaussian
from bench.scores.swd import LINES, PATCHES, SIDE, Patches, pyramid
from bench.speed.baselines.ais import plain_log_likelihood
from bench.speed.baselines.images import PlainTrainer
from bench.speed.rates import Line, Rates, Rival, products, steps_a_turn
from bench.studies import STUDIES
from bench.studies.images.cost import decoder_flops, step_flops
from bench.studies.images.evaluate import annealed_run, test_bits
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Trainer
from models.precision import allow_tf32

LEAST = {"mnist": {"cpu": 1.15, "cuda": 5.0}, "cifar10": {"cpu": 1.2, "cuda": 4.0}}
"""Least ratio of the suite's training steps a second to the plain loop's."""
SIZES = {"quick": "a quarter of the width", "paper": "paper scale"}
"""What lines call the networks at each scale."""
TEMPERATURES = 8
"""Number in a timed annealing. All temperatures but the first and the last cost the same."""


def ratios() -> Iterator[Iterator[Line]]:
    """Yields what is measured beside a rival. Synthetic images cost as much as others."""
    yield from (training("cpu", study) for study in LEAST)
    yield convolutional_annealing()
    yield linear_annealing()
    yield sliced_wasserstein()
    if torch.cuda.is_available():
        yield from (training("cuda", study) for study in LEAST)


def spec(scale: str, study: str = "mnist") -> ImageSpec:
    """Returns sVAE-r at this scale on synthetic images: three networks and the cycle.

    At quick it has a quarter of the width, as all recorded ratios.
    """
    given: dict[str, Any] = {"data": STUDIES[study].axes["smoke"]["data"]}
    given |= {"width": [0.25]} if scale == "quick" else {}
    return STUDIES[study].specs(scale, methods=["svae_r"], lams=[0.1], given=given)[0]


def suite(one: ImageSpec, device: str) -> Rival:
    """Returns the suite's trainer as a rival; its rate is in steps."""
    trainer = Trainer(one, data.load(one.data).train, device)
    trainer.nets.train()
    return steps_a_turn(trainer.advance)


def plain(one: ImageSpec, device: str, frugal: bool = True) -> Rival:
    """Returns the plain loop with its DataLoader as a rival; its rate is in steps."""
    trainer = PlainTrainer(one, device, frugal=frugal)
    batches = trainer.batches(data.load(one.data).train)
    return steps_a_turn(lambda: trainer.updates(*next(batches)))


def compiled(one: ImageSpec) -> Rival | str:
    """Returns the plain loop with compiled networks as a rival on the CPU, or why there is none."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no compiler {compiler} here"
    trainer = PlainTrainer(one, compiled=True)
    batches = trainer.batches(data.load(one.data).train)
    torch.compiler.reset()  # what another spec compiled counts towards a limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own compiler
            trainer.updates(*next(batches))
    except RuntimeError as error:
        return f"torch.compile failed here: {type(error).__name__}"
    return steps_a_turn(lambda: trainer.updates(*next(batches)))


def training(device: str, study: str) -> Iterator[Line]:
    allow_tf32(False)
    least = f">= {LEAST[study][device]} x"
    for scale in ("quick", "paper"):
        one, where = spec(scale, study), f"{study} at {SIZES[scale]}, {device}"
        peer = compiled(one) if device == "cpu" else "measured on a CPU alone"
        peers = {} if isinstance(peer, str) else {"compiled": peer}
        rates = Rates(
            suite=suite(one, device),
            bf16=suite(replace(one, precision="bf16"), device),
            plain=plain(one, device),
            **peers,
            wasteful=plain(one, device, frugal=False),
            products=products(device=device),
        )
        flops = step_flops(one.method, True, one.width, one.data) * one.batch
        yield (
            f"steps/s, images : plain loop with DataLoader, {where}",
            f"{rates.summary(flops)}; {rates.ratio('suite', 'wasteful'):.2f} x where that loop "
            "also computes the critic's gradient in the model's step",
            least,
        )
        yield (
            f"the same : that loop with networks by torch.compile, {where}",
            f"{rates.ratio('suite', 'compiled'):.2f} x" if peers else str(peer),
            ">= 1 x",
        )
        yield (
            f"the same with products in bf16 : that loop in float32, {where}",
            f"{rates.ratio('bf16', 'plain'):.2f} x",
            least,
        )


def convolutional_annealing() -> Iterator[Line]:
    one = spec("quick")
    images = data.load(one.data)
    trainer = Trainer(one, images.train)
    trainer.nets.eval()
    x = test_bits(one, images, None)
    rates = annealing(annealed_run(trainer, x).model, x, one.chains, one.leapfrog)
    yield (
        f"AIS, {len(x)} images x {one.chains} chains : one by one, decoder of mnist at "
        f"{SIZES['quick']}",
        rates.summary(2 * decoder_flops(one.method, one.width, one.data)),
        ">= 4 x",
    )


def linear_annealing() -> Iterator[Line]:
    d, p, images, chains = 50, 20, 100, 16
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(n, generator=generator) for n in ((p, d), (p,), (images, p)))
    rates = annealing(linear_gaussian(weight / d**0.5, bias, 2.0), x, chains, 10)
    yield (
        f"AIS, {images} images x {chains} chains : one by one, linear-Gaussian of {d} dimensions",
        rates.summary(2 * 2 * d * p),
        ">= 20 x",
    )


def sliced_wasserstein() -> Iterator[Line]:
    """Yields how near SWD comes to its products. Most of its time goes into sorting and copies."""
    x = torch.from_numpy(data.load(spec("quick", "cifar10").data).train[:1000].copy())
    rates = Rates(
        suite=steps_a_turn(lambda: Patches.of(x)),
        products=products(width=LINES),
    )
    n, c, size, _ = x.shape
    values = len(pyramid(x[:1].float())) * n * PATCHES * LINES
    share = 2 * SIDE**2 * c * values * rates.ratio("suite", "products")
    yield (
        f"patches of {n:,} images {size} x {size} on lines (SWD) : their products alone",
        f"{share:.2f} x",
        ">= 0.05 x",
    )


def annealing(model: LatentModel, x: Tensor, chains: int, leapfrog: int) -> Rates:
    """Measures gradients of single chains a second, of all chains at once and of one by one."""

    def rival(estimate: Callable[..., object], x: Tensor) -> Rival:
        settings = {"temperatures": TEMPERATURES, "chains": chains, "leapfrog": leapfrog}
        gradients = len(x) * chains * (leapfrog * (TEMPERATURES - 2) + 1)
        return steps_a_turn(lambda: estimate(model, x, **settings, seed=0), gradients)

    together, alone = rival(log_likelihood, x), rival(plain_log_likelihood, x[:2])
    return Rates(suite=together, plain=alone, products=products())
