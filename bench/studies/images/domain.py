"""What each data set asks of every method: networks, codes, the range of pixels, the noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cli import UsageError
from bench.data.load import DATASETS, Images
from bench.studies.images.study import ImageSpec
from models import colour, mnist
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
    sizes: tuple[int, ...]  # that `parts` take
    paper: Mapping[str, Part]  # `parts` by the paper, or none

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


_FOLDER = " folder "


def dataset(data: str) -> str:
    """The data set that `ImageSpec.data` names, or whose place its images take."""
    return data.partition(_FOLDER)[0]


def domain(data: str) -> Domain:
    """What is asked of the methods on `ImageSpec.data`, by the entry of its data set."""
    entry = DATASETS[dataset(data)]
    shape = entry.train, entry.channels, entry.size, entry.d_z
    if entry.networks == "mnist":
        return Domain(*shape, mnist.PARTS, 0.0, False, 0.25, mnist.SIZES, {})
    paper = colour.PAPER if entry.size in colour.PAPER_SIZES else {}
    efficiency = 0.7 if entry.size <= 32 else 0.55
    return Domain(*shape, colour.PARTS, -1.0, True, efficiency, colour.SIZES, paper)


def check(spec: ImageSpec) -> None:
    """Raises UsageError, with what is allowed, for a data set that is unknown, or one whose
    images or other fields the networks of `spec` do not take."""
    name = dataset(spec.data)
    if name not in DATASETS:
        raise UsageError(f"data is {name}; allowed: {', '.join(DATASETS)}")
    found = domain(name)
    if found.channels not in (1, 3):
        raise UsageError(f"channels of {name} are {found.channels}; allowed: 1, 3")
    if found.size not in found.sizes:
        allowed = ", ".join(map(str, found.sizes))
        raise UsageError(f"size of {name} is {found.size}; allowed: {allowed}")
    if spec.method not in found.methods():
        allowed = ", ".join(found.methods())
        raise UsageError(f"method is {spec.method}; allowed for {name}: {allowed}")
    if spec.networks == "paper" and not found.paper:
        raise UsageError(f"networks is paper; allowed for {name}: suite")
    if spec.ais_images and found.low != 0:
        raise UsageError(f"ais_images is {spec.ais_images}; allowed for {name}: 0")


def data_of(asked: str, images: Images) -> str:
    """`ImageSpec.data` of these images, asked for by the name of a data set.

    Images of a folder have a digest in it: they are another experiment than the data set's own.
    """
    if images.name in DATASETS:
        return asked
    return f"{dataset(asked)}{_FOLDER}{images.sha256[:12]}"
