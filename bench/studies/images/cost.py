"""Estimates what a training of images and its scores cost, before they run."""

import math
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.studies.images.domain import domain as domain_of
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, learn
from models.methods import METHODS, decode, prior

EFFICIENCY = 0.25  # annealing reaches this share of the speed of plain matrix products on a core
UPDATE = 1.5e-3  # seconds that an update takes beside its products
SCORES = 15.0
"""Seconds for samples, reconstructions and the classifier, for MNIST at a quarter of the width."""


class _Flops(TorchDispatchMode):
    """Counts as `FlopCounterMode`, whose tracking of modules forbids a gradient penalty."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (flops := flop_registry.get(func._overloadpacket)) is not None:
            self.total += flops(*args, **(kwargs or {}), out_val=out)
        return out


@cache
def step_flops(
    method: str,
    cycle: bool,
    width: float,
    data: str,
    kind: str = "suite",
    critic: str = "",
    critic_steps: int = 1,
) -> float:
    """Returns multiplications and additions of all updates of a step, per image of the batch."""
    found, domain = METHODS[method], domain_of(data)
    nets = domain.networks(found, width, lambda role: 0, kind, critic)
    x = torch.zeros(2, domain.channels, domain.size, domain.size)
    with _Flops() as counter:
        learn(nets.critics(), nets.models())
        if found.critic is not None:
            found.critic(nets, Draws(x, "", "")).backward()
        once = counter.total
        learn(nets.models(), nets.critics())
        found.model(nets, Draws(x, "", ""), float(cycle)).backward()
    return (counter.total + (critic_steps - 1) * once) / len(x)


@cache
def decoder_flops(method: str, width: float, data: str) -> float:
    """Returns multiplications and additions of one generated image."""
    nets = domain_of(data).networks(METHODS[method], width, lambda role: 0).eval()
    draws = Draws(torch.zeros(1), "", "")
    with _Flops() as counter:
        decode(nets, draws, prior(nets, draws))
    return counter.total


def training_seconds(spec: ImageSpec, rate: float = 8e10) -> float:
    """Returns the seconds of training alone, where matrix products run at `rate` FLOP/s."""
    domain = domain_of(spec.data)
    images = min(spec.images or math.inf, domain.train)
    steps = spec.epochs * max(1, images // spec.batch)
    critic_steps = METHODS[spec.method].critic_updates(spec.critic_steps)
    where = spec.width, spec.data, spec.networks, spec.critic, critic_steps
    flops = step_flops(spec.method, spec.lam > 0, *where) * spec.batch
    return steps * (flops / (rate * domain.efficiency) + (1 + critic_steps) * UPDATE)


def evaluation_seconds(spec: ImageSpec, rate: float = 8e10) -> float:
    """Returns the seconds of the scores; annealed importance sampling takes nearly all of them."""
    rows = spec.chains * (spec.ais_images + 2 * spec.simulated)
    gradients = rows * spec.temperatures * spec.leapfrog
    flops = 2 * decoder_flops(spec.method, spec.width, spec.data) * gradients
    return SCORES + flops / (rate * EFFICIENCY)
