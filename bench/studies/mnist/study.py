"""The study of MNIST makes Table 1, Figure 4 and a sweep over lambda.

| scale | trainings | what | cost |
|---|---|---|---|
| smoke | 11 | synthetic digits, an eighth of the width | a minute |
| quick | 17 | Table 1, VAE and a path over lambda, half of the width | see README |
| paper | 85 | the paper's networks, 100 epochs | for a GPU |

A pilot chose width, epochs and learning rate of quick: the cheapest of its settings at which sVAE-r
at lambda 10 has at most half the mean image's error. The report lists the pilot's trainings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.studies.images.study import ImageStudy

if TYPE_CHECKING:
    from bench.render.page import Page
    from bench.studies.images.runs import Asked


def page(asked: Asked) -> Page:
    from bench.studies.mnist.report import build

    return build(asked)


MNIST = ImageStudy(
    name="mnist",
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
            "width": [0.5],
            "lr": [1e-3],
            "epochs": [2],
            "temperatures": [500],
            "chains": [2],
            "ais_images": [40],
        },
        "paper": {"data": ["mnist"], "epochs": [100]},
    },
    methods=("nf_vae", "avb_ac", "as_vae", "gan", "wgan_gp", "dcgan", "vae", "svae_r", "alice"),
    lams={"smoke": (0.0, 0.1), **dict.fromkeys(("quick", "paper"), (0.0, 0.1, 1.0, 10.0, 100.0))},
    seeds={"paper": 5},
    page=page,
)
