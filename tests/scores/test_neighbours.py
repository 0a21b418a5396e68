"""Precision, recall, density and coverage: known answers, and a plain second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.scores import neighbours
from bench.scores.metrics import Absent, Outputs, coverage, density, precision, recall
from bench.scores.neighbours import MOST, K, compare


def features(seed: int, n: int, d: int = 96, shift: float = 0.0) -> np.ndarray:
    """Far from the origin, as a classifier's features are."""
    return np.random.default_rng(seed).normal(7 + shift, 1, (n, d)).astype(np.float32)


def plainly(real: np.ndarray, generated: np.ndarray) -> tuple[float, ...]:
    """The definitions, one pair at a time."""

    def reach(x: np.ndarray, among: np.ndarray) -> float:
        return sorted(math.dist(x, each) for each in among)[K]

    real_reach = [reach(x, real) for x in real]
    own_reach = [reach(x, generated) for x in generated]
    apart = [[math.dist(x, y) for y in generated] for x in real]
    n, m = range(len(real)), range(len(generated))
    inside = [[apart[i][j] < real_reach[i] for j in m] for i in n]
    return (
        sum(any(inside[i][j] for i in n) for j in m) / len(m),
        sum(any(apart[i][j] < own_reach[j] for j in m) for i in n) / len(n),
        sum(map(sum, inside)) / K / len(m),
        sum(map(any, inside)) / len(n),
    )


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rows", [7, 500])
def test_the_definitions_give_the_same(
    shift: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks that end within the set, and in one block."""
    monkeypatch.setattr(neighbours, "ROWS", rows)
    real, generated = features(0, 60, 3), 0.8 * features(1, 60, 3, shift)
    found = compare(real, generated)
    assert found[:4] == pytest.approx(plainly(real, generated), abs=1e-12)
    assert found.n == 60 and len({*found[:4]}) > 1


def test_a_line_by_hand() -> None:
    """Real points 0 to 9: the balls of 2 to 7 reach 3, of 1 and 8 reach 4, of 0 and 9 reach 5.

    4.5 is in all ten. -4.5 is in that of 0, and so is -3, which is on the border of that of 1. 12.9
    is in that of 9, and 99 in none. The balls of -4.5 and -3 reach up to 4.5, and those of 12.9 and
    99 down to it. Six equal points have balls of no size.
    """
    real = np.arange(10.0)[:, None]
    generated = np.array([-4.5, -3.0, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 12.9, 99.0])[:, None]
    found = compare(real, generated)
    assert found == (0.9, 1.0, (1 + 1 + 6 * 10 + 1) / 5 / 10, 1.0, 10)
    below = compare(real, np.where(generated > 10, -99.0, generated))
    assert below == (0.8, 0.5, (1 + 1 + 6 * 10) / 5 / 10, 1.0, 10)


def test_a_set_and_itself_agree_to_the_last_bit() -> None:
    """Every ball holds its centre and four neighbours; the fifth lies on its border."""
    x = features(0, 1200)
    for copy in (x, x[::-1], np.roll(x, 7, axis=0)):
        assert compare(x, np.array(copy)) == (1, 1, 1, 1, 1200)


def test_a_ball_of_no_size_holds_nothing() -> None:
    """Of seven equal features the fifth neighbour is no distance away, also after rounding."""
    x = np.repeat(features(0, 171), 7, axis=0)
    assert compare(x, x[::-1]) == (0, 0, 0, 0, 1197)


def test_sets_that_are_far_apart_share_nothing() -> None:
    assert compare(features(0, 50), features(1, 50, shift=100.0)) == (0, 0, 0, 0, 50)


def test_fidelity_and_diversity_are_told_apart() -> None:
    """A model of one of two groups has precision and no recall of the other."""
    groups = np.concatenate([features(0, 100, 2), features(1, 100, 2, shift=30.0)])
    narrow = compare(groups, features(2, 200, 2))
    assert narrow.precision > 0.9 and 0.3 < narrow.recall <= 0.5 and 0.3 < narrow.coverage <= 0.5
    wide = compare(features(2, 200, 2), groups)
    assert wide.precision <= 0.5 and wide.recall > 0.9


def test_a_model_that_gives_one_image_covers_nothing_more_than_its_place() -> None:
    x = features(0, 100, 2)
    one = np.repeat(x[:1], 100, axis=0)
    found = compare(x, one)
    assert found.precision == 1 and found.recall == 0  # balls of no size hold nothing
    assert found.coverage <= 0.15


def test_rows_may_stand_in_any_order() -> None:
    real, generated = features(0, 700, 8), features(1, 700, 8, 0.5)
    order = np.random.default_rng(2).permutation(700)
    assert compare(real, generated) == compare(real[order], generated[order[::-1]])


def test_real_and_generated_features_are_equally_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of each, as scores depend on the number."""
    real, generated = features(0, 40, 4), features(1, 60, 4)
    assert compare(real, generated) == compare(real, generated[:40])
    assert compare(generated, real).n == 40 and MOST == 10_000
    monkeypatch.setattr(neighbours, "MOST", 20)
    assert compare(real, generated) == compare(real[:20], generated[:20])


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (features(0, 5), features(1, 9), r"allowed: \(n, d\) twice, with n above 5"),
        (features(0, 9, 3), features(1, 9, 4), r"\(9, 3\) and \(9, 4\)"),
        (features(0, 9).ravel(), features(1, 9).ravel(), "allowed"),
        (features(0, 9), np.full((9, 96), np.nan), "not finite"),
        (np.full((9, 96), np.inf), features(0, 9), "not finite"),
    ],
)
def test_bad_input_gets_one_line(real: np.ndarray, generated: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        compare(real, generated)
    assert "\n" not in str(caught.value)


def test_four_metrics_compare_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(real: np.ndarray, generated: np.ndarray) -> neighbours.Neighbours:
        calls.append(len(real))
        return compare(real, generated)

    monkeypatch.setattr("bench.scores.metrics.compare", counted)
    real, generated = features(0, 30, 2), features(1, 30, 2, 0.5)
    outputs = Outputs(real_features=real, features=generated)
    found = (*precision(outputs), recall(outputs), density(outputs), coverage(outputs))
    scores = compare(real, generated)
    assert found == (scores.precision, 30, scores.recall, scores.density, scores.coverage)
    assert calls == [30]
    assert recall(Outputs(real_features=generated, features=real)) != found[2]
    with pytest.raises(Absent, match="real_features"):
        recall(Outputs(features=real))
