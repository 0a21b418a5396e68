"""Makes a training step of every method, and compares it with the step that it should equal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.check.children import Found, Task
from bench.studies import STUDIES
from bench.studies.cuda import own_stream
from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws
from bench.studies.images.train import Trainer as ImageTrainer
from bench.studies.study import Study
from bench.studies.toy_grid.data import N_TRAIN
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer as ToyTrainer
from models.precision import allow_tf32

TOLERANCE = {"float32": 1e-2, "tf32": 3e-2, "bf16": 0.15}
"""Largest gap of two steps that count as equal, see `_gap`. Rounding alone made gaps of up to 0.003
in float32 and 0.07 in bf16. A step with other noise for its model has a gap of 0.1 to 1."""
BATCH = 8  # images in a step
NO_GRAPH = "a CPU has no graphs"


def steps(device: str) -> list[list[Task]]:
    """Returns the tasks that make a step of every method of every study, a group a method."""
    groups: list[list[Task]] = []
    for study in STUDIES.values():
        if not issubclass(study.kind, ToySpec | ImageSpec):
            continue  # its own kind of training is unknown here
        for method in study.every_method():
            lam = max(study.own_lams.get(method, study.lams["smoke"]))
            group = []
            for precision in precisions(study, device):
                about: Found = {"study": study.name, "method": method, "lam": lam}
                about |= {"precision": precision}
                arguments = *about.values(), device
                about |= dict.fromkeys(("gap", "tolerance", "graph", "no_graph"))
                group.append(Task(step, arguments, about))
            groups.append(group)
    return groups


def precisions(study: Study[Any], device: str) -> list[str]:
    """Returns the precisions of a study that this device has."""
    found = [name for name in study.kind.PRECISIONS if device == "cuda" or name != "tf32"]
    old = device == "cuda" and torch.cuda.get_device_capability() < (8, 0)
    return ["float32"] if old else found


def step(
    study: str, method: str, lam: float, precision: str, device: str, record: bool = True
) -> Found:
    """Returns the gap between a step of this method and the step that it should equal.

    On a GPU the step is recorded, and equals a step without a recording. Without a recording the
    step equals the step of the same networks and noise in float64.
    """
    allow_tf32(precision == "tf32")
    found = STUDIES[study]
    recorded = record and device == "cuda"
    of_images = issubclass(found.kind, ImageSpec)
    given = {"batch": [BATCH]} if of_images else {"batch": [N_TRAIN // 2], "epochs": [1]}
    specs = found.specs("smoke", [method], [lam], precision=precision, given=given)
    gap = _images(specs[0], device, recorded) if of_images else _toys(specs, device, recorded)
    limit, other = TOLERANCE[precision], "without a graph" if recorded else "in float64"
    wrong = f"differs from the same step {other} by {gap:.2g}, allowed: {limit:g}"
    return {
        "gap": gap if math.isfinite(gap) else None,
        "tolerance": limit,
        "graph": recorded,
        "no_graph": None if recorded else NO_GRAPH,
        "failure": None if gap <= limit else wrong,
    }


def _toys(specs: Sequence[ToySpec], device: str, recorded: bool) -> float:
    """Returns the largest gap of these trainings after two batches, the second recorded."""
    one = ToyTrainer(specs, device, record=recorded)
    other = ToyTrainer(specs, device, torch.float32 if recorded else torch.float64, record=False)
    start = [other.parameters(i).clone() for i in range(len(specs))]
    for trainer in (one, other):
        trainer.train()
    assert one.graph is recorded
    return max(_gap(one.parameters(i), other.parameters(i), start[i]) for i in range(len(specs)))


def _images(spec: ImageSpec, device: str, recorded: bool) -> float:
    """Returns the larger gap of critic and model after a step on images of noise."""
    images = domain(spec.data).noise(spec.batch)
    with own_stream(torch.device(device)):
        one = ImageTrainer(spec, images, device, record=recorded)
        one.nets.train()
        one.advance()  # on a GPU this step is recorded
        if not recorded:
            return _largest(one, *_in_float64(replace(spec, precision="float32"), device))
        other = ImageTrainer(spec, images, device, record=False)
        other.nets.train()
        other.advance()
        _wait(one)
        other.load(one.state())
        start = _parameters(other)
        _wait(other)
        one.advance()
        other.advance()
        _wait(one)
        assert one.graph
        return _largest(one, other, start)


def _wait(trainer: ImageTrainer) -> None:
    """Waits for all that a GPU was asked for: trainers may have queues of their own there."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


class _Double:
    """Holds a batch and its noise in float64, see `models.batch.Batch`: the noise of float32."""

    def __init__(self, draws: Draws) -> None:
        self.draws, self.x = draws, draws.x.double()

    def noise(self, name: str, *shape: int) -> Tensor:
        return self.draws.noise(name, *shape).double()

    def normal(self, name: str, *shape: int) -> Tensor:
        return self.draws.normal(name, *shape).double()

    def uniform(self, name: str, *shape: int) -> Tensor:
        return self.draws.uniform(name, *shape).double()


@lru_cache(1)
def _in_float64(spec: ImageSpec, device: str) -> tuple[ImageTrainer, list[Tensor]]:
    """Returns a trainer after a step in float64, and its parameters before the step."""
    trainer = ImageTrainer(
        spec, domain(spec.data).noise(spec.batch), device, torch.float64, record=False
    )
    trainer.nets.train()
    start, x = _parameters(trainer), trainer.batch(0)
    draws = [trainer.draws(x.float(), name) for name in trainer.update_names(0)]
    in_float64: list[Any] = [_Double(each) for each in draws]
    trainer.updates(in_float64)
    return trainer, start


def _parameters(trainer: ImageTrainer) -> list[Tensor]:
    """Returns copies of the parameters of critic and model, each in a row."""
    return [_row(players) for players in (trainer.critics, trainer.models)]


def _row(tensors: Iterable[Tensor]) -> Tensor:
    rows = [tensor.detach().double().flatten() for tensor in tensors]
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.float64)


def _largest(one: ImageTrainer, other: ImageTrainer, start: Sequence[Tensor]) -> float:
    gaps, ends = [], zip(_parameters(one), _parameters(other), strict=True)
    adams = other.critic_adam, other.model_adam
    for (found, wanted), before, adam in zip(ends, start, adams, strict=True):
        if adam is not None:
            sizes = _row(state["exp_avg_sq"] for state in adam.state.values()).sqrt()
            gaps.append(_gap(found, wanted, before, sizes))
    return max(gaps)


def _gap(found: Tensor, wanted: Tensor, start: Tensor, weights: Tensor | float = 1.0) -> float:
    """Returns how far parameters are from where they should be, relative to how far they moved.

    Each parameter counts by the size of its gradient. Adam moves by the learning rate whatever the
    gradient's size is, so rounding decides where a parameter goes that has no gradient, such as a
    bias before batch norm. The gap of parameters that are not finite is infinite.
    """
    apart = (weights * (found - wanted).abs()).sum()
    gap = float(apart / (weights * (wanted - start).abs()).sum())
    return float("inf") if math.isnan(gap) else gap
