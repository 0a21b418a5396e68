"""Defines what one training of an image study is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.spec import Spec

FOLDER = " folder "
"""In `ImageSpec.data` a user's own images have this between a data set's name and their digest."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """Describes one training of an image study and its scoring. `paper` scale has the defaults."""

    lr: float = 1e-4
    batch: int = 64
    data: str = "mnist"  # a data set of bench.data.sources
    images: int = 0  # the number of training images, which are the first; 0: all
    networks: str = "suite"  # colour images also have "paper", see models.colour
    critic: str = ""  # f(x, z) that is not the networks' own, see `own_critic`
    width: float = 1.0  # of all networks, relative to the paper's
    samples: int = 10_000  # generated images for inception score and Fréchet distance
    bits: str = "static"  # AIS sees the static binarization of MNIST, or our own: "dynamic"
    temperatures: int = 1000  # of annealed importance sampling
    chains: int = 16
    leapfrog: int = 10
    ais_images: int = 100  # 0: no annealed importance sampling

    # With "bf16", training rounds the inputs and outputs of products. Scores are in float32.
    PRECISIONS: ClassVar[tuple[str, ...]] = (*Spec.PRECISIONS, "bf16")
    # Critics differ as methods do: encoder, decoder, batches and noise begin alike.
    UNPAIRED: ClassVar[tuple[str, ...]] = (
        *(*Spec.UNPAIRED, "critic"),
        *("samples", "bits", "temperatures", "chains", "leapfrog", "ais_images"),
    )

    @property
    def simulated(self) -> int:
        """The number of images that the model simulates for the BDMC gap."""
        return max(2, self.ais_images // 5) if self.ais_images else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("bits", ("static", "dynamic"))
        self.one_of("networks", ("suite", "paper"))
        if self.critic:
            self.one_of("critic", ("additive", "joint"))
            if self.critic == own_critic(self.data, self.networks):
                object.__setattr__(self, "critic", "")  # two spellings are one experiment
        self.at_least(batch=2, samples=10, temperatures=2, ais_images=0, images=0)
        self.at_least(chains=1, leapfrog=1)
        if not 0 < self.width <= 4:
            raise self.wrong("width", "a number > 0, at most 4")


def dataset(data: str) -> str:
    """Returns the data set that `ImageSpec.data` names, or that a folder's images replace."""
    return data.partition(FOLDER)[0]


def own_size(data: str) -> int | None:
    """Returns the size in `ImageSpec.data`, in pixels; None for the data set's own."""
    size = data.rpartition(FOLDER)[2].partition(" ")[2]
    return int(size) if size.isdecimal() else None


def own_critic(data: str, networks: str) -> str:
    """Returns the kind of f(x, z) of a data set's networks, or "" for an unknown data set.

    An "additive" f goes from features of x and of z to the logit at once, so f is a function of x
    plus a function of z. A "joint" f has a hidden layer of both. The suite's networks for MNIST are
    joint; the supplement's and the authors' code are additive.
    """
    from bench.data.sources import DATASETS  # only an explicit critic needs it

    name = dataset(data)
    if name not in DATASETS:
        return ""
    return "joint" if (DATASETS[name].networks, networks) == ("mnist", "suite") else "additive"
