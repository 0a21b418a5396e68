"""What is said of CIFAR-10: Figures 7 and 8, Table 2, claims 3 to 5. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.render.claims import Claim, claim
from bench.render.page import Page
from bench.render.tables import Table
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import over_lambda, report
from bench.studies.images.over_lambda import RIVALS, reconstruct, trade
from bench.studies.images.report import better, told
from bench.studies.images.runs import Asked, judged, paper, runs

TEXT = texts("bench.studies.cifar10")
COMPARABLE = 0.2
"""Inception scores that differ by less are comparable."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    boxes = paper("cifar10", "fig7_digitised.csv")
    table = scores(frame, asked.study.metrics())
    return over_lambda.build(asked, frame, cifar10_claims(frame), TEXT, table, boxes)


def scores(frame: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    """Table 2 and Figure 7 in numbers: the paper's beside every score of ours."""
    cited = [
        told("paper IS, Table 2", "{inception_score:.2f} ± {inception_sd:.2f}", paper=True),
        told("paper IS, Figure 7", "{seventh_score:.2f}", paper=True),
        told("paper MSE, Figure 7", "{seventh_mse:.3f}", paper=True),
    ]
    title, caption = TEXT["titles"]["scores"], TEXT["scores"].format(ticks=TEXT["ticks"])
    return over_lambda.scores(frame, metrics, title, caption, cited, published(frame))


def published(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's scores by method and lambda: Table 2's, and Figure 7's where we have runs."""
    boxes = paper("cifar10", "fig7_digitised.csv").rename(columns={"likely_true_lambda": "lam"})
    kept = ["method", "lam", "seventh_score", "seventh_mse"]
    seventh = pd.concat(
        boxes.assign(method=method, seventh_score=boxes[score], seventh_mse=boxes[error])[kept]
        for method, score, error in (
            ("svae_r", "svaer_IS_med", "svaer_MSE_med"),
            ("alice_sigmoid", "alice_IS_med", "alice_MSE_med"),
        )
    )
    return report.joined(paper("cifar10", "table2.csv"), frame, seventh)


def cifar10_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claim 3 by the distance, 4 by the inception score and the MSE, 5 by Table 2."""
    scored, judge = judged(frame)
    parts = list(zip("ab", RIVALS, strict=True))
    distance, inception = "sliced Wasserstein distance", f"inception score of {judge}"

    def beside(id: str, method: str, rival: str, margin: float | None = None) -> Claim:
        here = scored[scored["lam"] == 0]
        mine, theirs = (here[here["method"] == each] for each in ("svae_r", method))
        words = TEXT["claims"]["better" if margin is None else "comparable"]
        values = {"rival": rival, "comparable": margin, "spread": report.TEXT["spread"]}
        cells = [("svae_r", 0.0), (method, 0.0)]
        return claim(words, id, better(mine, theirs, margin), cells, judge=judge, **values)

    return [
        *(trade(frame, f"3{part}", rival, "swd", distance) for part, rival in parts),
        *(trade(scored, f"4{part}", rival, "inception_score", inception) for part, rival in parts),
        reconstruct(frame, "4c", ("svae_r", *RIVALS)),
        beside("5a", "wgan_gp", "WGAN-GP", COMPARABLE),
        beside("5b", "alice", "ALI"),
        beside("5c", "dcgan", "DCGAN"),
    ]
