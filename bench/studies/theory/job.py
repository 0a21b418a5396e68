"""Does the theory study's part of a job: cuts trainings into stacks, trains and scores a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from bench.studies.cost import cpu_seconds
from bench.studies.study import Beat, Job, Needs, Rows
from bench.studies.theory.data import BATCHES, dimensions, draws
from bench.studies.theory.evaluate import Evaluation, N
from bench.studies.theory.spec import DESCENT, SUPPORTS, VANISHING, TheorySpec
from bench.studies.theory.train import START, Trainer, preparation, prepared
from bench.studies.turns import turn
from models.precision import exact


def stacks(specs: Sequence[TheorySpec]) -> list[list[TheorySpec]]:
    """Returns stacks of trainings of one stream, which share their start."""
    groups: dict[str, list[TheorySpec]] = {}
    for spec in specs:
        groups.setdefault(spec.stream, []).append(spec)
    return list(groups.values())


TRACE = 1000.0
"""Bytes of what DESCENT measures after an epoch, at least."""


def needs(spec: TheorySpec) -> Needs:
    """Returns the bytes that a training takes at least, see `Study.needs`."""
    both = sum(dimensions(spec))
    pairs = max(BATCHES * spec.batch, N)  # that are drawn at a time
    memory = {
        "width": 16.0 * spec.width * (spec.width + both) + 4.0 * N * spec.width,
        "dimension": 8.0 * both**2,
        "batch": 4.0 * BATCHES * spec.batch * 3 * both,
        "critic_steps": 4.0 * pairs * spec.critic_steps * (both + 1),
        "model_steps": 4.0 * pairs * spec.model_steps * 2 * both,
        "epochs": TRACE * spec.epochs if spec.experiment == DESCENT else 0.0,
    }
    return Needs(memory)


def stops(spec: TheorySpec) -> list[int]:
    """Returns after how many batches a training is measured, in ascending order."""
    end = spec.epochs * BATCHES
    if spec.experiment == DESCENT:
        return [*range(0, end + 1, BATCHES)]
    if spec.experiment == VANISHING:
        each = np.geomspace(10, end, 1 + 2 * max(1, round(np.log10(end / 10))))
        return sorted({0, *map(round, each)})
    return [end]


def estimate(stacks: Sequence[Sequence[TheorySpec]], device: str) -> list[float]:
    """Returns the seconds of each stack, from a few updates of each kind that are timed here."""
    known: dict[Any, float] = {}

    def seconds(spec: TheorySpec) -> float:
        kind = replace(spec, seed=0, epochs=1, distance=0.0)
        if kind not in known:
            trainer, draw = Trainer(kind, device), next(draws(kind, "batches", device))
            trainer.updates(draw)
            known[kind] = cpu_seconds(lambda: trainer.updates(draw))
        return spec.epochs * BATCHES * known[kind]

    def start(spec: TheorySpec) -> float:
        return START * seconds(preparation(spec)) if spec.experiment == SUPPORTS else 0.0

    return [start(stack[0]) + sum(map(seconds, stack)) for stack in stacks]


def train(job: Job, beat: Beat) -> tuple[Rows, Rows]:
    """Returns the rows of a stack's trainings, as far as this study knows them, and samples."""
    specs = [spec for spec in job.specs if isinstance(spec, TheorySpec)]
    starts: dict[str, nn.Module] = {}
    found = []
    for i, spec in enumerate(specs):
        if spec.experiment == SUPPORTS and spec.stream not in starts:
            with turn():
                starts[spec.stream] = prepared(spec, job.device)
        trainer = Trainer(spec, job.device, starts.get(spec.stream))
        found.append(_one(spec, trainer, lambda share, i=i: beat((i + share) / len(specs))))
    rows, samples = zip(*found, strict=True)
    return list(rows), list(samples)


def _one(spec: TheorySpec, trainer: Trainer, beat: Beat) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains and measures one model; returns its row and its densities."""
    evaluation, traces, ends = Evaluation(trainer), [], stops(spec)
    with exact():
        row: dict[str, Any] = {"kl_s_start": evaluation.sampled()["kl_s"]}

    def measure(stop: int) -> None:
        with exact():
            if spec.experiment == DESCENT:
                traces.append(evaluation.descent())
            if spec.experiment == VANISHING:
                traces.append(evaluation.vanishing())
        beat(stop / ends[-1])

    with turn():
        seconds = trainer.train(ends, measure)
    row |= {"id": spec.id, "train_seconds": seconds, "n_samples": N, "graph": False}
    kept: dict[str, Any] = {"id": spec.id}
    row["status"] = "ok" if trainer.finite() else "diverged"
    if traces:
        row["trace_batch"] = ends
        row["traces"] = {name: [trace[name] for trace in traces] for name in traces[0]}
    if row["status"] == "ok" and spec.experiment == DESCENT:
        row |= {name: traces[-1][name] for name in ("kl_pq", "kl_qp", "kl_s")}
    elif row["status"] == "ok" and spec.experiment != VANISHING:
        with exact():
            row |= evaluation.scores()
            kept |= evaluation.densities()
    return row, kept
