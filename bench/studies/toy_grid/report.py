"""What is said of the toy study: its tables, claims, figures and notes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from bench.cli import UsageError
from bench.render import claims, compare, intervals, tables
from bench.render.claims import Claim, claim, decide
from bench.render.compare import Spread, Statistic
from bench.render.figures import Picture, rank
from bench.render.page import Page, damage
from bench.render.tables import Cell, Column, Table, extra, lam, number, percent, spread
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.study import Study
from bench.studies.toy_grid import figures
from bench.studies.toy_grid.runs import (
    CLOSE,
    GOOD,
    NOISE_SCORES,
    TOP,
    at,
    at_own_rate,
    cells,
    paper_cells,
    runs,
)
from bench.studies.toy_grid.spec import ToySpec

TEXT = texts("bench.studies.toy_grid")
LAM = 0.1
"""Claim 1 of the paper is about this lambda."""
BOTH = 0.9
"""Claim 1a: at least this share of runs reconstructs."""
SCORES = {"inception score": "score", "high quality": "high_quality_counted", "MSE of x": "mse"}
SHARES = {
    f"share IS > {TOP}": "top",
    f"share IS > {TOP}, quality ≥ {GOOD}": "top_good",
    f"share MSE < {CLOSE}": "close",
}
"""What is compared of runs, by name, and its column."""
KNOWN = ("inception_score", "mse_x", "mse_z", "modes", "high_quality")
"""Columns of metrics that the table of scores has, or leaves out."""


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if nothing can be compared.
    """
    frame = runs(study, results, scale)
    mine = at_own_rate(frame)
    # A cell of a table is complete with all configurations at every seed begun.
    whole = len({spec.config for spec in study.specs(scale)}) * (int(frame["seed"].max()) + 1)
    rate, notes = mine["lr"].iloc[0], [TEXT["baselines"]]
    if frame["lr"].nunique() > 1 or rate != ToySpec.lr:
        notes.append(TEXT["one_rate"].format(rate=rate))
    if others := frame.attrs["other_precision"]:
        notes.append(TEXT["left_out"].format(n=others))

    def points(frame: pd.DataFrame) -> figures.Figure:
        return figures.points(frame, study.store(results, scale).load_samples().to_pandas())

    draw = {name: getattr(figures, name) for name in TEXT["figures"]} | {"points": points}
    first, *others = (
        Picture(name, partial(draw[name], mine), **text) for name, text in TEXT["figures"].items()
    )
    parts = [first, scores(frame, whole, study.metrics()), *others]
    parts += [claims.table(toy_claims(mine), scale), pairs(mine), gradients(mine)]
    if other is not None:
        parts.append(comparison(frame, runs(study, other, scale), other))
    return Page(
        frame=frame,
        parts=parts,
        warnings=damage(frame),
        notes=notes,
        missing=sum(max(0, whole - n) for n in frame.groupby(["label", "lam", "lr"]).size()),
        shown=figures.shown(mine),
    )


