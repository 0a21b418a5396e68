"""Estimates what a training of images and its scores cost, before they run."""

import gc
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.data.sources import DATASETS
from bench.studies.cost import cpu_seconds, matmul_rate
from bench.studies.cuda import Unrecorded
from bench.studies.images.domain import domain as domain_of
from bench.studies.images.evaluate import STATISTICS
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, Trainer, learn
from bench.studies.study import Needs
from models.methods import METHODS, decode, prior


class Costs(NamedTuple):
    """Holds what trainings and scores cost beside their products, on a kind of device."""

    efficiency: float  # least share of the speed of plain matrix products, see also `Domain`
    annealing: float  # the share that annealing reaches
    update: float  # seconds that an update takes beside its products
    sample: float  # seconds for a sample by the suite's classifiers, with its neighbours
    forward: float  # share of the speed of plain products that passes without gradients reach
    batch: float  # seconds that such a pass takes beside its products
    patches: float  # seconds for a number of an image, of the sliced Wasserstein distance
    anchors: float  # the same of the images that no model made, which a process scores once
    first: float  # seconds that a process needs once, for imports


CORE = Costs(0.0, 0.25, 1.5e-3, 20.0 / 10_000, 0.6, 5e-3, 2e-7, 7e-8, 1.0)
# Not measured yet, but reckoned from the kernels.
GPU = Costs(0.5, 0.5, 1e-4, 8.0 / 10_000, 0.5, 5e-4, 2e-8, 7e-8, 1.0)
TURNS = 20  # steps of each training that are timed on a GPU
LONG, TIMING = 5.0, 1.0
"""Foreseen seconds of a step too long to be timed, and seconds until the last timing begins."""


class _Flops(TorchDispatchMode):
    """Counts as `FlopCounterMode`, whose tracking of modules forbids a gradient penalty."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (flops := flop_registry.get(func._overloadpacket)) is not None:
            self.total += flops(*args, **(kwargs or {}), out_val=out)
        return out


def _as_defined() -> torch.autocast:
    """Returns a context where networks in float64 compute each layer as torch.nn does.

    So a count does not depend on the ways in which `models.layers` is faster. Autocast does not
    round float64.
    """
    return torch.autocast("cpu", torch.bfloat16)


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
    nets = domain.networks(found, width, lambda role: 0, kind, critic).double()
    x = torch.zeros(2, domain.channels, domain.size, domain.size, dtype=torch.float64)
    with _as_defined(), _Flops() as counter:
        learn(nets.critics(), nets.models())
        if found.critic is not None:
            found.critic(nets, Draws(x, "", "")).backward()
        once = counter.total
        learn(nets.models(), nets.critics())
        found.model(nets, Draws(x, "", ""), float(cycle)).backward()
    return (counter.total + (critic_steps - 1) * once) / len(x)


@cache
def forward_flops(
    method: str, width: float, data: str, kind: str = "suite", critic: str = ""
) -> float:
    """Returns multiplications and additions of the model's loss alone, per image of the batch."""
    found, domain = METHODS[method], domain_of(data)
    nets = domain.networks(found, width, lambda role: 0, kind, critic).double()
    x = torch.zeros(2, domain.channels, domain.size, domain.size, dtype=torch.float64)
    with _as_defined(), torch.no_grad(), _Flops() as counter:
        found.model(nets, Draws(x, "", ""), 0.0)
    return counter.total / len(x)


@cache
def decoder_flops(method: str, width: float, data: str) -> float:
    """Returns multiplications and additions of one generated image."""
    nets = domain_of(data).networks(METHODS[method], width, lambda role: 0).double().eval()
    draws = Draws(torch.zeros(1, dtype=torch.float64), "", "")
    with _as_defined(), _Flops() as counter:
        decode(nets, draws, prior(nets, draws))
    return counter.total


@cache
def parameters(method: str, width: float, data: str, kind: str = "suite", critic: str = "") -> int:
    """Returns the number of parameters of a method's networks, without making them."""
    with torch.device("meta"):
        nets = domain_of(data).networks(METHODS[method], width, lambda role: 0, kind, critic)
    return sum(each.numel() for each in nets.parameters())


def needs(spec: ImageSpec) -> Needs:
    """Returns the bytes that a training takes at least, see `Study.needs`."""
    domain = domain_of(spec.data)
    pixels = domain.channels * domain.size**2
    size = parameters(spec.method, spec.width, spec.data, spec.networks, spec.critic)
    rows = (spec.ais_images + spec.simulated) * spec.chains
    chains = 4.0 * rows * 2 * domain.d_z  # places and slopes
    steps = 4.0 * spec.temperatures * spec.simulated
    memory = {
        "width": 16.0 * size,  # weights, their gradient, and Adam's two moments
        "samples": 2 * 4.0 * spec.samples * pixels,  # in parts, then as a whole
        "critic_steps": 4.0 * spec.critic_steps * spec.batch * domain.d_z,
        "chains": chains,
        "temperatures": steps,
    }
    return Needs(memory, checkpoint=max(12.0 * size, chains + steps), weights=4.0 * size)


