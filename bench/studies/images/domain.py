"""Says what each data set asks of every method: networks, codes, range of pixels, noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.cli import UsageError
from bench.data.load import DATASETS, Images
from bench.spec import option
from bench.studies.images.spec import FOLDER, ImageSpec, dataset, own_size
from models import colour, mnist
from models.methods import METHODS, Method
from models.mnist import JOINT, ImageNetworks, ImageShape, Part


@dataclass(frozen=True)
class Domain:
    """Describes a data set of images (channels, size, size) and how they are modelled."""

    train: int  # images for training
    test: int  # images for the test
    channels: int
    size: int
    d_z: int
    kinds: Mapping[str, Mapping[str, Part]]  # parts of networks by `ImageSpec.networks`
    low: float  # pixels are in [low, 1]
    uniform: bool  # codes and noise are uniform on [-1, 1], or N(0, I)
    efficiency: float  # share of the speed of plain matrix products that a core reaches
    sizes: tuple[int, ...]  # heights of images that the parts take

    def networks(
        self,
        method: Method,
        width: float,
        seed: Callable[[str], int],
        kind: str = "suite",
        critic: str = "",
    ) -> ImageNetworks:
        """Returns a method's networks.

        `ImageNetworks` explains `seed`; `kind` and `critic` are `networks` and `critic` of
        `ImageSpec`.
        """
        shape = ImageShape(self.channels, self.size, self.d_z, width)
        other = {JOINT: f"{JOINT}, {critic}"} if critic else {}
        parts = {role: other.get(part, part) for role, part in method.parts.items()}
        return ImageNetworks(parts, shape, seed, self.kinds[kind])

    def noise(self, n: int) -> np.ndarray:
        """Returns n uint8 images of noise, to try or time a step."""
        size = n, self.channels, self.size, self.size
        return np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)

    def scaled(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns uint8 images in [low, 1], as the networks see them."""
        return images.to(dtype) / 255 * (1 - self.low) + self.low

    def unit(self, x: Tensor) -> Tensor:
        """Returns the networks' images in [0, 1]."""
        return (x - self.low) / (1 - self.low)

    def methods(self) -> list[str]:
        """Returns the methods whose networks take these images."""
        there = self.kinds["suite"].keys()
        return [name for name, method in METHODS.items() if {*method.parts.values()} <= there]


def domain(data: str) -> Domain:
    """Returns the domain of `ImageSpec.data`, by the entry of its data set."""
    entry, size = DATASETS[dataset(data)], own_size(data)
    size = entry.size if size is None else size
    shape = *_NUMBERS.get(data, (entry.train, entry.train // 6)), entry.channels, size, entry.d_z
    if entry.networks == "mnist":
        return Domain(*shape, {"suite": mnist.PARTS}, 0.0, False, 0.25, mnist.SIZES)
    kinds = {"suite": colour.PARTS}
    if size in colour.PAPER_SIZES:
        kinds["paper"] = colour.PAPER
    return Domain(*shape, kinds, -1.0, True, 0.7 if size <= 32 else 0.55, colour.SIZES)


_NUMBERS: dict[str, tuple[int, int]] = {}
"""Numbers of training and test images by `ImageSpec.data`, of what this process has loaded."""


def check(spec: ImageSpec) -> None:
    """Raises UsageError for an unknown data set, and for a field that its networks do not take."""
    name, ais = dataset(spec.data), spec.ais_images
    if name not in DATASETS:
        raise UsageError(f"data is {name}; allowed: {', '.join(DATASETS)} ({option('data')})")
    found = domain(spec.data)
    entry = "its entry in DATASETS"
    for field, value, allowed, wrong, change in (
        ("channels", found.channels, (1, 3), f"of {name} are", entry),
        ("size", found.size, found.sizes, f"of {name} is", entry),
        ("method", spec.method, found.methods(), "is", option("method")),
        ("networks", spec.networks, found.kinds, "is", option("networks")),
        ("ais_images", ais, (0,) if found.low else (ais,), "is", option("ais_images")),
    ):
        if value not in allowed:
            given, those = f"{field} {wrong} {value}", ", ".join(map(str, allowed))
            where = "" if change == entry else f" for {name}"
            raise UsageError(f"{given}; allowed{where}: {those} ({change})")
    for part in METHODS[spec.method].parts.values():
        if part not in found.kinds[spec.networks]:
            raise UsageError(
                f"networks is {spec.networks}, whose PARTS have no {part}, which {spec.method} "
                f"asks for; allowed: suite ({option('networks')})"
            )
    if spec.critic:
        able = [name for name in found.methods() if JOINT in METHODS[name].parts.values()]
        if spec.method not in able:
            raise UsageError(
                f"critic is {spec.critic}, but {spec.method} has no f(x, z); allowed methods: "
                f"{', '.join(able)} ({option('method')})"
            )


def data_of(asked: str, images: Images) -> str:
    """Returns `ImageSpec.data` of images that were asked for by the name of a data set.

    A user's own images are another experiment, so their name has their digest. It has their size as
    well if that is not the data set's own. Their numbers are kept for estimates.
    """
    name, size = dataset(asked), images.train.shape[-1]
    found = name
    if images.name not in DATASETS:
        found = f"{name}{FOLDER}{images.pixels[:12]}"
        found += f" {size}" if size != DATASETS[name].size else ""
    _NUMBERS[found] = len(images.train), len(images.test)
    return found
