"""What the theory report says of stored rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from bench import report
from bench.render.claims import Claim
from bench.render.intervals import student
from bench.run import main
from bench.store.rows import StoreError
from bench.studies.theory.claims import RULES, TESTS, Evidence, Rule
from bench.studies.theory.figures import falls, shown
from bench.studies.theory.report import TEXT, at_best, intro, missing
from bench.studies.theory.runs import WORST, paired, runs, traced
from bench.studies.theory.spec import EXACT, JOINT, SUPPORTS, TheorySpec
from bench.studies.theory.study import THEORY
from bench.studies.toy_grid.claims import RULES as TOY_RULES


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every smoke training of one batch size, so that it takes few seconds."""
    folder = tmp_path_factory.mktemp("theory")
    options = ["--scale", "smoke", "--engine", "sequential", "--no-report", "--set", "batch=8"]
    assert main(["theory", *options, "--results", str(folder)]) == 0
    yield folder


def evidence(values: Sequence[float], n: int = 1) -> Rule:
    return Rule(lambda _: [("it", np.array(values))] * n, low=0.0, high=1.0, intervals=n)


def test_a_rule_judges_by_whole_intervals():
    nobody = Evidence(pd.DataFrame(), None)
    for values, verdict in (
        ([0.5, 0.51, 0.49, 0.5, 0.5], "holds"),
        ([0.5, 1.5, 0.1, 0.5, 0.9], "undecided"),
        ([1.5, 1.51, 1.49, 1.5, 1.5], "fails"),
        ([-0.5, -0.51, -0.49], "fails"),
        ([0.5], "undecided"),  # one value has no spread
        ([], "no data"),
        ([math.nan], "no data"),
    ):
        assert evidence(values).judge(nobody)[0] == verdict, values
    near = np.array([0.5, 0.51, 0.49, 0.5, 0.5])
    mixed = Rule(lambda _: [("a", near), ("b", near + 1)], 0.0, 1.0, intervals=2)
    assert mixed.judge(nobody)[0] == "fails"  # where any lies outside
    assert evidence([0.5, 0.51, 0.49]).judge(nobody)[1].startswith("it +0.5")
    lacking = Rule(lambda _: [("a", near)], 0.0, 1.0, intervals=2)
    assert lacking.judge(nobody)[0] == "no data"


def test_intervals_share_one_level():
    assert sum(rule.intervals for rule in RULES.values()) == TESTS > 1
    spread = np.array([0.9, 1.0, 1.1, 0.95, 1.05])
    assert student(spread).low > 0.85 > student(spread, TESTS).low
    rule = Rule(lambda _: [("it", spread)], low=0.85)
    assert rule.judge(Evidence(pd.DataFrame(), None))[0] == "undecided"


def test_a_few_values_that_agree_decide_nothing():
    nobody = Evidence(pd.DataFrame(), None)
    assert evidence([0.5] * 5).judge(nobody)[0] == "undecided"
    assert evidence([0.5] * 58).judge(nobody)[0] == "holds"


def test_every_claim_has_words_and_an_own_name():
    assert RULES.keys() == TEXT["claims"].keys()
    assert not RULES.keys() & TOY_RULES.keys()


def stops(ratios: Sequence[float]) -> pd.DataFrame:
    excess = [10.0**-i for i in range(len(ratios))]
    columns = {"excess": excess, "gradient svae_r": 1.0, "gradient alice_minimax": ratios}
    return pd.DataFrame(columns)


def test_where_the_gradient_falls_for_good():
    assert falls(stops([0.5, 0.05, 0.01])) == pytest.approx(0.1)
    assert falls(stops([0.05, 0.5, 0.01])) == pytest.approx(0.01)  # it rose once more
    assert falls(stops([0.5, 0.05, 0.5])) is None
    assert falls(stops([0.05, 0.05])) == 1.0


def test_the_ratio_at_the_optimal_critic():
    f = 4.5 + 3 * np.random.default_rng(0).standard_normal(1_000_000)  # f* under p, distance 3
    wanted = np.sqrt(np.square(1 / (1 + np.exp(f))).mean())
    assert at_best(3.0) == pytest.approx(wanted, rel=0.01)
    assert at_best(1e-6) == pytest.approx(0.5)


def test_the_page_of_all_experiments(results: Path):
    page = report.build("theory", "smoke", results)
    assert [part.name for part in page.pictures] == [*TEXT["figures"]]
    assert {"ends", "modes", "descent", "vanishing", "claims"} <= page.tables.keys()
    assert page.intro.startswith("**What the paper argues.**")
    assert "It is undecided whether the gradient of (14)" in page.intro  # of one seed
    found = {row[0]: row[2] for row in page.tables["claims"].rows}
    assert found.keys() == RULES.keys()
    # One seed has no spread: nothing about our own trainings is decided.
    own = {id: verdict for id, verdict in found.items() if id not in ("8b", "9c")}
    assert not {verdict.split()[0] for verdict in own.values()} & {"holds", "fails"}
    text = page.texts()["report.md"]
    assert text.index("What would mend it") < text.index("## Figures 1 and 2")


def test_the_introduction_is_marked_up(results: Path, tmp_path: Path):
    html = report.build("theory", "smoke", results).html(tmp_path)
    assert "<strong>What was known.</strong>" in html and "<em>Many paths to" in html
    assert "**" not in html[: html.index("<section")]
    assert "critic learns f*" in html  # the star of the optimum is no mark


