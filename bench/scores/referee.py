"""The referees: classifiers of our own that score generated MNIST and CIFAR-10 images.

    python -m bench.scores.referee train mnist|cifar10 --data DIR [--out FILE] [--epochs N]

trains one, prints a line per epoch and its test accuracy, and writes FILE (default:
results/referees/NAME.safetensors). Stopped, the same command goes on from the last finished
epoch. One core that multiplies in bfloat16 needs about 6 minutes for MNIST (10 epochs of 33 s)
and 45 for CIFAR-10 (24 epochs of 113 s) of its own time.

The committed weights reach 99.79 % on MNIST and 92.71 % on CIFAR-10.

    python -m bench.scores.referee measure mnist|cifar10 --data DIR

prints what the committed referee makes of real images: accuracy, inception score, Fréchet
distance. Its answers are kept in bench/weights/real.json, see `real_scores`. New weights are taken
into use by replacing bench/weights/NAME.safetensors, its SHA-256 in `PINNED` and that answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from bench.cli import Parser, UsageError, complain
from bench.data.load import load as load_images
from bench.scores.metrics import frechet_distance, inception_score
from bench.store import provenance
from bench.store.atomic import write_atomically
from models.classifiers import Classifier, network

WEIGHTS = Path(__file__).resolve().parent / "weights"
PINNED = {
    "mnist": "b6d0dfba5cffbf9317c77f0059de542f286009767d888c60155ccb315e1f5844",
    "cifar10": "772b9db7d32f77a7daeb46b5c9dfcc7b4e2e51ca6b771e3c859fda3e6fac5b01",
}
"""SHA-256 of the committed weights; nothing else is ever parsed."""

BATCH = 250
PEAK, WARM_UP = 0.2, 0.2
"""Largest learning rate, and the share of training after which it is reached."""
MOMENTUM, DECAY, SMOOTHING = 0.9, 5e-4, 0.1

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class RefereeError(Exception):
    """The weights can't be trusted; the message says why and what to do."""


@dataclass(frozen=True)
class Referee:
    """A trained classifier, frozen: `sha256` of its weights file, `accuracy` on the test set."""

    name: str
    sha256: str
    accuracy: float
    network: Classifier

    @torch.inference_mode()
    def logits_and_features(self, images: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, 10) and features (n, d), float32, of images (n, c, h, w) in [0, 1].

        The logits are the network's last, linear layer applied to the features. Batch norm is
        frozen: what an image gets does not depend on the others. Raises ValueError for images
        of another shape, outside [0, 1] (by more than 1e-3) or not finite.
        """
        images = torch.as_tensor(images)
        if not len(images) or tuple(images.shape[1:]) != self.network.shape:
            raise ValueError(
                f"images are {tuple(images.shape)}; the {self.name} referee takes "
                f"(n, {', '.join(map(str, self.network.shape))})"
            )
        low, high = images.min().item(), images.max().item()
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # not a number fails as well
            raise ValueError(f"image values reach from {low:.4g} to {high:.4g}; allowed: 0 to 1")
        device = self.network.head.weight.device
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact:
            parts = [self.network(part.to(device).float()) for part in images.split(500)]
        logits, features = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
        return logits, features


def load_referee(name: str, device: str | torch.device = "cpu") -> Referee:
    """The committed referee of "mnist" (grey images) or "cifar10" (colour), on `device`.

    Raises ValueError for another name, RefereeError if the weights are missing or not those that
    `PINNED` names; they are checked before they are parsed.
    """
    net = network(name)
    path = WEIGHTS / f"{name}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefereeError(
            f"{path} can't be read ({error.strerror}); reinstall the suite"
        ) from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != PINNED[name]:
        raise RefereeError(
            f"{path} has SHA-256 {sha256[:12]}…, expected {PINNED[name][:12]}…: "
            "damaged or another file; restore it from the repository"
        )
    tensors, about = _parse(content)
    return Referee(name, sha256, float(about["accuracy"]), _frozen(net, tensors).to(device))


def real_scores(name: str) -> dict[str, float | int | str]:
    """What the committed referee makes of real images, as `measure` found it."""
    return json.loads((WEIGHTS / "real.json").read_text("utf-8"))[name]


def measure(name: str, data: Path) -> dict[str, float | int | str]:
    """Accuracy and scores of real images, with the protocol that generated ones are held to.

    `inception_score` (10 splits) of the 10,000 test images; `frechet_distance` between them and
    10,000 training images drawn at random: the floor that a perfect generator would reach.
    """
    referee = load_referee(name)
    images, _, test_images, test_labels = _read(name, data)
    rows = np.random.default_rng(0).permutation(len(images))[: len(test_images)]
    logits, features = referee.logits_and_features(_scaled(test_images))
    score, sd = inception_score(logits, splits=10)
    train_features = referee.logits_and_features(_scaled(images[rows]))[1]
    return {
        "sha256": referee.sha256,
        "accuracy": float((logits.argmax(1) == test_labels).mean()),
        "inception_score": score,
        "inception_score_sd": sd,
        "frechet_distance": frechet_distance(train_features, features),
        "n_samples": len(test_images),
    }


def _parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header["__metadata__"]


def _frozen(net: Classifier, tensors: dict[str, Tensor]) -> Classifier:
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Recipe:
    """How one referee is trained: epochs, and the ranges that its images are varied in."""

    epochs: int
    shift: int  # pixels, along each axis
    degrees: float
    zoom: float
    flip: bool


RECIPES = {
    "mnist": Recipe(epochs=10, shift=2, degrees=15, zoom=0.1, flip=False),
    "cifar10": Recipe(epochs=24, shift=3, degrees=0, zoom=0, flip=True),
}


def varied(images: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Images (n, c, h, w), each moved, turned, zoomed and flipped at random within the recipe."""
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


