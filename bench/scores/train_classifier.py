"""Trains the suite's own classifiers of MNIST and CIFAR-10 images, and measures them.

    python -m bench.scores.train_classifier choose mnist|cifar10 --data DIR [--out FOLDER]

trains one classifier by each candidate recipe, with seed 0, and writes recipes.csv: what each makes
of 5,000 held-out training images, and which is chosen.

    python -m bench.scores.train_classifier train mnist|cifar10 --data DIR --seed S [--out FOLDER]

trains a classifier by the chosen recipe. Both commands print a line per epoch and the held-out
accuracy, and write FOLDER/NAME-RECIPE-SEED.safetensors (default folder: results/classifiers). After
a stop, the same command goes on from the last finished epoch. Neither reads a test image.

    python -m bench.scores.train_classifier measure mnist|cifar10 --data DIR

comes last and alone reads the test images. It prints each committed classifier's accuracy, the
inception score of real images, and the floor of the Fréchet distance. It writes them to real.json.

A new classifier is the file bench/scores/weights/NAME-SEED.safetensors, its SHA-256 in `PINNED` or
`FURTHER`, and its numbers in real.json.
"""

import csv
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from bench.cli import Parser, UsageError, complain, to_path
from bench.data.load import load as load_images
from bench.process import command
from bench.scores.classifiers import REAL, RECIPES, Classifier, own, real, seeds
from bench.scores.metrics import frechet_distance, inception_score
from bench.store import checkpoint, provenance
from bench.store.atomic import write_atomically
from bench.store.checkpoint import parsed
from models.classifiers import Classifier as Network
from models.classifiers import network

BATCH = 250
WARM_UP = 0.2
"""The share of training after which the learning rate is at its peak."""
MOMENTUM, DECAY, SMOOTHING = 0.9, 5e-4, 0.1
HELD_OUT = 5000
"""Training images that choose the recipe and the temperature, and train nothing."""


@dataclass(frozen=True)
class Recipe:
    """Says how one classifier is trained: epochs, and the ranges of its images' variations."""

    recipe: str  # its name
    epochs: int
    peak: float  # the largest learning rate
    shift: int  # pixels, along each axis
    degrees: float
    zoom: float
    flip: bool


