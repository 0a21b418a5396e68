"""What one training of an image study is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """One training of an image study and how it is scored. Defaults are those of `paper` scale."""

    lr: float = 1e-4
    batch: int = 64
    data: str = "mnist"  # the images: a data set's name, see bench.data.sources
    images: int = 0  # training images, the first so many; 0: all
    networks: str = "suite"  # of colour images also "paper", see models.colour
    width: float = 1.0  # of all networks, relative to the paper's
    samples: int = 10_000  # generated images behind inception score and Fréchet distance
    bits: str = "static"  # what AIS sees: the static binarization, or "dynamic": one of our own
    temperatures: int = 1000  # annealed importance sampling
    chains: int = 16
    leapfrog: int = 10
    ais_images: int = 100  # 0: no annealed importance sampling

    # In "bf16" training rounds what goes into products and what comes out; scores are float32's.
    PRECISIONS: ClassVar[tuple[str, ...]] = (*Spec.PRECISIONS, "bf16")
    UNPAIRED: ClassVar[tuple[str, ...]] = (
        *Spec.UNPAIRED,
        *("samples", "bits", "temperatures", "chains", "leapfrog", "ais_images"),
    )

    @property
    def simulated(self) -> int:
        """Images simulated from the model, which carry the BDMC gap: one for five real ones."""
        return max(2, self.ais_images // 5) if self.ais_images else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("bits", ("static", "dynamic"))
        self.one_of("networks", ("suite", "paper"))
        self.at_least(batch=2, samples=10, temperatures=2, ais_images=0, images=0)
        self.at_least(chains=1, leapfrog=1)
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}; allowed: a number > 0, at most 4")
