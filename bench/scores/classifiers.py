"""Gives the classifiers that score images: the suite's for MNIST and CIFAR-10, and ImageNet's.

A classifier takes images to logits and features. The suite hashes weights before it parses them.
ImageNet's classifier is the Inception network of December 2015, to which published scores refer.
torch-fidelity has this network, and its release has the weights.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cli import UsageError
from bench.data import download
from bench.data.load import cache
from bench.store.checkpoint import parsed
from models.classifiers import network
from models.precision import exact

WEIGHTS = Path(__file__).resolve().parent / "weights"
REAL, RECIPES = WEIGHTS / "real.json", WEIGHTS / "recipes.csv"
"""What the committed classifiers make of real images, and how their recipes were chosen."""
PINNED = {
    "mnist": "ecb04080d61e6cce5e1dc7e01666c30839953707bca21374f7ee03812fa62d24",
    "cifar10": "772b9db7d32f77a7daeb46b5c9dfcc7b4e2e51ca6b771e3c859fda3e6fac5b01",
}
"""SHA-256 of the committed weights of seed 0, which make all scores. Digests of scores have it."""
FURTHER: dict[str, tuple[str, ...]] = {
    "mnist": (
        "1bd72f8ff4d87ffb88c00876d4f0a773d705c76a89b1e29b9ae276aad199b1c8",
        "8ad28316f89f4b504a4206fc77e6938a37936676ba0f97da9f1412231aef1e12",
    ),
    "cifar10": (),
}
"""SHA-256 of the weights of seeds 1, 2, …, which say what a ranking owes to the classifier.

The suite parses no other files of its own than these.
"""


class ClassifierError(UsageError):
    """The weights are missing or wrong; the message says why and what to do."""


@dataclass(frozen=True)
class Classifier:
    """Classifies images by frozen weights.

    `accuracy` is that on the classifier's own test set, nan for weights that nobody has measured.
    """

    name: str
    sha256: str  # of the weights
    network: Callable[[Tensor], tuple[Tensor, ...]]  # to logits (n, classes) and features (n, d)
    shape: tuple[int, ...]  # (c, h, w), or (c,) for any size
    accuracy: float = float("nan")
    device: torch.device | str = "cpu"
    uint8: bool = False  # whether the network takes uint8 images, or images in [0, 1]
    batch: int = 500

    @torch.inference_mode()
    def __call__(self, images: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits and features, float32, of images (n, c, h, w), uint8 or in [0, 1].

        Images may lie on any device. An image's answer does not depend on other images. Raises
        ValueError for images of another shape, for values outside [0, 1] by more than 1e-3, and for
        an answer that is not finite.
        """
        if not len(images) or tuple(images.shape[1 : 1 + len(self.shape)]) != self.shape:
            takes = f"takes (n, {', '.join(map(str, self.shape))})"
            raise ValueError(
                f"images are {tuple(images.shape)}; the {self.name} classifier {takes}"
            )
        starts = range(0, len(images), self.batch)
        one_algorithm = torch.backends.cudnn.flags(
            enabled=True, deterministic=True, allow_tf32=False
        )
        with exact(), one_algorithm:
            parts = [self._part(images[i : i + self.batch]) for i in starts]
        logits, features = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
        if not (np.isfinite(logits).all() and np.isfinite(features).all()):
            raise ValueError(f"the answer of the {self.name} classifier is not finite: no scores")
        return logits, features

    def _part(self, images: Tensor | np.ndarray) -> tuple[Tensor, ...]:
        # torch warns of memory-mapped images, which are read-only, so arrays are copied.
        x = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
        x = x.to(self.device)
        if x.dtype == torch.uint8:
            x = x if self.uint8 else x.float() / 255
        else:
            low, high = x.min().item(), x.max().item()
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # nan fails as well
                allowed = "allowed: 0 to 1"
                raise ValueError(f"image values reach from {low:.4g} to {high:.4g}; {allowed}")
            x = (x * 255).round().clamp(0, 255).to(torch.uint8) if self.uint8 else x.float()
        return self.network(x)


def own(name: str, device: torch.device | str = "cpu", seed: int = 0) -> Classifier:
    """Returns a committed classifier of "mnist" (grey images) or "cifar10" (colour images).

    Raises ValueError for another name or for a seed that is not below `seeds`. Raises
    ClassifierError for weights that are not the pinned ones of this seed.
    """
    net = network(name)
    pins = PINNED[name], *FURTHER[name]
    if seed not in range(len(pins)):
        raise ValueError(f"no {name} classifier of seed {seed}; allowed: 0 to {len(pins) - 1}")
    path = WEIGHTS / f"{name}-{seed}.safetensors"
    tensors, _ = parsed(_hashed(path, pins[seed], "restore it from the repository"))
    net.load_state_dict(tensors)
    net.eval().requires_grad_(False).to(device)
    measured = {each["sha256"]: float(each["accuracy"]) for each in real()}
    accuracy = measured.get(pins[seed], float("nan"))
    return Classifier(name, pins[seed], net, net.shape, accuracy, device)


def seeds(name: str) -> int:
    """Returns how many classifiers of "mnist" or "cifar10" are committed: seeds 0, 1, …"""
    return 1 + len(FURTHER[name])


def real() -> list[dict[str, Any]]:
    """Returns what committed classifiers make of real images, by `train_classifier measure`.

    Raises ClassifierError if the file can't be read.
    """
    try:
        return json.loads(REAL.read_text("utf-8"))
    except (OSError, ValueError):
        raise ClassifierError(f"{REAL} can't be read: restore it from the repository") from None


def _hashed(path: Path, sha256: str, advice: str) -> bytes:
    """Returns the file's content. Raises ClassifierError for a content of another hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClassifierError(f"{path} can't be read ({error.strerror}): {advice}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ClassifierError(
            f"{path} has SHA-256 {found[:12]}…, expected {sha256[:12]}…: damaged or another file; "
            f"{advice}"
        )
    return content


def imagenet(path: Path | None = None, device: torch.device | str = "cpu") -> Classifier:
    """Returns ImageNet's classifier, with the weights in `path` or in the cache.

    Downloads weights to the cache if they are missing there. Raises ClassifierError for weights
    that can't be read or are not published, and DataError for a download that fails.
    """
    if path is None:
        path = cache() / download.INCEPTION
        if not path.exists():
            download.inception(cache())
    sha256 = download.INCEPTION_SHA256
    published = f"{download.INCEPTION_URL}/{download.INCEPTION}"
    advice = f"allowed: {published}, or the word download (--inception-weights)"
    content = _hashed(path, sha256, advice)
    net = _inception(content, path).to(device)
    return Classifier("ImageNet", sha256, net, (3,), device=device, uint8=True, batch=64)


def _inception(content: bytes, path: Path) -> Any:
    from torch_fidelity import FeatureExtractorInceptionV3  # this import takes seconds

    # torch-fidelity lets its file run anything. So it gets a file of tensors alone, and no path,
    # where another file may lie by then.
    weights: Any = BytesIO()
    try:
        torch.save(torch.load(BytesIO(content), "cpu", weights_only=True), weights)
    except UnpicklingError:
        raise ClassifierError(f"{path} holds more than tensors: not read") from None
    weights.seek(0)
    layers = ["logits_unbiased", "2048"]  # the inception score's layer, then that of FID and KID
    return FeatureExtractorInceptionV3("inception-v3-compat", layers, weights)
