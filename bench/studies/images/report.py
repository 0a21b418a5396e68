"""What the reports of all image studies share: tables, notes, comparisons. Imports no torch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from bench.cli import UsageError
from bench.render import claims, compare, intervals
from bench.render.claims import Claim, decide
from bench.render.compare import LEVEL, Spread, Statistic, named, verdict
from bench.render.figures import ORDER, Picture, rank
from bench.render.intervals import Estimate, critical
from bench.render.page import Page, damage
from bench.render.tables import Column, Table, spread
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import runs as frames
from bench.studies.images.figures import KINDS
from bench.studies.images.runs import Asked, diverged, first

TEXT = texts("bench.studies.images")
KNOWN = ("inception_score", "frechet", "swd", "mse_x", "inception_score_imagenet", "fid", "kid")
"""Columns of metrics that captions explain by themselves."""
MOST = 1000
"""Of a ratio that is printed."""
LEAST = 1e-3
"""Of a score under a logarithm: a Fréchet distance of nothing can come out below 0."""

Row = tuple[dict[str, Any], pd.DataFrame]
"""What a row of a table is told of: what is known by name, and our runs, maybe none."""
Cell = tuple[Column, Callable[[Row], str]]
Cells = list[Cell]


def beside(published: pd.DataFrame, frame: pd.DataFrame) -> list[Row]:
    """What is published by method and lambda and our runs, then what is ours alone.

    The methods of ORDER come first, by lambda.
    """
    by = ["method", "lam"]
    names: dict[tuple[Any, ...], dict[Any, Any]] = {}
    for row in (*published.to_dict("records"), *frame[[*by, "label"]].to_dict("records")):
        names.setdefault(tuple(row[name] for name in by), row)
    rows = [
        (
            {str(name): value for name, value in row.items() if pd.notna(value)},
            frame[(frame[by] == [*key]).all(axis=1)],
        )
        for key, row in names.items()
    ]

    def place(row: Row) -> tuple[int, float]:
        method = row[0].get("method", "")
        return rank(method), row[0]["lam"] if method in ORDER else 0.0

    return sorted(rows, key=place)


def joined(published: pd.DataFrame, frame: pd.DataFrame, elsewhere: pd.DataFrame) -> pd.DataFrame:
    """What is published and our methods and lambdas, with what is known of them elsewhere."""
    both = pd.concat([published, frame[["method", "lam", "label"]]])
    return both.drop_duplicates(["method", "lam"]).merge(elsewhere, "left", on=["method", "lam"])


def told(heading: str, form: str, **kind: bool) -> Cell:
    """A column of what is known, in this format; blank where something is not."""

    def cell(row: Row) -> str:
        with contextlib.suppress(KeyError):
            return form.format(**row[0])
        return ""

    return Column(heading, **kind), cell


def ours(heading: str, cell: Callable[[pd.DataFrame], str], absent: str = "") -> Cell:
    """A column of our runs, `absent` where there are none."""
    return Column(heading), lambda row: cell(row[1]) if len(row[1]) else absent


def scored(metrics: Sequence[Metric], names: Iterable[str]) -> Cells:
    """Columns of those scores that the study has: headings, and spreads over our seeds."""

    def cell(metric: Metric) -> Cell:
        column, digits = metric.columns[0], metric.digits
        return ours(metric.heading, lambda runs: spread(runs[column], digits))

    found = {each.columns[0]: cell(each) for each in metrics}
    return [found[name] for name in names if name in found]


METHOD = [told("method", "{label}", text=True), told("λ", "{lam:g}")]
NUMBERS = [ours("n", lambda runs: str(len(runs)), "not run")]
NUMBERS += [ours("diverged", lambda runs: str(diverged(runs)))]


def classified(frame: pd.DataFrame) -> str:
    """Which classifier scored, if any, how good it is and what it gives real images."""
    one = first(frame)
    if pd.isna(one["classifier"]):
        return TEXT["unclassified"]
    # Stored names say referee, which is what the suite called a classifier.
    one["classifier"] = one["classifier"].removesuffix(" referee")
    return TEXT["classified"].format(**one, accuracy=100 * one["classifier_accuracy"])


def protocol(frame: pd.DataFrame, text: Mapping[str, Any], **values: Any) -> str:
    """How the numbers of this frame were made: from its own columns, by a study's text."""
    one = first(frame)
    scored = text["scored"] if frame["classifier"].notna().any() else TEXT["unscored"]
    values["scored"] = scored.format(**one, classified=classified(frame))
    values["stand_in"] = text["stand_in"] if frame["stand_in"].any() else ""
    critic = TEXT["critic"].format(**one) if one["critic"] else ""
    return text["protocol"].format(**one | values) + critic


