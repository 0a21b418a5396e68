"""Defines what one training of an image study is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """Describes one training of an image study and its scoring. `paper` scale has the defaults."""

    lr: float = 1e-4
    batch: int = 64
    data: str = "mnist"  # a data set of bench.data.sources
    images: int = 0  # the number of training images, which are the first; 0: all
    networks: str = "suite"  # colour images also have "paper", see models.colour
    width: float = 1.0  # of all networks, relative to the paper's
    samples: int = 10_000  # generated images for inception score and Fréchet distance
    bits: str = "static"  # AIS sees the static binarization of MNIST, or our own: "dynamic"
    temperatures: int = 1000  # of annealed importance sampling
    chains: int = 16
    leapfrog: int = 10
    ais_images: int = 100  # 0: no annealed importance sampling

    # With "bf16", training rounds the inputs and outputs of products. Scores are in float32.
    PRECISIONS: ClassVar[tuple[str, ...]] = (*Spec.PRECISIONS, "bf16")
    UNPAIRED: ClassVar[tuple[str, ...]] = (
        *Spec.UNPAIRED,
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
        self.at_least(batch=2, samples=10, temperatures=2, ais_images=0, images=0)
        self.at_least(chains=1, leapfrog=1)
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}; allowed: a number > 0, at most 4")
