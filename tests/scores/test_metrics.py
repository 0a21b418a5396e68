"""Scores with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

from bench.cli import UsageError
from bench.scores import metrics
from bench.scores.metrics import (
    IMAGES,
    TOY,
    Gaussian,
    Metric,
    Outputs,
    check,
    columns,
    frechet_distance,
    inception_score,
    measure,
)
from bench.studies import STUDIES
from bench.studies.toy_grid import data
from bench.studies.toy_grid.data import posterior_logits
from bench.studies.toy_grid.evaluate import toy_metrics
from bench.studies.toy_grid.runs import NOISE_SCORES

RNG = np.random.default_rng(0)


def test_a_perfect_sampler_scores_the_number_of_classes() -> None:
    logits = 1e4 * np.eye(5)[np.arange(1000) % 5]
    assert inception_score(logits, splits=1) == pytest.approx((5, 0))
    assert inception_score(logits, splits=10, seed=3)[0] == pytest.approx(5, abs=0.2)


def test_one_class_and_no_information_score_one() -> None:
    assert inception_score(1e4 * np.eye(5)[np.zeros(100, int)], splits=1)[0] == pytest.approx(1)
    assert inception_score(np.zeros((100, 5)), splits=2)[0] == pytest.approx(1)


def test_two_points_by_hand() -> None:
    """p = (.8, .2) and (.2, .8): marginal (.5, .5), KL = .8 ln 1.6 + .2 ln .4."""
    logits = np.log([[0.8, 0.2], [0.2, 0.8]])
    expected = np.exp(0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert inception_score(logits, splits=1)[0] == pytest.approx(expected, abs=1e-14)


def test_sorted_samples_need_the_shuffle() -> None:
    logits = 1e4 * np.eye(10)[np.repeat(np.arange(10), 100)]
    assert inception_score(logits, splits=10, shuffle=False)[0] == pytest.approx(1)
    assert inception_score(logits, splits=10)[0] > 9


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "splits"), [(1000, 1), (1000, 10), (997, 7)])
def test_equal_to_torch_fidelity(n: int, splits: int, shuffle: bool) -> None:
    logits = np.random.default_rng(n).normal(scale=3, size=(n, 10)).astype(np.float32)
    mean, sd = inception_score(logits, splits, shuffle, seed=2020)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle, 2020)
    assert mean == pytest.approx(theirs["inception_score_mean"], abs=1e-6)
    assert sd == pytest.approx(theirs["inception_score_std"], abs=1e-6)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="splits is 11; allowed: 1 to the number of samples, 10"):
        inception_score(np.zeros((10, 5)), splits=11)
    with pytest.raises(ValueError, match="not finite"):
        inception_score(np.full((10, 5), np.nan), splits=1)


def scored(samples: np.ndarray) -> dict[str, float | int]:
    x = np.zeros((len(samples), 2))
    return toy_metrics(samples, x, x, x, x)


def test_real_data_scores_as_documented() -> None:
    scores = [scored(data.mixture(1024, RNG)) for _ in range(50)]
    score = np.array([s["inception_score"] for s in scores])
    assert score.mean() == pytest.approx(4.990, abs=0.003)
    assert score.std() == pytest.approx(0.006, abs=0.003)
    assert np.mean([s["high_quality"] for s in scores]) == pytest.approx(0.989, abs=0.002)
    assert {s["modes"] for s in scores} == {5}


def test_noise_scores_as_documented() -> None:
    noise = {
        "uniform noise on [-3, 3]²": lambda: RNG.uniform(-3, 3, (1024, 2)),
        "N(0, 4I)": lambda: 2 * RNG.normal(size=(1024, 2)),
    }
    assert noise.keys() == NOISE_SCORES.keys()
    for name, draw in noise.items():
        mean = np.mean([scored(draw())["inception_score"] for _ in range(50)])
        assert mean == pytest.approx(NOISE_SCORES[name], abs=0.015)


def test_modes_and_quality_count_what_they_say() -> None:
    samples = np.concatenate(
        [
            np.tile(data.CENTRES[1] + [0.59, 0.0], (20, 1)),  # covered: 20 within 0.6
            np.tile(data.CENTRES[2], (19, 1)),  # one short
            np.tile(data.CENTRES[3] + [0.61, 0.0], (61, 1)),  # too far to count
        ]
    )
    found = scored(samples)
    assert found["modes"] == 1
    assert found["high_quality"] == pytest.approx(0.39)


def test_mode_coverage_is_the_overlap_with_the_mixture() -> None:
    """Half of the samples at one centre count as a fifth, a tenth at another as a tenth."""
    near = data.CENTRES[[1] * 50 + [2] * 10] + [0.59, 0.0]
    far = data.CENTRES[[3] * 40] + [0.61, 0.0]
    assert scored(np.concatenate([near, far]))["mode_coverage"] == pytest.approx(0.3)
    assert scored(np.repeat(data.CENTRES, 20, axis=0))["mode_coverage"] == pytest.approx(1)
    assert scored(np.repeat(data.CENTRES[:4], 20, axis=0))["mode_coverage"] == pytest.approx(0.8)


def test_mode_coverage_of_real_data_is_as_documented() -> None:
    """A count near a centre is binomial, and what exceeds a fifth is lost."""
    near, n = 1 - np.exp(-9 / 2), 1024
    count = np.arange(n + 1)
    kept = np.minimum(count / n, 1 / 5) @ stats.binom.pmf(count, n, near / 5)
    assert 5 * kept == pytest.approx(0.969, abs=0.0005)
    assert "real data .969" in next(m for m in TOY if "mode_coverage" in m.columns).explanation
    found = [scored(data.mixture(n, RNG))["mode_coverage"] for _ in range(50)]
    assert np.mean(found) == pytest.approx(5 * kept, abs=0.005)
    many = scored(data.mixture(400_000, RNG))["mode_coverage"]
    assert many == pytest.approx(near, abs=0.003) and f"{near:.3f}" == "0.989"


def test_mse_is_over_points_and_coordinates() -> None:
    x = np.zeros((4, 2))
    x_rec = np.array([[2.0, 0.0]] * 4)  # squared errors 4 and 0
    z_rec = np.array([[1.0, 1.0]] * 4)
    found = toy_metrics(data.mixture(100, RNG), x, x_rec, x, z_rec)
    assert (found["mse_x"], found["mse_z"]) == (2.0, 1.0)


def test_collapse_to_the_centre_has_the_mse_that_alis_collapsed_runs_show() -> None:
    """Mean square of a coordinate: 4/5 * 4 + 0.04 = 3.24; PAPER's 3.28 is with its own sample."""
    x = data.mixture(200_000, RNG)
    zero = np.zeros_like(x)
    assert toy_metrics(x[:1024], x, zero, zero, zero)["mse_x"] == pytest.approx(3.24, abs=0.02)