def better(
    mine: pd.DataFrame, theirs: pd.DataFrame, margin: float | None = None
) -> tuple[str, str]:
    """Whether the inception scores are better, or comparable within a margin, and the evidence.

    The interval is Student's t at the fewer degrees of freedom. A method of one seed is taken to
    spread as the other does; diverged runs count as 1.
    """
    if not (len(mine) and len(theirs)):
        return "no data", "no runs"
    both = [runs["inception_score"].astype(float).fillna(1.0) for runs in (mine, theirs)]
    a, b = (float(scores.mean()) for scores in both)
    several = [scores for scores in both if len(scores) > 1]
    error = math.inf
    if any(scores.std() > 0 for scores in several):
        sds = [(scores if len(scores) > 1 else several[0]).std() for scores in both]
        errors = (sd / math.sqrt(len(each)) for sd, each in zip(sds, both, strict=True))
        t = critical(1 - intervals.LEVEL, min(map(len, several)) - 1)
        error = t * math.hypot(*errors)
    gain = Estimate(a - b, a - b - error, a - b + error)
    seeds = f"from {len(mine)} and {len(theirs)} seed(s)"
    evidence = f"{a:.2f} against {b:.2f}: difference {gain:+.2f} {seeds}"
    return decide(gain.low, gain.high, margin), evidence


def page(
    asked: Asked,
    frame: pd.DataFrame,
    text: Mapping[str, Any],
    found: Sequence[Claim],
    tables: Sequence[Table],
    drawn: Mapping[str, Callable[[], Figure]],
    about: Sequence[str],
    shown: Iterable[str],
    **values: str,
) -> Page:
    """The page of these claims, tables and pictures, with all that pages of images share.

    The study's `text` has their titles and captions, which `values` fill in; notes are `about` it.
    """
    words: dict[str, Any] = {**TEXT, **text, **values}
    titles, captions = (TEXT[kind] | text.get(kind, {}) for kind in ("titles", "captions"))
    pictures = [
        Picture(name, draw, titles[name], captions[name].format(**words), KINDS.get(name, "lines"))
        for name, draw in drawn.items()
    ]
    missing = frames.missing(frame, asked.study, asked.scale)
    own, warnings = frames.own(frame, asked.study, asked.scale), remarks(frame)
    if missing:
        warnings.append(TEXT["incomplete"].format(n=missing, all=len(own)))
        found = [replace(each, part=_part(each, own, frame)) for each in found]
    verdicts, changed = claims.table(found, asked.scale), claims.changes(text["changes"])
    return Page(
        frame,
        [*pictures, verdicts, *tables, changed, *comparisons(frame, asked)],
        warnings,
        [*about, *left_out(frame)],
        missing,
        {*shown},
    )


def _part(one: Claim, own: Mapping[str, tuple[str, float]], frame: pd.DataFrame) -> str:
    """Returns on how many of the study's own trainings a claim rests that reads certain cells."""
    asked = {id for id, cell in own.items() if cell in one.cells}
    return TEXT["rests"].format(n=len(asked & {*frame["id"]}), all=len(asked))


def remarks(frame: pd.DataFrame) -> list[str]:
    """What a reader must know of the runs before any number: damage, and images not the paper's."""
    if frame["stand_in"].any():
        return [*damage(frame), TEXT["drawn"]]
    one = first(frame)
    return [*damage(frame), *([TEXT["own"].format(**one)] if one["data"] != one["study"] else [])]


def left_out(frame: pd.DataFrame) -> list[str]:
    """Which runs stand in no table, or in one of their own."""
    others, precisions = frame.attrs["others"], frame.attrs["precisions"]
    notes = [TEXT["others"].format(n=others)] if others else []
    return notes + [TEXT["precisions"].format(n=n, precision=p) for p, n in precisions.items()]


# Comparisons