def scores(frame: pd.DataFrame, expected: int, metrics: Sequence[Metric]) -> Table:
    """Per lambda and label: the score, the shares, what is missing, the paper beside.

    Any of the `metrics` that is not KNOWN has a column where there are values of it.
    """
    paper = paper_cells()

    def published(heading: str, form: Callable[[float], str] = percent) -> tuple[Column, Cell]:
        def cell(runs: pd.DataFrame) -> str:
            known = paper.get((runs["label"].iloc[0], runs["lam"].iloc[0]))
            return form(known[heading]) if known else ""

        return Column(f"paper {heading}", paper=True), cell

    rates = sorted(frame["lr"].unique())
    rate: list[tuple[str, Cell]] = [("learning rate", lambda runs: f"{runs['lr'].iloc[0]:g}")]
    more, words = extra(metrics, frame, KNOWN)
    columns: list[tuple[Column | str, Cell]] = [
        ("λ", lambda runs: lam(runs["lam"].iloc[0])),
        (Column("method", text=True), lambda runs: runs["label"].iloc[0]),
        *(rate if len(rates) > 1 else []),
        ("IS mean ± sd", lambda runs: spread(runs["inception_score"])),
        published("IS mean", lambda value: number(value, 2)),
        (f"IS > {TOP}", lambda runs: percent(runs["top"].mean())),
        published(f"IS > {TOP}"),
        (f"and quality ≥ {GOOD}", lambda runs: percent(runs["top_good"].mean())),
        ("MSE median", lambda runs: number(runs["mse"].median())),
        (f"MSE < {CLOSE}", lambda runs: percent(runs["close"].mean())),
        published(f"MSE < {CLOSE}"),
        *more,
        ("n", lambda runs: str(len(runs))),
        ("diverged", lambda runs: str((runs["status"] == "diverged").sum())),
        ("missing", lambda runs: str(max(0, expected - len(runs)))),
    ]
    noise = ", ".join(f"{name} {score}" for name, score in NOISE_SCORES.items())
    groups = [group for rate in rates for *_, group in cells(frame[frame["lr"] == rate])]
    caption = TEXT["scores"].format(noise=noise) + words
    return tables.tabulate("scores", TEXT["titles"]["scores"], caption, columns, groups)


def pairs(frame: pd.DataFrame) -> Table:
    """sVAE-r against ALICE (sVAE against ALI at lambda 0) over equal configurations and seeds.

    A score is compared by how often it is better, a share by its mean difference.
    """
    rows = []
    for value in sorted(frame["lam"].unique()):
        a, b = (at(frame, method, value) for method in ("svae_r", "alice"))
        for what, column in (SCORES | SHARES).items():
            x, y = intervals.paired(a, b, column)
            if not len(x):
                continue
            if what in SHARES:
                name, form = f"{what}: difference", "+.3f"
                gain, least = intervals.difference(x, y), number(intervals.detectable(x, y))
            else:
                name, form = f"{what}: P({a['label'].iloc[0]} better)", ".3f"
                gain, least = intervals.improvement(a, b, column, larger=column != "mse"), ""
            middle, low, high = (f"{each:{form}}" for each in (gain.value, gain.low, gain.high))
            p = intervals.wilcoxon(x, y)
            shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
            rows.append([lam(value), name, middle, f"{low} to {high}", shown, least, str(len(x))])
    heads = ("value", "95 % interval", "p", "detectable", "configurations")
    columns = [Column("λ"), Column("comparison", text=True), *map(Column, heads)]
    return Table("pairs", TEXT["titles"]["pairs"], TEXT["pairs"], columns, rows)


def gradients(frame: pd.DataFrame) -> Table:
    """Gradient that reaches the decoder at the end of training, by reduction of the logit."""
    rows = []
    for label, value, group in cells(frame):
        ends = [{method: trace[-1] for method, trace in each} for each in group["decoder_gradient"]]
        last = pd.DataFrame(ends).astype(float)
        for method in sorted(map(str, last), key=rank):
            ratio = (last[method] / last["svae_r"]).dropna()
            name = TEXT["reductions"].get(method, method)
            sizes = [number(last[method].median(), 4), number(ratio.median())]
            sizes += [number(float(ratio.quantile(0.1))), percent((ratio < 0.1).mean())]
            rows.append([lam(value), label, name, *sizes])
    heads = ("median size", "median ratio to (14)", "10th percentile", "runs below a tenth")
    texts = [Column(head, text=True) for head in ("trained as", "reduction")]
    columns = [Column("λ"), *texts, *map(Column, heads)]
    return Table("gradients", TEXT["titles"]["gradients"], TEXT["gradients"], columns, rows)


# Claim 1 of the paper in parts, each as a rule that was fixed before the study was run


