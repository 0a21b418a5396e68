"""What each data set asks of every method: networks, codes, the range of pixels, the noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.data.load import Images
from models import colour as photos
from models import mnist as images
from models.methods import METHODS, Method
from models.mnist import ImageNetworks, ImageShape, Part


@dataclass(frozen=True)
class Domain:
    """One data set: `train` images of (channels, size, size) and how they are modelled."""

    train: int
    channels: int
    size: int
    d_z: int
    parts: Mapping[str, Part]
    low: float  # pixels are in [low, 1]
    uniform: bool  # codes and noise are uniform on [-1, 1], else N(0, I)
    efficiency: float  # share of the speed of plain matrix products that a core reaches
    referee: str = ""  # of bench.scores.train_classifier; none of its own for CelebA
    paper: Mapping[str, Part] = field(default_factory=dict)  # `parts` by the paper, or none

    def networks(
        self, method: Method, width: float, seed: Callable[[str], int], kind: str = "suite"
    ) -> ImageNetworks:
        """The networks of a method; `seed(role)` as for `ImageNetworks`, `kind` a spec's."""
        shape = ImageShape(self.channels, self.size, self.d_z, width)
        parts = {"suite": self.parts, "paper": self.paper}[kind]
        return ImageNetworks(method.parts, shape, seed, parts)

    def scaled(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 images as the networks see them."""
        x = images.to(dtype) / 255
        return x if self.low == 0 else x * (1 - self.low) + self.low

    def unit(self, x: Tensor) -> Tensor:
        """What networks give, in [0, 1]."""
        return x if self.low == 0 else (x - self.low) / (1 - self.low)

    def methods(self) -> list[str]:
        """Methods whose every network there is for these images."""
        return [name for name, m in METHODS.items() if set(m.parts.values()) <= set(self.parts)]


_DIGITS = Domain(60_000, 1, 28, 64, images.PARTS, 0.0, False, 0.25, referee="mnist")
_PHOTOS = Domain(50_000, 3, 32, 256, photos.PARTS, -1.0, True, 0.7, paper=photos.PAPER)
_CIFAR10 = replace(_PHOTOS, referee="cifar10")
_CELEBA = replace(_PHOTOS, train=162_770, size=64, d_z=64, efficiency=0.55)
_DRAWN = 2_000

DOMAINS = {
    "mnist": _DIGITS,
    "stand-in digits": replace(_DIGITS, train=_DRAWN),
    "cifar10": _CIFAR10,
    "stand-in photos": replace(_CIFAR10, train=_DRAWN),
    "celeba": _CELEBA,
    "stand-in faces": replace(_CELEBA, train=_DRAWN),
}
"""By name of the data set."""

_FOLDER = " folder "


def dataset(data: str) -> str:
    """The data set that `ImageSpec.data` names, or that its images stand in for."""
    return data.partition(_FOLDER)[0]


def domain(data: str) -> Domain:
    """What is asked of the methods on `ImageSpec.data`."""
    return DOMAINS[dataset(data)]


def data_of(asked: str, images: Images) -> str:
    """`ImageSpec.data` of these images, asked for by the name of a data set.

    Images of a folder have a digest in it: they are another experiment than the data set's own.
    """
    if images.name in DOMAINS:
        return asked
    return f"{dataset(asked)}{_FOLDER}{images.sha256[:12]}"
