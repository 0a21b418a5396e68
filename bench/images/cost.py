"""What a training of images and its scores cost, before they are run."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.images.train import Draws, learn
from bench.spec import ImageSpec
from models.images import ImageNetworks, ImageShape
from models.methods import METHODS

TRAIN = {"mnist": 60_000, "stand-in digits": 2_000}
"""Training images of each data set."""
SHAPES = {"mnist": (1, 28), "stand-in digits": (1, 28)}
"""Channels, and height or width, of its images."""

EFFICIENCY = 0.25
"""Share of the speed of plain matrix products that convolutions reach on a core, training as
annealing; measured at a quarter of the width, at full width it is .29."""
UPDATE = 1.5e-3
"""Seconds that each update takes beside them."""
SCORES = 15.0
"""Seconds for samples, reconstructions and the referee at a quarter of the width."""


class _Flops(TorchDispatchMode):
    """Counts as `FlopCounterMode`, whose tracking of modules forbids a gradient penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (flops := flop_registry.get(func._overloadpacket)) is not None:
            self.total += flops(*args, **(kwargs or {}), out_val=out)
        return out


@cache
def step_flops(method: str, cycle: bool, width: float, channels: int, size: int) -> float:
    """Multiplications and additions of all updates of one step, for each image of the batch."""
    n = 2
    found = METHODS[method]
    nets = ImageNetworks(found.parts, ImageShape(channels, size, width=width), lambda role: 0)
    x = torch.zeros(n, channels, size, size)
    with _Flops() as counter:
        learn(nets.critics(), nets.models())
        if found.critic is not None:
            found.critic(nets, Draws(x, "", "")).backward()
        once = counter.total
        learn(nets.models(), nets.critics())
        found.model(nets, Draws(x, "", ""), float(cycle)).backward()
    return (counter.total + (found.critic_steps - 1) * once) / n


@cache
def decoder_flops(method: str, width: float, channels: int, size: int) -> float:
    """Of one image generated."""
    parts = {"decoder": METHODS[method].parts["decoder"]}
    shape = ImageShape(channels, size, width=width)
    nets = ImageNetworks(parts, shape, lambda role: 0).eval()
    with _Flops() as counter:
        nets["decoder"](torch.zeros(1, shape.d_z))
    return counter.total


def training_seconds(spec: ImageSpec, rate: float = 8e10) -> float:
    """Of training alone, where matrix products run at `rate` FLOP/s."""
    images, shape = TRAIN.get(spec.data, 60_000), SHAPES.get(spec.data, (1, 28))
    steps = spec.epochs * max(1, images // spec.batch)
    flops = step_flops(spec.method, spec.lam > 0, spec.width, *shape) * spec.batch
    updates = 1 + METHODS[spec.method].critic_steps
    return steps * (flops / (rate * EFFICIENCY) + updates * UPDATE)


def evaluation_seconds(spec: ImageSpec, rate: float = 8e10) -> float:
    """Of the scores, nearly all of it annealed importance sampling."""
    shape = SHAPES.get(spec.data, (1, 28))
    rows = spec.chains * (spec.ais_images + 2 * spec.simulated)
    gradients = rows * spec.temperatures * spec.leapfrog
    flops = 2 * decoder_flops(spec.method, spec.width, *shape) * gradients
    return SCORES + flops / (rate * EFFICIENCY)


def seconds(spec: ImageSpec, rate: float) -> float:
    """Of a whole job."""
    return training_seconds(spec, rate) + evaluation_seconds(spec, rate)
