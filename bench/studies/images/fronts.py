"""Generation against reconstruction: the path of each method of images over lambda."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from bench.render import front
from bench.render.front import Equal, Published
from bench.render.intervals import Estimate, student
from bench.render.tables import Table
from bench.render.text import texts
from bench.studies.images import claims
from bench.studies.images.claims import ERROR, Score, equals, targets

TEXT = texts("bench.studies.images")


def scored(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Score]]:
    """The runs with the inception score that is judged, and the scores that there are of them."""
    scored, inception, _ = claims.inception(frame)
    both = [(scored, inception), (frame, claims.distance(frame))]
    found = [score for runs, score in both if _known(runs, score.column) >= 0.5]
    return (scored if inception in found else frame), found


def _known(runs: pd.DataFrame, column: str) -> float:
    """Returns the share of runs that have a score: rows may be older than it is."""
    ended = runs[runs["status"] == "ok"]
    return float(ended[column].notna().mean()) if column in runs and len(ended) else 0.0


def draw(frame: pd.DataFrame, published: Published | None = None, baseline: str = "") -> Figure:
    """Each score against the error, with lambda as the path of each method."""
    runs, found = scored(frame)
    noise = {s.column: {TEXT["noise"]: s.noise} for s in found if not math.isnan(s.noise)}
    headings = {s.column: TEXT["axes"][s.column] for s in found}
    if published is not None and published.score not in headings:
        published = None
    where = {TEXT["targets"].format(part=name): e for name, e in targets(frame).items()}
    axes = TEXT["axes"][ERROR]
    return front.front(runs, headings, ERROR, where, axes, noise, published, baseline=baseline)


def tables(frame: pd.DataFrame, baseline: str = "") -> list[Table]:
    """sVAE-r against ALICE's reductions at equal errors, if any run has an error and a score.

    With a `baseline` every other method with a path stands against that one instead.
    """
    found = equals(*scored(frame), baseline)

    def estimate(each: Equal) -> Estimate:
        return student(each.differences.to_numpy(), len(found))

    caption = TEXT["equal"].format(n=len(found)) + ("" if baseline else TEXT["undecided"])
    return [front.table(found, estimate, caption, baseline=baseline)] if found else []