@pytest.mark.parametrize("experiment", TheorySpec.EXPERIMENTS)
def test_one_experiment_alone_has_a_report(
    experiment: str, results: Path, monkeypatch: pytest.MonkeyPatch
):
    table, bad = THEORY.load(results, "smoke")
    alone = table.filter(pc.field("experiment") == experiment)
    monkeypatch.setattr(type(THEORY), "load", lambda *_: (alone, bad))
    page = THEORY.report("smoke", results)
    found = {row[0]: row[2] for row in page.tables["claims"].rows}
    assert "no data" in " ".join(found.values())
    assert all(picture.draw() for picture in page.pictures)
    assert page.missing


def test_every_density_that_figures_show_is_published():
    page = report.build("theory", "quick", report.REFERENCE)
    stored = {*THEORY.store(report.REFERENCE, "quick").load_samples()["id"].to_pylist()}
    assert {*page.shown} <= stored
    for picture in page.pictures:
        if picture.name in ("supports", "learned", "modes"):
            words = [text.get_text() for axes in picture.draw().axes for text in axes.texts]
            assert "not stored" not in words, picture.name


def test_the_introduction_says_what_the_verdicts_say():
    def found(verdict: str) -> list[Claim]:
        return [Claim(id, "", "", verdict, "") for id in RULES]

    for id, words in TEXT["said"].items():
        assert words["holds"] in intro(found("holds")) and f"({id})" in words["holds"]
        assert words["fails"] in intro(found("fails")) and f"({id})" in words["fails"]
        assert f"It is undecided whether {words['whether']}." in intro(found("undecided"))


def test_seeds_are_the_unit():
    rows = [
        {"experiment": "descent", "method": method, "critic": JOINT, "lam": 0.0, "seed": seed}
        | {"config": str(dimension), "kl_s": 10.0 ** (power * dimension)}
        for method, power in (("alice", 1), ("svae_r", 0))
        for dimension in (1, 3)
        for seed in range(4)
    ]
    ((_, values),) = Evidence(pd.DataFrame(rows), None).reached()
    assert values.tolist() == [2.0] * 4  # the mean over dimensions, one a seed


def test_a_comparison_is_refused(results: Path):
    with pytest.raises(StoreError, match="theory has no comparison"):
        report.build("theory", "smoke", results, results)


def test_critics_and_numbers_of_updates_stand_apart(results: Path):
    frame = runs(THEORY, results, "smoke")
    assert frame.attrs["bad"] == 0
    ends = report.build("theory", "smoke", results).tables["ends"]
    names = [tuple(row[:3]) for row in ends.rows]
    assert len({*names}) == len(names)
    assert ("sVAE, optimal critic", "0", "5 : 1") in names
    assert {("sVAE, learned critic", "0", "5 : 1"), ("sVAE, learned critic", "0", "1 : 1")} <= {
        *names
    }
    five = Evidence(frame, None).five("svae_r", JOINT)
    assert {*five["critic_steps"]} == {5} and {*five["lam"]} == {0.0}
    drawn = frame[frame["id"].isin(shown(frame)) & (frame["experiment"] == SUPPORTS)]
    assert {*drawn["seed"]} == {0} and {*drawn["critic_steps"]} == {5}


def test_pairs_are_of_one_configuration_and_seed(results: Path):
    frame = runs(THEORY, results, "smoke")
    a = frame[(frame["method"] == "svae_r") & (frame["critic"] == EXACT)]
    x, _, seeds = paired(a, frame[frame["method"] == "vae"], "kl_s")
    assert len(x) == 2 and {*seeds} == {0}  # of MODES and of SUPPORTS at 5 updates
    other = frame[frame["method"] == "vae"].assign(seed=1)
    assert len(paired(a, other, "kl_s")[0]) == 0


def test_a_diverged_training_counts_as_the_worst(results: Path, monkeypatch: pytest.MonkeyPatch):
    table, bad = THEORY.load(results, "smoke")
    frame = table.to_pandas()
    gone = frame["experiment"] == SUPPORTS
    frame.loc[gone, "status"] = "diverged"
    frame.loc[gone, ["kl_s", "energy_x", "modes", "high_quality"]] = np.nan

    class Table:
        def to_pandas(self) -> pd.DataFrame:
            return frame

    monkeypatch.setattr(type(THEORY), "load", lambda *_: (Table(), bad))
    found = runs(THEORY, results, "smoke")
    found = found[found["experiment"] == SUPPORTS]
    assert (found["kl_s"] == WORST).all() and (found["energy_x"] == WORST).all()
    assert (found["modes"] == 0).all() and (found["high_quality"] == 0).all()


def test_traces_keep_their_order(results: Path):
    frame = runs(THEORY, results, "smoke")
    row = frame[frame["experiment"] == "vanishing"].iloc[0]
    found = traced(row)
    assert found["batch"].is_monotonic_increasing and found["batch"].iloc[0] == 0


def test_missing_modes_are_counted_by_ratio():
    grid = pd.DataFrame(
        {
            "lam": 0.0,
            "label": "sVAE",
            "method": "svae_r",
            "critic_steps": [1, 1, 5],
            "model_steps": [1, 1, 3],
            "modes_counted": [5, 0, 2],
            "collapsed": [False, True, False],
        }
    )
    (row,) = missing(grid, "here").rows
    assert row[2:5] == ["2.33, 33.3 %", "2.50, 50.0 %", "2.00, 0.0 %"]
