"""What is said of the toy study: its tables, claims, figures and notes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.cli import UsageError
from bench.render import claims, compare, intervals
from bench.render.claims import VERDICTS, Claim, claim, decide
from bench.render.compare import Spread, Statistic
from bench.render.figures import Picture
from bench.render.page import Page, damage
from bench.render.tables import Column, Table, lam, number, percent, summary, tabulate
from bench.render.text import texts
from bench.scores.metrics import TOY, Metric, explained, further
from bench.studies.study import Study
from bench.studies.toy_grid import figures
from bench.studies.toy_grid.runs import (
    CLOSE,
    GOOD,
    NOISE_SCORES,
    TOP,
    cells,
    expected,
    own,
    paper_cells,
    runs,
)
from bench.studies.toy_grid.study import ToySpec

TEXT = texts("bench.studies.toy_grid")
LAM = 0.1
"""Claim 1 of the paper is about this lambda."""
BOTH = 0.9
"""Claim 1a: at least this share of runs reconstructs."""
KNOWN = ("inception_score", "mse_x", "mse_z", "modes", "high_quality")
"""Columns of metrics that the table of scores has, or leaves out."""
REDUCTIONS = {"svae_r": "(14) mean of f", "alice": "(19) non-saturating"}
REDUCTIONS |= {"alice_minimax": "(18) minimax", "alice_sigmoid": "mean of σ(f)"}


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if nothing can be compared.
    """
    frame = runs(study, results, scale)
    mine = own(frame)
    whole = expected(frame, study, scale)
    table = scores(frame, whole)
    contents = [
        claims.table(toy_claims(mine), scale),
        summary(table, without=("IS sd", "IS median", "MSE median")),
        table,
        pairs(mine),
        gradients(mine),
    ]
    if other is not None:
        contents.append(comparison(frame, runs(study, other, scale), other))
    rate = mine["lr"].iloc[0]
    notes = [*damage(frame), TEXT["baselines"]]
    if frame["lr"].nunique() > 1 or rate != ToySpec.lr:
        notes.append(TEXT["one_rate"].format(rate=rate))
    if others := frame.attrs["other_precision"]:
        notes.append(TEXT["left_out"].format(n=others))

    def points() -> figures.Figure:
        return figures.points(mine, study.store(results, scale).load_samples().to_pandas())

    draw: dict[str, Callable[[], figures.Figure]] = {
        name: partial(getattr(figures, name), mine) for name in TEXT["figures"]
    }
    draw["points"] = points
    return Page(
        frame=frame,
        tables={each.name: each for each in contents},
        pictures=[
            Picture(name, draw[name], text["title"], text["caption"])
            for name, text in TEXT["figures"].items()
        ],
        notes=notes,
        missing=sum(max(0, whole - n) for n in frame.groupby(["label", "lam", "lr"]).size()),
        shown=set(figures.shown(mine)["id"]),
    )


def scores(frame: pd.DataFrame, expected: int) -> Table:
    """Per lambda and label: the score, the shares, what is missing, the paper beside."""
    paper = {(c["label"], c["lam"]): c for c in paper_cells().to_dict("records")}
    rates = sorted(frame["lr"].unique())

    def finite(runs: pd.DataFrame) -> pd.Series:
        return runs.loc[runs["status"] == "ok", "inception_score"].astype(float)

    def published(column: str, form: Callable[[float], str]) -> Callable[[pd.DataFrame], str]:
        def cell(runs: pd.DataFrame) -> str:
            known = paper.get((runs["label"].iloc[0], runs["lam"].iloc[0]))
            return form(known[column]) if known else ""

        return cell

    columns: list[tuple[Column, Callable[[pd.DataFrame], str]]] = [
        (Column("λ"), lambda runs: lam(runs["lam"].iloc[0])),
        (Column("method", text=True), lambda runs: runs["label"].iloc[0]),
        (Column("learning rate"), lambda runs: f"{runs['lr'].iloc[0]:g}"),
        (Column("IS mean"), lambda runs: number(finite(runs).mean())),
        (Column("IS sd"), lambda runs: number(finite(runs).std())),
        (Column("IS median"), lambda runs: number(runs["score"].median())),
        (
            Column("paper IS mean", paper=True),
            published("paper_mean", lambda value: number(value, 2)),
        ),
        (Column(f"IS > {TOP}"), lambda runs: percent(runs["top"].mean())),
        (Column(f"paper IS > {TOP}", paper=True), published("paper_top", percent)),
        (Column(f"and quality ≥ {GOOD}"), lambda runs: percent(runs["top_good"].mean())),
        (Column(f"MSE < {CLOSE}"), lambda runs: percent(runs["close"].mean())),
        (Column(f"paper MSE < {CLOSE}", paper=True), published("paper_close", percent)),
        (Column("MSE median"), lambda runs: number(runs["mse"].median())),
        (Column("n"), lambda runs: str(len(runs))),
        (Column("diverged"), lambda runs: str((runs["status"] == "diverged").sum())),
        (Column("missing"), lambda runs: str(max(0, expected - len(runs)))),
    ]
    more = further(TOY, frame, KNOWN)
    columns[-3:-3] = [(Column(metric.heading), _mean(metric)) for metric in more]
    if len(rates) == 1:
        del columns[2]
    noise = ", ".join(f"{name} {score}" for name, score in NOISE_SCORES.items())
    groups = [group for rate in rates for *_, group in cells(frame[frame["lr"] == rate])]
    caption = TEXT["scores"].format(noise=noise) + explained(more)
    return tabulate("scores", "Scores", caption, columns, groups)


