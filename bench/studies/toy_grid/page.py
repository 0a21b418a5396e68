"""What is said of the toy study: its tables, figures and notes. Imports no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.render import claims
from bench.render.figures import Picture
from bench.render.page import Page, damage
from bench.render.tables import summary
from bench.studies.study import Study
from bench.studies.toy_grid import against, figures, frames, tables
from bench.studies.toy_grid.claims import toy_claims
from bench.studies.toy_grid.study import ToySpec

BASELINES = (
    "The paper treats equations (18) and (19) as one method, ALI. Their gradients differ: where "
    "the critic is sure, (18)'s vanishes and (19)'s does not. Its vanishing-gradient argument is "
    "about (18); the baseline it ran in the toy study is (19), here the method alice, as in "
    "ALICE's published toy code. The option --only method=alice_minimax,alice_sigmoid trains the "
    "other two."
)


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if nothing is stored, or nothing can be compared.
    """
    frame = frames.runs(study, results, scale)
    own = frames.own(frame)
    expected = frames.expected(frame, study, scale)
    scores = tables.scores(frame, expected)
    contents = [
        claims.table(toy_claims(own), scale),
        summary(scores, without=("IS sd", "IS median", "MSE median")),
        scores,
        tables.pairs(own),
        tables.gradients(own),
    ]
    if other is not None:
        contents.append(against.table(frame, frames.runs(study, other, scale), other))
    rates = set(frame["lr"])
    notes = [*damage(frame), BASELINES]
    if len(rates) > 1 or own["lr"].iloc[0] != ToySpec.lr:
        notes.append(f"Figures and claims are about learning rate {own['lr'].iloc[0]:g}.")
    if others := frame.attrs["other_precision"]:
        notes.append(f"{others} trainings at another precision of products were left out.")
    cells = frame.groupby(["label", "lam", "lr"]).size()

    def points() -> figures.Figure:
        samples = study.store(results, scale).load_samples().to_pandas()
        return figures.points(own, samples)

    pictures = [
        Picture(name, points if name == "points" else partial(draw, own), title, caption)
        for name, (draw, title, caption) in figures.CAPTIONS.items()
    ]
    return Page(
        frame=frame,
        tables={table.name: table for table in contents},
        pictures=pictures,
        notes=notes,
        missing=sum(max(0, expected - int(n)) for n in cells),
        shown=set(figures.shown(own)["id"]),
    )
