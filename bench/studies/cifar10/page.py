"""What is said of CIFAR-10 and CelebA: tables, figures and notes. Imports no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from bench.render import claims
from bench.render.figures import Picture
from bench.render.page import Page
from bench.studies.cifar10 import figures, tables
from bench.studies.cifar10.claims import photo_claims
from bench.studies.images import frames
from bench.studies.images.figures import LOSSES, curves, shown
from bench.studies.mnist.report import comparisons, remarks
from bench.studies.study import Study

FAITHFUL = (
    "Unless said otherwise, networks, noise inputs, uniform prior, absolute errors and Adam are "
    "those of the authors' published code; where it differs from the paper, and where this suite "
    "differs from it, is listed in the README."
)
RULES = (
    "Rules were fixed in code before the study was run, but for these. That the rival gets worse "
    "by more than svae_r, in claims 3 and 4, was added when results of one seed, which decide "
    "nothing, were known; that no training of svae_r diverges, the spread of methods of one seed "
    "in claim 5 (it had been that of their samples alone) and the whole of 4c when those of three "
    "were."
)
ROWS = "First seed. Methods at one λ alone stand below, side by side."
BOXES = (
    "Paper (grey): the boxes of its Figure 7, read off, of ALICE's MSE the medians; its inception "
    "scores are of ImageNet's classifier."
)
PEOPLE = (
    "CelebA shows real people: its terms allow no further copying, so images are drawn from your "
    "own results only and none is published."
)


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if there is nothing in `other` to compare with.
    """
    frame = frames.runs(study, results, scale)
    private = study.name == "celeba" and not frame["stand_in"].all()
    cifar10 = study.name == "cifar10"
    contents = [claims.table(photo_claims(frame, study.name), scale, RULES), tables.summary(frame)]
    if cifar10:
        contents += [tables.table2(frame), tables.figure7(frame)]
    contents += comparisons(frame, study, scale, results, other)

    swept = figures.swept(frame)
    boxes = "Boxes over seeds, a line where there is one. Dotted: of training images. "
    if "inception_score" in swept:
        boxes += f"Our inception scores: {frames.judged(frame)[1]}. "

    def samples() -> pd.DataFrame:
        return study.store(results, scale).load_samples().to_pandas()

    hidden = private and (results / study.name / f"{scale}.parquet").is_file()  # once published
    encoded = frame[frame["mse_x"].notna() | (frame["status"] == "diverged")]
    pictures = []
    if swept:  # not of Table 2's other methods alone
        pictures.append(
            Picture(
                "figure7",
                partial(figures.figure7, frame, cifar10),
                "Figure 7: generation and reconstruction over λ" if cifar10 else "Scores over λ",
                boxes + (f"{BOXES} {tables.TICKS}" if cifar10 else ""),
            )
        )
    if not hidden:
        pictures.append(
            Picture(
                "samples",
                lambda: figures.panels_over_lambda(frame, samples(), "samples"),
                f"Samples over λ ({'after Figure 8' if cifar10 else 'Figure 5'})",
                f"36 samples from the prior, the first drawn. {ROWS}",
            )
        )
    if not hidden and len(encoded):
        pictures.append(
            Picture(
                "reconstructions",
                lambda: figures.panels_over_lambda(encoded, samples(), "x_rec"),
                f"Reconstructions over λ ({'after Figure 8' if cifar10 else 'Figure 6'})",
                f"Rows of real test images, each above its reconstructions. {ROWS}",
            )
        )
    about_losses = f"{LOSSES} The model's contains λ times the errors of reconstruction."
    pictures.append(Picture("curves", partial(curves, frame), "Losses over training", about_losses))
    return Page(
        frame=frame,
        tables={each.name: each for each in contents},
        pictures=pictures,
        notes=remarks(frame, FAITHFUL, *([PEOPLE] if private else [])),
        missing=frames.missing(frame, study, scale),
        shown=set() if private else set(shown(frame)["id"]),
    )
