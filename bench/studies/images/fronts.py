"""Generation against reconstruction: the path of each method of images over lambda."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from bench.render import front
from bench.render.front import Published
from bench.render.intervals import Estimate
from bench.render.tables import Table
from bench.render.text import texts
from bench.studies.images import claims
from bench.studies.images.claims import MEAN, SWEPT, TARGETS, Score, anchor

TEXT = texts("bench.studies.images")
ERROR = "mse_x"


def scores(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Score]]:
    """The runs with the inception score that is judged, and the scores that there are of them."""
    scored, inception, _ = claims.inception(frame)
    both = [(scored, inception), (frame, claims.distance(frame))]
    found = [score for runs, score in both if score.column in runs and runs[score.column].any()]
    return (scored if inception in found else frame), found


def targets(frame: pd.DataFrame) -> dict[str, float]:
    """The errors at which methods are compared, by name; none without the mean image's."""
    error = anchor(frame, MEAN, ERROR)
    if math.isnan(error):
        return {}
    return {f"{name} of the mean image's": part * error for name, part in TARGETS.items()}


def draw(frame: pd.DataFrame, published: Published | None = None) -> Figure:
    """Each score against the error, with lambda as the path of each method."""
    runs, found = scores(frame)
    noise = {s.column: {TEXT["noise"]: s.noise} for s in found if not math.isnan(s.noise)}
    headings = {s.column: TEXT["axes"][s.column] for s in found}
    where = targets(frame)
    return front.front(runs, headings, ERROR, where, TEXT["axes"][ERROR], noise, published)


def tables(frame: pd.DataFrame) -> list[Table]:
    """sVAE-r against ALICE's reductions at equal errors, if any run has an error and a score."""
    runs, found = scores(frame)
    runs, where = runs[runs["method"].isin(SWEPT)], targets(frame)
    if not (found and where) or len(front.paths(runs, ERROR)) < 2:
        return []
    each = []
    for score in found:
        estimate = claims.estimator(runs, score, len(found))

        def mean(differences: pd.Series, estimate: claims.Estimator = estimate) -> Estimate:
            return estimate(differences.to_numpy())

        headings, caption = {score.column: TEXT["axes"][score.column]}, TEXT["equal"]
        each.append(front.table(runs, headings, ERROR, where, mean, caption))
    return [replace(each[0], rows=[row for table in each for row in table.rows])]
