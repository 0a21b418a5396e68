"""Scores a trained model of an image study, by one protocol for every method.

By the same protocol it scores images that no model made, see `anchored`.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from bench.data.load import DATASETS, Images, load, static_bits, static_labels
from bench.scores import classifiers, metrics
from bench.scores.ais import AnnealedRun
from bench.scores.classifiers import Classifier
from bench.scores.latent import bernoulli
from bench.scores.swd import Patches, distance
from bench.studies.images.anchors import anchors
from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Model, Trainer
from models import batch
from models.batch import Networks, decode, encode
from models.layers import layout
from models.methods import METHODS
from models.mnist import Decoder, Norm
from models.objectives import OBJECTIVES
from models.precision import exact

STATISTICS = 100  # frozen batch norm has the statistics of so many training batches
PICTURES, SHOWN = 64, ("x", "x_rec", "samples")
"""The suite keeps so many images of each of these kinds for pictures."""
CHUNK = 500  # images in one pass
BY_OWN = ("logits", "features", "real", "real_features")
"""What `Outputs` has of the suite's classifier."""
OF_SEEDS = (BY_OWN, *(tuple(f"{name}_{seed}" for name in BY_OWN) for seed in metrics.OTHERS))
"""What it has of the classifier of each seed."""


def absent(spec: ImageSpec, imagenet: bool) -> list[str]:
    """Returns names of `Outputs` that a training's model never has, see `Study.absent`."""
    found = [] if "encoder" in METHODS[spec.method].parts else ["x_rec"]
    if spec.method not in OBJECTIVES:
        found.append("x_rec_batch")
    entry = DATASETS.get(spec.data)  # a folder's images have no entry
    name = entry.classifier if entry else ""
    there = classifiers.seeds(name) if name else 0
    found += [each for i, names in enumerate(OF_SEEDS) if i >= there for each in names]
    if not (imagenet and domain(spec.data).channels == 3):
        found += metrics.BY_IMAGENET
    return found


@exact()
def freeze(trainer: Trainer, batches: int = STATISTICS) -> None:
    """Sets batch norm to its statistics over training batches, and the networks to frozen.

    The batches pass as in the model's update at lambda 0, as the networks were trained. Decoders
    see codes of the prior, in VAEs codes of images, in AS-VAE both. Encoders see real images, in
    AS-VAE also generated images.
    """
    norms = [module for module in trainer.nets.modules() if isinstance(module, Norm)]
    for norm in norms:
        norm.track_running_stats = True
        norm.reset_running_stats()
    trainer.nets.train()
    with torch.no_grad():
        for i in range(batches):
            draws = trainer.draws(trainer.batch(i), f"statistics {i}")
            trainer.method.model(trainer.nets, draws, 0.0)
    for norm in norms:
        norm.track_running_stats = False
    trainer.nets.eval().to(memory_format=layout(trainer.device))


@torch.no_grad()
def generate(model: Model, n: int) -> Tensor:
    """Returns n images (n, c, h, w) in [0, 1], which frozen networks make from the prior."""
    every = torch.empty(n, device=model.device, dtype=model.dtype).split(CHUNK)
    draws = (model.draws(rows, f"generate {i}", "cpu") for i, rows in enumerate(every))
    return model.domain.unit(torch.cat([batch.generate(model.nets, each) for each in draws]))


@torch.no_grad()
def reconstruct(model: Model, x: Tensor, chunk: int = CHUNK) -> Tensor:
    """Returns reconstructions (n, c, h, w), in [0, 1], of uint8 images, `chunk` in one pass."""
    nets: Networks = model.nets
    parts = []
    for i, part in enumerate(x.split(chunk)):
        part = model.domain.scaled(part.to(model.device), model.dtype)
        draws = model.draws(part, f"reconstruct {i}", "cpu")
        parts.append(decode(nets, draws, encode(nets, draws, part)))
    return model.domain.unit(torch.cat(parts))