@dataclass
class Training:
    """A network on its way, and where it is kept between epochs."""

    network: Classifier
    optimizer: torch.optim.SGD
    checkpoint: Path
    epoch: int = 0  # finished

    def save(self) -> None:
        tensors = {f"network.{name}": each for name, each in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            if parameter in self.optimizer.state:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        tensors = {name: each.contiguous() for name, each in tensors.items()}
        content = save(tensors, {"epoch": str(self.epoch)})
        write_atomically(self.checkpoint, content, self.checkpoint.parent)

    def resume(self) -> None:
        """Takes up the checkpoint if there is one. Raises UsageError if it is no good."""
        if not self.checkpoint.exists():
            return
        try:
            tensors, about = _parse(self.checkpoint.read_bytes())
            state = {name: tensors[f"network.{name}"] for name in self.network.state_dict()}
            self.network.load_state_dict(state)
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad:
                    momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                    self.optimizer.state[parameter]["momentum_buffer"] = momentum
            self.epoch = int(about["epoch"])
        except (SafetensorError, KeyError, ValueError, RuntimeError):
            raise UsageError(
                f"{self.checkpoint} is not a checkpoint of this training; delete it to start anew"
            ) from None


def train(name: str, data: Path, out: Path, epochs: int | None = None, seed: int = 0) -> float:
    """Trains the referee of `name`, writes it to `out` and returns its test accuracy.

    SGD with Nesterov momentum, the learning rate rising and then falling linearly to 0, label
    smoothing (see `sharpen`), products in bfloat16. An epoch's random numbers depend on seed and
    epoch alone, so that a resumed training equals an uninterrupted one. Accuracy is that of the
    stored weights, one pass over the test set, no averaging over flips. Raises UsageError for
    data or a checkpoint that can't be used.
    """
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    images, labels, test_images, test_labels = _read(name, data)
    classes = torch.from_numpy(labels).long()
    torch.manual_seed(seed)
    net = network(name)
    net.whiten(_scaled(images[:5000]))
    net = net.to(memory_format=torch.channels_last)
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        weights, lr=PEAK, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    checkpoint = out.with_name(f".{out.name}.{name}-{epochs}-{seed}.checkpoint")
    training = Training(net, optimizer, checkpoint)
    training.resume()
    steps = math.ceil(len(images) / BATCH)
    net.train()
    for epoch in range(training.epoch, epochs):
        start, losses = time.perf_counter(), 0.0
        rng = _generator(seed, epoch)
        for step, rows in enumerate(torch.randperm(len(images), generator=rng).split(BATCH)):
            done = (epoch + step / steps) / epochs
            optimizer.param_groups[0]["lr"] = PEAK * min(
                (done + 1 / (steps * epochs)) / WARM_UP, (1 - done) / (1 - WARM_UP)
            )
            batch = varied(_scaled(images[rows.numpy()]), recipe, rng)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch.contiguous(memory_format=torch.channels_last))[0]
            loss = cross_entropy(logits.float(), classes[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item()
        training.epoch = epoch + 1
        training.save()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {losses / steps:.4f}, {seconds:.0f} s", flush=True)
    sharpen(
        net, varied(_scaled(images[:10_000]), recipe, _generator(seed, epochs)), classes[:10_000]
    )
    stored = {
        # half the size where it matters; per-channel statistics stay exact
        key: (each.half() if each.ndim > 1 else each).contiguous()
        for key, each in net.state_dict().items()
    }
    referee = Referee(name, "", math.nan, _frozen(network(name), stored))
    logits = referee.logits_and_features(_scaled(test_images))[0]
    accuracy = float((logits.argmax(1) == test_labels).mean())
    about = {"data": name, "accuracy": accuracy, "seed": seed, "epochs": epochs}
    about["suite"] = provenance.versions()["suite"]
    content = save(stored, {key: str(value) for key, value in about.items()})
    write_atomically(out, content, out.parent)
    checkpoint.unlink()
    print(f"test accuracy {accuracy:.2%}; SHA-256 {hashlib.sha256(content).hexdigest()}; {out}")
    return accuracy


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + epoch)


@torch.inference_mode()
def sharpen(net: Classifier, images: Tensor, labels: Tensor) -> None:
    """Scales the last layer so that `images` (n, c, h, w) get `labels` with the highest likelihood.

    A network trained with smoothed labels never gives a class more than about .91, which would
    cap the inception score of perfect images at 6 of 10. Temperature scaling (Guo et al. 2017)
    undoes that and changes no decision.
    """
    net.eval()
    logits = torch.cat([net(part)[0] for part in images.split(500)]).double()
    scale = minimize_scalar(
        lambda log_scale: cross_entropy(math.exp(log_scale) * logits, labels).item(),
        bounds=(-2, 2),
        method="bounded",
    )
    net.head.weight.mul_(math.exp(scale.x))
    net.head.bias.mul_(math.exp(scale.x))


def _scaled(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _read(name: str, folder: Path) -> Arrays:
    """Training images uint8 (n, c, h, w) and labels (n,), test images and labels."""
    images = load_images(name, folder)
    if images.train_labels is None or images.test_labels is None:
        raise UsageError(f"--data {folder} has no labels; allowed: {name} itself")
    return images.train, images.train_labels, images.test, images.test_labels


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m bench.scores.referee",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="train|measure")
    for command in ("train", "measure"):
        sub = commands.add_parser(command)
        sub.add_argument("name", choices=sorted(RECIPES), help="the data set")
        sub.add_argument("--data", type=Path, required=True, metavar="DIR", help="where it lies")
    sub = commands.choices["train"]
    sub.add_argument("--out", type=Path, metavar="FILE", help="results/referees/NAME.safetensors")
    sub.add_argument("--epochs", type=_positive, metavar="N", help="default: the recipe's")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if args.command == "measure":
            print(json.dumps(measure(args.name, args.data), indent=4))
            return 0
        out = args.out or Path("results") / "referees" / f"{args.name}.safetensors"
        out.parent.mkdir(parents=True, exist_ok=True)
        train(args.name, args.data, out, args.epochs, args.seed)
    except (RefereeError, UsageError, OSError) as error:
        return complain("bench.scores.referee", error)
    except KeyboardInterrupt:
        return complain(
            "bench.scores.referee", UsageError("stopped; the same command goes on"), 130
        )
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number >= 1")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
