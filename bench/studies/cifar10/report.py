"""What is said of CIFAR-10: Figures 7 and 8, Table 2, claims 3 to 5. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.render.claims import Claim, claim
from bench.render.page import Page
from bench.render.tables import Table, tabulate
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import over_lambda, report
from bench.studies.images.over_lambda import RIVALS, protocol, reconstruct, trade
from bench.studies.images.report import METHOD, better, counted, ours, scored, told
from bench.studies.images.runs import Asked, judged, paper, runs

TEXT = texts("bench.studies.cifar10")
COMPARABLE = 0.2
"""Inception scores that differ by less are comparable."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    tables = [table2(frame, asked.study.metrics()), figure7(frame)]
    boxes = paper("cifar10", "fig7_digitised.csv")
    found = cifar10_claims(frame)
    return over_lambda.build(asked, frame, found, TEXT, tables, boxes)


def table2(frame: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    """Table 2: the paper's rows in its order and ours beside, by our own classifier."""
    names = ("inception_score_imagenet", "inception_score", "frechet", "swd", "mse_x")
    form = "{inception_score:.2f} ± {inception_sd:.2f}"
    columns = [*METHOD, told("paper IS (ImageNet)", form, paper=True), *scored(metrics, names)]
    columns.append(ours("n", counted, "not run"))
    published = paper("cifar10", "table2.csv")
    rows = report.beside(published, frame)[: len(published)]
    caption = TEXT["table2"].format(protocol=protocol(frame))
    return tabulate("table2", "Table 2", caption, columns, rows, hide_empty=True)


def figure7(frame: pd.DataFrame) -> Table:
    """Figure 7 in numbers: inception score and MSE over lambda."""
    alice = paper("cifar10", "alice_cifar10.csv").set_index("lam")
    svae = paper("cifar10", "fig7_digitised.csv").set_index("likely_true_lambda")
    cited = [
        told("ALICE IS, paper", "{inception_score:.2f} ± {inception_sd:.2f}", paper=True),
        told("ALICE MSE, paper", "{mse:.3f} ± {mse_sd:.3f}", paper=True),
        told("sVAE-r IS, paper", "{svaer_IS_med:.2f}", paper=True),
        told("sVAE-r MSE, paper", "{svaer_MSE_med:.3f}", paper=True),
    ]
    scored, judge = judged(frame)
    whose = "" if judge == "referee" else TEXT["whose"].format(judge=judge)
    values = {"whose": whose, "protocol": protocol(frame), "ticks": TEXT["ticks"]}
    caption, published = TEXT["figure7"].format(**values), alice.join(svae).reset_index()
    here = frame.assign(inception_score=scored["inception_score"])
    title = "Figure 7 in numbers"
    return report.over_lambda("figure7", title, caption, cited, published, here)


def cifar10_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claim 3 by the distance, 4 by the inception score and the MSE, 5 by Table 2."""
    scored, judge = judged(frame)
    parts = list(zip("ab", RIVALS, strict=True))
    distance, inception = "sliced Wasserstein distance", f"inception score ({judge})"

    def beside(id: str, method: str, rival: str, margin: float | None = None) -> Claim:
        here = scored[scored["lam"] == 0]
        mine, theirs = (here[here["method"] == each] for each in ("svae_r", method))
        words = TEXT["claims"]["better" if margin is None else "comparable"]
        values = {"rival": rival, "comparable": margin, "spread": report.TEXT["spread"]}
        return claim(words, id, better(mine, theirs, margin), judge=judge, **values)

    return [
        *(trade(frame, f"3{part}", rival, "swd", distance) for part, rival in parts),
        *(trade(scored, f"4{part}", rival, "inception_score", inception) for part, rival in parts),
        reconstruct(frame, "4c", ("svae_r", *RIVALS)),
        beside("5a", "wgan_gp", "WGAN-GP", COMPARABLE),
        beside("5b", "alice", "ALI"),
        beside("5c", "dcgan", "DCGAN"),
    ]