def reconstruct_by_batch(model: Model, x: Tensor) -> Tensor:
    """Returns reconstructions where batch norm has the statistics of each batch of images.

    A batch has `spec.batch` images, as in training. The first images fill up the last batch. The
    model stays frozen.
    """
    n, size = len(x), model.spec.batch
    rows = torch.arange(-(-n // size) * size, device=x.device) % n
    norms = [module for module in model.nets.modules() if isinstance(module, Norm)]
    for norm in norms:
        norm.train()  # it keeps no statistics, see `models.mnist.batch_norm`
    try:
        return reconstruct(model, x[rows], size)[:n]
    finally:
        for norm in norms:
            norm.eval()


AGREE = 1e-4
"""Scores of one model on a CPU and on a GPU may differ by such a share, because both round.

All else is the same: noise, codes, patches, lines. Other algorithms of a CPU change scores by 3e-6
of them or less. TF32, which is no float32, changes the sd of the inception score by 3e-4 and more.
"""


@exact()
def scores(
    model: Model, images: Images, wanted: Sequence[metrics.Metric], weights: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns frozen networks' scores but log p(x), by column, and uint8 images (64, c, h, w).

    The model's device computes them in float32, classifiers too. Both results are empty if
    parameters or images are not finite: the training has diverged. ImageNet's classifier scores too
    if there are `weights`, see `imagenet`.
    """
    if not model.finite():
        return {}, {}
    where = str(model.device)
    test = _on(images.test, where)
    given = _outputs(model, model.spec.samples, test)
    if not given:
        return {}, {}
    if model.spec.method in OBJECTIVES:
        given["x_rec_batch"] = reconstruct_by_batch(model, test)
    known: dict[str, Any] = {name: each.cpu().numpy() for name, each in given.items()}
    pictures, samples = _pictures(known), known["samples"]
    seeds = range(classifiers.seeds(name) if (name := classifier_of(images)) else 0)
    known |= _judged(given["samples"], images, where, weights, seeds)
    columns: dict[str, Any] = {}
    if weights is not None:
        real = known["imagenet_real"]
        columns = {
            "imagenet_n_samples": len(samples),
            "imagenet_n_real": len(real),
            "imagenet_splits": metrics.SPLITS,
            "imagenet_shuffle": True,
            "imagenet_seed": metrics.SEED,
            "imagenet_kid_subsets": metrics.SUBSETS,
            "imagenet_kid_subset_size": metrics.subset_size(samples, real),
            "imagenet_weights_sha256": imagenet(weights, where).sha256,
        }
    return metrics.measure(wanted, metrics.Outputs(**known)) | columns, pictures


@exact()
def glance(
    trainer: Trainer, images: Images, wanted: Sequence[metrics.Metric], n: int, batches: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what `scores` does, of a training that goes on, by n samples and n test images.

    A copy of the networks is frozen, by so many batches; the training's own stay as they are.
    Scores are by the classifier of seed 0 alone.
    """
    frozen = copy.copy(trainer)
    frozen.nets = copy.deepcopy(trainer.nets)
    if not frozen.finite():
        return {}, {}
    freeze(frozen, batches)
    where = str(trainer.device)
    test = _on(images.test[:n], where)
    given = _outputs(frozen, n, test)
    if not given:
        return {}, {}
    known: dict[str, Any] = {name: each.cpu().numpy() for name, each in given.items()}
    pictures = _pictures(known)
    known |= _judged(given["samples"], images, where, None, [0] if classifier_of(images) else [])
    return metrics.measure(wanted, metrics.Outputs(**known)), pictures


def _outputs(model: Model, n: int, test: Tensor) -> dict[str, Tensor]:
    """Returns n samples, test images and their reconstructions in [0, 1], if all are finite."""
    found = {"samples": generate(model, n)}
    if "encoder" in model.nets:
        found["x_rec"] = reconstruct(model, test)
    finite = all(bool(each.isfinite().all()) for each in found.values())
    return found | {"x": test.to(model.dtype) / 255} if finite else {}


def _pictures(known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the first 64 images of each kind that is SHOWN, uint8 (64, c, h, w)."""
    shown = ((name, x[:PICTURES]) for name, x in known.items() if name in SHOWN)
    return {name: (x * 255).round().astype(np.uint8) for name, x in shown}


def _judged(
    samples: Tensor, images: Images, device: str, weights: str | None, seeds: Iterable[int]
) -> dict[str, Any]:
    """Returns what `Outputs` has of samples beside themselves, by the classifiers of these seeds.

    Samples are (n, c, h, w) in [0, 1], and lie on the device.
    """
    known: dict[str, Any] = {}
    for seed in seeds:
        logits, features, *real = OF_SEEDS[seed]
        known[logits], known[features] = own(classifier_of(images), device, seed)(samples)
        known |= zip(real, _real(images, device, seed)[1:], strict=True)
    n = min(len(samples), len(images.test), len(images.train))
    known["patches"] = Patches.of(samples, n)
    known["real_patches"], known["swd_real"] = _real_patches(images, n, device)
    if weights is not None:
        network = imagenet(weights, device)
        known["imagenet_logits"], known["imagenet_features"] = network(samples)
        known["imagenet_real"] = _real_features(images, weights, device)
    return known


def differences(device: str, study: str = "cifar10") -> dict[str, float]:
    """Returns by how much a device's scores of a model differ from a CPU's, as shares, by column.

    The model is an untrained one of synthetic images. A share above AGREE is a mistake.
    """
    from bench.studies import STUDIES

    spec = STUDIES[study].specs("smoke", methods=["svae_r"], lams=[0.1])[0]
    images = load(spec.data)
    trainer = Trainer(spec, images.train)
    freeze(trainer)
    found = []
    for each in ("cpu", device):
        model = Model(spec, each)
        model.nets.load_state_dict(trainer.nets.state_dict())
        model.nets.eval()
        found.append(scores(model, images, metrics.IMAGES)[0])
    here, there = found
    return {name: apart(value, there[name]) for name, value in here.items()}


def apart(value: float, other: float) -> float:
    """Returns by which share of it a value differs from another, infinity where it alone is 0."""
    if value == other:
        return 0.0
    return abs(other - value) / abs(value) if value else math.inf


def classifier_of(images: Images) -> str:
    """Returns the name of the suite's classifier of these images; CelebA's and a folder's is ""."""
    return DATASETS[images.name].classifier if images.name in DATASETS else ""


def _once(view: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps results of a function of real images and other arguments, by the images' hash."""
    kept: dict[tuple[Any, ...], Any] = {}

    @wraps(view)
    def found(images: Images, *others: Any) -> Any:
        key = images.sha256, *others
        if key not in kept:
            kept[key] = view(images, *others)
        return kept[key]

    return found


def _on(images: np.ndarray, device: str) -> Tensor:
    """Returns a copy of images on a device; torch warns of memory-mapped images."""
    return torch.from_numpy(np.array(images)).to(device)


@_once
@exact()
def _anchored(
    images: Images,
    wanted: tuple[metrics.Metric, ...],
    used: int,
    samples: int,
    device: str,
    weights: str | None,
) -> dict[str, float]:
    test, found = images.test.astype(np.float32) / 255, {}
    seeds = [0] if classifier_of(images) else []
    for kind, role, made in anchors(images, used, samples):
        known = {"x": test, role: made}
        if role == "samples":
            there = torch.from_numpy(made).to(device)
            known |= _judged(there, images, device, weights, seeds)
        scored = metrics.measure(wanted, metrics.Outputs(**known))
        found |= {f"{kind}: {column}": float(value) for column, value in scored.items()}
    return found


def anchored(
    spec: ImageSpec,
    images: Images,
    wanted: Sequence[metrics.Metric],
    device: str,
    weights: str | None = None,
) -> dict[str, float]:
    """Returns what these metrics give images that no model made, by "KIND: COLUMN".

    The kinds are those of `anchors`. Number of samples, images, classifier and device are those of
    the training. Of the suite's classifiers the first alone scores them.
    """
    found = _anchored(images, tuple(wanted), spec.images, spec.samples, device, weights)
    return dict(sorted(found.items()))


@_once
def _real(images: Images, device: str, seed: int = 0) -> tuple[float, metrics.Gaussian, np.ndarray]:
    """Returns the test images' inception score, the moments of their features, and these."""
    logits, features = own(classifier_of(images), device, seed)(images.test)
    score = metrics.inception_score(logits, metrics.SPLITS)[0]
    return score, metrics.Gaussian.of(features), features


@_once
def _real_features(images: Images, weights: str, device: str) -> np.ndarray:
    return imagenet(weights, device)(images.test)[1]


@_once
def _real_patches(images: Images, n: int, device: str) -> tuple[Patches, float]:
    """Returns patches of n real test images, and the distance of n training images to them."""
    test, train = (Patches.of(_on(each[:n], device)) for each in (images.test, images.train))
    return test, distance(train, test)


own = cache(classifiers.own)


@cache
def imagenet(weights: str, device: str) -> Classifier:
    """Returns ImageNet's classifier by this file, or "download". Raises UsageError if it can't."""
    return classifiers.imagenet(None if weights == "download" else Path(weights), device)


def classifier_columns(
    images: Images, device: torch.device | str = "cpu"
) -> dict[str, str | float | int]:
    """Returns the columns about the suite's classifier, empty if no classifier knows the images."""
    if not (name := classifier_of(images)):
        return {}
    classifier = own(name, str(device), 0)
    return {
        "classifier": f"{classifier.name} referee",  # as in rows that are stored already
        "classifier_sha256": classifier.sha256,
        "classifier_accuracy": classifier.accuracy,
        "real_score": _real(images, str(device), 0)[0],
        "n_splits": metrics.SPLITS,
    }


def static(spec: ImageSpec, images: Images) -> bool:
    """Says whether AIS sees the static binarization of MNIST, which is for MNIST's images alone."""
    return spec.bits == "static" and images.name == "mnist"


def test_bits(spec: ImageSpec, images: Images, data: Path | None) -> Tensor:
    """Returns the images of AIS, bits (n, p) as float, which are the same for every method.

    They are a seeded subset of the static binarization of MNIST's test set, with equal numbers of
    each class. For synthetic images, and for bits "dynamic", pixel i of a test image is instead 1
    with probability x_i. Raises ValueError for more images than there are.
    """
    rng = np.random.default_rng(0)
    if static(spec, images):
        bits, labels = static_bits(data), static_labels()
    else:
        grey = images.test.reshape(len(images.test), -1)
        bits = rng.random(grey.shape) < grey / 255
        labels = images.test_labels
    if spec.ais_images > len(bits):
        raise ValueError(f"ais_images is {spec.ais_images}; allowed: at most {len(bits)}")
    rows = stratified(labels, len(bits), spec.ais_images, rng)
    return torch.from_numpy(bits[rows].astype(np.float32))


def stratified(
    labels: np.ndarray | None, total: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns n of `total` row numbers, with numbers of classes as equal as can be."""
    order = rng.permutation(total)
    if labels is not None:
        # The first row of every class comes first, then the second row of every class.
        rank = np.empty(total, int)
        for label in np.unique(labels):
            mine = order[labels[order] == label]
            rank[mine] = np.arange(len(mine))
        order = order[np.argsort(rank[order], kind="stable")]
    return np.sort(order[:n])


def annealed_run(model: Model, bits: Tensor) -> AnnealedRun:
    """Returns the AIS of a frozen decoder: log p(bits), and the BDMC gap on simulated images."""
    nets: Networks = model.nets
    spec, d_z = model.spec, model.nets.shape.d_z
    decoder = folded(nets["decoder"]).to(memory_format=layout(model.device))
    latent = bernoulli(lambda u: decoder.logits(u).flatten(1), d_z, model.dtype, model.device)
    names = ("simulated", "temperatures", "chains", "leapfrog", "seed")
    return AnnealedRun(latent, bits, **{name: getattr(spec, name) for name in names})


def folded(decoder: Decoder) -> Decoder:
    """Returns the same function with frozen batch norms folded into the layers before them."""
    decoder = copy.deepcopy(decoder).requires_grad_(False)
    layers = decoder.layers
    for i, norm in enumerate(layers):
        if not isinstance(norm, Norm):
            continue
        layer = layers[i - 1]
        if isinstance(layer, nn.Linear):
            layers[i - 1], layers[i] = fuse_linear_bn_eval(layer, norm), nn.Identity()
        elif isinstance(layer, nn.ConvTranspose2d):
            # torch's own fusion rounds differently from the stored rows.
            assert norm.running_mean is not None and norm.running_var is not None
            assert layer.bias is not None
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            layer.weight.mul_(scale.view(1, -1, 1, 1))  # (in, out, h, w)
            layer.bias.sub_(norm.running_mean).mul_(scale).add_(norm.bias)
            layers[i] = nn.Identity()
    return decoder