def _mean(metric: Metric) -> Callable[[pd.DataFrame], str]:
    return lambda runs: number(runs[metric.columns[0]].astype(float).mean(), metric.digits)


def pairs(frame: pd.DataFrame) -> Table:
    """sVAE-r against ALICE (sVAE against ALI at lambda 0) over equal configurations and seeds."""
    rows = []
    for value in sorted(frame["lam"].unique()):
        a, b = (
            frame[(frame["lam"] == value) & (frame["method"] == method)]
            for method in ("svae_r", "alice")
        )
        if not intervals.paired(a, b, "score")[0].size:
            continue
        for column, what, larger in (
            ("score", "inception score: P(sVAE better)", True),
            ("high_quality_counted", "high quality: P(sVAE better)", True),
            ("mse", "MSE of x: P(sVAE better)", False),
            ("top", f"share IS > {TOP}: difference", None),
            ("top_good", f"share IS > {TOP}, quality ≥ {GOOD}: difference", None),
            ("close", f"share MSE < {CLOSE}: difference", None),
        ):
            x, y = intervals.paired(a, b, column)
            if larger is None:
                gain, sign, least = (
                    intervals.difference(x, y),
                    "+",
                    number(intervals.detectable(x, y)),
                )
            else:
                gain, sign, least = intervals.improvement(a, b, column, larger), "", ""
            value_, low, high = (f"{v:{sign}.3f}" for v in (gain.value, gain.low, gain.high))
            p = intervals.wilcoxon(x, y)
            shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
            rows.append([lam(value), what, value_, f"{low} to {high}", shown, least, str(len(x))])
    heads = ("value", "95 % interval", "p", "detectable", "configurations")
    columns = [Column("λ"), Column("comparison", text=True), *map(Column, heads)]
    return Table("pairs", "sVAE-r against ALICE, paired", TEXT["pairs"], columns, rows)


def gradients(frame: pd.DataFrame) -> Table:
    """Gradient that reaches the decoder at the end of training, by reduction of the logit."""
    rows = []
    for label, value, group in cells(frame):
        ends = [{method: trace[-1] for method, trace in each} for each in group["decoder_gradient"]]
        last = pd.DataFrame(ends).astype(float)
        for method in last:
            ratio = (last[method] / last["svae_r"]).dropna()
            name = REDUCTIONS.get(str(method), str(method))
            sizes = [number(last[method].median(), 4), number(ratio.median())]
            sizes += [number(float(ratio.quantile(0.1))), percent((ratio < 0.1).mean())]
            rows.append([lam(value), label, name, *sizes])
    heads = ("median size", "median ratio to (14)", "10th percentile", "runs below a tenth")
    texts = [Column(head, text=True) for head in ("trained as", "reduction")]
    columns = [Column("λ"), *texts, *map(Column, heads)]
    return Table("gradients", "Gradient at the decoder", TEXT["gradients"], columns, rows)


# Claim 1 of the paper in parts, each as a rule that was fixed before the study was run


