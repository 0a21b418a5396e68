"""What is said of CelebA: claim 3 by the sliced Wasserstein distance. Imports no torch."""

from __future__ import annotations

import pandas as pd

from bench.render.claims import Claim
from bench.render.page import Page
from bench.render.text import texts
from bench.studies.images import over_lambda
from bench.studies.images.claims import distance, retention, rules
from bench.studies.images.runs import Asked, runs

TESTS = 2
"""Intervals of the claim that share one level: R of both methods."""


def build(asked: Asked) -> Page:
    """The page of what is stored, see `Study.report`."""
    frame = runs(asked.study, asked.results, asked.scale)
    private = not frame["stand_in"].all()
    found, text = celeba_claims(frame), texts("bench.studies.celeba")
    table = over_lambda.scores(frame, asked.study.metrics(), "Scores")
    return over_lambda.build(asked, frame, found, rules(TESTS), text, table, private=private)


def celeba_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claim 3 by the distance."""
    return [retention(frame, "3c", "alice", distance(frame), TESTS)]
