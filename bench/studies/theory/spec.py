"""Defines what one training of the theory study is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.spec import Spec

MODES, SUPPORTS, DESCENT, VANISHING = "modes", "supports", "descent", "vanishing"
EXACT, JOINT = "exact", "joint"
SLOPE, SD = 0.8, 0.6
"""Weight and deviation of the frozen decoder: without a shift its p(x, z) equals q(x, z)."""
LINE, SQUARE = (-5.0, 5.0, 201), (-3.5, 3.5, 57)
"""Where densities are kept: from, to and points of each axis, for one dimension and for two."""


@dataclass(frozen=True, kw_only=True)
class TheorySpec(Spec):
    """Describes one training of the theory study: fresh samples, 100 batches an epoch."""

    experiment: str
    critic: str = EXACT  # the log ratio (11) of the model as it is now, or a learned f(x, z)
    dimension: int = 2  # of x and of z, where the model is linear
    distance: float = 0.0  # of a frozen model from the data, in deviations of p(x|z)
    model_steps: int = 1  # updates of encoder and decoder on a batch; VANISHING has 0
    width: int = 64  # hidden units of each of the two layers of a network
    batch: int = 256

    EXPERIMENTS: ClassVar[tuple[str, ...]] = (MODES, SUPPORTS, DESCENT, VANISHING)
    UNPAIRED: ClassVar[tuple[str, ...]] = (*Spec.UNPAIRED, "critic")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("experiment", self.EXPERIMENTS)
        self.one_of("critic", (EXACT, JOINT))
        self.at_least(dimension=1, width=1)
        frozen = self.experiment == VANISHING
        if frozen and self.model_steps:
            raise self.wrong("model_steps", f"0, because {VANISHING} has a frozen model")
        self.at_least(model_steps=0 if frozen else 1)
        if not 0 <= self.distance <= 100:
            raise self.wrong("distance", "a number from 0 to 100")
