"""Does the image studies' part of a job: one resumable training, then its scores."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.cli import UsageError
from bench.data import load as data
from bench.scores.ais import AnnealedRun, mean_and_se
from bench.scores.metrics import Metric, asks_for
from bench.store import checkpoint
from bench.studies.images import domain, evaluate
from bench.studies.images.cost import evaluation_seconds, training_seconds
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Model, Trainer
from bench.studies.study import Beat, Job, Kept, Rows, Unscorable
from models.precision import allow_tf32

Whole = TypeVar("Whole", Trainer, AnnealedRun)

EVERY = 60.0
"""Seconds between checkpoints. A kill costs at most so many seconds of training or annealing."""


def check(specs: Sequence[ImageSpec], folder: Path | None, weights: str | None) -> list[ImageSpec]:
    """Returns the specs, with a folder's images named by their digest.

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
        raise UsageError("--data goes with real images; this selection draws synthetic images")
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
    """Returns the row of one training, as far as this study knows it, and its pictures.

    Goes on from the checkpoint of a job that was killed. On a CPU the row is the same.
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
    allow_tf32(False)  # scores are in float32
    if trainer.finite():
        evaluate.freeze(trainer)
    scores, pictures = evaluate.scores(trainer, images, metrics, job.inception)
    row: dict[str, Any] = {"id": spec.id, "status": "ok" if pictures else "diverged", **scores}
    if pictures:
        row["weights"] = trainer.nets.state_dict()
    if pictures and spec.ais_images:
        bits = evaluate.test_bits(spec, images, source)
        row |= _annealed(job, trainer, bits, lambda share: beat(first + (1 - first) * share))
    steps, critic_losses, model_losses = zip(*trainer.losses, strict=True)
    row |= {
        "train_seconds": trainer.seconds,
        "graph": trainer.graph,
        "evaluation_seconds": time.perf_counter() - start,
        "steps": trainer.steps,
        "trace_step": list(steps),
        "critic_loss": list(critic_losses),
        "model_loss": list(model_losses),
        "data_sha256": images.sha256,
        "stand_in": images.stand_in,
        **evaluate.classifier_columns(images),
    }
    kept = dict.fromkeys(("x", "x_rec", "samples"), b"")
    kept |= {name: image.tobytes() for name, image in pictures.items()}
    return [row], [{"id": spec.id, "shape": list(images.test.shape[1:]), **kept}]


def score(job: Job, kept: Sequence[Kept], metrics: Sequence[Metric]) -> Rows:
    """Returns the columns of these metrics for the job's training, from its kept weights.

    Raises Unscorable for images that are not at hand, for weights of other networks and for a model
    that has diverged.
    """
    (spec,), ((row, weights),) = job.specs, kept
    assert isinstance(spec, ImageSpec)
    images = _images_at(data.cache(), domain.dataset(spec.data), job.data)
    if isinstance(images, str):
        raise Unscorable(f"the images are not at hand: {images}")
    if images.sha256 != row["data_sha256"]:
        raise Unscorable("the images are not at hand: found others than those of the training")
    model = Model(spec, job.device)
    try:
        model.nets.load_state_dict(weights)
    except RuntimeError:  # torch's message has a line for each tensor
        raise Unscorable("weights of other networks") from None
    model.nets.eval()
    allow_tf32(False)
    columns, pictures = evaluate.scores(model, images, metrics, job.inception)
    if not pictures:
        raise Unscorable("outputs are not finite")
    by_own = any(asks_for(metric, evaluate.BY_OWN) for metric in metrics)
    return [columns | (evaluate.classifier_columns(images) if by_own else {})]


@cache
def _images_at(place: Path, name: str, source: str | None) -> data.Images | str:
    """Returns images from `source`, or from the cache at `place`; else why they are not there.

    The answer is kept, so that a download that fails is tried once.
    """
    try:
        return data.load(name, Path(source) if source else None)
    except UsageError as error:
        return str(error)


def _trained(job: Job, spec: ImageSpec, images: data.Images, beat: Beat) -> Trainer:
    """Returns the trainer at the end of its training."""
    path = _checkpoint(job, "train")
    record = spec.method not in job.eager
    trainer = _resume(lambda: Trainer(spec, images.train, job.device, record=record), path)
    if not trainer.step:
        _checkpoint(job, "ais").unlink(missing_ok=True)  # its weights are gone
    saver = Saver(path, beat)
    trainer.train(lambda: saver(trainer.state, trainer.step / trainer.steps))
    _save(path, trainer.state())
    return trainer


def _annealed(job: Job, trainer: Trainer, bits: torch.Tensor, beat: Beat) -> dict[str, Any]:
    """Returns the row's columns about log p(x), by annealed importance sampling."""
    path = _checkpoint(job, "ais")
    run = _resume(lambda: evaluate.annealed_run(trainer, bits), path)
    saver = Saver(path, beat)
    found = run.finish(lambda t, total: saver(run.state, t / total))
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


class Saver:
    """Tells how far a job has come, and saves its state every EVERY seconds."""

    def __init__(self, path: Path, beat: Beat) -> None:
        self.path, self.beat, self.last = path, beat, time.monotonic()

    def __call__(self, state: Callable[[], dict[str, torch.Tensor]], share: float) -> None:
        self.beat(share)
        if time.monotonic() - self.last > EVERY:
            _save(self.path, state())
            self.last = time.monotonic()


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Saves a checkpoint. A full disk costs the checkpoint alone; storing the rows meets it."""
    with contextlib.suppress(OSError):
        checkpoint.save(path, state)


def _resume(make: Callable[[], Whole], path: Path) -> Whole:
    """Returns what `make` makes, gone on to the state at `path`; removes a state of other code."""
    whole = make()
    try:
        if state := checkpoint.load(path):
            whole.load(state)
    except torch.OutOfMemoryError:
        raise  # the state is not at fault
    except (KeyError, RuntimeError, ValueError):
        path.unlink(missing_ok=True)
        return make()
    return whole


def _checkpoint(job: Job, kind: str) -> Path:
    """Returns the place of a checkpoint, which the method's source names as well.

    So no training begins with one source and ends with another.
    """
    from bench.studies import STUDIES

    (spec,) = job.specs
    source = STUDIES[spec.study].today().method(spec.method)
    return job.work / "checkpoints" / f"{spec.id}.{source}.{kind}.safetensors"


def clear(job: Job) -> None:
    """Removes the checkpoints of a job whose results are stored, those of other source as well."""
    for path in (job.work / "checkpoints").glob(f"{job.specs[0].id}.*"):
        path.unlink(missing_ok=True)
