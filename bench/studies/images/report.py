"""What the reports of all image studies share: tables, notes, comparisons. Imports no torch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from bench.cli import UsageError
from bench.render import claims, compare, front
from bench.render.claims import Claim
from bench.render.compare import LEVEL, Spread, Statistic, named, verdict
from bench.render.figures import Picture
from bench.render.page import Page, damage
from bench.render.tables import Table
from bench.render.text import texts
from bench.scores.metrics import Metric
from bench.studies.images import runs as frames
from bench.studies.images.figures import KINDS, panels_over_lambda
from bench.studies.images.figures import shown as shown_of
from bench.studies.images.runs import Asked, diverged, first, name_of
from bench.studies.images.spec import FOLDER
from bench.studies.images.study import SHARES
from bench.studies.images.tables import APART, datasets
from bench.studies.study import Study

TEXT = texts("bench.studies.images")
MOST = 1000
"""Of a ratio that is printed."""
LEAST = 1e-3
"""Of a score under a logarithm: a Fréchet distance of nothing can come out below 0."""


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


def page(
    asked: Asked,
    frame: pd.DataFrame,
    text: Mapping[str, Any],
    found: Sequence[Claim],
    tables: Sequence[Table],
    drawn: Mapping[str, Callable[[], Figure]],
    about: Sequence[str],
    shown: Iterable[str],
    rules: str,
    intro: str = "",
    **values: str,
) -> Page:
    """The page of these claims, tables and pictures, with all that pages of images share.

    The study's `text` has their titles and captions, which `values` fill in; notes are `about` it.
    """
    baseline = front.find_baseline(frame, asked.study.baseline)
    broad = TEXT["broad"].format(labels=front.labels_of(frame, baseline)) if baseline else ""
    study, name = asked.study, name_of(first(frame))
    other = frames.unpublished(frame, study)
    words: dict[str, Any] = {**TEXT, **text, **values, "broad": broad}
    titles, captions = (TEXT[kind] | text.get(kind, {}) for kind in ("titles", "captions"))
    titles |= text.get("own_titles", {}) if other else {}
    apart = [] if other else frames.apart(asked, frame)
    titles = {name: ", ".join([title, *apart]) for name, title in titles.items()}
    tables = [replace(each, title=", ".join([each.title, *apart])) for each in tables]
    pictures = [
        Picture(name, draw, titles[name], captions[name].format(**words), KINDS.get(name, "lines"))
        for name, draw in drawn.items()
    ]
    missing = frames.missing(frame, asked.study, asked.scale)
    own, warnings = frames.own(frame, asked.study, asked.scale), remarks(frame, study)
    if apart:
        warnings.append(TEXT["apart"].format(settings=", ".join(apart)))
    if missing:
        warnings.append(TEXT["incomplete"].format(n=missing, all=len(own)))
        found = [replace(each, part=_part(each, own, frame)) for each in found]
    first_tables, last_tables = list[Table](), list[Table]()
    if not other:  # no claim of the paper is about other images
        first_tables.append(claims.table(found, asked.scale, rules))
        last_tables.append(claims.changes(text["changes"]))
    groups = frames.datasets(asked, frame)
    every = datasets(groups, study.metrics(), bool(study.base))
    if study.base and every:  # a grid is about its configurations
        tables = [*every, *(each for each in tables if each.name != "settings")]
        every = []
    others = [each for each in groups if FOLDER in each[2]["data"].iloc[0] and each[0] != name]
    if others and not (asked.results / asked.study.name / f"{asked.scale}.parquet").is_file():
        kept = cache(partial(frames.samples, asked))
        for i, (whose, apart, rows) in enumerate(others):
            draw = partial(panels_over_lambda, rows, kept, "samples")
            title = ", ".join([TEXT["titles"]["others"].format(named=whose), *apart])
            pictures.append(Picture(f"others_{i}", draw, title, TEXT["others_shown"], "images"))
            shown = {*shown, *shown_of(rows)["id"]}
    return Page(
        frame,
        [*pictures, *first_tables, *tables, *every, *last_tables, *comparisons(frame, asked)],
        warnings,
        [*about, *left_out(frame)],
        missing,
        {*shown},
        title=TEXT["foreign"].format(**first(frame), named=name)
        if other and not study.base
        else "",
        intro=intro,
    )


def _part(one: Claim, own: Mapping[str, tuple[str, float]], frame: pd.DataFrame) -> str:
    """Returns on how many of the study's own trainings a claim rests, "" for all that it reads."""
    asked = {id for id, cell in own.items() if cell in one.cells}
    n = len(asked & {*frame["id"]})
    return "" if n == len(asked) else TEXT["rests"].format(n=n, all=len(asked))


def remarks(frame: pd.DataFrame, study: Study[Any]) -> list[str]:
    """What a reader must know of the runs before any number: damage, and images not the paper's."""
    if frame["stand_in"].any():
        return [*damage(frame), TEXT["drawn"]]
    one = first(frame)
    own = [TEXT["own"].format(named=name_of(one))] if frames.foreign(frame, study) else []
    return [*damage(frame), *own]


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
    left = ("kid", *APART)
    compared = {m.columns[0]: m.heading for m in metrics if m.columns[0] not in left}
    statistics, freedom = [], 0
    for column, heading in (compared | {_NATS: "log p(x) ≥, nats"}).items():
        values = partial(_values, column=column)
        if found := Spread.pooled(values(runs).dropna() for runs in theirs.values()):
            shown = _differences if column in PLAIN else _ratios
            statistics.append(Statistic(heading, values, lambda _, found=found: found, shown))
            freedom = max(freedom, found.freedom)
    if not statistics:
        raise UsageError(f"{nothing}: it has one seed only")
    images, others = (set(each["data_sha256"].dropna()) for each in (frame, other))
    if others - images:
        digests = ", ".join(sorted(each[:12] for each in others - images))
        name += f" (whose images are not all ours: {digests})"
    how = TEXT["compared"].format(freedom=freedom)
    if frame[list(SHARES)].notna().any(axis=None):
        how += TEXT["compared_plain"]
    gone = [_divergence(*both) for both in common if any(map(diverged, both))]
    return compare.comparison(mine, theirs, statistics, name, how, heads, gone)


_NATS = "log_likelihood"
PLAIN = (_NATS, *SHARES)
"""Columns that are compared as they are: a share may be 0, which has no logarithm."""


def _values(runs: pd.DataFrame, column: str) -> pd.Series:
    """A score of each run on the scale on which it is compared."""
    values = runs[column].astype(float)
    return values if column in PLAIN else values.clip(lower=LEAST).map(math.log)


def _differences(a: float, b: float, difference: float, tolerance: float) -> list[str]:
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
