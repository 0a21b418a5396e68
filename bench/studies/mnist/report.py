"""What is said of MNIST: Table 1, the sweep over lambda, claims 2a to 2d. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.render.claims import NO_DATA, Claim, claim, decide
from bench.render.compare import LEVEL, Spread
from bench.render.front import Published, find_baseline
from bench.render.page import Page
from bench.render.tables import Column, Table, extra, number, spread, tabulate
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import claims as rules
from bench.studies.images import figures, fronts, report, tables
from bench.studies.images.claims import at, better, generation, pooled
from bench.studies.images.runs import (
    Asked,
    diverged,
    elsewhere,
    first,
    headline,
    name_of,
    paper,
    runs,
    samples,
    unpublished,
)
from bench.studies.images.spec import own_critic
from bench.studies.images.tables import CONVERGED, METHOD, NUMBERS, Cells, Row, ours, scored, told

TEXT = texts("bench.studies.mnist")
LAM = 0.1
"""The paper's samples of MNIST are at this lambda."""
PIXEL_RNN = -79.2
NEAR = 1.0
"""Nats that "near PixelRNN" means."""
TESTS = 5
"""Intervals of the claims that share one level: 2a, 2b, and three rivals of 2c."""
BERNOULLI = "‡"
"""Marks the likelihood of a decoder that was trained as a Gaussian."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    baseline = find_baseline(frame, asked.study.baseline)
    main = headline(frame, asked.study, asked.scale)
    others, metrics = frame[~frame["id"].isin(main["id"])], asked.study.metrics()
    apart: dict[str, list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for differ, rows in elsewhere(asked, frame):
        apart.setdefault(_about(differ, rows), []).append((differ, rows))
    other = unpublished(frame, asked.study)
    published = {"published": TEXT["published"]["front"], "grey": TEXT["published"]["sweep"]}
    if other:
        published = dict.fromkeys(published, "")
    grey, own = (None, None) if other else (points(), paper("mnist", "alice_mnist.csv"))
    drawn = {}
    if fronts.scored(frame)[1]:
        drawn["front"] = partial(fronts.draw, frame, grey, baseline)
    found = [
        table1(main, metrics, other),
        *fronts.tables(frame, baseline),
        *tables.pairs(frame, metrics, baseline),
        *([sweep(others, metrics, other)] if len(others) else []),
        *critics(frame, [rows for _, rows in apart.get("critics", [])]),
        *annealing(frame, [rows for _, rows in apart.get("annealing", [])]),
        *tables.batch_norm(frame),
        *tables.rankings(main),
        *tables.settings(apart.get("settings", [])),
    ]
    return report.page(
        asked,
        frame,
        TEXT,
        mnist_claims(frame),
        found,
        {
            **drawn,
            "figure4": partial(figures.figure4, main, partial(samples, asked)),
            "sweep": partial(figures.sweep, frame, own),
            "curves": partial(figures.curves, main),
        },
        [TEXT["notes"]],
        figures.shown(main)["id"],
        rules.rules(TESTS, rules.questions(scores=1)),
        **published,
    )


def _about(differ: Collection[str], rows: pd.DataFrame) -> str:
    """Which table shows rows that differ from the study's own in these settings."""
    if {"critic"} <= {*differ} <= {"critic", "ais_images"}:
        return "critics"
    annealed = {*differ} <= {"ais_images", "temperatures"} and rows["ais_images"].all()
    return "annealing" if annealed else "settings"


def points() -> Published:
    """ALICE's authors' own front."""
    own = paper("mnist", "alice_mnist.csv").assign(label="ALICE's own")
    return Published(own.rename(columns={"mse": "mse_x"}), "inception_score", apart=True)


def _gap(runs: pd.DataFrame) -> float:
    return float(runs["bdmc_gap"].mean())


def _likelihood(row: Row) -> str:
    known, runs = row
    if not len(runs):
        return str(known.get("note", "not run"))
    return tables.likelihood(runs, BERNOULLI)


def table1(frame: pd.DataFrame, metrics: Sequence[Metric], other: bool = False) -> Table:
    """Table 1: the paper's rows, and every other method that was trained.

    Beside `other` images than MNIST stands nothing that is published.
    """
    published = paper("mnist", "table1.csv")
    return _scores("table1", _protocol(frame), published, frame, metrics, other)


def sweep(frame: pd.DataFrame, metrics: Sequence[Metric], other: bool = False) -> Table:
    """The runs at lambdas that Table 1 does not have."""
    return _scores("over_lambda", TEXT["over_lambda"], pd.DataFrame(), frame, metrics, other)


