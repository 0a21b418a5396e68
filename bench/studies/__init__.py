"""The studies: which trainings make a figure of the paper, at each scale.

| study | scale | trainings | what | cost |
|---|---|---|---|---|
| toy_grid | smoke | 8 | 2 configurations, for tests | seconds |
| toy_grid | quick | 432 | 72 configurations at a quarter to an eighth of the width | see README |
| toy_grid | paper | 3,456 | 576 configurations | 25.5 PFLOP |
| mnist | smoke | 10 | stand-in digits, an eighth of the width | a minute |
| mnist | quick | 10 | Table 1 and the headline methods, a quarter of the width | see README |
| mnist | paper | 50 | the paper's networks, 100 epochs | for a GPU |
| cifar10 | smoke | 6 | stand-in photos, an eighth of the width | a minute |
| cifar10 | quick | 12 | four lambdas, a quarter of the width | see README |
| cifar10 | paper | 33 | the authors' networks, 101 epochs, eleven lambdas | for a GPU |
| celeba | smoke | 4 | stand-in photos of 64 pixels, an eighth of the width | a minute |
| celeba | quick | 8 | four lambdas, 9,000 images, a quarter of the width | see README |
| celeba | paper | 24 | the authors' networks, 16 epochs, twelve lambdas | for a GPU |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from typing import Any, Generic

from bench.spec import ImageSpec, S, ToySpec, grid

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
    package: str  # of bench: how its trainings are run, and reported by
    report: str = field(default="", kw_only=True)  # another one, if not the same
    axes: dict[str, dict[str, Sequence[Any]]]  # scale -> axis -> values, see `bench.spec.grid`
    methods: Sequence[str]
    lams: dict[str, Sequence[float]]
    seeds: Mapping[str, int] = field(default_factory=dict)  # by scale, 1 where not given
    own_lams: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of some methods

    def specs(
        self,
        scale: str,
        methods: Sequence[str] | None = None,
        lams: Sequence[float] | None = None,
        lrs: Sequence[float] | None = None,
        seeds: int | None = None,
        precision: str = "float32",
        given: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[S]:
        """All trainings of this study at `scale`; None keeps the study's own values.

        `given` replaces values of other axes. A method of `own_lams` (0,) is trained at 0 only.

        A value given twice counts once. Raises ValueError for values that can't be trained.
        """
        own: dict[str, Sequence[Any]] = {"lr": list(dict.fromkeys(lrs))} if lrs else {}
        groups: dict[tuple[float, ...], list[str]] = {}
        for method in methods or self.methods:
            values = self.own_lams.get(method, self.lams[scale])
            if lams is not None and tuple(values) != (0.0,):
                values = lams
            groups.setdefault(tuple(dict.fromkeys(values)), []).append(method)
        axes: dict[str, Sequence[Any]] = {**self.axes[scale], **own, **(given or {})}
        return [
            spec
            for values, names in groups.items()
            for spec in grid(
                self.kind,
                study=[self.name],
                scale=[scale],
                **axes,
                seed=range(seeds or self.seeds.get(scale, 1)),
                precision=[precision],
                lam=values,
                method=names,
            )
        ]


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
    package="toy_grid",
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

AT_ZERO = ("vae", "avb", "avb_ac", "aae", "as_vae", "nf_vae", "iaf_vae", "gan", "dcgan", "wgan")
AT_ZERO += ("wgan_gp", "wgan_gp_residual", "ebgan")
"""Methods to which lambda means nothing."""

_OWN_LAMS = {
    **dict.fromkeys(AT_ZERO, (0.0,)),
    "svae_r_density": (0.0, 1e-4, 1e-3),  # nats
}

MNIST = Study(
    name="mnist",
    kind=ImageSpec,
    package="images",
    title="MNIST: likelihood, inception score and reconstruction of every method of Table 1",
    axes={
        "smoke": {
            "data": ["stand-in digits"],
            "width": [0.125],
            "lr": [1e-3],
            "epochs": [1],
            "samples": [500],
            "bits": ["dynamic"],
            "temperatures": [20],
            "chains": [2],
            "leapfrog": [2],
            "ais_images": [10],
        },
        "quick": {
            "data": ["mnist"],
            "width": [0.25],
            "lr": [1e-3],
            "epochs": [3],
            "temperatures": [500],
            "chains": [2],
            "ais_images": [40],
        },
        "paper": {"data": ["mnist"], "epochs": [100]},
    },
    methods=("nf_vae", "avb_ac", "as_vae", "gan", "wgan_gp", "dcgan", "svae_r", "alice"),
    lams=dict.fromkeys(SCALES, (0.0, 0.1)),
    seeds={"paper": 5},
    own_lams=_OWN_LAMS,
)

_PHOTOS = {"ais_images": [0]}
_TINY = {**_PHOTOS, "width": [0.125], "lr": [1e-3], "epochs": [1], "samples": [500]}

CIFAR10 = Study(
    name="cifar10",
    kind=ImageSpec,
    package="images",
    report="cifar10",
    title="CIFAR-10: generation and reconstruction as lambda grows",
    axes={
        "smoke": {**_TINY, "data": ["stand-in photos"]},
        "quick": {
            **_PHOTOS,
            "data": ["cifar10"],
            "width": [0.25],
            "lr": [5e-4],
            "epochs": [4],
        },
        "paper": {**_PHOTOS, "data": ["cifar10"], "epochs": [101]},
    },
    methods=("svae_r", "alice", "alice_sigmoid"),
    lams={
        "smoke": (0.0, 0.1),
        "quick": (0.0, 0.1, 10.0, 1000.0),
        "paper": (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.5, 1.0, 10.0, 50.0, 100.0, 1000.0),
    },
    own_lams=_OWN_LAMS,
)

CELEBA = Study(
    name="celeba",
    kind=ImageSpec,
    package="images",
    report="cifar10",
    title="CelebA: sVAE-r and ALICE as lambda grows",
    axes={
        "smoke": {**_TINY, "data": ["stand-in faces"], "critic_steps": [2]},
        "quick": {
            **_PHOTOS,
            "data": ["celeba"],
            "images": [9_000],
            "width": [0.25],
            "lr": [1e-3],
            "critic_steps": [2],
            "epochs": [3],
            "samples": [1_000],
        },
        "paper": {
            **_PHOTOS,
            "data": ["celeba"],
            "lr": [2e-4],
            "critic_steps": [2],
            "epochs": [16],
        },
    },
    methods=("svae_r", "alice"),
    lams={
        "smoke": (0.0, 0.1),
        "quick": (0.0, 0.1, 1.0, 10.0),
        "paper": (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    },
    own_lams=_OWN_LAMS,
)

STUDIES: dict[str, Study[Any]] = {study.name: study for study in (TOY_GRID, MNIST, CIFAR10, CELEBA)}


def module(study: str, name: str) -> Any:
    """The module of a study's package: `job` runs its trainings, `page` reports them."""
    its = STUDIES[study]
    return import_module(f"bench.studies.{(name == 'page' and its.report) or its.package}.{name}")
