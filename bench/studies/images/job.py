"""Does the image studies' part of a job: resumable trainings, several on a GPU, then scores."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch

from bench.cli import UsageError
from bench.data import load as data
from bench.scores.ais import AnnealedRun, mean_and_se
from bench.scores.metrics import ANCHORS, Metric, asks_for
from bench.store import checkpoint
from bench.studies.cost import counted
from bench.studies.images import domain, evaluate, limits
from bench.studies.images.cost import evaluation_seconds, training_seconds
from bench.studies.images.spec import FOLDER, ImageSpec
from bench.studies.images.train import Model, Trainer, together, under_way
from bench.studies.images.watch import Watch
from bench.studies.study import Beat, Job, Kept, Rows, Unscorable, cut
from bench.studies.turns import turn
from models.precision import exact

Whole = TypeVar("Whole", Trainer, AnnealedRun)

EVERY = 60.0
"""Seconds between checkpoints. A kill costs at most so many seconds of training or annealing."""
TOGETHER = 6
"""Up to so many trainings share a GPU, because a batch of 64 leaves half of it empty.

Nobody has measured yet how many trainings fill one H100 best.
"""


def check(
    specs: Sequence[ImageSpec],
    folder: Path | None,
    weights: str | None,
    own: Mapping[str, int] = MappingProxyType({}),
    fetch: bool = True,
) -> list[ImageSpec]:
    """Returns the specs, with a user's images named by their digest.

    `own` are the study's own values, which get smaller for few images, see `limits.fitted`. A
    `folder` takes the place of synthetic images if `own` has "data". Raises UsageError, before
    anything is trained, for images or weights that can't be used, and for trainings that ask for
    more images than there are. Without `fetch` images that are not here are not looked at.
    """
    if folder is not None and "data" in own:
        reals = {name: entry.real for name, entry in data.DATASETS.items() if entry.draw}
        specs = [replace(spec, data=reals.get(spec.data, spec.data)) for spec in specs]
    for spec in specs:
        domain.check(spec)
    names = {spec.data for spec in specs}
    if weights is not None:
        if any(domain.domain(name).channels != 3 for name in names):
            raise UsageError("--inception-weights is for colour images; MNIST has none")
        evaluate.imagenet(weights, "cpu")
    drawn = {name for name in names if data.DATASETS[domain.dataset(name)].draw}
    if folder is not None and drawn and drawn == names:
        raise UsageError(
            "--data goes with real images, and --set data=... names synthetic images; allowed: "
            "one of both"
        )
    kept: dict[ImageSpec, ImageSpec] = {}
    try:
        for name in names:
            asked = [spec for spec in specs if spec.data == name]
            if not fetch and folder is None and not data.at_hand(domain.dataset(name)):
                kept |= zip(asked, asked, strict=True)
                continue
            images = data.load(domain.dataset(name), folder)
            found = domain.data_of(name, images)
            if FOLDER in name and found != name:
                raise UsageError(f"{images.origin} has other images than {name}: see --data")
            mine = [replace(limits.fitted(spec, images, own), data=found) for spec in asked]
            kept |= zip(asked, mine, strict=True)
            for spec in mine:
                domain.check(spec)
                limits.check(spec, images, weights is not None, own.get("images"))
            if not (fetch or folder is not None or images.stand_in):
                continue  # bits may have to be downloaded
            for spec in {spec.bits: spec for spec in mine if spec.ais_images}.values():
                evaluate.test_bits(spec, images, folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return [kept[spec] for spec in specs]


def stacks(specs: Sequence[ImageSpec]) -> list[list[ImageSpec]]:
    """Cuts trainings into stacks that share a GPU: up to TOGETHER that take about equally long.

    Trainings of a stack have the same data set and precision.
    """
    groups: dict[tuple[str, str], list[ImageSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.data, spec.precision), []).append(spec)
    found = []
    for members in groups.values():
        members.sort(key=training_seconds)
        found += cut(members, TOGETHER)
    return found


def train(job: Job, beat: Beat, metrics: Sequence[Metric]) -> tuple[Rows, Rows]:
    """Returns the rows of a job's trainings, as far as this study knows them, and their pictures.

    Goes on from the checkpoints of a job that was killed. On a CPU the rows are the same. Raises
    what `bench.studies.cuda.record` raises.
    """
    specs = [spec for spec in job.specs if isinstance(spec, ImageSpec)]
    images = {spec.data: _images_of(job, spec) for spec in specs}
    training, scoring = (
        [seconds(spec) for spec in specs] for seconds in (training_seconds, evaluation_seconds)
    )
    whole = sum(training) + sum(scoring)

    def part(before: float, seconds: float) -> Beat:
        return lambda share: beat((before + share * seconds) / whole)

    trainers, done, found = _trained(job, images, part(0.0, sum(training))), sum(training), []
    for trainer, seconds in zip(trainers, scoring, strict=True):
        scored = part(done, seconds)
        found.append(_scored(job, trainer, images[trainer.spec.data], scored, metrics))
        scored(1.0)
        done += seconds
    return [row for row, _ in found], [sample for _, sample in found]


def _images_of(job: Job, spec: ImageSpec) -> data.Images:
    """Returns a training's images. Raises ValueError if they are not where the job says."""
    images = data.load(domain.dataset(spec.data), Path(job.data) if job.data else None)
    if domain.data_of(spec.data, images) != spec.data:
        raise ValueError(f"the images of {spec.data} are not where --data says")
    return images