def _scores(
    name: str,
    caption: str,
    published: pd.DataFrame,
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    other: bool,
) -> Table:
    """A row for each method and lambda: what is published, ALICE's own sweep, all our scores."""
    names = [each.columns[0] for each in metrics if each.columns[0] not in tables.APART]
    known = ["inception_score", "frechet", "swd", "mse_x", *tables.APART]
    words = extra(metrics, frame, known)[1]
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
        *NUMBERS,
    ]
    own = paper("mnist", "alice_mnist.csv").assign(method="alice")
    own = own.rename(columns={"inception_score": "own_score", "inception_sd": "own_sd"})
    known = pd.DataFrame() if other else tables.joined(published, frame, own)
    rows = tables.beside(known, frame)
    if name == "table1":
        rows = tables.with_anchors(rows, frame)
    title = tables.TEXT["titles"]["scores"] if other and name == "table1" else TEXT["titles"][name]
    return tabulate(name, title, caption + words, columns, rows, hide_empty=True)


def critics(frame: pd.DataFrame, others: Sequence[pd.DataFrame]) -> list[Table]:
    """Reconstruction by matching alone under both kinds of critic, if there are runs of both."""
    if not others:
        return []
    every = pd.concat([frame, *others], ignore_index=True)
    both = every["method"].isin(pd.concat(others)["method"])
    every = every[both & (every["lam"] == 0)].sort_values("method", ascending=False, kind="stable")
    groups = [runs for _, runs in every.groupby(["method", "critic"], sort=False)]

    def kind(runs: pd.DataFrame) -> str:
        one = first(runs)
        return str(one["critic"] or own_critic(one["data"], one["networks"]))

    critic = (Column("critic f(x, z)", text=True), kind)
    columns = [tables.NAMED[0], critic, *tables.SCORED, *tables.COUNTED]
    mean, unrelated = (rules.anchor(frame, k, "mse_x") for k in (rules.MEAN, "unrelated images"))
    caption = TEXT["critics"].format(mean=number(mean), unrelated=number(unrelated))
    return [tabulate("critics", TEXT["titles"]["critics"], caption, columns, groups)]


def annealing(frame: pd.DataFrame, others: Sequence[pd.DataFrame]) -> list[Table]:
    """log p(x) at each number of images and temperatures, if there are several."""
    if not others:
        return []
    every = pd.concat([frame, *others], ignore_index=True)
    keys = ["method", "lam", "ais_images", "temperatures"]
    again = pd.concat(others)[keys[:2]].drop_duplicates()
    every = every.merge(again, on=keys[:2])
    groups = [runs for _, runs in every.sort_values(keys).groupby(keys, sort=False)]
    columns = [
        *tables.NAMED,
        ("images", lambda runs: str(runs["ais_images"].iloc[0])),
        ("temperatures", lambda runs: str(runs["temperatures"].iloc[0])),
        ("log p(x) ≥, nats", lambda runs: spread(runs["log_likelihood"], 2)),
        ("s.e. over images", lambda runs: number(float(runs["log_likelihood_se"].mean()), 2)),
        ("BDMC gap", lambda runs: number(_gap(runs), 2)),
        ("more than by the fewest", lambda runs: _rise(runs, every)),
        tables.COUNTED[0],
    ]
    title, caption = TEXT["titles"]["annealing"], TEXT["annealing"]
    return [tabulate("annealing", title, caption, columns, groups)]


def _rise(runs: pd.DataFrame, every: pd.DataFrame) -> str:
    """By how much log p(x) is above that of the same trainings at the fewest temperatures."""
    keys = ["method", "lam", "ais_images"]
    alike = every[(every[keys] == runs[keys].iloc[0]).all(axis=1)]
    least = min(alike["temperatures"])
    if least == runs["temperatures"].iloc[0]:
        return ""
    few = alike[alike["temperatures"] == least]
    both = runs.merge(few, on=[*keys, "seed"])
    return f"{(both['log_likelihood_x'] - both['log_likelihood_y']).mean():+.2f}"


def _protocol(frame: pd.DataFrame) -> str:
    one = first(frame)
    mnist, real = one["data"] == "mnist", frame["swd_real"].dropna()
    own = not (mnist or frame["stand_in"].any())
    return report.protocol(
        frame,
        TEXT,
        own=TEXT["own"].format(named=name_of(one)) if own else "",
        cited="" if own else TEXT["cited"],
        # Of MNIST alone there is a static binarization.
        binarized=TEXT["binarized"][one["bits"] if mnist else "dynamic"],
        simulated=int(max(frame["simulated"].dropna(), default=0)),
        converged=CONVERGED,
        patches=TEXT["patches"].format(**one, floor=real.mean()) if len(real) else "",
        # What lambda means to this method, if it is there.
        nats=TEXT["nats"] if "svae_r_density" in set(frame["method"]) else "",
    )


# Claim 2 of the paper in parts


