"""What is said of the MNIST study: its tables, figures and notes. Imports no torch."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from bench.cli import UsageError
from bench.render import claims
from bench.render.figures import Picture
from bench.render.page import Page, damage
from bench.render.tables import Table, summary
from bench.studies.images import against, figures, frames, tables
from bench.studies.images.claims import mnist_claims
from bench.studies.study import Study

DEVIATIONS = (
    "All methods share the encoder and decoder trunk of the paper's supplement, Adam, batches, "
    "noise and the number of the model's updates; heads and critics are what each method's own "
    "paper requires, see the list of deviations in the README."
)
RULES = (
    "Rules were fixed in code before the study was run, but for their intervals: those of 2b (by "
    "the error over images) and of 2c and 2d (Student's t over seeds, and a spread for methods of "
    "one seed) were widened once results were known."
)


def remarks(frame: pd.DataFrame, *about: str) -> list[str]:
    """Notes on the runs of any study of images, and what there is to say `about` this one."""
    notes = damage(frame)
    if frame["stand_in"].any():
        notes.append("The images are drawn stand-ins: no number here is about the paper.")
    notes += about
    if others := frame.attrs["others"]:
        notes.append(f"{others} trainings at other settings stand in no table but of precisions.")
    for precision, n in frame.attrs["precisions"].items():
        notes.append(
            f"{n} trainings in {precision} stand in a table of their own, where the others have "
            "two seeds, and in no other."
        )
    return notes


def comparisons(
    frame: pd.DataFrame, study: Study, scale: str, results: Path, other: Path | None
) -> list[Table]:
    """These runs beside those in `other`, and at any settings precisions beside the first.

    Raises UsageError if there is nothing in `other` to compare with.
    """
    found = []
    for first, *rounded in frames.at_precisions(study, results, scale):
        for runs in rounded:
            heads = frames.precision(runs), frames.precision(first)
            apart = runs.attrs["apart"]
            with contextlib.suppress(UsageError):  # nothing in common
                table = against.table(runs, first, f"trainings in {heads[1]}", heads)
                name = re.sub(r"[^\w.]+", "-", "-".join([heads[0], *apart]))
                title = ", ".join([" beside ".join(heads), *apart])
                found.append(replace(table, name=name, title=title))
    if other is not None:
        theirs = frames.runs(study, other, scale, like=frame)
        found.append(against.table(frame, theirs, str(other)))
    return found


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if there is nothing in `other` to compare with.
    """
    frame = frames.runs(study, results, scale)
    main = frames.headline(frame, study, scale)
    table = tables.table1(main)
    contents = [
        claims.table(mnist_claims(frame), scale, RULES),
        summary(table, without=("s.e. over images",)),
        table,
        tables.sweep(frame),
        *comparisons(frame, study, scale, results, other),
    ]

    def figure4() -> figures.Figure:
        samples = study.store(results, scale).load_samples().to_pandas()
        return figures.figure4(main, samples)

    pictures = [
        Picture(
            "figure4",
            figure4,
            "Figure 4: samples and reconstructions of every method",
            "Left of each panel: 32 samples from the prior, the first drawn. Right, where there "
            "is an encoder: rows of real test images, each above its reconstructions. First seed.",
        ),
        Picture(
            "sweep",
            partial(figures.sweep, frame),
            "Inception score and MSE over λ",
            "Dots are trainings, lines means over seeds. Grey: ALICE's authors' own sweep, whose "
            "classifier, networks and units of λ are others.",
        ),
        Picture(
            "curves",
            partial(figures.curves, main),
            "Losses over training",
            f"{figures.LOSSES} The losses of different methods measure different things.",
        ),
    ]
    return Page(
        frame=frame,
        tables={each.name: each for each in contents},
        pictures=pictures,
        notes=remarks(frame, DEVIATIONS),
        missing=frames.missing(frame, study, scale),
        shown=set(figures.shown(main)["id"]),
    )
