"""The tables that all image studies share, and what they are made of. Imports no torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from bench.render import intervals
from bench.render.figures import ORDER, rank
from bench.render.front import labels_of
from bench.render.tables import Column, Table, lam, number, p_value, partly, spread, tabulate
from bench.render.text import texts
from bench.scores.metrics import IMAGES, Metric
from bench.studies.images.claims import ERROR, anchors
from bench.studies.images.runs import cells, diverged, gone

TEXT = texts("bench.studies.images")
CLASSIFIERS = {
    "inception_score": ("inception_score_1", "inception_score_2"),
    "frechet": ("frechet_1", "frechet_2"),
}
"""Columns of the same scores by the suite's other classifiers."""
APART = ("mse_x_batch", *chain.from_iterable(CLASSIFIERS.values()))
"""Columns of metrics that have tables of their own."""
KNOWN = ("inception_score", "frechet", "swd", "mse_x", "inception_score_imagenet", "fid", "kid")
"""Columns of metrics that captions explain by themselves."""

Row = tuple[dict[str, Any], pd.DataFrame]
"""What a row of a table is told of: what is known by name, and our runs, maybe none."""
Cell = tuple[Column, Callable[[Row], str]]
Cells = list[Cell]

Group = tuple[Column | str, Callable[[pd.DataFrame], str]]
"""A column of a table whose rows are groups of runs."""


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


def with_anchors(rows: Sequence[Row], frame: pd.DataFrame) -> list[Row]:
    """The rows, and below them what images score that no model made, by scores that a run has."""
    kinds: dict[str, dict[str, float]] = {}
    for name, value in anchors(frame).items():
        kind, _, column = name.partition(": ")
        if column in frame and frame[column].notna().any():
            kinds.setdefault(kind, {})[column] = value
    names, none = TEXT["anchors"], frame.iloc[:0]
    order = [*filter(kinds.get, names), *(kinds.keys() - names.keys())]
    known = ({"label": names.get(kind, kind), "note": "", "anchors": kinds[kind]} for kind in order)
    return [*rows, *((each, none) for each in known)]


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


CONVERGED = 3.0
"""A log p(x) whose BDMC gap is larger, in nats, is printed as not converged."""


def likelihood(runs: pd.DataFrame, mark: str = "") -> str:
    """Mean and sd of log p(x) over seeds, and whether it is not converged.

    The `mark` stands at the likelihood of a decoder that was trained as a Gaussian.
    """
    found = spread(runs["log_likelihood"], 2)
    if mark and runs["method"].iloc[0] == "svae_r_density" and found != "–":
        found += f" {mark}"
    converged = found == "–" or float(runs["bdmc_gap"].mean()) <= CONVERGED
    return found if converged else f"not converged ({found})"


def spreads(metric: Metric) -> tuple[str, Callable[[pd.DataFrame], str]]:
    """A metric's heading, and its mean and sd over the seeds of a group of runs."""
    return metric.heading, lambda runs: partly(runs, metric, spread)


def scored(metrics: Sequence[Metric], names: Iterable[str]) -> Cells:
    """Columns of those scores that the study has: headings, and spreads over our seeds."""

    def cell(metric: Metric) -> Cell:
        heading, of_runs = spreads(metric)

        def shown(row: Row) -> str:
            known, runs = row
            if len(runs):
                return of_runs(runs)
            value = known.get("anchors", {}).get(metric.columns[0], math.nan)
            return "" if math.isnan(value) else number(value, metric.digits)

        return Column(heading), shown

    found = {each.columns[0]: cell(each) for each in metrics}
    return [found[name] for name in names if name in found]


def _count(row: Row) -> str:
    known, runs = row
    return str(len(runs)) if len(runs) else "" if "anchors" in known else "not run"


METHOD = [told("method", "{label}", text=True), told("λ", "{lam:g}")]
NUMBERS: Cells = [(Column("n"), _count)]
NUMBERS += [ours("diverged", lambda runs: str(diverged(runs)))]


