"""Does the toy study's part of a job: cuts trainings into stacks, trains and scores a stack."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from bench.render.pixels import scatter
from bench.scores.metrics import Metric, columns
from bench.store.log import Log, harmless, logs_of
from bench.studies import STUDIES
from bench.studies.cost import cpu_seconds
from bench.studies.study import Beat, Job, Kept, Needs, Rows, Unscorable, cut
from bench.studies.toy_grid.data import N_TEST
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.spec import N_TRAIN, ToySpec
from bench.studies.toy_grid.train import Trainer, program, toy_shape
from bench.studies.turns import turn
from models.precision import exact

TRACES = 8  # the suite measures the decoder's gradient before training and after each eighth of it
ON_GPU = 128
"""Members that fill a GPU. A larger stack gains nothing, and loses more work when it is stopped."""
RECORDS = 25
"""A log has the losses at so many epochs, evenly."""
SCORED = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of a training at which its log also has scores and a picture."""
OVERHEAD_WIDTH = 64
"""A stacked step took a CPU core about twice torch's matrix products at this width.

Compiled products take less, so `seconds` are too long. `estimate` times batches instead.
"""


def flops(spec: ToySpec) -> float:
    """Returns multiplications and additions of all matrix products of a training."""
    weights = [sum(d_in * d_out for d_in, d_out in shape.layers) for shape in toy_shape(spec)]
    coders, critic = sum(weights[:2]), weights[2]
    # A weight takes 2 per sample forward, 2 back to the inputs, and 2 for its own gradient.
    critic_step = 2 * coders + 2 * 6 * critic
    passes = 2 if spec.lam > 0 else 1  # the cycle is a second pass
    model_step = passes * 6 * coders + 2 * 4 * critic
    samples = spec.epochs * (N_TRAIN // spec.batch) * spec.batch
    return float(samples * (spec.critic_steps * critic_step + spec.model_steps * model_step))


def seconds(spec: ToySpec, rate: float) -> float:
    """Returns a training's share of its stack's seconds, where products run at `rate` FLOP/s."""
    width = sum(spec.widths) / 3
    return flops(spec) / rate * (width + OVERHEAD_WIDTH) / width


def estimate(stacks: Sequence[Sequence[ToySpec]]) -> list[float]:
    """Returns the seconds of each stack on a core, from batches that are trained here and timed.

    Stacks with the cycle and stacks without it are timed apart, the cheapest and the dearest batch
    of each, and so are stacks of different dropout. The time of a batch lies between these as its
    products do.
    """
    found = [0.0] * len(stacks)
    kinds = [(stack[0].lam > 0, stack[0].dropout) for stack in stacks]
    for kind in sorted(set(kinds)):
        ones = {i: _one_update(stack) for i, stack in enumerate(stacks) if kinds[i] == kind}
        work = {i: sum(map(flops, one)) for i, one in ones.items()}
        ends = {work[i]: i for i in sorted(work, key=lambda i: work[i])[:: max(1, len(work) - 1)]}
        times = [_epoch_seconds(ones[i]) for i in ends.values()]
        for i in ones:
            epoch = float(np.interp(work[i], [*ends], times))
            found[i] = epoch * sum(map(flops, stacks[i])) / work[i]
    return found


def _one_update(specs: Sequence[ToySpec]) -> list[ToySpec]:
    """Returns these trainings of one epoch, with one update of each player on a batch."""
    return [replace(spec, critic_steps=1, model_steps=1, epochs=1) for spec in specs]


def _epoch_seconds(specs: Sequence[ToySpec]) -> float:
    """Returns a core's seconds for an epoch of this stack, from a few of its batches."""
    trainer = Trainer(specs)
    start = time.process_time()
    batches = next(trainer.epochs())
    drawn = time.process_time() - start
    turn = cycle(batches)
    return drawn + len(batches) * cpu_seconds(lambda: trainer.updates(next(turn)))


def needs(spec: ToySpec) -> Needs:
    """Returns the bytes that a training takes at least, see `Study.needs`."""
    roles = ("encoder", "decoder", "critic")
    sizes = [sum(d_out * (d_in + 1) for d_in, d_out in each.layers) for each in toy_shape(spec)]
    batches, memory = N_TRAIN // spec.batch, {}
    for role, size in zip(roles, sizes, strict=True):
        memory[f"{role}_width"] = 16.0 * size  # weights, their gradient, and Adam's two moments
    # An epoch's noise is drawn, then laid out by members.
    memory["critic_steps"] = 2 * 16.0 * batches * spec.batch * spec.critic_steps
    memory["model_steps"] = 2 * 32.0 * batches * spec.batch * spec.model_steps
    return Needs(memory, weights=4.0 * sum(sizes))


def stacks(specs: Sequence[ToySpec], device: str) -> list[list[ToySpec]]:
    """Cuts trainings into stacks of one tensor program each.

    Stacks on a CPU have 4 to 32 members and about 2,048 hidden units a layer, which fit a core's
    cache. Stacks on a GPU have up to ON_GPU members; the engine halves a stack that does not fit.
    No stack mixes lambda = 0 with lambda > 0, because only lambda > 0 needs the cycle.
    """
    groups: dict[Any, list[ToySpec]] = {}
    for spec in specs:
        groups.setdefault((program(spec), spec.lam > 0), []).append(spec)
    found = []
    for members in groups.values():
        members.sort(key=lambda s: (s.widths, s.depths, s.seed, s.lam, s.method))
        width = max(max(spec.widths) for spec in members)
        limit = ON_GPU if device == "cuda" else max(4, min(32, 2048 // width))
        found += cut(members, limit)
    return found


def train(job: Job, beat: Beat) -> tuple[Rows, Rows]:
    """Returns the rows of a trained stack, as far as this study knows them, and its samples."""
    specs = [spec for spec in job.specs if isinstance(spec, ToySpec)]
    record = not any(spec.method in job.eager for spec in specs)
    trainer = Trainer(specs, job.device, record=record)
    evaluation = Evaluation(trainer)
    epochs = trainer.specs[0].epochs
    traced = sorted({round(epochs * i / TRACES) for i in range(TRACES + 1)})
    traces, watch = [], Watch(job, evaluation) if job.log else None

    def after_epoch(epoch: int) -> None:
        if epoch in traced:
            with exact():
                traces.append(evaluation.decoder_gradient())
        if watch is not None:
            watch(epoch)
        beat(epoch / epochs)

    with turn():
        trainer.train(after_epoch)
    shared = {
        "n_samples": evaluation.z.shape[2],
        "n_splits": 1,
        "classifier": "exact posterior",
        "trace_epoch": traced,
        "train_seconds": trainer.seconds / len(trainer.specs),
        "cpu_seconds": trainer.cpu_seconds / len(trainer.specs),
        "graph": trainer.graph,
    }
    with exact():
        outcomes = evaluation.outcomes()
    rows, samples = [], []
    for i, (metrics, points) in enumerate(outcomes):
        id, status = trainer.specs[i].id, "ok" if metrics else "diverged"
        gradient = {method: [trace[method][i] for trace in traces] for method in traces[0]}
        known = {"id": id, "status": status, "decoder_gradient": gradient}
        if metrics:
            known["weights"] = trainer.nets.weights(i)
        rows.append(shared | (metrics or {}) | known)
        samples.append({"id": id, **points})
    return rows, samples


class Watch:
    """Writes the logs of a stack's trainings, see `bench.store.log`."""

    def __init__(self, job: Job, evaluation: Evaluation) -> None:
        self.evaluation, self.trainer = evaluation, evaluation.trainer
        study, epochs = STUDIES[job.specs[0].study], self.trainer.specs[0].epochs
        self.scored = {max(1, round(epochs * share)) for share in SCORED}
        self.epochs = {round(epochs * i / RECORDS) for i in range(RECORDS + 1)} | self.scored
        self.folder = logs_of(job.work)
        names = ("n_samples", *columns(study.metrics()))
        self.logs = [Log(job.work, study.about(spec), names, epochs) for spec in self.trainer.specs]

    @exact()
    def __call__(self, epoch: int) -> None:
        """Writes a record of every training if one is due after this epoch."""
        if epoch not in self.epochs:
            return
        with harmless(self.folder):
            seconds = self.trainer.seconds / len(self.logs)
            losses, outcomes = self.evaluation.losses(), []
            if epoch in self.scored:
                outcomes = self.evaluation.outcomes()
            for i, log in enumerate(self.logs):
                scores, picture = {}, b""
                if outcomes:
                    found, points = outcomes[i]
                    scores = {"n_samples": N_TEST, **found} if found else {}
                    picture = scatter(**{k: each.reshape(-1, 2) for k, each in points.items()})
                log.record(epoch, seconds, losses[i], scores, picture)


def score(job: Job, kept: Sequence[Kept], wanted: Sequence[Metric]) -> Rows:
    """Returns the columns of these metrics for each of the job's trainings, from kept weights.

    Raises Unscorable for weights of other networks and for a model that has diverged.
    """
    trainer = Trainer([spec for spec in job.specs if isinstance(spec, ToySpec)], job.device)
    place = {spec.id: i for i, spec in enumerate(trainer.specs)}
    for row, weights in kept:
        try:
            trainer.nets.load(place[row["id"]], weights)
        except ValueError as error:
            raise Unscorable(str(error)) from None
    with exact():
        outcomes = Evaluation(trainer).outcomes(wanted)
    found = [outcomes[place[spec.id]][0] for spec in job.specs]
    if None in found:
        raise Unscorable("outputs are not finite")
    return [columns or {} for columns in found]
