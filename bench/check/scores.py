"""Scores the same weights on the CPU and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.check.children import Found, Task
from bench.studies import STUDIES
from bench.studies.images import evaluate
from bench.studies.images.spec import ImageSpec
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.train import Trainer as ToyTrainer
from models.precision import exact

AGREE = 2e-3
"""Scores a and b of the toy study agree if |a - b| <= AGREE * (1 + |a|): some count points.

Those of images have a tolerance of their own, see `evaluate.AGREE`.
"""


def scores(device: str) -> list[list[Task]]:
    """Returns the tasks that score the same weights on the CPU and on this device."""
    if device == "cpu":
        return []
    kinds = {"toy_grid": toy_scores}
    found = [name for name, study in STUDIES.items() if study.kind is ImageSpec]
    kinds |= dict.fromkeys(found, image_scores)
    tasks = []
    for name, call in kinds.items():
        tolerance = AGREE if call is toy_scores else evaluate.AGREE
        about = {"study": name, "difference": None, "tolerance": tolerance}
        tasks.append([Task(call, (name, device), about)])
    return tasks


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
    differences = evaluate.differences(device, name)
    of = max(differences, key=lambda column: differences[column])
    return _found(differences[of], of, evaluate.AGREE)


def _differences(one: Sequence[Found], other: Sequence[Found]) -> Found:
    worst, of = 0.0, ""
    for a, b in zip(one, other, strict=True):
        for name in a.keys() & b.keys():
            apart = abs(a[name] - b[name]) / (1 + abs(a[name]))
            apart = math.inf if math.isnan(apart) else apart
            worst, of = max((worst, of), (apart, name))
    if not all(map(bool, one)) or [a.keys() for a in one] != [b.keys() for b in other]:
        return {"difference": None, "failure": "a device could not score"}
    return _found(worst, of, AGREE)


def _found(worst: float, of: str, allowed: float) -> Found:
    """Returns the largest difference, that of a column, and what is wrong with it."""
    wrong = f"{of} of the CPU and of the GPU differ by {worst:.2g}, allowed: {allowed:g}"
    return {
        "difference": worst if math.isfinite(worst) else None,
        "failure": None if worst <= allowed else wrong,
    }
