"""What the reports of colour images share: scores, claims and pictures over lambda."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.render.claims import VERDICTS, Claim, claim
from bench.render.intervals import Estimate, student
from bench.render.page import Page
from bench.render.tables import Table, extra, tabulate
from bench.scores.metrics import Metric
from bench.studies.images import figures, report
from bench.studies.images.report import METHOD, NUMBERS, TEXT
from bench.studies.images.runs import SWEPT, Asked, diverged, first, gone, judged, samples

HIGH = 10.0
"""The lambda at which generation is compared with that at 0."""
RIVALS = ("alice", "alice_sigmoid")
NAMES = {"svae_r": "sVAE-r", "alice": "ALICE", "alice_sigmoid": "ALICE-sigmoid"}
WORSE = {"swd": 1, "mse_x": 1, "inception_score": -1}
"""Sign of a change for the worse: a distance, an error and a score."""


def build(
    asked: Asked,
    frame: pd.DataFrame,
    found: Sequence[Claim],
    text: Mapping[str, Any],
    table: Table,
    published: pd.DataFrame | None = None,
    private: bool = False,
) -> Page:
    """The page of a study of colour images: its claims, its `table` and the pictures they share.

    The study's `text` explains the `published` boxes. Images that are `private` are drawn from
    one's own results only.
    """
    load, panels = partial(samples, asked), figures.panels_over_lambda
    encoded, here = frame[frame["mse_x"].notna() | gone(frame)], swept(frame)
    drawn: dict[str, Callable[[], Figure]] = {}
    if here:  # else these are Table 2's other methods alone
        drawn["figure7"] = partial(figures.boxes, frame, here, published)
    published_file = asked.results / asked.study.name / f"{asked.scale}.parquet"
    if not (private and published_file.is_file()):
        drawn["samples"] = partial(panels, frame, load, "samples")
        if len(encoded):
            drawn["reconstructions"] = partial(panels, encoded, load, "x_rec")
    drawn["curves"] = partial(figures.curves, frame)
    whose = TEXT["judged"].format(judge=judged(frame)[1]) if "inception_score" in here else ""
    return report.page(
        asked,
        frame,
        text,
        found,
        [table],
        drawn,
        [TEXT["faithful"], *([text["private"]] if private else [])],
        () if private else figures.shown(frame)["id"],
        judged=whose,
    )


def swept(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs that are compared over lambda, by each score that there is of them."""
    scored = judged(frame)[0]
    runs = {name: scored if name == "inception_score" else frame for name in figures.SCORES}
    here = {name: each[each["method"].isin(SWEPT)] for name, each in runs.items()}
    return {name: each for name, each in here.items() if each[name].notna().any()}


def scores(
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    title: str,
    caption: str = "",
    cited: Sequence[report.Cell] = (),
    published: pd.DataFrame | None = None,
) -> Table:
    """A row for each method and lambda: what is `cited` of the `published`, every score of ours.

    Columns of nothing are left out. The `caption` follows on how the numbers were made.
    """
    cells = report.scored(metrics, [each.columns[0] for each in metrics])
    caption = " ".join([protocol(frame) + extra(metrics, frame, report.KNOWN)[1], caption])
    rows = report.beside(pd.DataFrame() if published is None else published, frame)
    columns = [*METHOD, *cited, *cells, *NUMBERS]
    return tabulate("scores", title, caption.strip(), columns, rows, hide_empty=True)


def protocol(frame: pd.DataFrame) -> str:
    """How the numbers of this frame were made, from its own columns."""
    one, known = first(frame), frame[frame["fid"].notna()]
    images = TEXT["some"].format(**one) if one["images"] else "all images"
    if " folder " in one["data"]:
        images += TEXT["folder"].format(**one)
    imagenet = TEXT["imagenet"].format(**first(known)) if len(known) else ""
    values = {"whose": TEXT["networks"][one["networks"]], "floor": frame["swd_real"].mean()}
    return report.protocol(frame, TEXT, images=images, imagenet=imagenet, **values)


# Claims


def trade(frame: pd.DataFrame, id: str, rival: str, column: str, name: str) -> Claim:
    """Whether the rival generates worse at high lambda than at 0, and sVAE-r does not."""
    changes = [_worse(frame, method, column) for method in (rival, "svae_r")]
    verdict, evidence = "no data", f"no scores of both at λ = 0 and {HIGH:g}"
    if all(map(len, changes)):
        theirs, ours, more = map(_seeds, (*changes, changes[0] - changes[1]))
        holds = theirs.low > 0 >= ours.low and more.low > 0 and not diverged(_ends(frame, "svae_r"))
        evidence = f"change (+ is worse): {NAMES[rival]} {theirs:+.2f}, sVAE-r {ours:+.2f}, "
        evidence += f"difference {more:+.2f}"
        verdict = VERDICTS[int(holds) - int(ours.low > 0 or theirs.high < 0)]
    outcome = verdict, evidence + _lost(frame, (rival, "svae_r"))
    cells = [*product((rival, "svae_r"), (0.0, HIGH))]
    values = {"high": HIGH, "name": name, "rival": NAMES[rival], "gone": TEXT["gone"][column]}
    return claim(TEXT["claims"]["trade"], id, outcome, cells, **values)


def reconstruct(frame: pd.DataFrame, id: str, methods: Sequence[str]) -> Claim:
    """Whether every method's error falls."""
    changes = {method: _worse(frame, method, "mse_x") for method in methods}
    verdict, evidence = "no data", f"no errors of all at λ = 0 and {HIGH:g}"
    if all(map(len, changes.values())):
        found = {method: _seeds(change) for method, change in changes.items()}
        fall = all(change.high < 0 for change in found.values())
        rise = any(change.low > 0 for change in found.values())
        each = (f"{NAMES[method]} {change:+.2f}" for method, change in found.items())
        evidence = f"change of the MSE: {', '.join(each)}"
        verdict = VERDICTS[fall - rise]
    outcome = verdict, evidence + _lost(frame, methods)
    cells = [*product(methods, (0.0, HIGH))]
    values = {"high": HIGH, "methods": ", ".join(NAMES[method] for method in methods)}
    return claim(TEXT["claims"]["reconstruct"], id, outcome, cells, **values)


def _seeds(changes: pd.Series) -> Estimate:
    """The mean change over seeds; seeds without a value don't count."""
    return student(changes.dropna().to_numpy())


def _ends(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """The trainings at lambda 0 and at HIGH."""
    return frame[(frame["method"] == method) & frame["lam"].isin((0.0, HIGH))]


def _lost(frame: pd.DataFrame, methods: Sequence[str]) -> str:
    counts = {method: diverged(_ends(frame, method)) for method in methods}
    return "".join(f"; {n} of {NAMES[method]} diverged" for method, n in counts.items() if n)


def _worse(frame: pd.DataFrame, method: str, column: str) -> pd.Series:
    """The change for the worse from lambda 0 to HIGH, by seed; a diverged run scores 1."""
    runs = frame[frame["method"] == method].set_index("seed")
    values = runs[column].astype(float)
    if column == "inception_score":
        values = values.mask(gone(runs), 1.0)
    before, after = (values[runs["lam"] == lam] for lam in (0.0, HIGH))
    return WORSE[column] * (after - before).dropna()