def test_the_classifier_is_the_exact_posterior() -> None:
    x = RNG.normal(scale=2, size=(20, 2))
    density = np.exp(-np.square(x[:, None] - data.CENTRES).sum(-1) / (2 * 0.04))
    logits = posterior_logits(x)
    ratio = np.exp(logits - logits.max(1, keepdims=True))
    assert ratio == pytest.approx(density / density.max(1, keepdims=True), abs=1e-12)


def features(n: int, d: int, rank: int | None = None) -> np.ndarray:
    """Correlated, off-centre and of this rank."""
    rng = np.random.default_rng(n + d)
    return rng.normal(size=(n, rank or d)) @ rng.normal(size=(rank or d, d)) + rng.normal(size=d)


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_distance_between_equal_sets_is_zero_and_of_a_shift_its_square(
    rank: int | None,
) -> None:
    x = features(500, 20, rank)
    shift = np.arange(20) / 10
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x + shift) == pytest.approx(np.square(shift).sum(), abs=1e-10)


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_distance_of_a_scaled_set(rank: int | None) -> None:
    """Covariances A and s^2 A: tr A (1 - s)^2, whatever the rank."""
    x = features(400, 16, rank)
    x = x - x.mean(0)
    spread = np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * spread, rel=1e-12)
    assert frechet_distance(3 * x, x) == pytest.approx(4 * spread, rel=1e-12)


