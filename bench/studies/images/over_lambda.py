"""What the reports of colour images share: scores, claims and pictures over lambda."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.render.claims import Claim
from bench.render.front import Published, find_baseline
from bench.render.page import Page
from bench.render.tables import Table, extra, tabulate
from bench.scores.metrics import Metric
from bench.studies.images import figures, fronts, report, tables
from bench.studies.images import runs as frames
from bench.studies.images.report import TEXT
from bench.studies.images.runs import (
    Asked,
    elsewhere,
    first,
    gone,
    judged,
    name_of,
    samples,
    unpublished,
)
from bench.studies.images.spec import FOLDER, own_critic
from bench.studies.images.tables import METHOD, NUMBERS, Cell


def build(
    asked: Asked,
    frame: pd.DataFrame,
    found: Sequence[Claim],
    rules: str,
    text: Mapping[str, Any],
    table: Table,
    published: pd.DataFrame | None = None,
    points: Published | None = None,
    private: bool = False,
) -> Page:
    """The page of a study of colour images: its claims, its `table` and the pictures they share.

    The study's `text` explains the `published` boxes, and `points` on the front. Images that are
    `private` are drawn from one's own results only.
    """
    other = unpublished(frame, asked.study)
    if other:  # nothing of the paper stands beside other images
        text, published, points, private = {}, None, None, False
    load, panels = partial(samples, asked), figures.panels_over_lambda
    baseline = find_baseline(frame, asked.study.baseline)
    encoded, here = frame[frame["mse_x"].notna() | gone(frame)], swept(frame)
    drawn: dict[str, Callable[[], Figure]] = {}
    if here:  # else these are Table 2's other methods alone
        drawn["front"] = partial(fronts.draw, frame, points, baseline)
        drawn["figure7"] = partial(figures.boxes, frame, here, published)
    published_file = asked.results / asked.study.name / f"{asked.scale}.parquet"
    if not (private and published_file.is_file()):
        drawn["samples"] = partial(panels, frame, load, "samples")
        if len(encoded):
            drawn["reconstructions"] = partial(panels, encoded, load, "x_rec")
    drawn["curves"] = partial(figures.curves, frame)
    one = first(frame)
    additive = not other and own_critic(one["data"], one["networks"]) == "additive"
    whose = TEXT["judged"].format(judge=judged(frame)[1]) if "inception_score" in here else ""
    return report.page(
        asked,
        frame,
        text,
        found,
        [
            table,
            *fronts.tables(frame, baseline),
            *tables.pairs(frame, asked.study.metrics(), baseline),
            *tables.batch_norm(frame),
            *tables.rankings(frame),
            *tables.settings(elsewhere(asked, frame)),
        ],
        drawn,
        [TEXT["faithful"], *([text["private"]] if private else [])],
        () if private else figures.shown(frame)["id"],
        rules,
        intro=TEXT["additive"] if additive else "",
        judged=whose,
        published=text["published"]["front"] if text else "",
    )


def swept(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs that are compared over lambda, by each score that there is of them."""
    scored = judged(frame)[0]
    runs = {name: scored if name == "inception_score" else frame for name in figures.SCORES}
    here = {name: frames.swept(each) for name, each in runs.items()}
    return {name: each for name, each in here.items() if each[name].notna().any()}


def scores(
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    title: str,
    caption: str = "",
    cited: Sequence[Cell] = (),
    published: pd.DataFrame | None = None,
) -> Table:
    """A row for each method and lambda: what is `cited` of the `published`, every score of ours.

    Columns of nothing are left out. The `caption` follows on how the numbers were made.
    """
    names = [each.columns[0] for each in metrics if each.columns[0] not in tables.APART]
    known = [*tables.KNOWN, *tables.APART]
    caption = " ".join([protocol(frame) + extra(metrics, frame, known)[1], caption])
    rows = tables.beside(pd.DataFrame() if published is None else published, frame)
    rows, cells = tables.with_anchors(rows, frame), tables.scored(metrics, names)
    columns = [*METHOD, *cited, *cells, *NUMBERS]
    return tabulate("scores", title, caption.strip(), columns, rows, hide_empty=True)


def protocol(frame: pd.DataFrame) -> str:
    """How the numbers of this frame were made, from its own columns."""
    one, known = first(frame), frame[frame["fid"].notna()]
    own = FOLDER in one["data"]
    some = TEXT["upto" if own else "some"]
    images = some.format(**one) if one["images"] else "all images"
    if own:
        images += TEXT["folder"].format(named=name_of(one))
    imagenet = TEXT["imagenet"].format(**first(known)) if len(known) else ""
    values = {"whose": TEXT["networks"][one["networks"]], "floor": frame["swd_real"].mean()}
    return report.protocol(frame, TEXT, images=images, imagenet=imagenet, **values)
