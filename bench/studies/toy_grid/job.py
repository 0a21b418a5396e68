"""The toy study's part of a job: cuts trainings into stacks, trains and scores one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError
from bench.spec import ToySpec
from bench.studies import Study
from bench.studies.toy_grid.cost import seconds
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.train import Trainer, program
from models.objectives import OBJECTIVES

if TYPE_CHECKING:
    from bench.engine.job import Heartbeat, Job

__all__ = ["check", "clear", "methods", "seconds", "stacks", "train"]

COST_OF_SIZE = {1: 1.6, 2: 1.1}
"""A member's time in a stack of this size to that in larger ones: measured at widths 256 and 512,
in turns on one core (1.65 and 1.56, 1.14 and 1.07; a stack of 8 to one of 4: 0.91 and 1.00)."""

TRACES = 8
"""The decoder's gradient is measured before training and after each eighth of the epochs."""


def stacks(specs: Sequence[ToySpec], device: str) -> list[list[ToySpec]]:
    """Cuts trainings into stacks of one tensor program each.

    On a CPU large enough to spread the cost of a call, small enough for a core's cache: 4 to 32
    members, about 2,048 hidden units a layer in all, equal shapes side by side. On a GPU as large
    as can be: memory is found out by running, a stack that does not fit is halved. No stack mixes
    lambda = 0 with lambda > 0: the cycle is a part of the program that the former does without.
    """
    groups: dict[Any, list[ToySpec]] = {}
    for spec in specs:
        groups.setdefault((program(spec), spec.lam > 0), []).append(spec)
    found = []
    for members in groups.values():
        members.sort(key=lambda s: (*_shape(s), s.seed, s.lam, s.method))
        width = max(max(s.encoder_width, s.decoder_width, s.critic_width) for s in members)
        limit = len(members) if device == "cuda" else max(4, min(32, 2048 // width))
        pieces = -(-len(members) // limit)
        cuts = [len(members) * i // pieces for i in range(pieces + 1)]
        found += [members[a:b] for a, b in pairwise(cuts)]
    return found


def _shape(spec: ToySpec) -> tuple[int, ...]:
    return (
        *(spec.encoder_width, spec.decoder_width, spec.critic_width),
        *(spec.encoder_depth, spec.decoder_depth, spec.critic_depth),
    )


def methods(study: Study[ToySpec]) -> dict[str, bool]:
    """Every method this study can train, and whether lambda means something to it."""
    return dict.fromkeys(OBJECTIVES, True)


def check(specs: Sequence[ToySpec], data: Path | None, inception: str | None) -> Sequence[ToySpec]:
    """The specs. Raises UsageError for data or a classifier: the toy study has its own."""
    if data is not None:
        raise UsageError("--data is for studies of images; toy_grid draws its own data")
    if inception is not None:
        raise UsageError("--inception-weights is for colour images; toy_grid has none")
    return specs


def clear(job: Job) -> None:
    """Nothing: a stack takes minutes and leaves no checkpoints."""


def train(job: Job, beat: Heartbeat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows (what only this study knows of them) and samples of a trained and scored stack."""
    specs = [spec for spec in job.specs if isinstance(spec, ToySpec)]
    trainer = Trainer(specs, job.device)
    evaluation = Evaluation(trainer)
    epochs = trainer.specs[0].epochs
    traced = sorted({round(epochs * i / TRACES) for i in range(TRACES + 1)})
    traces = []

    def after_epoch(epoch: int) -> None:
        if epoch in traced:
            traces.append(evaluation.decoder_gradient())
        beat(epoch / epochs)

    seconds = trainer.train(after_epoch) / len(specs)
    rows, samples = [], []
    for i, (spec, outcome) in enumerate(zip(trainer.specs, evaluation.outcomes(), strict=True)):
        gradients = {method: [trace[i][method] for trace in traces] for method in traces[0][i]}
        rows.append(
            {
                **(outcome.metrics or {}),
                "id": spec.id,
                "status": "ok" if outcome.metrics else "diverged",
                "n_samples": evaluation.z.shape[2],
                "n_splits": 1,
                "classifier": "exact posterior",
                "trace_epoch": traced,
                "decoder_gradient": gradients,
                "train_seconds": seconds,
            }
        )
        points = {"x": outcome.x, "x_rec": outcome.x_rec, "samples": outcome.samples}
        samples.append({"id": spec.id, **{k: v.ravel() for k, v in points.items()}})
    return rows, samples
