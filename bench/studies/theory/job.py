"""Does the theory study's part of a job: cuts trainings into stacks, trains and scores a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from bench.store.log import Log, harmless, logs_of
from bench.studies import STUDIES
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


DIVERGENCES = ("kl_pq", "kl_qp", "kl_s")
RECORDS, PAIRS = 20, 2000
"""A log has losses and divergences after so many equal parts of a training, by so many pairs."""
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
        watch = Watch(job, trainer) if job.log else None
        found.append(_one(spec, trainer, lambda share, i=i: beat((i + share) / len(specs)), watch))
    rows, samples = zip(*found, strict=True)
    return list(rows), list(samples)


class Watch:
    """Writes the log of one training, see `bench.store.log`: losses and divergences."""

    def __init__(self, job: Job, trainer: Trainer) -> None:
        spec, self.trainer = trainer.spec, trainer
        steps, about = spec.epochs * BATCHES, STUDIES[spec.study].about(spec)
        self.stops = {round(steps * i / RECORDS) for i in range(RECORDS + 1)}
        self.evaluation, self.folder = Evaluation(trainer, PAIRS), logs_of(job.work)
        self.log = Log(job.work, about, ("n_samples", *DIVERGENCES), steps, BATCHES)

    @exact()
    def __call__(self, stop: int) -> None:
        """Writes a record if one is due after so many batches."""
        if stop in self.stops:
            with harmless(self.folder):
                scores = {"n_samples": PAIRS, **self.evaluation.sampled()}
                self.log.record(stop, self.trainer.seconds, self.evaluation.losses(), scores)


def _one(
    spec: TheorySpec, trainer: Trainer, beat: Beat, watch: Watch | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains and measures one model; returns its row and its densities."""
    evaluation, traces, ends = Evaluation(trainer), [], stops(spec)
    with exact():
        row: dict[str, Any] = {"kl_s_start": evaluation.sampled()["kl_s"]}

    def measure(stop: int) -> None:
        with exact():
            if spec.experiment == DESCENT and stop in ends:
                traces.append(evaluation.descent())
            if spec.experiment == VANISHING and stop in ends:
                traces.append(evaluation.vanishing())
        if watch is not None:
            watch(stop)
        beat(stop / ends[-1])

    with turn():
        trainer.train(sorted({*ends, *(watch.stops if watch else ())}), measure)
    row |= {"id": spec.id, "train_seconds": trainer.seconds, "n_samples": N, "graph": False}
    row["cpu_seconds"] = trainer.cpu_seconds
    kept: dict[str, Any] = {"id": spec.id}
    row["status"] = "ok" if trainer.finite() else "diverged"
    if traces:
        row["trace_batch"] = ends
        row["traces"] = {name: [trace[name] for trace in traces] for name in traces[0]}
    if row["status"] == "ok" and spec.experiment == DESCENT:
        row |= {name: traces[-1][name] for name in DIVERGENCES}
    elif row["status"] == "ok" and spec.experiment != VANISHING:
        with exact():
            row |= evaluation.scores()
            kept |= evaluation.densities()
    return row, kept