NAMED: list[Group] = [
    (Column("method", text=True), lambda runs: str(runs["label"].iloc[0])),
    ("λ", lambda runs: _lam(runs)),
]
SCORED: list[Group] = [
    spreads(each) for each in IMAGES if each.columns[0] in ("inception_score", "frechet", ERROR)
]
COUNTED: list[Group] = [
    ("n", lambda runs: str(len(runs))),
    ("diverged", lambda runs: str(diverged(runs))),
]


def through(
    columns: Iterable[Group], runs: Callable[[Any], pd.DataFrame]
) -> list[tuple[Column | str, Callable[[Any], str]]]:
    """Columns of groups for a table of other rows; `runs` finds the group of a row."""

    def of_row(cell: Callable[[pd.DataFrame], str]) -> Callable[[Any], str]:
        return lambda row: cell(runs(row))

    return [(heading, of_row(cell)) for heading, cell in columns]


# Tables


def batch_norm(frame: pd.DataFrame) -> list[Table]:
    """The error of reconstructions by both statistics of batch norm, if any run has both."""
    if "mse_x_batch" not in frame or frame["mse_x_batch"].isna().all():
        return []
    runs = frame[frame["mse_x_batch"].notna()]
    columns: Cells = [
        *METHOD,
        ours("MSE of x, frozen", lambda runs: spread(runs["mse_x"])),
        ours("MSE of x, of the batch", lambda runs: spread(runs["mse_x_batch"])),
        ours("batch / frozen", lambda runs: spread(runs["mse_x_batch"] / runs["mse_x"], 2)),
        (Column("n"), _count),
    ]
    title, caption = TEXT["titles"]["batch_norm"], TEXT["batch_norm"]
    return [tabulate("batch_norm", title, caption, columns, beside(pd.DataFrame(), runs))]


def rankings(frame: pd.DataFrame) -> list[Table]:
    """Scores of each method by all classifiers of the suite, with ranks, if there are several."""
    known = [names for names in CLASSIFIERS.items() if {*names[1]} <= {*frame.columns}]
    shown = {
        name: [name, *(other for other in others if frame[other].notna().any())]
        for name, others in known
    }
    if not any(len(columns) > 1 for columns in shown.values()):
        return []
    groups = list(cells(frame[frame["inception_score"].notna()]).values())
    columns = through(NAMED, groups.__getitem__)

    def score(column: str) -> Callable[[int], str]:
        return lambda i: spread(groups[i][column], 2)

    def places(ranks: np.ndarray) -> Callable[[int], str]:
        return lambda i: ", ".join(f"{place:.0f}" for place in ranks[i])

    agree = []
    for name, each in shown.items():
        heading, sign = TEXT["classifiers"][name], -1 if name == "inception_score" else 1
        columns += [(f"{heading}, classifier {i}", score(column)) for i, column in enumerate(each)]
        means = pd.DataFrame([[runs[c].astype(float).mean() for c in each] for runs in groups])
        tau = float(means.corr("kendall").to_numpy().min())
        agree.append(f"{number(tau, 2)} by {heading}")
        ranks = (sign * means).rank(method="min").to_numpy()
        columns.append((f"ranks by {heading}", places(ranks)))
    caption = TEXT["rankings"].format(taus=" and ".join(agree))
    return [tabulate("rankings", TEXT["titles"]["rankings"], caption, columns, range(len(groups)))]


