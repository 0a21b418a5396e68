"""The study of CelebA makes Figures 5 and 6. It shows people, so only scalars are published.

| scale | trainings | what | cost |
|---|---|---|---|
| smoke | 4 | synthetic photos of 64 pixels, an eighth of the width | a minute |
| quick | 8 | four lambdas, 9,000 images, a quarter of the width | see README |
| paper | 24 | the authors' networks, 16 epochs, twelve lambdas | for a GPU |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.studies.images.study import NO_AIS, TINY, ImageStudy

if TYPE_CHECKING:
    from bench.render.page import Page
    from bench.studies.images.runs import Asked


def page(asked: Asked) -> Page:
    from bench.studies.celeba.report import build

    return build(asked)


CELEBA = ImageStudy(
    name="celeba",
    title="CelebA: sVAE-r and ALICE as lambda grows",
    axes={
        "smoke": {**TINY, "data": ["stand-in faces"], "critic_steps": [2]},
        "quick": {
            **NO_AIS,
            "data": ["celeba"],
            "images": [9_000],
            "width": [0.25],
            "lr": [1e-3],
            "critic_steps": [2],
            "epochs": [3],
            "samples": [1_000],
        },
        "paper": {**NO_AIS, "data": ["celeba"], "lr": [2e-4], "critic_steps": [2], "epochs": [16]},
    },
    methods=("svae_r", "alice"),
    lams={
        "smoke": (0.0, 0.1),
        "quick": (0.0, 0.1, 1.0, 10.0),
        "paper": (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 1000.0),
    },
    page=page,
)