def toy_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claims 1a to 1d, from the rows of `at_own_rate`."""
    both = at(frame, "svae_r", LAM), at(frame, "alice", LAM)
    found = {
        "1a": _reconstructs(*both),
        "1b": _gain(*both, "top"),
        "1b'": _gain(*both, "top_good"),
        "1c": _helps(frame),
        "1d": _robust(*both),
    }
    values = {"lam": LAM, "close": CLOSE, "both": percent(BOTH), "top": TOP, "good": GOOD}
    return [claim(TEXT["claims"][id], id, outcome, **values) for id, outcome in found.items()]


def _reconstructs(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[str, str]:
    if not (len(ours) and len(theirs)):
        return "no data", "no runs"
    a, b = ours["close"].mean(), theirs["close"].mean()
    evidence = f"sVAE-r {percent(a)} of {len(ours)}, ALICE {percent(b)} of {len(theirs)}"
    return "holds" if min(a, b) >= BOTH else "fails", evidence


def _gain(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> tuple[str, str]:
    a, b = intervals.paired(ours, theirs, column)
    if not len(a):
        return "no data", "no pairs"
    gain = intervals.difference(a, b)
    return decide(gain.low, gain.high), (
        f"{percent(a.mean())} against {percent(b.mean())}: difference {gain} over {len(a)} "
        f"configurations, where {number(intervals.detectable(a, b))} could be found"
    )


def _helps(frame: pd.DataFrame) -> tuple[str, str]:
    gains, evidence = [], []
    for method, name in {"svae_r": "sVAE-r", "alice": "ALICE"}.items():
        for column, what in {"top": "", "top_good": " with quality"}.items():
            after, before = (at(frame, method, value) for value in (LAM, 0.0))
            a, b = intervals.paired(after, before, column)
            if len(a):
                gains.append(intervals.difference(a, b))
                evidence.append(f"{name}{what} {gains[-1]}")
    words = f"share with IS > {TOP}: {', '.join(evidence)}" if evidence else "no pairs"
    if len(gains) < 4:
        return "no data", words
    return decide(min(gain.low for gain in gains), min(gain.high for gain in gains)), words


def _robust(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[str, str]:
    a, b = intervals.paired(ours, theirs, "score")
    if len(a) < 2:
        return "no data", "no pairs"
    gap = intervals.spread(a, b)
    return decide(-gap.high, -gap.low), (
        f"sd over configurations {a.std(ddof=1):.3f} against {b.std(ddof=1):.3f}: difference {gap}"
    )


# Comparison with other results

STATISTICS = {
    "IS mean": "score",
    **SHARES,
    "high quality mean": "high_quality_counted",
    "log10 MSE mean": "log_mse",
}


def comparison(ours: pd.DataFrame, other: pd.DataFrame, name: Path) -> Table:
    """Our mean of each statistic, theirs, and whether the difference is one of seeds.

    Only configurations that both have count, and an infinite MSE counts as 1e6. The spread is
    that over the seeds of `other` within a configuration, pooled over the configurations of a
    cell. A cell in which all seeds agree gets the spread of one seed of one configuration
    changing its verdict.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """

    def by_cell(runs: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
        counted = runs.assign(log_mse=np.log10(runs["mse"].clip(1e-6, 1e6)))
        counted = counted.astype(dict.fromkeys(STATISTICS.values(), float))
        return {(label, value): runs for label, value, runs in cells(counted)}

    mine, theirs = by_cell(ours), by_cell(other)
    for cell in mine.keys() & theirs.keys():
        both = mine[cell], theirs[cell]
        common = set.intersection(*(set(runs["config"]) for runs in both))
        here, there = (runs[runs["config"].isin(common)] for runs in both)
        if there["seed"].nunique() < 2:
            del theirs[cell]
        else:
            mine[cell], theirs[cell] = here, there
    if not mine.keys() & theirs.keys():
        raise UsageError(f"nothing to compare with in {name}: no common runs with two seeds")
    statistics = [
        Statistic(what, itemgetter(column), partial(_spread, column=column))
        for what, column in STATISTICS.items()
    ]
    return compare.comparison(mine, theirs, statistics, str(name), TEXT["compared"])


def _spread(runs: pd.DataFrame, column: str) -> Spread:
    within = Spread.pooled(values for _, values in runs.groupby("config")[column])
    assert within is not None
    # One verdict among all of a cell's that is otherwise unanimous.
    return within if within.sd else Spread(1 / np.sqrt(len(runs)), within.freedom)
