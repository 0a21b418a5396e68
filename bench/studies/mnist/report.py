"""What is said of MNIST: Table 1, the sweep over lambda, claims 2a to 2d. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from bench.render.claims import Claim, claim, decide
from bench.render.page import Page
from bench.render.tables import Column, Table, extra, number, spread, tabulate
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import figures, report
from bench.studies.images.report import METHOD, NUMBERS, Cells, Row, ours, scored, told
from bench.studies.images.runs import Asked, diverged, first, gone, headline, paper, runs, samples

TEXT = texts("bench.studies.mnist")
CONVERGED = 3.0
"""A log p(x) whose BDMC gap is larger, in nats, is printed as not converged."""
LAM = 0.1
"""The paper's samples of MNIST are at this lambda."""
PIXEL_RNN = -79.2
NEAR = 1.0
"""Nats that "near PixelRNN" means."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    main = headline(frame, asked.study, asked.scale)
    others, metrics = frame[~frame["id"].isin(main["id"])], asked.study.metrics()
    tables = [table1(main, metrics)]
    if len(others):
        tables.append(sweep(others, metrics))
    return report.page(
        asked,
        frame,
        TEXT,
        mnist_claims(frame),
        tables,
        {
            "figure4": partial(figures.figure4, main, partial(samples, asked)),
            "sweep": partial(figures.sweep, frame, paper("mnist", "alice_mnist.csv")),
            "curves": partial(figures.curves, main),
        },
        [TEXT["notes"]],
        figures.shown(main)["id"],
    )


def _gap(runs: pd.DataFrame) -> float:
    return float(runs["bdmc_gap"].mean())


def _likelihood(row: Row) -> str:
    known, runs = row
    if not len(runs):
        return str(known.get("note", "not run"))
    found = spread(runs["log_likelihood"], 2)
    return found if found == "–" or _gap(runs) <= CONVERGED else f"not converged ({found})"


def table1(frame: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    """Table 1: the paper's rows, and every other method that was trained."""
    published = paper("mnist", "table1.csv")
    return _scores("table1", _protocol(frame), published, frame, metrics)


def sweep(frame: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    """The runs at lambdas that Table 1 does not have."""
    return _scores("over_lambda", TEXT["over_lambda"], pd.DataFrame(), frame, metrics)


def _scores(
    name: str, caption: str, published: pd.DataFrame, frame: pd.DataFrame, metrics: Sequence[Metric]
) -> Table:
    """A row for each method and lambda: what is published, ALICE's own sweep, all our scores."""
    names = ["inception_score", "frechet", "mse_x"]
    more, words = extra(metrics, frame, names, spread)
    columns: Cells = [
        *METHOD,
        told("paper log p(x) ≥", "{log_likelihood:g}", paper=True),
        (Column("log p(x) ≥, nats"), _likelihood),
        ours("s.e. over images", lambda runs: number(float(runs["log_likelihood_se"].mean()), 2)),
        ours("BDMC gap", lambda runs: number(_gap(runs), 2)),
        told("paper IS", "{inception_score:g}", paper=True),
        told("ALICE's own IS", "{own_score:.2f} ± {own_sd:.2f}", paper=True),
        told("ALICE's own MSE", "{mse:.3f} ± {mse_sd:.3f}", paper=True),
        *scored(metrics, names),
        *(ours(head.name, cell) for head, cell in more),
        *NUMBERS,
    ]
    own = paper("mnist", "alice_mnist.csv").assign(method="alice")
    own = own.rename(columns={"inception_score": "own_score", "inception_sd": "own_sd"})
    rows = report.beside(report.joined(published, frame, own), frame)
    title = TEXT["titles"][name]
    return tabulate(name, title, caption + words, columns, rows, hide_empty=True)


def _protocol(frame: pd.DataFrame) -> str:
    one = first(frame)
    mnist = one["data"] == "mnist"
    return report.protocol(
        frame,
        TEXT,
        own="" if mnist or frame["stand_in"].any() else TEXT["own"].format(**one),
        # Of MNIST alone there is a static binarization.
        binarized=TEXT["binarized"][one["bits"] if mnist else "dynamic"],
        simulated=int(max(frame["simulated"].dropna(), default=0)),
        converged=CONVERGED,
        # What lambda means to this method, if it is there.
        nats=TEXT["nats"] if "svae_r_density" in set(frame["method"]) else "",
    )


# Claim 2 of the paper in parts


def mnist_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claims 2a to 2d from the runs of a study."""

    def of(method: str) -> pd.DataFrame:
        return frame[frame["method"] == method]

    mine, words = of("svae_r")[of("svae_r")["lam"] == LAM], TEXT["claims"]

    def scores(id: str, method: str, rival: str) -> Claim:
        outcome, values = report.better(mine, of(method)), {"spread": report.TEXT["spread"]}
        cells = [("svae_r", LAM), (method, 0.0)]
        return claim(words["scores"], id, outcome, cells, rival=rival, **values)

    rival = "nf_vae"
    cells = [("svae_r", LAM), (rival, 0.0)]
    return [
        claim(words["likelier"], "2a", _likelier(mine, of(rival)), cells),
        claim(words["near"], "2b", _near(mine), cells[:1], least=PIXEL_RNN - NEAR),
        scores("2c", "gan", "GAN"),
        scores("2d", "wgan_gp", "WGAN-GP"),
    ]


def _likelier(mine: pd.DataFrame, rival: pd.DataFrame) -> tuple[str, str]:
    found = [runs[~gone(runs)] for runs in (mine, rival)]
    if not all(map(len, found)):
        return "no data", "no runs"
    a, b = (np.stack(runs["log_likelihoods"].to_list()).mean(0) for runs in found)
    gaps = [_gap(runs) for runs in found]
    error = stats.norm.ppf(0.975) * float((a - b).std(ddof=1)) / math.sqrt(len(a))
    gain = float((a - b).mean())
    low, high = gain - error - max(gaps[1], 0), gain + error + max(gaps[0], 0)
    evidence = f"{a.mean():.2f} against {b.mean():.2f} nats: difference {gain:+.2f} "
    evidence += f"[{low:+.2f}, {high:+.2f}] over {len(a)} images; gaps {gaps[0]:.2f} and "
    evidence += f"{gaps[1]:.2f}{_gone(pd.concat([mine, rival]))}"
    return "undecided" if max(gaps) > CONVERGED else decide(low, high), evidence


def _near(mine: pd.DataFrame) -> tuple[str, str]:
    good = mine[~gone(mine)]
    if not len(good):
        return "no data", "no runs"
    mean, gap = float(good["log_likelihood"].mean()), _gap(good)
    error = stats.norm.ppf(0.975) * float(good["log_likelihood_se"].mean())
    need = PIXEL_RNN - NEAR
    verdict = "holds" if mean - error >= need else "fails"
    if verdict == "fails" and (gap > CONVERGED or mean + gap + error >= need):
        verdict = "undecided"
    evidence = f"{mean:.2f} ± {error:.2f} nats over images, gap {gap:.2f}, where PixelRNN has "
    return verdict, f"{evidence}{PIXEL_RNN}{_gone(mine)}"


def _gone(runs: pd.DataFrame) -> str:
    return f"; {diverged(runs)} diverged run(s) left out" if diverged(runs) else ""
