"""The study of CIFAR-10 makes Figures 7 and 8 and Table 2.

| scale | trainings | what | cost |
|---|---|---|---|
| smoke | 6 | synthetic photos, an eighth of the width | a minute |
| quick | 21 | seven lambdas, a quarter of the width | see README |
| paper | 33 | the authors' networks, 101 epochs, eleven lambdas | for a GPU |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.studies.images.study import NO_AIS, TINY, ImageStudy

if TYPE_CHECKING:
    from bench.render.page import Page
    from bench.studies.images.runs import Asked


def page(asked: Asked) -> Page:
    from bench.studies.cifar10.report import build

    return build(asked)


CIFAR10 = ImageStudy(
    name="cifar10",
    title="CIFAR-10: generation and reconstruction as lambda grows",
    axes={
        "smoke": {**TINY, "data": ["stand-in photos"]},
        "quick": {**NO_AIS, "data": ["cifar10"], "width": [0.25], "lr": [5e-4], "epochs": [4]},
        "paper": {**NO_AIS, "data": ["cifar10"], "epochs": [101]},
    },
    methods=("svae_r", "alice", "alice_sigmoid"),
    lams={
        "smoke": (0.0, 0.1),
        "quick": (0.0, 0.1, 10.0, 30.0, 100.0, 300.0, 1000.0),
        "paper": (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.5, 1.0, 10.0, 50.0, 100.0, 1000.0),
    },
    page=page,
)
