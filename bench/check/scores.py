"""Scores the same weights on the CPU and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.check.children import Found, Task
from bench.check.steps import Moved
from bench.data import load
from bench.studies import STUDIES
from bench.studies.images import evaluate
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Model, Trainer
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.train import Trainer as ToyTrainer
from models.precision import exact

AGREE = 2e-3
"""A score a of a CPU and b of a GPU agree if |a - b| <= AGREE * (1 + |a|)."""


def scores(device: str) -> list[list[Task]]:
    """Returns the tasks that score the same weights on the CPU and on this device."""
    if device == "cpu":
        return []
    kinds = {"toy_grid": toy_scores}
    found = [name for name, study in STUDIES.items() if study.kind is ImageSpec]
    kinds |= dict.fromkeys(found, image_scores)
    unknown = {"difference": None, "tolerance": AGREE}
    return [[Task(call, (name, device), {"study": name} | unknown)] for name, call in kinds.items()]


def toy_scores(name: str, device: str, record: bool = True) -> Found:
    """Returns by how much a GPU's scores of untrained toy models differ from a CPU's."""
    found = []
    for each in ("cpu", device):
        trainer = ToyTrainer(STUDIES[name].specs("smoke"), each, record=False)
        with exact():
            found.append([columns or {} for columns, _ in Evaluation(trainer).outcomes()])
    return _differences(*found)


def image_scores(name: str, device: str, record: bool = True) -> Found:
    """Returns by how much a GPU's scores of an untrained model differ from a CPU's."""
    study = STUDIES[name]
    spec = study.specs("smoke", ["svae_r"])[0]
    images = load.load(spec.data)
    trainer = Trainer(spec, images.train)
    evaluate.freeze(trainer)
    found = []
    for each in ("cpu", device):
        model = _SameNoise(spec, each)
        model.nets.load_state_dict(trainer.nets.state_dict())
        model.nets.eval()
        with exact():
            found.append([evaluate.scores(model, images, study.metrics())[0]])
    return _differences(*found)


class _SameNoise(Model):
    """Draws noise on the CPU, whichever device the model is on."""

    def draws(self, x: Tensor, update: str, *by: Any) -> Any:
        return Moved(super().draws(x.cpu(), update), self.device, self.dtype)


def _differences(one: Sequence[Found], other: Sequence[Found]) -> Found:
    worst, of = 0.0, ""
    for a, b in zip(one, other, strict=True):
        for name in a.keys() & b.keys():
            apart = abs(a[name] - b[name]) / (1 + abs(a[name]))
            apart = math.inf if math.isnan(apart) else apart
            worst, of = max((worst, of), (apart, name))
    wrong = None
    if worst > AGREE:
        wrong = f"{of} of the CPU and of the GPU differ by {worst:.2g}, allowed: {AGREE:g}"
    elif not all(map(bool, one)) or [a.keys() for a in one] != [b.keys() for b in other]:
        wrong = "a device could not score"
    return {"difference": worst if math.isfinite(worst) else None, "failure": wrong}
