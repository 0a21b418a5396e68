"""The image studies' part of a job: one training, resumable, then its scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.cli import UsageError
from bench.data import load as data
from bench.scores.ais import AnnealedRun, mean_and_se
from bench.scores.metrics import Metric
from bench.store import checkpoint
from bench.studies.cuda import allow_tf32
from bench.studies.images import domain, evaluate
from bench.studies.images.cost import evaluation_seconds, training_seconds
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Trainer
from bench.studies.study import Beat, Job, Rows

Whole = TypeVar("Whole", Trainer, AnnealedRun)

EVERY = 60.0
"""Seconds between checkpoints: what a kill costs at most, in training as in annealing."""
KINDS = ("train", "ais")
"""Of checkpoints."""


def check(specs: Sequence[ImageSpec], folder: Path | None, weights: str | None) -> list[ImageSpec]:
    """The specs, those of a folder's images by its digest.

    Raises UsageError, before anything is trained, for images or weights that can't be used.
    """
    for spec in specs:
        domain.check(spec)
    names = {spec.data for spec in specs}
    if weights is not None:
        if any(domain.domain(name).channels != 3 for name in names):
            raise UsageError("--inception-weights is for colour images; MNIST has none")
        evaluate.imagenet(weights, "cpu")
    if folder is not None and all(data.DATASETS[domain.dataset(name)].draw for name in names):
        raise UsageError("--data goes with real images; this selection draws stand-ins")
    found: dict[str, str] = {}
    try:
        for name in names:
            images = data.load(name, folder)
            found[name] = domain.data_of(name, images)
            mine = [spec for spec in specs if spec.data == name and spec.ais_images]
            for spec in {spec.bits: spec for spec in mine}.values():
                evaluate.test_bits(spec, images, folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return [replace(spec, data=found[spec.data]) for spec in specs]


def train(job: Job, beat: Beat, metrics: Sequence[Metric]) -> tuple[Rows, Rows]:
    """The row (what only this study knows of it) and the pictures of one training.

    Goes on from the checkpoint of a job that was killed; on a CPU the row is the same.
    """
    (spec,) = job.specs
    assert isinstance(spec, ImageSpec)
    source = Path(job.data) if job.data else None
    images = data.load(domain.dataset(spec.data), source)
    if domain.data_of(spec.data, images) != spec.data:
        raise ValueError(f"the images of {spec.data} are not where --data says")
    first = training_seconds(spec) / (training_seconds(spec) + evaluation_seconds(spec))
    trainer = _trained(job, spec, images, lambda share: beat(first * share))
    start = time.perf_counter()
    allow_tf32(False)  # scores are float32's
    scores, pictures = evaluate.scores(trainer, images, metrics, job.inception)
    row: dict[str, Any] = {"id": spec.id, "status": "ok" if pictures else "diverged", **scores}
    if pictures and spec.ais_images:
        bits = evaluate.test_bits(spec, images, source)
        row |= _annealed(job, trainer, bits, lambda share: beat(first + (1 - first) * share))
    row |= {
        "train_seconds": trainer.seconds,
        "evaluation_seconds": time.perf_counter() - start,
        "steps": trainer.steps,
        "data_sha256": images.sha256,
        "stand_in": images.stand_in,
        **trainer.curves(),
        **evaluate.classifier_columns(images),
    }
    kept = {name: image.tobytes() for name, image in pictures.items()}
    kept = dict.fromkeys(("x", "x_rec", "samples"), b"") | kept
    return [row], [{"id": spec.id, "shape": list(images.test.shape[1:]), **kept}]


def _trained(job: Job, spec: ImageSpec, images: data.Images, beat: Beat) -> Trainer:
    """The trainer at the end of its training."""
    path = _checkpoint(job, "train")
    trainer = _resume(lambda: Trainer(spec, images.train, job.device), path)
    if not trainer.step:
        _checkpoint(job, "ais").unlink(missing_ok=True)  # it was about other weights
    clock = Clock(path, beat)
    trainer.train(lambda: clock(trainer.state, trainer.step / trainer.steps))
    _save(path, trainer.state())
    return trainer


def _annealed(job: Job, trainer: Trainer, bits: torch.Tensor, beat: Beat) -> dict[str, Any]:
    """The row's part on log p(x), by annealed importance sampling."""
    path = _checkpoint(job, "ais")
    run = _resume(lambda: evaluate.annealed_run(trainer, bits), path)
    clock = Clock(path, beat)
    found = run.finish(lambda t, total: clock(run.state, t / total))
    mean, se = mean_and_se(found.log_likelihood)
    gap, gap_se = mean_and_se(found.upper - found.lower)
    return {
        "log_likelihood": mean,
        "log_likelihood_se": se,
        "log_likelihoods": found.log_likelihood.tolist(),
        "bdmc_gap": gap,
        "bdmc_gap_se": gap_se,
        "simulated": len(found.upper),
        "acceptance": found.acceptance,
    }


class Clock:
    """Saves a state now and then, and tells how far a job has come."""

    def __init__(self, path: Path, beat: Beat) -> None:
        self.path, self.beat = path, beat
        self.last = time.monotonic()

    def __call__(self, state: Callable[[], dict[str, torch.Tensor]], share: float) -> None:
        self.beat(share)
        if time.monotonic() - self.last > EVERY:
            _save(self.path, state())
            self.last = time.monotonic()


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    """A full disk costs the checkpoint, not the training: it will be met when rows are written."""
    with contextlib.suppress(OSError):
        checkpoint.save(path, state)


def _resume(make: Callable[[], Whole], path: Path) -> Whole:
    """What `make` makes, which goes on from a state at `path`; a state of other code goes."""
    whole = make()
    try:
        if state := checkpoint.load(path):
            whole.load(state)
    except torch.OutOfMemoryError:
        raise  # no fault of the state
    except (KeyError, RuntimeError, ValueError):
        path.unlink(missing_ok=True)
        return make()
    return whole


def _checkpoint(job: Job, kind: str) -> Path:
    return job.folder / "_checkpoints" / f"{job.specs[0].id}.{kind}.safetensors"


def clear(job: Job) -> None:
    """Removes the checkpoints of a job whose results are stored."""
    for kind in KINDS:
        _checkpoint(job, kind).unlink(missing_ok=True)