def _scored(
    job: Job, trainer: Trainer, images: data.Images, beat: Beat, metrics: Sequence[Metric]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the row of a training that has ended, and its pictures."""
    spec, start = trainer.spec, time.perf_counter()
    if trainer.finite():
        evaluate.freeze(trainer)
    scores, pictures = evaluate.scores(trainer, images, metrics, job.inception)
    row: dict[str, Any] = {"id": spec.id, "status": "ok" if pictures else "diverged", **scores}
    if pictures:
        row["weights"] = trainer.nets.state_dict()
        row["anchors"] = evaluate.anchored(spec, images, metrics, job.device, job.inception)
    if pictures and spec.ais_images:
        bits = evaluate.test_bits(spec, images, Path(job.data) if job.data else None)
        row |= _annealed(job, trainer, bits, beat)
    steps, critic_losses, model_losses = zip(*trainer.losses, strict=True)
    row |= {
        "train_seconds": trainer.seconds,
        "cpu_seconds": None if math.isnan(trainer.cpu_seconds) else trainer.cpu_seconds,
        "graph": trainer.graph,
        "evaluation_seconds": time.perf_counter() - start,
        "steps": trainer.steps,
        "trace_step": list(steps),
        "critic_loss": list(critic_losses),
        "model_loss": list(model_losses),
        "data_sha256": images.sha256,
        "data_place": Path(images.origin).name if FOLDER in spec.data else None,
        "stand_in": images.stand_in,
        **evaluate.classifier_columns(images, job.device),
    }
    kept = dict.fromkeys(("x", "x_rec", "samples"), b"")
    kept |= {name: image.tobytes() for name, image in pictures.items()}
    return row, {"id": spec.id, "shape": list(images.test.shape[1:]), **kept}


def score(job: Job, kept: Sequence[Kept], metrics: Sequence[Metric]) -> Rows:
    """Returns the columns of these metrics for the job's trainings, from their kept weights.

    Anchors come with them, see `_anchors`; ANCHORS alone needs no weights. Raises Unscorable for
    images that are not at hand, for weights of other networks and for a model that has diverged.
    """
    specs = [spec for spec in job.specs if isinstance(spec, ImageSpec)]
    return [_score(job, spec, each, metrics) for spec, each in zip(specs, kept, strict=True)]


def _score(job: Job, spec: ImageSpec, kept: Kept, metrics: Sequence[Metric]) -> dict[str, Any]:
    row, weights = kept
    images = _images_at(data.cache(), domain.dataset(spec.data), job.data)
    if isinstance(images, str):
        raise Unscorable(f"the images are not at hand: {images}")
    if images.sha256 != row["data_sha256"]:
        raise Unscorable("the images are not at hand: found others than those of the training")
    asked = [metric for metric in metrics if metric is not ANCHORS]
    columns = _model_scores(job, spec, images, weights, asked) if asked else {}
    return columns | _anchors(job, spec, images, {**row, **columns}, metrics)


def _model_scores(
    job: Job,
    spec: ImageSpec,
    images: data.Images,
    weights: Mapping[str, Any],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Returns the columns of these metrics of a model with these weights."""
    model = Model(spec, job.device)
    try:
        model.nets.load_state_dict(weights)
    except RuntimeError:  # torch's message has a line for each tensor
        raise Unscorable("weights of other networks") from None
    model.nets.eval()
    columns, pictures = evaluate.scores(model, images, metrics, job.inception)
    if not pictures:
        raise Unscorable("outputs are not finite")
    by_own = any(asks_for(metric, evaluate.BY_OWN) for metric in metrics)
    return columns | (evaluate.classifier_columns(images, job.device) if by_own else {})


def _anchors(
    job: Job,
    spec: ImageSpec,
    images: data.Images,
    row: Mapping[str, Any],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Returns the row's column `anchors` with these metrics, or with all the study's for ANCHORS.

    Returns nothing if another classifier than today's made the row's scores, and for a row without
    anchors that nobody asks for.
    """
    from bench.studies import STUDIES

    every = ANCHORS in metrics
    known = {} if every else dict(row.get("anchors") or {})
    if not (every or known):
        return {}
    todays = evaluate.classifier_columns(images, job.device).get("classifier_sha256")
    if row.get("classifier_sha256") != todays:
        return {}
    wanted = STUDIES[spec.study].metrics() if every else metrics
    new = evaluate.anchored(spec, images, wanted, job.device, job.inception)
    return {"anchors": dict(sorted({**known, **new}.items()))}


@cache
def _images_at(place: Path, name: str, source: str | None) -> data.Images | str:
    """Returns images from `source`, or from the cache at `place`; else why they are not there.

    The answer is kept, so that a download that fails is tried once.
    """
    try:
        return data.load(name, Path(source) if source else None)
    except UsageError as error:
        return str(error)


def _trained(job: Job, images: Mapping[str, data.Images], beat: Beat) -> list[Trainer]:
    """Returns the trainers of a job's trainings at their ends, each from its own checkpoint."""
    specs = [spec for spec in job.specs if isinstance(spec, ImageSpec)]
    shared = {name: _uploaded(job, name, found.train) for name, found in images.items()}
    trainers = []
    for spec in specs:
        record = spec.method not in job.eager

        def make(spec: ImageSpec = spec, record: bool = record) -> Trainer:
            return Trainer(spec, shared[spec.data], job.device, record=record)

        trainers.append(_resume(make, _checkpoint(job, spec, "train")))
        if not trainers[-1].step:
            _checkpoint(job, spec, "ais").unlink(missing_ok=True)  # its weights are gone

    def states(some: Sequence[Trainer]) -> dict[Path, dict[str, torch.Tensor]]:
        with counted(some):  # what waits in the device's queue is training
            for trainer in some:
                trainer.wait()
        return {_checkpoint(job, trainer.spec, "train"): trainer.state() for trainer in some}

    seconds = [training_seconds(spec) for spec in specs]
    asked = trainers if job.log else []
    watches = {each: Watch(job, each, images[each.spec.data]) for each in asked}
    with turn():
        saver = Saver(beat)
        for ended in together(trainers):
            for trainer, watch in watches.items():
                if watch.due():
                    with counted(under_way(trainers)):
                        trainer.wait()
                    watch()
            done = (s * t.step / t.steps for s, t in zip(seconds, trainers, strict=True))
            saver(sum(done) / sum(seconds), lambda: states(under_way(trainers)))
            for path, state in states(ended).items():
                _save(path, state)
    return trainers


def _uploaded(job: Job, name: str, images: np.ndarray) -> torch.Tensor:
    """Returns a copy on the job's device of as many images of a data set as its trainings use."""
    used = [spec.images for spec in job.specs if isinstance(spec, ImageSpec) and spec.data == name]
    most = max(used) if all(used) else None  # 0: all
    return torch.from_numpy(np.array(images[:most])).to(job.device)


@exact()
def _annealed(job: Job, trainer: Trainer, bits: torch.Tensor, beat: Beat) -> dict[str, Any]:
    """Returns the row's columns about log p(x), by annealed importance sampling."""
    path = _checkpoint(job, trainer.spec, "ais")
    run = _resume(lambda: evaluate.annealed_run(trainer, bits), path)
    saver = Saver(beat)
    found = run.finish(lambda t, total: saver(t / total, lambda: {path: run.state()}))
    _save(path, run.state())  # a kill that comes while another training is scored costs nothing
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
    """Tells how far a job has come, and saves states every EVERY seconds."""

    def __init__(self, beat: Beat) -> None:
        self.beat, self.last = beat, time.monotonic()

    def __call__(
        self, share: float, states: Callable[[], Mapping[Path, dict[str, torch.Tensor]]]
    ) -> None:
        """Tells the share that is done; `states` returns each state by the path of its file."""
        self.beat(share)
        if time.monotonic() - self.last > EVERY:
            for path, state in states().items():
                _save(path, state)
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


def _checkpoint(job: Job, spec: ImageSpec, kind: str) -> Path:
    """Returns the place of a checkpoint, which the method's source names as well.

    So no training begins with one source and ends with another.
    """
    from bench.studies import STUDIES

    source = STUDIES[spec.study].today().method(spec.method)
    return job.work / "checkpoints" / f"{spec.id}.{source}.{kind}.safetensors"


def clear(job: Job) -> None:
    """Removes the checkpoints of a job whose results are stored, those of other source as well."""
    for spec in job.specs:
        for path in (job.work / "checkpoints").glob(f"{spec.id}.*"):
            path.unlink(missing_ok=True)