def toy_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claims 1a to 1d, from the rows of `own`."""

    def at(method: str, value: float) -> pd.DataFrame:
        return frame[(frame["method"] == method) & (frame["lam"] == value)]

    svae_r, alice = at("svae_r", LAM), at("alice", LAM)
    quality = f"IS > {TOP} and high quality >= {GOOD}"
    steps = {
        "sVAE-r over sVAE": (svae_r, at("svae_r", 0.0)),
        "ALICE over ALI": (alice, at("alice", 0.0)),
    }
    values: dict[str, Any] = {"lam": LAM, "close": CLOSE, "both": BOTH, "top": TOP, "good": GOOD}
    words = TEXT["claims"]
    return [
        claim(words["reconstructs"], "1a", _reconstructs(svae_r, alice), **values),
        claim(words["generates"], "1b", _gain(svae_r, alice, "top"), what=f"IS > {TOP}", **values),
        claim(words["generates"], "1b'", _gain(svae_r, alice, "top_good"), what=quality, **values),
        claim(words["helps"], "1c", _helps(steps), **values),
        claim(words["robust"], "1d", _robust(svae_r, alice), **values),
    ]


def _reconstructs(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[str, str]:
    if not (len(ours) and len(theirs)):
        return "no data", "no runs"
    a, b = ours["close"].mean(), theirs["close"].mean()
    evidence = f"sVAE-r {a:.1%} of {len(ours)}, ALICE {b:.1%} of {len(theirs)}"
    return "holds" if min(a, b) >= BOTH else "fails", evidence


def _gain(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> tuple[str, str]:
    a, b = intervals.paired(ours, theirs, column)
    if not len(a):
        return "no data", "no pairs"
    gain = intervals.difference(a, b)
    return decide(gain.low, gain.high), (
        f"{a.mean():.1%} against {b.mean():.1%}: difference {gain} over {len(a)} configurations; "
        f"smallest difference findable {number(intervals.detectable(a, b))}"
    )


def _helps(steps: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[str, str]:
    signs, parts = [], []
    for name, both in steps.items():
        for column, what in (("top", "IS"), ("top_good", "IS and quality")):
            a, b = intervals.paired(*both, column)
            if len(a):
                gain = intervals.difference(a, b)
                signs.append(gain.sign)
                parts.append(f"{name}, {what}: {gain}")
    verdict = VERDICTS[min(signs)] if len(signs) == 4 else "no data"
    return verdict, "; ".join(parts) or "no pairs"


def _robust(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[str, str]:
    a, b = intervals.paired(ours, theirs, "score")
    if len(a) < 2:
        return "no data", "no pairs"
    gap = intervals.spread(a, b)
    return decide(-gap.high, -gap.low), (
        f"sd of the inception score over configurations {a.std(ddof=1):.3f} against "
        f"{b.std(ddof=1):.3f}: difference {gap}"
    )


# Comparison with other results

STATISTICS = {
    "IS mean": "score",
    f"share IS > {TOP}": "top",
    f"share IS > {TOP}, quality ≥ {GOOD}": "top_good",
    f"share MSE < {CLOSE}": "close",
    "high quality mean": "high_quality_counted",
    "log10 MSE mean": "log_mse",
}


def comparison(ours: pd.DataFrame, other: pd.DataFrame, name: Path) -> Table:
    """Our mean of each statistic, theirs, and whether the difference is one of seeds.

    Only configurations that both have count. The spread is that over the seeds of `other` within
    a configuration, pooled over the configurations of a cell. A cell in which all seeds agree
    gets the spread of one seed of one configuration changing its verdict.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """
    mine, theirs = ({each[:2]: each[2] for each in cells(_counted(runs))} for runs in (ours, other))
    for cell in mine.keys() & theirs.keys():
        here, there = (cells[cell] for cells in (mine, theirs))
        common = set(here["config"]) & set(there["config"])
        both = [each[each["config"].isin(common)] for each in (here, there)]
        if both[1]["seed"].nunique() < 2:
            del theirs[cell]
        else:
            mine[cell], theirs[cell] = both
    if not mine.keys() & theirs.keys():
        raise UsageError(f"nothing to compare with in {name}: no common runs with two seeds")
    statistics = [
        Statistic(what, itemgetter(column), partial(_spread, column=column))
        for what, column in STATISTICS.items()
    ]
    return compare.comparison(mine, theirs, statistics, str(name), TEXT["compared"])


def _counted(runs: pd.DataFrame) -> pd.DataFrame:
    """The statistics as numbers; an infinite MSE counts as 1e6."""
    log_mse = np.log10(runs["mse"].clip(1e-6, 1e6).astype(float))
    return runs.assign(log_mse=log_mse).astype(dict.fromkeys(STATISTICS.values(), float))


def _spread(runs: pd.DataFrame, column: str) -> Spread:
    within = Spread.pooled(values for _, values in runs.groupby("config")[column])
    assert within is not None
    if within.sd == 0:  # one verdict among all of a cell's that is otherwise unanimous
        within = Spread(1 / np.sqrt(len(runs)), within.freedom)
    return within