_DIGITS = Recipe("plain", epochs=10, peak=0.2, shift=2, degrees=15, zoom=0.1, flip=False)
_PHOTOS = Recipe("plain", epochs=24, peak=0.2, shift=3, degrees=0, zoom=0, flip=True)
CANDIDATES = {
    "mnist": (
        _DIGITS,
        replace(_DIGITS, recipe="longer", epochs=20),
        replace(_DIGITS, recipe="milder", shift=1, degrees=8, zoom=0.05),
    ),
    "cifar10": (
        _PHOTOS,
        replace(_PHOTOS, recipe="slower", peak=0.1),
        replace(_PHOTOS, recipe="turned", degrees=10, zoom=0.1),
    ),
}
"""Recipes by data set. `choose` takes one by what it makes of the held-out images.

The first of each is that of earlier classifiers, whose accuracy on the test set was known.
"""


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns row numbers of the images that train, and of HELD_OUT images that do not.

    The cut is the same for every recipe and seed. Each class has the same share of both parts.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    held_out = np.sort(order[np.arange(HELD_OUT) * len(order) // HELD_OUT])
    return np.setdiff1d(order, held_out), held_out


def choose(name: str, data: Path, folder: Path) -> Recipe:
    """Trains a classifier by each candidate with seed 0, and returns the best recipe.

    The best has the lowest held-out negative log likelihood among those whose held-out accuracy is
    within one standard error of the highest. Replaces this data set's lines of RECIPES.
    """
    found: list[dict[str, Any]] = []
    for recipe in CANDIDATES[name]:
        accuracy, nll = train(name, data, folder, recipe, 0)
        found.append({"data": name, **asdict(recipe), "accuracy": accuracy, "nll": nll})
    highest = max(line["accuracy"] for line in found)
    enough = highest - math.sqrt(highest * (1 - highest) / HELD_OUT)
    near = [line for line in found if line["accuracy"] >= enough]
    best = min(near, key=lambda line: line["nll"])
    for line in found:
        line["chosen"] = "yes" if line is best else "no"
    lines = [*(line for line in _lines() if line["data"] != name), *found]
    with RECIPES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*found[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"chosen: {best['recipe']}; {RECIPES}")
    return chosen(name)


def chosen(name: str) -> Recipe:
    """Returns the recipe that RECIPES names. Raises UsageError if it names none."""
    names = [line["recipe"] for line in _lines() if (line["data"], line["chosen"]) == (name, "yes")]
    found = [each for each in CANDIDATES[name] if each.recipe in names]
    if not found:
        raise UsageError(f"{RECIPES} names no recipe of {name}; allowed: choose {name} first")
    return found[0]


def _lines() -> list[dict[str, str]]:
    if not RECIPES.is_file():
        return []
    with RECIPES.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def measure(name: str, data: Path) -> list[dict[str, float | int | str]]:
    """Returns each committed classifier's accuracy and scores of real images, and writes them.

    `inception_score` (10 splits) is that of the 10,000 test images. `frechet_floor` is the distance
    of 10,000 random training images to them, which a perfect generator would reach. They replace
    this data set's entries of REAL, the only place of a classifier's accuracy on the test set.
    """
    images, test_images = _labelled(name, data), _labelled(name, data, "test")
    found: list[dict[str, float | int | str]] = []
    for seed in range(seeds(name)):
        found.append(
            {"data": name, "seed": seed, **_measured(own(name, seed=seed), images[0], *test_images)}
        )
    everything = [*(each for each in real() if each["data"] != name), *found]
    content = json.dumps(everything, indent=4) + "\n"
    write_atomically(REAL, content.encode(), REAL.parent)
    return found


def _measured(
    classifier: Classifier, train_images: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> dict[str, float | int | str]:
    rows = np.random.default_rng(0).permutation(len(train_images))[: len(images)]
    logits, features = classifier(images)
    score, sd = inception_score(logits, splits=10)
    return {
        "sha256": classifier.sha256,
        "accuracy": float((logits.argmax(1) == labels).mean()),
        "inception_score": score,
        "inception_score_sd": sd,
        "frechet_floor": frechet_distance(classifier(train_images[rows])[1], features),
        "n_samples": len(images),
    }


def varied(images: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Returns images (n, c, h, w), moved, turned, zoomed and flipped at random by the recipe."""
    n, _, height, width = images.shape

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(n, generator=rng) - 1)

    angle, scale = uniform(math.radians(recipe.degrees)), 1 + uniform(recipe.zoom)
    sign = 1.0 - 2.0 * torch.randint(2, (n,), generator=rng) if recipe.flip else torch.ones(n)
    shift = torch.randint(-recipe.shift, recipe.shift + 1, (2, n), generator=rng)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [sign * cos, -sin, 2 * shift[0] / width, sign * sin, cos, 2 * shift[1] / height]
    grid = affine_grid(torch.stack(rows, -1).view(n, 2, 3), list(images.shape), False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def train(
    name: str, data: Path, folder: Path, recipe: Recipe, seed: int = 0
) -> tuple[float, float]:
    """Trains a classifier of `name`, writes it into `folder`, and says how good it is.

    Returns accuracy and negative log likelihood, nats, of the stored weights on the held-out
    images, on which `sharpen` fits one number. The test images are not read.

    The optimiser is SGD with Nesterov momentum. The learning rate rises and then falls linearly to
    0. Labels are smoothed (see `sharpen`), and products are in bfloat16. An epoch's random numbers
    depend on seed and epoch alone, so a resumed training equals an uninterrupted one. A classifier
    that is in the folder is not trained again. Raises UsageError for data that can't be used, and
    for another file in the place.
    """
    epochs = recipe.epochs
    out = folder / f"{name}-{recipe.recipe}-{seed}.safetensors"
    about = {
        key: str(value) for key, value in {"data": name, "seed": seed, **asdict(recipe)}.items()
    }
    if out.exists():
        return _trained(out, about)
    every, every_label = _labelled(name, data)
    rows, held_out = split(every_label)
    images, labels = every[rows], every_label[rows]
    classes = torch.from_numpy(labels).long()
    torch.manual_seed(seed)
    net = network(name)
    net.whiten(_scaled(images[:5000]))
    net = net.to(memory_format=torch.channels_last)
    learned = {key: p for key, p in net.named_parameters() if p.requires_grad}
    settings = {"momentum": MOMENTUM, "weight_decay": DECAY, "nesterov": True}
    sgd = torch.optim.SGD(learned.values(), lr=recipe.peak, **settings)
    # The rest of a training depends on these tensors, which change in place.
    live = {f"network.{key}": each for key, each in net.state_dict().items()}
    for key, parameter in learned.items():
        live[f"momentum.{key}"] = momentum = torch.zeros_like(parameter)
        sgd.state[parameter]["momentum_buffer"] = momentum
    live["epoch"] = torch.tensor(0)
    kept = out.with_name(f".{out.name}.{epochs}.checkpoint")
    state = checkpoint.load(kept) or {}
    if live.keys() <= state.keys():  # another network's checkpoint lacks some
        for key, each in live.items():
            each.copy_(state[key])
    steps = math.ceil(len(images) / BATCH)
    net.train()
    for epoch in range(int(live["epoch"]), epochs):
        start, losses, rng = time.perf_counter(), 0.0, _generator(seed, epoch)
        for step, rows in enumerate(torch.randperm(len(images), generator=rng).split(BATCH)):
            share = (epoch + step / steps) / epochs
            sgd.param_groups[0]["lr"] = recipe.peak * min(
                (share + 1 / (steps * epochs)) / WARM_UP, (1 - share) / (1 - WARM_UP)
            )
            batch = varied(_scaled(images[rows.numpy()]), recipe, rng)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch.contiguous(memory_format=torch.channels_last))[0]
            loss = cross_entropy(logits.float(), classes[rows], label_smoothing=SMOOTHING)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses += loss.item()
        live["epoch"] += 1
        checkpoint.save(kept, live)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {losses / steps:.4f}, {seconds:.0f} s", flush=True)
    judged, truth = every[held_out], torch.from_numpy(every_label[held_out]).long()
    sharpen(net, _scaled(judged), truth)
    # float16 halves the file; statistics of channels stay exact.
    halved = {k: each.half() if each.ndim > 1 else each for k, each in net.state_dict().items()}
    stored = {key: each.contiguous() for key, each in halved.items()}
    final = network(name)
    final.load_state_dict(stored)
    logits = torch.from_numpy(Classifier(name, "", final.eval(), final.shape)(judged)[0])
    accuracy = (logits.argmax(1) == truth).double().mean().item()
    nll = cross_entropy(logits.double(), truth).item()
    about |= {"held_out_accuracy": str(accuracy), "held_out_nll": str(nll)}
    content = save(stored, {**about, "suite": str(provenance.versions()["suite"])})
    write_atomically(out, content, out.parent)
    kept.unlink()
    return _trained(out, about)


def _trained(path: Path, about: dict[str, str]) -> tuple[float, float]:
    """Prints and returns held-out accuracy and negative log likelihood of a trained classifier.

    Raises UsageError if the file's metadata differ from `about`.
    """
    content = path.read_bytes()
    try:
        known = parsed(content)[1]
    except (SafetensorError, ValueError, LookupError):
        known = {}
    if not about.items() <= known.items():
        raise UsageError(f"{path} is another file; allowed: another folder (--out)")
    accuracy, nll = float(known["held_out_accuracy"]), float(known["held_out_nll"])
    sha256 = hashlib.sha256(content).hexdigest()
    print(f"held-out accuracy {accuracy:.2%}, NLL {nll:.4f}; SHA-256 {sha256}; {path}", flush=True)
    return accuracy, nll


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + epoch)


@torch.inference_mode()
def sharpen(net: Network, images: Tensor, labels: Tensor) -> None:
    """Scales the last layer so that `images` (n, c, h, w) get `labels` with the highest likelihood.

    Smoothed labels cap a class's probability at about .91, and so the inception score of perfect
    images at 6 of 10. Temperature scaling (Guo et al. 2017) undoes this cap and keeps decisions.
    """
    net.eval()
    logits = torch.cat([net(part)[0] for part in images.split(500)]).double()

    def loss(log_scale: float) -> float:
        return cross_entropy(math.exp(log_scale) * logits, labels).item()

    scale = math.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x)
    net.head.weight.mul_(scale)
    net.head.bias.mul_(scale)


def _scaled(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _labelled(name: str, folder: Path, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Returns a part's images, uint8 (n, c, h, w), and labels (n,), and reads no other part."""
    images = load_images(name, folder)
    labels = getattr(images, f"{part}_labels")
    if labels is None:
        raise UsageError(f"--data {folder} has no labels; allowed: {name} itself")
    return getattr(images, part), labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser("python -m bench.scores.train_classifier", __doc__)
    parser.add_argument("command", choices=("choose", "train", "measure"))
    parser.add_argument("name", choices=sorted(CANDIDATES), help="the data set")
    parser.add_argument("--data", type=to_path, required=True, metavar="DIR", help="where it lies")
    folder = Path("results") / "classifiers"
    parser.add_argument(
        "--out", type=to_path, default=folder, metavar="FOLDER", help=f"default: {folder}"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if args.command == "measure":
            print(json.dumps(measure(args.name, args.data), indent=4))
            return 0
        args.out.mkdir(parents=True, exist_ok=True)
        if args.command == "choose":
            choose(args.name, args.data, args.out)
        else:
            train(args.name, args.data, args.out, chosen(args.name), args.seed)
    except (UsageError, OSError) as error:
        return complain("bench.scores.train_classifier", error)
    except KeyboardInterrupt:
        stopped = UsageError("stopped; the same command goes on")
        return complain("bench.scores.train_classifier", stopped, 130)
    return 0


if __name__ == "__main__":
    command(main)
