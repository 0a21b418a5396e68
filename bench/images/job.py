"""The image studies' part of a job: one training, resumable, then its scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bench import checkpoint, data
from bench.ais import AnnealedRun
from bench.cli import UsageError
from bench.images import evaluate
from bench.images.cost import evaluation_seconds, seconds, training_seconds
from bench.images.train import Trainer
from bench.spec import ImageSpec
from models.methods import METHODS

if TYPE_CHECKING:
    from bench.jobs import Heartbeat, Job

__all__ = ["check", "clear", "methods", "seconds", "stacks", "train"]

EVERY = 60.0
"""Seconds between checkpoints: what a kill costs at most, in training as in annealing."""


def methods() -> dict[str, bool]:
    """Every method this study can train, and whether lambda means something to it."""
    return {name: bool(method.label_cycle) for name, method in METHODS.items()}


def check(specs: Sequence[ImageSpec], data_folder: Path | None) -> None:
    """Raises UsageError, before anything is trained, for images that are missing or damaged."""
    names = {spec.data for spec in specs}
    if unknown := names - {"mnist", "stand-in digits"}:
        raise UsageError(f"data is {min(unknown)}; allowed: mnist, stand-in digits")
    if data_folder is not None and names == {"stand-in digits"}:
        raise UsageError("--data goes with real images; this selection draws stand-ins")
    try:
        for name in names:
            images = data.load(name, data_folder)
            for spec in {spec.bits: spec for spec in specs if spec.data == name}.values():
                evaluate.test_bits(spec, images, data_folder)
    except (data.DataError, ValueError) as error:
        raise UsageError(str(error)) from None


def stacks(specs: Sequence[ImageSpec], device: str) -> list[list[ImageSpec]]:
    """Every training of images is a job of its own: one model fills a core."""
    return [[spec] for spec in specs]


class Clock:
    """Saves a state now and then, and tells how far a job has come."""

    def __init__(self, path: Path, beat: Heartbeat) -> None:
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


def train(job: Job, beat: Heartbeat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The row (what only this study knows of it) and the pictures of one training.

    Goes on from the checkpoint of a job that was killed; on a CPU the row is the same.
    """
    (spec,) = job.specs
    assert isinstance(spec, ImageSpec)
    source = Path(job.data) if job.data else None
    images = data.load(spec.data, source)
    trainer = Trainer(spec, images.train, job.device)
    folder = Path(job.results) / spec.study / spec.scale / "_checkpoints"
    trained, annealed = (folder / f"{spec.id}.{kind}.safetensors" for kind in ("train", "ais"))
    first = training_seconds(spec) / (training_seconds(spec) + evaluation_seconds(spec))

    if not _resumed(trainer, trained):
        trainer = Trainer(spec, images.train, job.device)
        annealed.unlink(missing_ok=True)  # it was about other weights
    clock = Clock(trained, beat)
    trainer.train(lambda: clock(trainer.state, first * trainer.step / trainer.steps))
    _save(trained, trainer.state())
    row = {
        "id": spec.id,
        "train_seconds": trainer.seconds,
        "steps": trainer.steps,
        "data_sha256": images.sha256,
        "stand_in": images.stand_in,
        **_curves(trainer),
        "n_splits": evaluate.SPLITS,
        **evaluate.referee_columns(images),
    }
    start = time.perf_counter()
    found = None
    if trainer.finite():
        evaluate.freeze(trainer)
        found = evaluate.scores(trainer, images)
    if found is None:
        blank = np.zeros((0, *images.test.shape[1:]), np.uint8)
        row |= {"status": "diverged"}
        pictures = {"samples": blank, "x": blank, "x_rec": blank}
    else:
        bits = evaluate.test_bits(spec, images, source)
        run = evaluate.annealed_run(trainer, bits)
        if not _resumed(run, annealed):
            run = evaluate.annealed_run(trainer, bits)
        clock = Clock(annealed, beat)
        estimate = run.finish(lambda t, total: clock(run.state, first + (1 - first) * t / total))
        row |= {
            "status": "ok",
            **found.metrics,
            "log_likelihood": estimate.mean,
            "log_likelihood_se": estimate.se,
            "log_likelihoods": estimate.log_likelihood.tolist(),
            "bdmc_gap": estimate.bdmc_gap,
            "bdmc_gap_se": estimate.bdmc_gap_se,
            "simulated": len(estimate.upper),
            "acceptance": estimate.acceptance,
        }
        x_rec = found.x_rec if found.x_rec is not None else found.x[:0]
        pictures = {"samples": found.samples, "x": found.x, "x_rec": x_rec}
    row["evaluation_seconds"] = time.perf_counter() - start
    sample = {"id": spec.id, "shape": list(images.test.shape[1:])}
    sample |= {name: array.tobytes() for name, array in pictures.items()}
    return [row], [sample]


def _resumed(whole: Trainer | AnnealedRun, path: Path) -> bool:
    """Whether there was a state at `path` to go on from; one of other code goes."""
    state = checkpoint.load(path)
    if state is None:
        return False
    try:
        whole.load(state)
    except (KeyError, RuntimeError, ValueError):
        path.unlink(missing_ok=True)
        return False
    return True


def clear(job: Job) -> None:
    """Removes the checkpoints of a job whose results are stored."""
    for spec in job.specs:
        folder = Path(job.results) / spec.study / spec.scale / "_checkpoints"
        for path in folder.glob(f"{spec.id}.*.safetensors"):
            path.unlink(missing_ok=True)


def _curves(trainer: Trainer) -> dict[str, list[Any]]:
    steps, critic, model = zip(*trainer.losses, strict=True) if trainer.losses else ((), (), ())
    return {"trace_step": list(steps), "critic_loss": list(critic), "model_loss": list(model)}
