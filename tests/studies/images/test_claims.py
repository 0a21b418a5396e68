"""The rules of claims about images, on made-up runs whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.studies.cifar10 import report as cifar10
from bench.studies.images import claims, fronts
from bench.studies.images.claims import Score, anchor, better, comparable, level, pooled, retention
from bench.studies.images.runs import paper

ANCHORS = {
    "phase-randomised: inception_score": 2.0,
    "phase-randomised: swd": 100.0,
    "mean image: mse_x": 0.4,
}
METHODS = ("svae_r", "alice", "alice_sigmoid")
LAMS = (0.0, 1.0, 10.0, 100.0)

Curve = Callable[[float], tuple[float, float]]
"""From lambda to an inception score and an error."""


def runs(
    curves: Mapping[str, Curve], seeds: int = 3, noise: float = 0.01, **more: Any
) -> pd.DataFrame:
    """Runs on these curves, whose scores and errors vary a little over seeds."""
    rng, found = np.random.default_rng(0), []
    for method, curve in curves.items():
        for lam in LAMS:
            for seed in range(seeds):
                score, error = curve(lam)
                wiggle = 1 + noise * rng.normal()
                found.append(
                    {
                        "method": method,
                        "lam": lam,
                        "seed": seed,
                        "config": "c",
                        "label": method,
                        "status": "ok",
                        "inception_score": score * wiggle,
                        "swd": 100 - 10 * score * wiggle,
                        "mse_x": error * (1 + noise * rng.normal()),
                        "classifier": "cifar10",
                        "inception_score_imagenet": math.nan,
                        "anchors": [*ANCHORS.items()],
                    }
                )
    return pd.DataFrame(found).assign(**more)


def flat(lam: float) -> tuple[float, float]:
    """Keeps its score while the error falls."""
    return 6.0, 0.5 / (1 + lam)


def falling(lam: float) -> tuple[float, float]:
    """Loses its score as the error falls, on a line in the log error."""
    return 6.0 - 0.8 * math.log(1 + lam), 0.5 / (1 + lam)


def verdict(frame: pd.DataFrame, rival: str = "alice", **score: Any) -> str:
    inception = claims.inception(frame)[1]
    return retention(frame, "x", rival, inception, tests=8).verdict


def test_the_papers_own_figures_hold_and_are_named_in_the_rule() -> None:
    boxes = paper("cifar10", "fig7_digitised.csv").set_index("likely_true_lambda")
    found = {}
    for method, stem in (("svae_r", "svaer"), ("alice_sigmoid", "alice")):
        scores = boxes[f"{stem}_IS_med"]
        found[method] = (scores[10] - 1) / (scores[0] - 1)
    assert found["svae_r"] == pytest.approx(0.95, abs=0.005)
    assert found["alice_sigmoid"] == pytest.approx(0.19, abs=0.005)

    def at(stem: str) -> Curve:
        return lambda lam: (float(boxes[f"{stem}_IS_med"].get(lam, 2.0)), 0.1)

    frame = runs({"svae_r": at("svaer"), "alice_sigmoid": at("alice"), "alice": at("svaer")})
    assert verdict(frame, "alice_sigmoid") == "holds"
    assert verdict(frame, "alice") == "fails"  # a rival that keeps generating too


def test_retention_is_decided_by_bounds_of_both() -> None:
    both = {"svae_r": flat, "alice": falling}
    assert verdict(runs(both)) == "holds"
    assert verdict(runs({"svae_r": falling, "alice": falling})) == "fails"
    assert verdict(runs({"svae_r": flat, "alice": flat})) == "fails"
    assert verdict(runs(both, noise=0.3)) == "undecided"
    assert verdict(runs(both, seeds=1)) == "undecided"  # one seed has no bound
    frame = runs(both)
    gone = (frame["method"] == "svae_r") & (frame["lam"] == 10) & (frame["seed"] == 1)
    lost = frame.assign(
        status=frame["status"].mask(gone, "diverged"),
        inception_score=frame["inception_score"].mask(gone),
    )
    assert verdict(lost) == "undecided"  # a diverged run keeps nothing
    inception = claims.inception(lost)[1]
    assert "1 of sVAE-r diverged" in retention(lost, "x", "alice", inception, 8).evidence


def test_a_distance_is_retained_as_a_score_is() -> None:
    frame = runs({"svae_r": flat, "alice": falling})
    scores, distances = claims.inception(frame)[1], claims.distance(frame)
    mine = frame[frame["method"] == "svae_r"]
    assert claims.retained(mine, distances).mean() == pytest.approx(1, abs=0.02)
    theirs = frame[frame["method"] == "alice"]
    expected = (falling(10)[0] - 2) / (6 - 2)
    assert claims.retained(theirs, scores).mean() == pytest.approx(expected, abs=0.02)
    expected = 10 * falling(10)[0] / 60
    assert claims.retained(theirs, distances).mean() == pytest.approx(expected, abs=0.02)
    assert retention(frame, "x", "alice", distances, 8).verdict == "holds"


def test_two_seeds_decide_nothing() -> None:
    both = {"svae_r": flat, "alice": falling}
    frame = runs(both, seeds=2)
    inception = claims.inception(frame)[1]
    found = retention(frame, "x", "alice", inception, 8)
    assert found.verdict == "undecided" and "sVAE 2" in found.evidence
    assert claims.reconstruct(frame, "x", ("svae_r", "alice"), 8).verdict == "undecided"
    assert level(frame, "x", "alice", inception, scores=1).verdict == "undecided"
    # A failure that three seeds show is one, whatever the others have.
    loud = {**ANCHORS, "phase-randomised: inception_score": 6.5}
    mixed = pd.concat([runs({"svae_r": flat}), runs({"alice": falling}, seeds=1)])
    mixed = mixed.reset_index(drop=True)
    mixed = mixed.assign(anchors=pd.Series([[*loud.items()]] * len(mixed)))
    assert verdict(mixed) == "not tested"


def test_a_method_that_no_claim_names_does_not_widen_it() -> None:
    both = {"svae_r": flat, "alice": falling}
    alone, wild = runs(both), runs(both)
    other = runs({"alice_sigmoid": flat}, noise=0.5)
    wild = pd.concat([wild, other], ignore_index=True)
    inception = claims.inception(alone)[1]
    told = [retention(each, "x", "alice", inception, 8).evidence for each in (alone, wild)]
    assert told[0] == told[1]


def test_models_that_noise_beats_test_nothing_and_say_both_numbers() -> None:
    frame = runs({"svae_r": flat, "alice": falling})
    loud = {**ANCHORS, "phase-randomised: inception_score": 6.5}
    frame = frame.assign(anchors=pd.Series([[*loud.items()]] * len(frame)))
    found = retention(frame, "x", "alice", claims.inception(frame)[1], 8)
    assert found.verdict == "not tested"
    assert "6.50" in found.evidence and "sVAE 6.0" in found.evidence
    near = {**ANCHORS, "phase-randomised: inception_score": 5.95}  # within the seeds' error
    spread = runs({"svae_r": flat, "alice": falling}, noise=0.05)
    spread = spread.assign(anchors=pd.Series([[*near.items()]] * len(spread)))
    assert verdict(spread) == "not tested"
    # A distance beats noise where it is smaller.
    distances = claims.distance(frame)
    assert retention(frame, "x", "alice", distances, 8).verdict == "holds"
    far = Score("swd", "distance", 30.0, -1)
    assert retention(frame, "x", "alice", far, 8).verdict == "not tested"


def test_runs_without_anchors_give_no_data() -> None:
    frame = runs({"svae_r": flat, "alice": falling}, anchors=None)
    assert verdict(frame) == "no data"
    assert claims.reconstruct(frame, "x", ("svae_r", "alice"), 8).verdict == "no data"
    assert claims.targets(frame) == {} and fronts.tables(frame) == []
    assert math.isnan(anchor(frame.drop(columns="anchors"), "noise", "swd"))


def test_a_reconstruction_worse_than_half_the_mean_images_tests_nothing() -> None:
    both = ("svae_r", "alice")
    frame = runs(dict.fromkeys(both, flat))
    assert claims.reconstruct(frame, "x", both, 8).verdict == "holds"
    blurred = frame.assign(mse_x=frame["mse_x"] + 0.2)  # still falls, from .7 to .245
    found = claims.reconstruct(blurred, "x", both, 8)
    assert found.verdict == "not tested" and "0.200" in found.evidence
    rising = frame.assign(mse_x=0.01 * (1 + frame["lam"]) * (1 + 0.01 * frame["seed"]))
    assert claims.reconstruct(rising, "x", both, 8).verdict == "fails"
    assert claims.reconstruct(frame[frame["seed"] == 0], "x", both, 8).verdict == "undecided"
    gone = (frame["method"] == "svae_r") & (frame["lam"] == 10) & (frame["seed"] > 0)
    lost = frame.assign(
        status=frame["status"].mask(gone, "diverged"), mse_x=frame["mse_x"].mask(gone)
    )
    found = claims.reconstruct(lost, "x", both, 8)  # runs that diverge reconstruct nothing
    assert found.verdict == "not tested" and "inf" in found.evidence


def one(score: float, seeds: int = 3, noise: float = 0.02) -> pd.DataFrame:
    """Runs of one method at lambda 0."""
    rng = np.random.default_rng(int(100 * score))
    scores = score + noise * rng.normal(size=seeds)
    columns = {"seed": range(seeds), "status": "ok", "inception_score": scores}
    return pd.DataFrame(columns)


SCORE = Score("inception_score", "inception score", 2.0, 1)


def test_better_means_than_every_rival() -> None:
    def said(*rivals: float, noise: float = 0.02) -> str:
        named = {f"rival {score}": one(score, noise=noise) for score in rivals}
        ours = one(8.0, noise=noise)
        seeds = pooled(SCORE.of(each) for each in (ours, *named.values()))
        return better(("ours", ours), named, SCORE, seeds, tests=5)[0]

    assert said(7.0, 7.5) == "holds"
    assert said(7.0, 8.5) == "fails"  # one rival is enough
    assert said(7.0, 8.01) == "undecided"
    assert said(7.0, 7.5, noise=0.5) == "undecided"
    some = {"first": one(7.0, 1), "rival": one(7.0).iloc[:0]}
    assert better(("ours", one(8.0)), some, SCORE, None, 5) == ("no data", "not measured: rival")
    alone = better(("ours", one(8.0, 1)), {"rival": one(7.0, 1)}, SCORE, None, 5)
    assert alone[0] == "undecided"


def test_intervals_of_a_family_cover_together() -> None:
    """Of equal methods one interval in twenty families errs, not one of each in twenty."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        ours, *theirs = (
            pd.DataFrame(
                {"seed": range(3), "status": "ok", "inception_score": rng.normal(8, 0.1, 3)}
            )
            for _ in range(6)
        )
        named = {str(i): each for i, each in enumerate(theirs)}
        seeds = pooled(SCORE.of(each) for each in (ours, *theirs))
        wrong += any(
            better(("ours", ours), {name: each}, SCORE, seeds, 5)[0] != "undecided"
            for name, each in named.items()
        )
    assert 2 <= wrong <= 32  # 5 % of 400 are 20