def comparisons(frame: pd.DataFrame, asked: Asked) -> list[Table]:
    """These runs beside the other results, and at any settings precisions beside the first.

    Raises UsageError if there is nothing in the other results to compare with.
    """
    found, metrics = [], asked.study.metrics()
    for each, base, apart in frames.at_precisions(asked):
        heads = each["precision"].iloc[0], base["precision"].iloc[0]
        with contextlib.suppress(UsageError):  # nothing in common
            table = comparison(each, base, metrics, f"trainings in {heads[1]}", heads)
            name = re.sub(r"[^\w.]+", "-", "-".join([heads[0], *apart]))
            title = ", ".join([" beside ".join(heads), *apart])
            found.append(replace(table, name=name, title=title))
    if asked.other is not None:
        there = frames.runs(asked.study, asked.other, asked.scale, like=frame)
        found.append(comparison(frame, there, metrics, str(asked.other)))
    return found


def comparison(
    frame: pd.DataFrame,
    other: pd.DataFrame,
    metrics: Sequence[Metric],
    name: str,
    heads: tuple[str, str] = ("ours", "theirs"),
) -> Table:
    """Our mean of each score, theirs, and whether the difference is one of seeds.

    Scores above 0 are compared by their logarithms, whose spread over seeds hardly depends on
    method and lambda. One spread is taken, pooled over the cells of `other`. Diverged runs have
    no scores; a cell where only one side has any left differs.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """
    nothing = f"nothing to compare with in {name}"
    if not len(other):
        one = first(frame)
        raise UsageError(f"{nothing}: no {one['study']} at {one['scale']} scale")
    # Images may differ, and then it is said: of a data set there are copies that are not the
    # published files to the last pixel.
    for column in (*frames.SETTINGS, "classifier_sha256"):
        here, there = (set(each[column].dropna()) for each in (frame, other))
        if here and there and here != there:
            is_, not_ = (", ".join(sorted(map(str, values))) for values in (there, here))
            raise UsageError(f"{nothing}: {column} is {is_}, not {not_}")
    mine, theirs = frames.cells(frame), frames.cells(other)
    common = [(mine[cell], theirs[cell]) for cell in mine if cell in theirs]
    if not common:
        raise UsageError(f"{nothing}: no method in common at one λ")
    compared = {each.columns[0]: each.heading for each in metrics if each.columns[0] != "kid"}
    statistics, freedom = [], 0
    for column, heading in (compared | {_NATS: "log p(x) ≥, nats"}).items():
        values = partial(_values, column=column)
        if found := Spread.pooled(values(runs).dropna() for runs in theirs.values()):
            shown = _nats if column == _NATS else _ratios
            statistics.append(Statistic(heading, values, lambda _, found=found: found, shown))
            freedom = max(freedom, found.freedom)
    if not statistics:
        raise UsageError(f"{nothing}: it has one seed only")
    images, others = (set(each["data_sha256"].dropna()) for each in (frame, other))
    if others - images:
        digests = ", ".join(sorted(each[:12] for each in others - images))
        name += f" (whose images are not all ours: {digests})"
    how = TEXT["compared"].format(freedom=freedom)
    gone = [_divergence(*both) for both in common if any(map(diverged, both))]
    return compare.comparison(mine, theirs, statistics, name, how, heads, gone)


_NATS = "log_likelihood"


def _values(runs: pd.DataFrame, column: str) -> pd.Series:
    """A score of each run on the scale on which it is compared."""
    values = runs[column].astype(float)
    return values if column == _NATS else values.clip(lower=LEAST).map(math.log)


def _nats(a: float, b: float, difference: float, tolerance: float) -> list[str]:
    return [f"{a:.2f}", f"{b:.2f}", f"{difference:+.2f}", f"{tolerance:.2f}"]


def _ratios(*logarithms: float) -> list[str]:
    """Means, whose logarithms these are, and ratios, none of them over MOST."""
    return [
        f"{mark}{math.exp(x):.3f}" if x <= math.log(MOST) else f"> {mark}{MOST}"
        for mark, x in zip(("", "", "× ", "× "), logarithms, strict=True)
    ]


def _divergence(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """A row on how many diverged: by Fisher's exact test, or where one side has no run left."""
    gone = [(diverged(runs), len(runs)) for runs in (here, there)]
    p = float(stats.fisher_exact(np.array([[k, n - k] for k, n in gone])).pvalue)
    lost = [k == n for k, n in gone]
    agrees = verdict(p >= LEVEL and lost[0] == lost[1])
    counts = [f"{k} of {n}" for k, n in gone]
    return [*named(here), "diverged", *counts, f"p = {p:.2f}", f"{LEVEL}", agrees]