def mnist_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claims 2a to 2c, and our questions 2d and 2e, from the runs of a study."""
    mine, words = at(frame, "svae_r", LAM), TEXT["claims"]
    rival = "nf_vae"
    scored, inception, judge = rules.inception(frame)
    names = dict(zip(*published_scores()[["method", "label"]].to_numpy().T, strict=True))
    rivals = {label: at(scored, method, 0.0) for method, label in names.items()}
    cells = [("svae_r", LAM), ("svae_r", 0.0), *((method, 0.0) for method in names)]
    outcome = generation({"sVAE": at(scored, "svae_r", 0.0), **rivals}, inception)
    if not outcome:
        ours = "sVAE-r", at(scored, "svae_r", LAM)
        seeds = pooled(inception.of(runs) for runs in (ours[1], *rivals.values()))
        outcome = better(ours, rivals, inception, seeds, TESTS)
    more = {"rivals": ", ".join(rivals), "judge": judge}
    likelier = _likelier(mine, at(frame, rival, 0.0))
    near = claim(words["near"], "2b", _near(mine), cells[:1], least=PIXEL_RNN - NEAR)
    return [
        claim(words["likelier"], "2a", likelier, [cells[0], (rival, 0.0)]),
        near,
        claim(words["scores"], "2c", outcome, cells, **more),
        rules.level(scored, "2d", "alice", inception, scores=1),
        rules.level(scored, "2e", "alice_sigmoid", inception, scores=1),
    ]


def published_scores() -> pd.DataFrame:
    """The rivals of Table 1 that have an inception score there."""
    table = paper("mnist", "table1.csv")
    return table[table["inception_score"].notna() & (table["method"] != "svae_r")]


def _annealed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that have a likelihood and its gap; diverged runs have none."""
    return runs[runs["log_likelihood"].notna() & runs["bdmc_gap"].notna()]


def _by_image(runs: pd.DataFrame) -> np.ndarray:
    """log p(x) of each seed and image, (seeds, images)."""
    return np.array([*runs["log_likelihoods"]], float)


def _errors(each: Sequence[np.ndarray], images: np.ndarray) -> tuple[float, float, float]:
    """Half the interval's width: over the `images` alone, over seeds alone, and of both together.

    `each` has log p(x) of one method, (seeds, images). `images` are the values whose mean is
    judged. The spread of the seeds is pooled over the methods, by Student's t. Images are many, so
    their error is normal.
    """
    level = LEVEL / TESTS
    of_images = float(stats.norm.isf(level / 2) * images.std(ddof=1) / np.sqrt(len(images)))
    means = [pd.Series(values.mean(1)) for values in each]
    seeds = Spread.pooled(means)
    of_seeds = seeds.tolerance(TESTS, *map(len, means)) if seeds else math.inf
    return of_images, of_seeds, math.hypot(of_images, of_seeds)


def _likelier(mine: pd.DataFrame, rival: pd.DataFrame) -> tuple[str, str]:
    found = [_annealed(runs) for runs in (mine, rival)]
    if lacking := rules.insufficient({"sVAE-r": len(found[0]), "NF": len(found[1])}):
        return lacking
    a, b = map(_by_image, found)
    if a.shape[1] != b.shape[1]:
        return NO_DATA, "the test images differ"
    gains = a.mean(0) - b.mean(0)
    gaps, gain = [_gap(runs) for runs in found], float(gains.mean())
    of_images, of_seeds, error = _errors([a, b], gains)
    low, high = gain - error - max(gaps[1], 0), gain + error + max(gaps[0], 0)
    evidence = f"{a.mean():.2f} against {b.mean():.2f} nats: difference {gain:+.2f} "
    evidence += f"[{low:+.2f}, {high:+.2f}], ± {of_images:.2f} over {a.shape[1]} images and "
    evidence += f"± {of_seeds:.2f} over {len(a)} and {len(b)} seed(s); gaps {gaps[0]:.2f} and "
    evidence += f"{gaps[1]:.2f}{_gone(pd.concat([mine, rival]))}"
    return "undecided" if max(gaps) > CONVERGED else decide(low, high), evidence


def _near(mine: pd.DataFrame) -> tuple[str, str]:
    good = _annealed(mine)
    if lacking := rules.insufficient({"sVAE-r": len(good)}):
        return lacking
    values = _by_image(good)
    mean, gap = float(values.mean()), _gap(good)
    of_images, of_seeds, error = _errors([values], values.mean(0))
    need = PIXEL_RNN - NEAR
    verdict = "holds" if mean - error >= need else "fails"
    if verdict == "fails" and (gap > CONVERGED or mean + gap + error >= need):
        verdict = "undecided"
    evidence = f"{mean:.2f} nats, ± {of_images:.2f} over {values.shape[1]} images and "
    evidence += f"± {of_seeds:.2f} over {len(values)} seed(s), gap {gap:.2f}, where PixelRNN has "
    return verdict, f"{evidence}{PIXEL_RNN}{_gone(mine)}"


def _gone(runs: pd.DataFrame) -> str:
    return f"; {diverged(runs)} diverged run(s) left out" if diverged(runs) else ""