def test_frechet_distance_of_gaussians_by_hand() -> None:
    """Commuting covariances: sum of (sd_a - sd_b)^2; else the 2 x 2 closed form.

    tr (A B)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2) in two dimensions. Orthogonal lines share
    nothing: their distance is the sum of the traces.
    """
    zero = np.zeros(2)
    a, b = Gaussian(zero, np.diag([1.0, 4.0])), Gaussian(np.ones(2), np.diag([9.0, 16.0]))
    assert frechet_distance(a, b) == pytest.approx(2 + 4 + 4, abs=1e-12)
    c = Gaussian(zero, np.array([[2.0, 1.0], [1.0, 3.0]]))
    product = a.covariance @ c.covariance
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(a, c) == pytest.approx(5 + 5 - 2 * cross, abs=1e-12)
    lines = [Gaussian(zero, np.diag(each)) for each in ([1.0, 0.0], [0.0, 2.0])]
    assert frechet_distance(*lines) == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(1000, 64), (40, 64)])
def test_frechet_distance_is_torch_fidelitys(n: int, d: int) -> None:
    x, y = features(n, d), 1.3 * features(n + 1, d) + 0.2
    statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (x, y)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(theirs, rel=1e-6)
    assert frechet_distance(Gaussian.of(x), y) == frechet_distance(x, y)


def test_bad_features_are_refused() -> None:
    good = features(10, 3)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(good, np.full((10, 3), np.inf))
    with pytest.raises(
        ValueError, match=r"features are \(1, 3\); allowed: \(n, d\) with n at least 2"
    ):
        frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="features have 3 and 2 dimensions"):
        frechet_distance(good, good[:, :2])


def spread(outputs: Outputs) -> float:
    """Standard deviation of the samples."""
    return float(outputs.samples.std())


def test_a_metric_is_one_function_and_one_line() -> None:
    mine = [*TOY, Metric(("spread",), spread, "spread of samples")]
    check(mine, [])
    found = measure(mine, Outputs(samples=np.eye(2)))  # what there is nothing for is left out
    assert found == {"spread": 0.5} and columns(mine)["spread"] is float
    assert mine[-1].explanation == "Standard deviation of the samples."


@pytest.mark.parametrize("registry", [TOY, IMAGES])
def test_every_metric_of_the_suite_passes_its_own_check(registry: list[Metric]) -> None:
    check(registry, ["steps"])
    check(registry, ["steps"], imagenet=True)
    assert len(columns(registry)) == sum(len(metric.columns) for metric in registry)


def test_what_needs_imagenets_classifier_is_tried_where_it_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And only there: the import of torch-fidelity costs more than a second."""
    monkeypatch.setattr(metrics, "kernel_distance", lambda *_: pytest.fail("tried"))
    check(IMAGES, [])
    with pytest.raises(pytest.fail.Exception, match="tried"):
        check(IMAGES, [], imagenet=True)
    mine = Metric(("a",), lambda o: o.imagenet_features.mean(), "A")
    with pytest.raises(UsageError, match="asks for imagenet_features, which this study never has"):
        check([*TOY, mine], [])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric(("a",), lambda o: {"b": 1.0}, "A"), "'A'.*returned dict; allowed: 1 number"),
        (Metric(("a",), lambda o: (1.0, 2.0), "A"), "returned float, float; allowed: 1 number"),
        (Metric(("a", "b"), lambda o: 1.0, "A"), "allowed: 2 number.s. for a, b"),
        (Metric(("a",), lambda o: o.samples, "A"), "returned ndarray"),
        (
            Metric(("a",), lambda o: o.sample.mean(), "A"),
            "asks for sample, which this study never has",
        ),
        (Metric(("a",), lambda o: 1 / 0, "A"), "ZeroDivisionError: division by zero"),
        (Metric(("steps",), lambda o: 1.0, "A"), "fills column steps, which is another's"),
        (Metric(("mse_x",), lambda o: 1.0, "A"), "fills column mse_x, which is another's"),
    ],
)
def test_a_metric_that_is_wrong_fails_before_a_training(metric: Metric, message: str) -> None:
    for registry in (TOY, IMAGES):
        with pytest.raises(UsageError, match=message) as caught:
            check([*registry, metric], ["steps"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["id", "precision", "n_samples", "real_score", "commit"])
def test_a_metric_takes_no_column_of_a_row(column: str) -> None:
    """Of its identity, of the spec, of the study's own, of where it came from."""
    study = STUDIES["toy_grid" if column == "n_samples" else "mnist"]
    mine = Metric((column,), lambda outputs: 1.0, "mine")
    with pytest.raises(UsageError, match=f"fills column {column}, which is another's"):
        check([*study.metrics(), mine], study.taken())
    for each in STUDIES.values():
        check(each.metrics(), each.taken())