def pairs(frame: pd.DataFrame, metrics: Sequence[Metric], baseline: str) -> list[Table]:
    """Each method and lambda against the `baseline`, paired by seed, if the user names one.

    Lambdas of a pair are equal, unless one of its methods has a single lambda.
    """
    if not baseline:
        return []
    if "bdmc_gap" in frame:
        loose = frame["bdmc_gap"] > CONVERGED
        frame = frame.assign(log_likelihood=frame["log_likelihood"].mask(loose))
    names = {m.columns[0]: (m.heading, m.digits) for m in metrics if m.columns[0] not in APART}
    names |= {"log_likelihood": ("log p(x) ≥, nats", 2)}
    names = {name: names[name] for name in names if name in frame and frame[name].notna().any()}
    theirs, lams = frame[frame["method"] == baseline], frame.groupby("method")["lam"].nunique()
    rows = [
        (runs, others, _differences(runs, others, names))
        for (method, value), runs in cells(frame[frame["method"] != baseline]).items()
        for (_, other), others in cells(theirs).items()
        if value == other or 1 in (lams[method], lams[baseline])
    ]

    def score(column: str, digits: int) -> Callable[[Any], str]:
        def cell(row: Any) -> str:
            found = row[2][column].dropna().to_numpy()
            return format(intervals.student(found), f"+.{digits}f") if len(found) else "–"

        return cell

    def p(column: str) -> Callable[[Any], str]:
        return lambda row: p_value(intervals.t_test(row[2][column].dropna().to_numpy()))

    label = labels_of(frame, baseline)
    columns = [*through(NAMED, lambda row: row[0]), (f"λ of {label}", lambda row: _lam(row[1]))]
    for column, (heading, digits) in names.items():
        columns += [(heading, score(column, digits)), (f"p of {heading}", p(column))]
    columns.append(("pairs", lambda row: str(int((~row[2]["lost"]).sum()))))
    columns.append(("with a diverged run", lambda row: str(int(row[2]["lost"].sum()))))
    title, caption = (
        words.format(labels=label) for words in (TEXT["titles"]["pairs"], TEXT["pairs"])
    )
    caption += TEXT["pathless"] if lams[baseline] == 1 else ""
    return [tabulate("pairs", title, caption, columns, rows, hide_empty=True)]


def _differences(a: pd.DataFrame, b: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """These columns of a minus those of b, a row a seed that both have.

    The column `lost` says whether either run diverged.
    """
    x, y = (each.assign(lost=gone(each)).set_index(["config", "seed"]) for each in (a, b))
    both = x.index.intersection(y.index)
    x, y = (each.loc[both, [*names, "lost"]].astype(float) for each in (x, y))
    return (x - y).assign(lost=(x["lost"] + y["lost"]) > 0)


def _lam(runs: pd.DataFrame) -> str:
    return lam(float(runs["lam"].iloc[0]))


def settings(groups: Sequence[tuple[Mapping[str, Any], pd.DataFrame]]) -> list[Table]:
    """Scores at other settings than the study's own, if there are any; `groups` of `elsewhere`."""
    rows = [(words(apart), runs) for apart, rows in groups for runs in cells(rows).values()]
    if not rows:
        return []
    named = (Column("settings", text=True), lambda row: row[0])
    columns = [named, *through([*NAMED, *SCORED, *COUNTED], lambda row: row[1])]
    title, caption = TEXT["titles"]["settings"], TEXT["settings"]
    return [tabulate("settings", title, caption, columns, rows, hide_empty=True)]


def datasets(
    groups: Sequence[tuple[str, Sequence[str], pd.DataFrame]],
    metrics: Sequence[Metric],
    grid: bool = False,
) -> list[Table]:
    """Scores of every data set of the results, if there are several; `groups` of `datasets`.

    Of a `grid` they are those of its configurations.
    """
    rows = [(name, apart, runs) for name, apart, some in groups for runs in cells(some).values()]
    if not rows:
        return []
    shown = [each for each in metrics if each.columns[0] not in APART]
    columns = [
        (Column("images", text=True), lambda row: row[0]),
        (Column("settings", text=True), lambda row: ", ".join(row[1])),
        *through(
            [
                *NAMED,
                ("log p(x) ≥, nats", likelihood),
                *map(spreads, shown),
                *COUNTED,
            ],
            lambda row: row[2],
        ),
    ]
    name = "grid" if grid else "data_sets"
    title, caption = TEXT["titles"][name], TEXT[name]
    return [tabulate(name, title, caption, columns, rows, hide_empty=True)]


def words(apart: Mapping[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{name} {value}" for name, value in apart.items())
