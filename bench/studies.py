"""The studies: which trainings make a figure of the paper, at each scale.

| study | scale | trainings | what | cost |
|---|---|---|---|---|
| toy_grid | smoke | 8 | 2 configurations, for tests | seconds |
| toy_grid | quick | 432 | 72 configurations at a quarter to an eighth of the width | see README |
| toy_grid | paper | 3,456 | 576 configurations | 25.5 PFLOP |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, Generic

from bench.spec import S, ToySpec, grid

SCALES = ("smoke", "quick", "paper")

DEPTHS = "encoder_depth,decoder_depth,critic_depth"
WIDTHS = "encoder_width,decoder_width,critic_width"
STEPS = "critic_steps,model_steps"


@dataclass(frozen=True)
class Study(Generic[S]):
    """The axes of one study: those that are fixed by the scale and those a user may replace."""

    name: str
    title: str
    kind: type[S]
    package: str  # of bench: how its trainings are run and reported
    axes: dict[str, dict[str, Sequence[Any]]]  # scale -> axis -> values, see `bench.spec.grid`
    methods: Sequence[str]
    lams: dict[str, Sequence[float]]

    def specs(
        self,
        scale: str,
        methods: Sequence[str] | None = None,
        lams: Sequence[float] | None = None,
        lrs: Sequence[float] | None = None,
        seeds: int = 1,
        precision: str = "float32",
    ) -> list[S]:
        """All trainings of this study at `scale`; None keeps the study's own values.

        A value given twice counts once. Raises ValueError for values that can't be trained.
        """
        own: dict[str, Sequence[Any]] = {"lr": list(dict.fromkeys(lrs))} if lrs else {}
        lams = self.lams[scale] if lams is None else list(dict.fromkeys(lams))
        return grid(
            self.kind,
            study=[self.name],
            scale=[scale],
            **self.axes[scale],
            **own,
            seed=range(seeds),
            precision=[precision],
            lam=lams,
            method=methods or self.methods,
        )


def _levels(low: int, high: int) -> list[tuple[int, ...]]:
    return list(product((low, high), repeat=3))


def _fraction(
    depths: tuple[int, int], widths: tuple[int, int]
) -> list[tuple[int, int, int, int, int, int]]:
    """A regular 1/8 fraction of the 2^6 designs of depth and width of the three networks.

    The three depths take all 8 combinations and each width follows two of them (D = AB, E = AC,
    F = BC), so that every level appears 4 times and every pair of levels of two factors twice:
    main effects stay unconfounded with one another (resolution III; Box, Hunter & Hunter,
    *Statistics for Experimenters*, chapter 6).
    """
    return [
        (depths[a], depths[b], depths[c], widths[a ^ b], widths[a ^ c], widths[b ^ c])
        for a, b, c in product((0, 1), repeat=3)
    ]


_RATIOS = list(product((1, 3, 5), repeat=2))

TOY_GRID = Study(
    name="toy_grid",
    kind=ToySpec,
    package="toy",
    title="Toy study: five Gaussians, sVAE-r against ALICE over a grid of configurations",
    axes={
        "smoke": {
            f"{DEPTHS},{WIDTHS}": [(2, 2, 2, 32, 32, 32), (2, 3, 2, 32, 64, 32)],
            STEPS: [(1, 3)],
            "epochs": [10],
        },
        "quick": {
            f"{DEPTHS},{WIDTHS}": _fraction((2, 3), (32, 64)),
            STEPS: _RATIOS,
            "epochs": [45],
        },
        # Neither paper nor code lists the 576 configurations; this factorisation is ours.
        "paper": {
            DEPTHS: _levels(2, 3),
            WIDTHS: _levels(256, 512),
            STEPS: _RATIOS,
            "epochs": [100],
        },
    },
    methods=("svae_r", "alice"),
    lams={"smoke": (0.0, 0.1), "quick": (0.0, 0.01, 0.1), "paper": (0.0, 0.01, 0.1)},
)

STUDIES: dict[str, Study[Any]] = {study.name: study for study in (TOY_GRID,)}


def module(study: str, name: str) -> Any:
    """The module of a study's package: `job` runs its trainings, `page` reports them."""
    return import_module(f"bench.{STUDIES[study].package}.{name}")
