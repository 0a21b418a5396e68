"""Scores at equal error on paths that are known in closed form, and the figure of the paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.cli import UsageError
from bench.render import front, intervals
from bench.render.figures import Picture
from bench.render.intervals import Estimate

LAMS = (0.0, 0.1, 1.0, 10.0)
HALF = {"half": 0.5}


def path(errors: Sequence[float], scores: Sequence[float], **more: Any) -> pd.DataFrame:
    """Runs of one configuration and seed at growing lambda."""
    known = {"lam": LAMS[: len(errors)], "mse": errors, "is": scores}
    return pd.DataFrame({"config": "a", "seed": 0, "method": "svae_r", "label": "S"} | known | more)


def met(runs: pd.DataFrame, target: float = 0.5) -> tuple[float, str]:
    found = front.crossings(runs, "is", "mse", target)
    return found["score"].to_list()[0], found["outcome"].to_list()[0]


def test_a_score_that_is_linear_in_the_log_error_is_found_exactly() -> None:
    errors = np.array([8.0, 1.1, 0.3, 0.01])
    runs = path(errors.tolist(), (3 - 2 * np.log(errors)).tolist())
    for target in (7.9, 1.1, 0.5, 0.02, 0.01):
        assert met(runs, target)[0] == pytest.approx(3 - 2 * math.log(target))
    # Halfway between 8 and 0.5 in the log, not in the error.
    assert met(path([8, 0.5], [1, 2]), 2.0)[0] == pytest.approx(1.5)


def test_a_path_is_ordered_by_lambda() -> None:
    runs = path([8, 2, 0.2], [1, 2, 3])
    assert met(runs.iloc[[2, 0, 1]]) == met(runs) != met(runs.assign(lam=[0.1, 0, 1]))


def test_the_first_crossing_counts() -> None:
    there = met(path([2, 0.125], [1, 3]))
    assert met(path([2, 0.125, 4, 0.1], [1, 3, 9, 9])) == there == (2.0, front.REACHED)
    # A path that climbs before it falls crosses on its way down.
    assert met(path([1, 2, 0.125], [9, 1, 3])) == there


def test_nothing_is_extrapolated() -> None:
    never, below = met(path([4, 2, 0.51], [1, 2, 3])), met(path([0.49, 0.2], [1, 2]))
    assert math.isnan(never[0]) and never[1] == front.NEVER
    assert math.isnan(below[0]) and below[1] == front.BELOW
    # A path that starts below starts below, even if it climbs and comes back.
    assert met(path([0.4, 2, 0.1], [1, 2, 3]))[1] == front.BELOW
    assert met(path([4], [1]))[1] == front.NEVER and met(path([0.4], [1]))[1] == front.BELOW


def test_the_first_run_that_reaches_the_target_is_told_without_interpolation() -> None:
    runs = pd.concat([path([2, 0.125], [1, 3]), path([2, 0.6], [1, 3], seed=1)])
    found = front.crossings(runs, "is", "mse", 0.5)["first"]
    assert found["a", 0] == 3 and math.isnan(found["a", 1])


def test_a_path_that_lacks_an_end_is_not_taken_for_one_that_fails() -> None:
    """Others of the method have a larger lambda, or a smaller one."""
    whole = path([4, 2, 0.2], [1, 2, 3])
    short = path([4, 2], [1, 2], seed=1)
    late = path([9, 0.4, 0.1], [0, 2, 3], seed=2).iloc[1:]
    found = front.crossings(pd.concat([whole, short, late]), "is", "mse", 0.5)
    assert found["outcome"].to_list() == [front.REACHED, front.UNTRAINED, front.UNTRAINED]
    assert front.reach(found) == "1 of 3 (2 not trained to the end)"
    other = pd.concat([each.assign(method="alice") for each in (whole, whole.assign(seed=1))])
    runs = pd.concat([whole, short, other])
    (each,) = front.equals(runs, {"is": "IS"}, "mse", {"half": 0.5})
    assert each.misses == 0 and len(each.counting(1.0)) == 1 == len(each.pairs)


@pytest.mark.parametrize("gone", [math.inf, math.nan])
def test_a_diverged_run_is_above_every_target_and_its_score_never_counts(gone: float) -> None:
    for score in (1.0, math.nan):
        assert met(path([gone, 0.2], [score, 3.0])) == (3.0, front.REACHED)
        assert met(path([4, gone, 0.2], [2, score, 3.0])) == (3.0, front.REACHED)
        assert met(path([2, 0.125, gone], [1, 3, score])) == (2.0, front.REACHED)
        assert met(path([4, gone], [2, score]))[1] == front.NEVER
        assert met(path([gone, gone], [score, score]))[1] == front.NEVER


def test_a_run_without_a_score_is_no_point_of_its_path() -> None:
    assert met(path([2, 0.5, 0.125], [1, math.nan, 3])) == met(path([2, 0.125], [1, 3]))
    assert not len(front.crossings(path([2, 0.1], [math.nan] * 2), "is", "mse", 0.5))


def test_an_error_of_zero_is_reached() -> None:
    score, outcome = met(path([2, 0.0], [1, 3]))
    assert outcome == front.REACHED and 1 <= score < 1.01


def test_every_configuration_and_seed_is_a_path_of_its_own() -> None:
    runs = pd.concat(
        path([2, low], [1, score], config=config, seed=seed)
        for config, seed, low, score in (("a", 0, 0.125, 3), ("b", 0, 0.125, 5), ("a", 1, 1, 7))
    )
    found = front.crossings(runs.sample(frac=1, random_state=0), "is", "mse", 0.5)["score"]
    assert found["a", 0] == 2 and found["b", 0] == 3 and math.isnan(found["a", 1])


# The table


def study(lows: Mapping[str, Sequence[float]], ends: Mapping[str, float]) -> pd.DataFrame:
    """Paths from an error of 2 and a score of 1, a seed for each error at which they end."""
    return pd.concat(
        path([2, low], [1, ends[method]], seed=seed, method=method, label=f"the {method}")
        for method in lows
        for seed, low in enumerate(lows[method])
    )


def student(found: front.Equal) -> Estimate:
    return intervals.student(found.differences.to_numpy())


def cells(frame: pd.DataFrame, **targets: float) -> list[dict[str, str]]:
    found = front.equals(frame, {"is": "inception score"}, "mse", targets or HALF)
    table = front.table(found, student, "More.")
    return [dict(zip(table.names, row, strict=True)) for row in table.rows]


def test_pairs_are_seeds_of_which_both_reach_the_target() -> None:
    """Seeds 0 and 1 do; seed 2 of ours and seed 3 of theirs do not, and seed 4 starts below."""
    frame = study(
        {"svae_r": [0.125] * 2 + [1, 0.125, 0.125], "alice": [0.125] * 3 + [1, 0.125]},
        {"svae_r": 5.0, "alice": 3.0},
    )
    below = (frame["method"] == "alice") & (frame["seed"] == 4)
    frame["mse"] = frame["mse"].mask(below, 0.1)
    (row,) = cells(frame)
    assert (row["the svae_r"], row["the other"]) == ("3.000", "2.000")
    assert row["difference"].startswith("+1.000") and row["pairs"] == "2"
    assert row["paths of the svae_r that reach it"] == "4 of 5 (1 not reached)"
    assert row["of the other"] == "3 of 5 (1 not reached, 1 starts below)"
    assert "configurations" not in row  # there is one


def test_a_target_that_no_pair_reaches_has_no_difference() -> None:
    frame = study({"svae_r": [0.125], "alice": [1]}, {"svae_r": 5, "alice": 3})
    (row,) = cells(frame)
    assert (row["the svae_r"], row["difference"], row["pairs"]) == ("–", "–", "0")


def test_rivals_are_the_methods_with_a_path_in_their_order() -> None:
    methods = ["gan", "alice_sigmoid", "alice", "svae_r"]
    frame = study(dict.fromkeys(methods, (0.125, 0.1)), dict.fromkeys(methods, 3.0))
    one = (frame["method"] == "gan") & (frame["lam"] > 0)
    found = [row["against"] for row in cells(frame[~one], half=0.5, quarter=0.25)]
    assert found == ["the alice", "the alice_sigmoid"] * 2
    assert not cells(frame[frame["method"] != "svae_r"])


def test_with_a_baseline_every_other_method_stands_against_it() -> None:
    """The difference is that of the other method minus the baseline."""
    methods = {"svae_r": 5.0, "alice": 3.0, "alice_sigmoid": 9.0, "mine": 1.0}
    frame = study(dict.fromkeys(methods, (0.125, 0.1)), methods)
    assert front.find_baseline(frame, "the alice") == "alice" != front.find_baseline(frame, "")
    found = front.equals(frame, {"is": "IS"}, "mse", HALF, "alice")
    table = front.table(found, student, "More.", baseline="alice")
    rows = [dict(zip(table.names, row, strict=True)) for row in table.rows]
    assert [row["method"] for row in rows] == ["the svae_r", "the alice_sigmoid", "the mine"]
    assert {row["the alice"] for row in rows} == {"1.963"} and "against the alice" in table.title
    signs = [row["difference"].split()[0] for row in rows]
    assert signs[:2] == ["+0.963", "+2.888"] and signs[2] == "-0.963"
    assert not front.equals(frame[frame["method"] != "alice"], {"is": "IS"}, "mse", HALF, "alice")


def test_a_baseline_without_runs_is_refused_with_those_there_are() -> None:
    frame = study({"svae_r": [0.1], "alice": [0.1]}, {"svae_r": 1, "alice": 2})
    with pytest.raises(UsageError, match=r"--baseline vae; allowed: .*: svae_r, alice$"):
        front.find_baseline(frame, "vae")


def test_configurations_weigh_alike_whatever_their_seeds() -> None:
    lows = {"svae_r": [0.125] * 3, "alice": [0.125] * 3}
    frame = study(lows, {"svae_r": 5, "alice": 3})
    more = study({m: low[:1] for m, low in lows.items()}, {"svae_r": 9, "alice": 3})
    (row,) = cells(pd.concat([frame, more.assign(config="b")]))
    assert (row["the svae_r"], row["the other"]) == ("4.000", "2.000")
    assert (row["pairs"], row["configurations"]) == ("4", "2")


# The figure

PAPER = pd.DataFrame(
    {"label": "theirs", "lam": LAMS, "mse": [3, 2, 1, 0.5], "is": [70, 80, 90, 60]}
)


def drawn(frame: pd.DataFrame, apart: bool = True, **more: Any) -> list[Any]:
    published = front.Published(PAPER, "is", apart)
    scores = {"is": "score", "quality": "quality"}
    figure = front.front(frame, scores, "mse", HALF, "MSE", published=published, **more)
    return figure.axes


def lines(axes: Any) -> dict[str, np.ndarray]:
    """What each line of the panel shows, by its label, (points, 2)."""
    named = {line.get_label(): line.get_xydata() for line in axes.lines}
    return {label: xy for label, xy in named.items() if not label.startswith("_")}


def four() -> pd.DataFrame:
    """Two methods with a path, two seeds each, and one method of one lambda."""
    rows = [
        {"config": "a", "seed": s, "method": m, "label": m, "lam": lam, "mse": 2.0 ** (s - lam)}
        for m, s, lam in product(("svae_r", "alice"), (0, 2), (0.0, 1.0))
    ]
    rows.append(rows[0] | {"method": "vae", "label": "VAE", "lam": 3.0, "mse": 0.25})
    frame = pd.DataFrame(rows)
    return frame.assign(**{"is": 1.0 + frame["seed"] + frame["lam"], "quality": 0.5})


def test_a_point_is_the_mean_score_at_the_geometric_mean_error() -> None:
    found = lines(drawn(four())[0])
    assert list(found) == ["svae_r", "alice", "VAE"]
    assert found["svae_r"] == pytest.approx(np.array([[2, 2], [1, 3]]))
    assert found["VAE"] == pytest.approx(np.array([[0.25, 4]]))


def test_a_diverged_run_and_one_without_an_error_are_no_points() -> None:
    frame = four()
    lost = frame.iloc[[0, 4]].assign(seed=9, mse=[math.inf, math.nan], **{"is": 1.0})
    axes, same = (drawn(each)[0] for each in (pd.concat([frame, lost]), frame))
    assert all(np.array_equal(lines(axes)[name], xy) for name, xy in lines(same).items())
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == len(frame)
    assert not drawn(frame, dots=False)[0].collections


def test_published_scores_of_another_classifier_are_never_in_our_panels() -> None:
    ours, quality, theirs = drawn(four())
    assert "theirs" not in {**lines(ours), **lines(quality)}
    assert list(lines(theirs)) == ["theirs"]
    assert max(xy[:, 1].max() for xy in lines(ours).values()) < 60
    assert lines(theirs)["theirs"] == pytest.approx(PAPER[["mse", "is"]].to_numpy())
    together = drawn(four(), apart=False)
    assert len(together) == 2 and "theirs" in lines(together[0])
    assert "theirs" not in lines(together[1])


def test_every_panel_shows_the_targets_and_its_own_anchors() -> None:
    panels = drawn(four(), anchors={"quality": {"noise": 0.75}})
    for axes in panels:
        upright = [line for line in axes.lines if list(line.get_xdata()) == [0.5, 0.5]]
        assert len(upright) == 1 and "half" in [text.get_text() for text in axes.texts]
    assert ["noise" in lines(axes) for axes in panels] == [False, True, False]


def test_points_are_named_once_where_they_lie_close() -> None:
    """METHOD has all of its lambdas, another path its ends, and a single point its method."""
    named = [text.get_text() for text in drawn(four())[0].texts]
    assert sorted(named) == sorted(["0", "1", "0", "1", "VAE", "half"])
    close = pd.DataFrame({"lam": LAMS, "mse": [8, 7.9, 1, 0.1], "is": [1, 1, 2, 3], "label": "S"})
    axes = front.front(
        close.assign(method="svae_r", config="a", seed=0), {"is": "score"}, "mse", {}, "MSE"
    ).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0", "1", "10"]


def test_the_name_of_a_single_point_takes_no_room_from_the_axes() -> None:
    def width(name: str) -> float:
        axes = drawn(four().replace("VAE", name))[0]
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        figure.legends.clear()
        figure.draw_without_rendering()
        return axes.get_position().width

    assert width("VAE" * 20) == pytest.approx(width("VAE"))


def test_a_figure_can_be_drawn_when_every_run_has_diverged(tmp_path: Path) -> None:
    gone = four().assign(mse=math.inf)
    picture = Picture(
        "front", lambda: front.front(gone, {"is": "score"}, "mse", HALF, "MSE"), "", ""
    )
    for file in picture.files:
        picture.write(tmp_path / file)
        assert (tmp_path / file).stat().st_size