def training_seconds(spec: ImageSpec, rate: float = 8e10, costs: Costs = CORE) -> float:
    """Returns the seconds of training alone, where matrix products run at `rate` FLOP/s."""
    domain = domain_of(spec.data)
    images = min(spec.images or math.inf, domain.train)
    steps = spec.epochs * max(1, images // spec.batch)
    critic_steps = METHODS[spec.method].critic_updates(spec.critic_steps)
    where = spec.width, spec.data, spec.networks, spec.critic, critic_steps
    flops = step_flops(spec.method, spec.lam > 0, *where) * spec.batch
    efficiency = max(costs.efficiency, domain.efficiency)
    return steps * (flops / (rate * efficiency) + (1 + critic_steps) * costs.update)


def estimate(stacks: Sequence[Sequence[ImageSpec]], device: str) -> list[float]:
    """Returns the seconds of each stack's trainings and their scores on a core or a GPU.

    On a CPU steps are timed, of the dearest kinds of training first, for about a second. What they
    take of what `training_seconds` foresees corrects that, for other kinds by the mean.
    """
    if device != "cpu":
        return _side_by_side(stacks, device)
    rate, stop = matmul_rate(device), time.perf_counter() + TIMING
    specs = [spec for stack in stacks for spec in stack]
    foreseen = {_kind(spec): training_seconds(_step(spec), rate) for spec in specs}
    found: dict[ImageSpec, float] = {}
    for kind in sorted(foreseen, key=lambda kind: -foreseen[kind]):
        if foreseen[kind] < LONG and time.perf_counter() < stop:
            found[kind] = _step_seconds(kind) / foreseen[kind]
    mean = sum(found.values()) / len(found) if found else 1.0
    anchored: set[tuple[str, int]] = set()

    def seconds(spec: ImageSpec) -> float:
        training = found.get(_kind(spec), mean) * training_seconds(spec, rate)
        first = (spec.data, spec.samples) not in anchored
        anchored.add((spec.data, spec.samples))
        return training + evaluation_seconds(spec, rate) + first * anchors_seconds(spec)

    return [sum(map(seconds, stack)) for stack in stacks]


def _step(spec: ImageSpec) -> ImageSpec:
    """Returns the same training with a single step."""
    return replace(spec, epochs=1, images=spec.batch)


def _kind(spec: ImageSpec) -> ImageSpec:
    """Returns a spec that trainings share whose steps take the same time."""
    return replace(_step(spec), lam=float(spec.lam > 0), seed=0, lr=ImageSpec.lr)


def _step_seconds(spec: ImageSpec) -> float:
    """Returns a core's seconds of a step of this training."""
    return cpu_seconds(_on_noise(spec, "cpu").advance, 0.1)


def _on_noise(spec: ImageSpec, device: str) -> Trainer:
    """Returns a trainer of a batch of noise."""
    trainer = Trainer(spec, domain_of(spec.data).noise(spec.batch), device)
    trainer.nets.train()
    return trainer


def _side_by_side(stacks: Sequence[Sequence[ImageSpec]], device: str) -> list[float]:
    """Returns the seconds of each stack on a GPU, which its trainings share.

    The dearest stack makes a few steps. What they take of what `training_seconds` foresees corrects
    that for all stacks.
    """
    rate, ratio = matmul_rate(device), 1.0
    foreseen = [sum(training_seconds(spec, rate, GPU) for spec in stack) for stack in stacks]
    dearest = stacks[foreseen.index(max(foreseen))]
    with suppress(Unrecorded):  # its job meets that, and says so
        ratio = _turn_seconds(dearest, device)
        ratio /= sum(training_seconds(_step(spec), rate, GPU) for spec in dearest)
    gc.collect()  # jobs need the memory of these trainings
    torch.cuda.empty_cache()
    scores = [sum(evaluation_seconds(spec, rate, GPU) for spec in stack) for stack in stacks]
    return [ratio * training + after for training, after in zip(foreseen, scores, strict=True)]


def _turn_seconds(stack: Sequence[ImageSpec], device: str) -> float:
    """Returns the seconds in which a GPU makes a step of each of these trainings."""
    trainers = [_on_noise(spec, device) for spec in stack]

    def turns(n: int) -> float:
        start = time.perf_counter()
        for trainer in trainers * n:
            trainer.advance()
        for trainer in trainers:
            trainer.wait()
        return (time.perf_counter() - start) / n

    turns(3)  # a first step records, and a first replay loads the recording
    return turns(TURNS)


def evaluation_seconds(spec: ImageSpec, rate: float = 8e10, costs: Costs = CORE) -> float:
    """Returns the seconds of batch norm's statistics and of all scores but those of anchors.

    Of few images the statistics take the most, of others annealed importance sampling.
    """
    domain, where = domain_of(spec.data), (spec.method, spec.width, spec.data)
    rows = spec.chains * (spec.ais_images + 2 * spec.simulated)
    gradients = rows * spec.temperatures * spec.leapfrog
    decoder = decoder_flops(*where)
    # A test image is encoded and decoded, twice: by both statistics of batch norm.
    images = decoder * (spec.samples + 4 * domain.test)
    images += STATISTICS * spec.batch * forward_flops(*where, spec.networks, spec.critic)
    seconds = STATISTICS * costs.batch + images / (rate * costs.forward)
    seconds += 2 * decoder * gradients / (rate * costs.annealing)
    return seconds + _judged_seconds(spec, costs)


def _judged_seconds(spec: ImageSpec, costs: Costs) -> float:
    """Returns the seconds in which samples are scored by classifiers and by their patches."""
    domain, entry = domain_of(spec.data), DATASETS.get(spec.data)
    seconds = costs.sample * spec.samples if entry and entry.classifier else 0.0
    if domain.channels == 3:
        n = min(spec.samples, domain.test, domain.train)
        seconds += costs.patches * n * domain.channels * domain.size**2
    return seconds


def anchors_seconds(spec: ImageSpec, costs: Costs = CORE) -> float:
    """Returns the seconds of a process for the scores of images that no model made."""
    domain = domain_of(spec.data)
    made = costs.first + costs.anchors * spec.samples * domain.channels * domain.size**2
    return made + _judged_seconds(spec, costs)