def test_comparable_is_a_ratio() -> None:
    def said(score: float, noise: float = 0.02) -> str:
        ours, theirs = SCORE.of(one(3.0, noise=noise)), SCORE.of(one(score, noise=noise))
        return comparable(ours, theirs, pooled([ours, theirs], logarithms=True), 12)[0]

    assert said(3.05) == "holds"
    assert said(3.6) == said(2.4) == "fails"
    assert said(3.3) == "undecided"
    # A difference of 0.4 is much at 3 and little at 9.
    nine = SCORE.of(one(9.0)), SCORE.of(one(9.4))
    assert comparable(*nine, pooled(nine, logarithms=True), 12)[0] == "holds"
    assert said(3.4, noise=0.001) == "fails"


def shifted(by: float, lost: float = 0.0) -> Curve:
    """The same front as `falling` at a lambda that weighs `by` times as much, `lost` below it."""

    def curve(lam: float) -> tuple[float, float]:
        score, error = falling(by * lam)
        return score - lost * (lam > 0), error

    return curve


def test_equal_lambda_is_not_equal_strength() -> None:
    """ALICE loses more at each λ, only because λ weighs more: at equal error nothing is found."""
    frame = runs({"svae_r": falling, "alice": shifted(5), "alice_sigmoid": shifted(5, lost=2)})
    inception = claims.inception(frame)[1]
    at_one = frame[frame["lam"] == 1].groupby("method")["inception_score"].mean()
    assert at_one["svae_r"] > at_one["alice"] + 0.8
    found = {
        rival: level(frame, "x", rival, inception, scores=1) for rival in ("alice", "alice_sigmoid")
    }
    assert found["alice"].verdict == "undecided"
    assert found["alice_sigmoid"].verdict == "holds"
    assert found["alice"].whose == "our question"
    (table,) = fronts.tables(frame)
    assert len(table.rows) == 8  # two rivals, two targets, two scores


