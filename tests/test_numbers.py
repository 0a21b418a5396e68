"""Rows that the reported numbers rest on come out again by today's code.

They are equal to the last bit on the processor that made them. On any processor they are within
tolerances from the spread that other roundings have, which tests/fixtures/numbers holds. Three
mistakes show that either comparison rejects what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.data import load as data
from bench.spec import columns
from bench.studies.images import train as images
from bench.studies.images.spec import ImageSpec
from bench.studies.toy_grid import train as toy
from bench.studies.toy_grid.evaluate import Evaluation
from models import methods
from models.objectives import OBJECTIVES
from tests import numbers
from tests.numbers import DIGITS, Row, beyond, committed, early, made_here, unequal
from tests.rows import OWN_METHODS

STUDIES = pytest.mark.parametrize("study", ["toy_grid", "mnist"])
POINTS = {"toy_grid": 2, "mnist": 18}
"""Points of the traces that a mistaken training reaches: epochs 0 and 6, steps 1 to 18."""


@pytest.fixture(scope="module", autouse=True)
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVAE_BENCH_DATA", str(tmp_path_factory.mktemp("cache")))
        numbers.known_digits(patch)
        yield


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """The rows of both studies, at full length."""
    folder = tmp_path_factory.mktemp("results")
    return {study: numbers.retrained(study, folder) for study in ("toy_grid", "mnist")}


def shown(found: list[str]) -> str:
    """The first lines, and how many there are."""
    return "\n".join([f"{len(found)} numbers differ:", *found[:12]])


@STUDIES
def test_rows_come_out_to_the_last_bit(
    study: str, retrained: dict[str, list[Row]], tmp_path: Path
) -> None:
    """The toy rows are those of smoke. Quick's were made before products were compiled."""
    toy_rows = study == "toy_grid"
    stored = numbers.smoke(report.REFERENCE) if toy_rows else committed(study)
    if not all(map(made_here, stored)):
        pytest.skip("another processor, or another version of torch or numpy, made the rows")
    ours = numbers.smoke(tmp_path) if toy_rows else retrained[study]
    found = unequal(ours, stored)
    assert not found, shown(found)


@STUDIES
def test_rows_come_out_within_the_spread(study: str, retrained: dict[str, list[Row]]) -> None:
    found = beyond(study, retrained[study], committed(study))
    assert not found, shown(found)


def test_the_rows_cover_what_the_readme_compares() -> None:
    cells = [(row["label"], row["lam"]) for row in committed("toy_grid")]
    names = {("sVAE", 0.0), ("ALI", 0.0)}
    names |= {(label, lam) for label in ("sVAE-r", "ALICE") for lam in (0.01, 0.1)}
    assert set(cells) == names and all(cells.count(name) == 8 for name in names)
    (row,) = committed("mnist")
    assert row["inception_score"] and row["classifier"] and row["log_likelihood"]


@STUDIES
def test_every_tolerance_is_a_bound(study: str) -> None:
    assert all(map(math.isfinite, numbers.spread(study).values()))


class _Enough(Exception):
    """The traces are long enough."""


def begun(study: str) -> list[Row]:
    """The beginnings of the traces of all rows, by today's code."""
    return _digits_begun() if study == "mnist" else _points_begun()


def _points_begun() -> list[Row]:
    found = []
    for cycle in (False, True):
        trainer = toy.Trainer([spec for spec in numbers.toy_specs() if (spec.lam > 0) == cycle])
        evaluation, traces = Evaluation(trainer), {}

        def after_epoch(epoch: int, evaluation: Evaluation = evaluation, traces=traces) -> None:
            if epoch in (0, 6):
                traces[epoch] = evaluation.decoder_gradient()
            if epoch == 6:
                raise _Enough

        with pytest.raises(_Enough):
            trainer.train(after_epoch)
        for i, spec in enumerate(trainer.specs):
            gradient = {
                method: [trace[method][i] for trace in traces.values()] for method in traces[0]
            }
            names = {"label": methods.label(spec.method, spec.lam), "lam": spec.lam, "id": spec.id}
            found.append({**names, "trace_epoch": list(traces), "decoder_gradient": gradient})
    return found


def _digits_begun() -> list[Row]:
    (row,) = committed("mnist")
    spec = ImageSpec(**{name: row[name] for name in columns(ImageSpec)})
    trainer = images.Trainer(spec, data.load("digits", DIGITS).train)
    trainer.nets.train()
    losses = [tuple(float(loss) for loss in trainer.advance()) for _ in range(POINTS["mnist"])]
    critic, model = (list(each) for each in zip(*losses, strict=True))
    steps = list(range(1, len(losses) + 1))
    traces = {"trace_step": steps, "critic_loss": critic, "model_loss": model}
    return [{name: row[name] for name in ("id", "label", "lam")} | traces]


@pytest.fixture(scope="module")
def right() -> dict[str, list[Row]]:
    """The beginnings of the traces by today's code without a mistake."""
    return {study: begun(study) for study in ("toy_grid", "mnist")}


def beginnings(study: str) -> list[Row]:
    return [early(row, POINTS[study]) for row in committed(study)]


@STUDIES
def test_another_rounding_is_within_the_spread_and_not_equal(
    study: str, right: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First weights that differ by one bit, of a seed that the spread was not measured with."""
    numbers.nudge(monkeypatch, 99)
    ours, stored = begun(study), beginnings(study)
    assert unequal(ours, right[study])
    found = beyond(study, ours, stored)
    assert not found, shown(found)


def flip(patch: pytest.MonkeyPatch) -> None:
    """Turns the sign of `symmetric_kl`."""
    right = OBJECTIVES["svae_r"]
    wrong = replace(right, model=lambda f_q, f_p: -right.model(f_q, f_p))
    patch.setitem(OBJECTIVES, "svae_r", wrong)


def tenfold(patch: pytest.MonkeyPatch) -> None:
    """Takes ten times lambda."""
    for module in (toy, methods):
        right = module.regularised
        patch.setattr(
            module, "regularised", lambda loss, lam, error, f=right: f(loss, 10 * lam, error)
        )


def slow(patch: pytest.MonkeyPatch) -> None:
    """Gives Adam a beta1 of 0.9."""
    patch.setattr(toy, "BETAS", (0.9, 0.999))
    wrong = replace(methods.METHODS["svae_r"], betas=(0.9, 0.999))
    patch.setitem(OWN_METHODS, "svae_r", wrong)


TOY = {"sVAE at lambda 0", "ALI at lambda 0", "sVAE-r at lambda 0.01", "sVAE-r at lambda 0.1"}
TOY |= {"ALICE at lambda 0.01", "ALICE at lambda 0.1"}


@STUDIES
@pytest.mark.parametrize("mistake", [flip, tenfold, slow])
def test_both_comparisons_notice_a_mistake(
    study: str, mistake, right: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every method and lambda that the mistake reaches, and in no other."""
    mistake(monkeypatch)
    ours, stored = begun(study), beginnings(study)
    found = beyond(study, ours, stored)
    reached = {cell for cell in TOY if mistake is not flip or "sVAE" in cell}
    reached = {cell for cell in reached if mistake is not tenfold or "0." in cell}
    if study == "mnist":
        reached = {"sVAE-r at lambda 0.1"}
    assert {line.partition(":")[0] for line in found} == reached, shown(found)
    differ = unequal(ours, right[study])
    assert all(any(f"({cell})" in line for line in differ) for cell in reached)
