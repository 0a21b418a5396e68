"""Contracts of metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.check.contracts.common import (
    Contracts,
    Finding,
    Lines,
    Note,
    findings,
    own_numbers,
    random_states,
)
from bench.scores import metrics
from bench.scores.metrics import Absent, Metric
from bench.studies import STUDIES


class _Metric(NamedTuple):
    metric: Metric
    of_images: bool


def _has_own_columns(of: _Metric) -> Lines:
    table = metrics.IMAGES if of.of_images else metrics.TOY
    taken = {*metrics.columns([each for each in table if each is not of.metric])}
    for study in STUDIES.values():
        taken |= {*study.taken()} if of.metric in study.metrics() else {*()}
    if double := taken & {*of.metric.columns}:
        yield f"fills column {min(double)}, which is another's"
    if not of.metric.explanation:
        yield Note("its function has no docstring, so captions do not explain it")


def _gives_numbers(of: _Metric) -> Lines:
    try:
        values = of.metric.values(metrics.made_up(of.of_images))
    except Absent as absent:
        yield f"asks for {absent}, which {'images' if of.of_images else 'points'} do not have"
        return
    for column, value in values.items():
        if not np.isfinite(value):
            yield f"{column} is {value} of made-up samples: return a finite number"


def _scores_the_same(of: _Metric) -> Lines:
    before = random_states()
    one = of.metric.values(metrics.made_up(of.of_images))
    drawn = [*own_numbers(before, "draw by numpy.random.default_rng(0)")]
    yield from drawn
    other = of.metric.values(metrics.made_up(of.of_images))
    if not drawn and repr(one) != repr(other):
        yield "gives another number for the same outputs: two scores of a model would differ"


def _leaves_outputs(of: _Metric) -> Lines:
    outputs, fresh = metrics.made_up(of.of_images), metrics.made_up(of.of_images)
    of.metric.values(outputs)
    for name, then in vars(fresh).items():
        now = vars(outputs).get(name)
        if isinstance(then, np.ndarray) and not (
            isinstance(now, np.ndarray) and np.array_equal(now, then)
        ):
            yield f"changes outputs.{name}, which later metrics see: work on a copy"


METRIC: Contracts = {
    "gives a finite number for each column": _gives_numbers,
    "has columns of its own": _has_own_columns,
    "scores the same outputs alike": _scores_the_same,
    "leaves outputs as they are": _leaves_outputs,
}
"""What a metric is held to, on made-up outputs."""


def of_metric(metric: Metric, of_images: bool) -> list[Finding]:
    """Returns what contracts find of a metric of `IMAGES`, or else of `TOY`."""
    return findings(METRIC, {"": _Metric(metric, of_images)})
