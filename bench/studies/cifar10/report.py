"""What is said of CIFAR-10: Figures 7 and 8, Table 2, claims 3 to 5. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.render.claims import Claim, claim
from bench.render.front import Published
from bench.render.page import Page
from bench.render.tables import Table
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import claims, over_lambda, tables
from bench.studies.images.claims import (
    RATIO,
    RIVALS,
    Score,
    at,
    better,
    comparable,
    generation,
    pooled,
    retention,
)
from bench.studies.images.runs import Asked, paper, runs, unpublished
from bench.studies.images.tables import told

TEXT = texts("bench.studies.cifar10")
TESTS = 12
"""Intervals of the claims that share one level: R of three methods by two scores, the fall of their
error, and three comparisons of Table 2."""
SCORES = 2
"""Our question is asked by the inception score and by the distance."""
LABELS = {"wgan_gp": "WGAN-GP", "alice": "ALI", "dcgan": "DCGAN"}
"""The rivals of claim 5."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    boxes = paper("cifar10", "fig7_digitised.csv")
    table = scores(frame, asked.study.metrics())
    if unpublished(frame, asked.study):
        table = over_lambda.scores(frame, asked.study.metrics(), "Scores")
    found, grey = cifar10_claims(frame), points(boxes)
    rules = claims.rules(TESTS, claims.questions(SCORES))
    return over_lambda.build(asked, frame, found, rules, TEXT, table, boxes, grey)


def points(boxes: pd.DataFrame) -> Published:
    """The paper's front, of the medians of its Figure 7, and ALICE's own sweep."""
    own = paper("cifar10", "alice_cifar10.csv").assign(label="ALICE's own")
    each = [own.rename(columns={"mse": "mse_x"})]
    for label, stem in (("ALICE (paper)", "alice"), ("sVAE-r (paper)", "svaer")):
        names = {"likely_true_lambda": "lam", f"{stem}_IS_med": "inception_score"}
        each.append(boxes.rename(columns=names | {f"{stem}_MSE_med": "mse_x"}).assign(label=label))
    columns = ["label", "lam", "mse_x", "inception_score"]
    found = pd.concat([one[columns] for one in each], ignore_index=True)
    return Published(found, "inception_score", apart=True)


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
    return tables.joined(paper("cifar10", "table2.csv"), frame, seventh)


def cifar10_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claim 3 by the distance, 4 by the inception score and the MSE, 5 by Table 2."""
    scored, inception, judge = claims.inception(frame)
    distance = claims.distance(frame)
    zero = {name: at(scored, name, 0.0) for name in ("svae_r", *LABELS)}
    values = {name: inception.of(runs) for name, runs in zero.items()}

    def beside(id: str, rival: str, words: str) -> Claim:
        both = {"sVAE": zero["svae_r"], LABELS[rival]: zero[rival]}
        outcome = generation(both, inception)
        if not outcome and words == "comparable":
            spread = pooled(values.values(), logarithms=True)
            outcome = comparable(values["svae_r"], values[rival], spread, TESTS)
        elif not outcome:
            rivals, spread = {LABELS[rival]: zero[rival]}, pooled(values.values())
            outcome = better(("sVAE", zero["svae_r"]), rivals, inception, spread, TESTS)
        named = {"rival": LABELS[rival], "low": RATIO[0], "high": RATIO[1], "judge": judge}
        cells = [("svae_r", 0.0), (rival, 0.0)]
        return claim(TEXT["claims"][words], id, outcome, cells, **named)

    def over(id: str, rival: str, score: Score) -> Claim:
        return retention(scored if score is inception else frame, id, rival, score, TESTS)

    def level(id: str, rival: str, score: Score) -> Claim:
        runs = scored if score is inception else frame
        return claims.level(runs, id, rival, score, SCORES)

    return [
        over("3a", "alice", distance),
        over("3b", "alice_sigmoid", distance),
        level("3d", "alice", distance),
        level("3e", "alice_sigmoid", distance),
        over("4a", "alice", inception),
        over("4b", "alice_sigmoid", inception),
        claims.reconstruct(frame, "4c", ("svae_r", *RIVALS), TESTS),
        level("4d", "alice", inception),
        level("4e", "alice_sigmoid", inception),
        beside("5a", "wgan_gp", "comparable"),
        beside("5b", "alice", "better"),
        beside("5c", "dcgan", "better"),
    ]