def test_an_error_that_no_path_reaches_is_not_extrapolated() -> None:
    def never(lam: float) -> tuple[float, float]:
        return 6.0, 0.5

    frame = runs({"svae_r": flat, "alice": never, "alice_sigmoid": falling})
    inception = claims.inception(frame)[1]
    found = level(frame, "x", "alice", inception, scores=1)
    assert found.verdict == "not tested" and "not reached" in found.evidence
    assert level(frame, "x", "alice_sigmoid", inception, scores=1).verdict == "holds"

    def half(lam: float) -> tuple[float, float]:
        score, error = falling(lam)
        return score, max(error, 0.15)

    some = runs({"svae_r": flat, "alice": half})  # reaches half, and no quarter
    found = level(some, "x", "alice", inception, scores=1)
    assert found.verdict == "undecided" and "at a quarter not reached" in found.evidence


def test_paths_are_interpolated_between_the_same_lambdas() -> None:
    """A lambda that one seed alone has is no point of its path."""
    frame = runs({"svae_r": flat, "alice": falling})
    odd = frame[(frame["method"] == "alice") & (frame["lam"] == 10) & (frame["seed"] == 0)]
    more = pd.concat([frame, odd.assign(lam=3.0, inception_score=0.0, mse_x=0.19)])
    scores = [claims.inception(frame)[1]]
    told = [claims.equals(each.reset_index(drop=True), scores) for each in (frame, more)]
    for here, there in zip(*told, strict=True):
        assert here.differences.equals(there.differences)


def test_a_score_that_most_runs_are_older_than_has_no_panel() -> None:
    """A diverged run has no score, whatever its age."""
    rows = {"status": ["ok"] * 4 + ["diverged"] * 5, "swd": [30.0, 31.0] + [np.nan] * 7}
    frame = pd.DataFrame(rows)
    assert fronts._known(frame, "swd") == 0.5
    assert fronts._known(frame[1:], "swd") < 0.5
    assert fronts._known(frame[4:], "swd") == fronts._known(frame, "none") == 0.0


def test_published_fronts_never_share_a_panel_with_ours() -> None:
    points = cifar10.points(paper("cifar10", "fig7_digitised.csv"))
    assert points.apart and set(points.points["label"]) == {
        "ALICE's own",
        "ALICE (paper)",
        "sVAE-r (paper)",
    }
    frame = runs({"svae_r": flat, "alice": falling})
    figure = fronts.draw(frame, points)
    ours, *_, theirs = figure.axes
    greys = {line.get_color() for line in theirs.lines}
    assert not greys & {line.get_color() for line in ours.lines if line.get_marker() != "None"}
