"""The image studies' part of a job: one training, resumable, then its scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.cli import UsageError
from bench.data import load as data
from bench.scores.ais import AnnealedRun, Estimate
from bench.spec import Spec
from bench.store import checkpoint
from bench.studies.cuda import allow_tf32
from bench.studies.images import evaluate
from bench.studies.images.cost import evaluation_seconds, training_seconds
from bench.studies.images.domain import DOMAINS, data_of, dataset
from bench.studies.images.study import ImageSpec
from bench.studies.images.train import Trainer
from bench.studies.study import Beat, Job, Rows, Study
from models.methods import METHODS

Whole = TypeVar("Whole", Trainer, AnnealedRun)

EVERY = 60.0
"""Seconds between checkpoints: what a kill costs at most, in training as in annealing."""


def methods(study: Study[ImageSpec]) -> dict[str, bool]:
    """Every method this study can train, and whether lambda means something to it."""
    names = DOMAINS[study.name].methods()
    return {name: bool(METHODS[name].label_cycle) for name in names}


def check(
    study: Study[ImageSpec],
    specs: Sequence[ImageSpec],
    data_folder: Path | None,
    weights: str | None,
) -> list[ImageSpec]:
    """The specs, those of a folder's images by its digest.

    Raises UsageError, before anything is trained, for images or weights that can't be used.
    """
    names = {spec.data for spec in specs}
    if weights is not None:
        if any(DOMAINS[name].channels != 3 for name in names if name in DOMAINS):
            raise UsageError("--inception-weights is for colour images; MNIST has none")
        evaluate.imagenet(weights, "cpu")
    allowed = {axes["data"][0] for axes in study.axes.values()}
    if unknown := names - allowed:
        raise UsageError(f"data is {min(unknown)}; allowed: {', '.join(sorted(allowed))}")
    papers = {spec.data for spec in specs if spec.networks == "paper"}
    if lacking := {name for name in papers if not DOMAINS[name].paper}:
        raise UsageError(f"networks is paper; allowed for {min(lacking)}: suite")
    if data_folder is not None and all(name.startswith("stand-in") for name in names):
        raise UsageError("--data goes with real images; this selection draws stand-ins")
    found: dict[str, str] = {}
    try:
        for name in names:
            images = data.load(name, data_folder)
            found[name] = data_of(name, images)
            mine = [spec for spec in specs if spec.data == name and spec.ais_images]
            if mine and DOMAINS[name].low != 0:
                raise UsageError(f"ais_images is {mine[0].ais_images}; allowed for {name}: 0")
            for spec in {spec.bits: spec for spec in mine}.values():
                evaluate.test_bits(spec, images, data_folder)
    except (data.DataError, ValueError) as error:
        raise UsageError(str(error)) from None
    return [replace(spec, data=found[spec.data]) for spec in specs]


class Clock:
    """Saves a state now and then, and tells how far a job has come."""

    def __init__(self, path: Path, beat: Beat) -> None:
        self.path, self.beat = path, beat
        self.last = time.monotonic()

    def __call__(self, state: Any, share: float) -> None:
        self.beat(share)
        if time.monotonic() - self.last > EVERY:
            _save(self.path, state())
            self.last = time.monotonic()


def _save(path: Path, state: dict[str, Tensor]) -> None:
    """A full disk costs the checkpoint, not the training: it will be met when rows are written."""
    with contextlib.suppress(OSError):
        checkpoint.save(path, state)


def train(job: Job, beat: Beat) -> tuple[Rows, Rows]:
    """The row (what only this study knows of it) and the pictures of one training.

    Goes on from the checkpoint of a job that was killed; on a CPU the row is the same.
    """
    (spec,) = job.specs
    assert isinstance(spec, ImageSpec)
    source = Path(job.data) if job.data else None
    images = data.load(dataset(spec.data), source)
    if data_of(spec.data, images) != spec.data:
        raise ValueError(f"the images of {spec.data} are not where --data says")
    first = training_seconds(spec) / (training_seconds(spec) + evaluation_seconds(spec))
    trainer, resumed = _resume(
        lambda: Trainer(spec, images.train, job.device), trained := _checkpoint(job, spec, "train")
    )
    annealed = _checkpoint(job, spec, "ais")
    if not resumed:
        annealed.unlink(missing_ok=True)  # it was about other weights
    clock = Clock(trained, beat)
    trainer.train(lambda: clock(trainer.state, first * trainer.step / trainer.steps))
    _save(trained, trainer.state())

    start = time.perf_counter()
    allow_tf32(False)  # scores are float32's
    scores = None
    if trainer.finite():
        evaluate.freeze(trainer)
        scores = evaluate.scores(trainer, images, job.inception)
    row: dict[str, Any] = {"status": "diverged" if scores is None else "ok"}
    if scores is not None:
        row |= scores.metrics
    if scores is not None and spec.ais_images:
        bits = evaluate.test_bits(spec, images, source)
        run, _ = _resume(lambda: evaluate.annealed_run(trainer, bits), annealed)
        clock = Clock(annealed, beat)
        estimate = run.finish(lambda t, total: clock(run.state, first + (1 - first) * t / total))
        row |= _likelihood(estimate)
    row |= {
        "id": spec.id,
        "train_seconds": trainer.seconds,
        "evaluation_seconds": time.perf_counter() - start,
        "steps": trainer.steps,
        "data_sha256": images.sha256,
        "stand_in": images.stand_in,
        **_curves(trainer),
        **evaluate.referee_columns(images),
    }
    sample: dict[str, Any] = {"id": spec.id, "shape": list(images.test.shape[1:])}
    for name in ("x", "x_rec", "samples"):
        array = None if scores is None else scores.pictures.get(name)
        sample[name] = b"" if array is None else array.tobytes()
    return [row], [sample]


def _checkpoint(job: Job, spec: Spec, kind: str) -> Path:
    folder = Path(job.results) / spec.study / spec.scale / "_checkpoints"
    return folder / f"{spec.id}.{kind}.safetensors"


def _resume(make: Callable[[], Whole], path: Path) -> tuple[Whole, bool]:
    """What `make` makes, and whether it goes on from a state at `path`; one of other code goes."""
    whole = make()
    state = checkpoint.load(path)
    if state is None:
        return whole, False
    try:
        whole.load(state)
    except torch.OutOfMemoryError:
        raise  # no fault of the state
    except (KeyError, RuntimeError, ValueError):
        path.unlink(missing_ok=True)
        return make(), False
    return whole, True


def _likelihood(estimate: Estimate) -> dict[str, Any]:
    return {
        "log_likelihood": estimate.mean,
        "log_likelihood_se": estimate.se,
        "log_likelihoods": estimate.log_likelihood.tolist(),
        "bdmc_gap": estimate.bdmc_gap,
        "bdmc_gap_se": estimate.bdmc_gap_se,
        "simulated": len(estimate.upper),
        "acceptance": estimate.acceptance,
    }


def clear(job: Job) -> None:
    """Removes the checkpoints of a job whose results are stored."""
    for spec in job.specs:
        for kind in ("train", "ais"):
            _checkpoint(job, spec, kind).unlink(missing_ok=True)


def _curves(trainer: Trainer) -> dict[str, list[Any]]:
    steps, critic, model = zip(*trainer.losses, strict=True) if trainer.losses else ((), (), ())
    return {"trace_step": list(steps), "critic_loss": list(critic), "model_loss": list(model)}
