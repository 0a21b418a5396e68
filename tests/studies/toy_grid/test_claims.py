"""The rules of the toy study's claims, and what stands beside their verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.render import intervals
from bench.render.claims import OURS, PAPER, Claim
from bench.studies.toy_grid import claims, data, published, runs
from bench.studies.toy_grid.evaluate import toy_metrics
from bench.studies.toy_grid.spec import ToySpec
from tests import mini


def study(shift: float, n: int = 72, lam: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """sVAE-r better than ALICE by `shift` in a latent score, over n configurations."""
    rng = np.random.default_rng(seed)
    common = rng.normal(4.5, 0.3, size=n)
    parts = []
    for method in ("svae_r", "alice"):
        for value in (0.0, lam):
            score = common + shift * (method == "svae_r") + (0.3 if value else -0.3)
            score += rng.normal(0, 0.05, size=n)
            cell = pd.DataFrame({"config": range(n), "seed": 0, "method": method, "lam": value})
            cell["score"], cell["mse"] = score, 0.1
            parts.append(cell)
    return judged(pd.concat(parts, ignore_index=True))


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    top = frame["score"] > runs.TOP
    shares = {"top": top, "top_good": top, "collapsed": frame["score"] < runs.COLLAPSED}
    return frame.assign(**shares, close=frame["mse"] < runs.CLOSE)


def of(frame: pd.DataFrame, method: str, lam: float = 0.1) -> pd.Series:
    return (frame["method"] == method) & (frame["lam"] == lam)


def reconstructing(ours: int, theirs: int, n: int = 576) -> pd.DataFrame:
    """n configurations of which so many reconstruct."""
    frame = study(0, n)
    for method, share in (("svae_r", ours), ("alice", theirs)):
        frame.loc[of(frame, method), "mse"] = [0.1] * share + [2.0] * (n - share)
    return judged(frame)


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    return {claim.id: claim.verdict for claim in claims.toy_claims(frame)}


def evidence(frame: pd.DataFrame, id: str) -> str:
    return next(claim.evidence for claim in claims.toy_claims(frame) if claim.id == id)


class TestRules:
    def test_reconstruction_is_undecided_by_the_papers_own_bars_at_the_reports_level(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(claims, "RULES", {"1a": claims.RULES["1a"]})
        bars = published.paper_cells()
        shares = [bars[label, 0.1][f"MSE < {runs.CLOSE}"] for label in ("sVAE-r", "ALICE")]
        assert shares == pytest.approx([0.913, 0.966])
        frame = reconstructing(*(round(576 * share) for share in shares))
        (claim,) = claims.toy_claims(frame)
        assert claim.verdict == "undecided"
        ours, theirs = (claims.Reading.of(frame, asked) for asked in claims.RULES["1a"])
        assert ours is not None and ours.bounds[0] < 0 < ours.bounds[1]
        assert theirs is not None and theirs.bounds[0] > 0
        # 539 of 576 or more are beyond the bound, and 91.3 % have that in 2.7 % of cases.
        assert "power 3 % against the paper's 91.3 %" in claim.evidence

    @pytest.mark.parametrize(
        ("ours", "theirs", "verdict"),
        [
            (560, 560, "holds"),
            (460, 560, "fails"),
            (560, 460, "fails"),
            (520, 560, "undecided"),
        ],
    )
    def test_reconstruction(self, ours: int, theirs: int, verdict: str) -> None:
        """520 of 576 are more than 90 %, which was enough before intervals were asked."""
        assert verdicts(reconstructing(ours, theirs))["1a"] == verdict

    def test_a_bound_at_the_share_itself_decides_nothing(self) -> None:
        """Also where the share comes out as 0.8999999999999999."""
        reading = claims.Reading.of(study(0, 10), claims.RULES["1a"][0])
        assert reading is not None
        found = intervals.bootstrap(np.full(7, 0.3 + 0.6))
        assert replace(reading, found=found).bounds == (0.0, 0.0)

    def test_a_clear_gain_holds_its_reverse_fails_and_none_is_undecided(self) -> None:
        for shift, verdict in ((0.5, "holds"), (-0.5, "fails"), (0.0, "undecided")):
            found = verdicts(study(shift))
            assert found["1b"] == found["1b'"] == found["1e"] == verdict

    def test_generation_is_judged_at_its_own_lambda(self) -> None:
        frame = study(0.5)
        for id, lam in (("1b", 0.1), ("1e", 0.0)):
            turned = frame.assign(top=frame["top"].where(~of(frame, "svae_r", lam), False))
            others = {"1b", "1e"} - {id}
            found = verdicts(turned)
            assert found[id] == "fails" and {found[other] for other in others} == {"holds"}

    def test_more_reconstruction(self) -> None:
        assert verdicts(study(0))["1c"] == "holds"
        frame = study(0)
        assert verdicts(frame.assign(lam=0.1 - frame["lam"]))["1c"] == "fails"
        one = frame.assign(top_good=frame["top_good"] & ~of(frame, "alice"))
        assert verdicts(one)["1c"] == "fails"

    def test_robust_is_who_collapses_less_and_whose_bad_configurations_are_better(self) -> None:
        frame = study(0)

        def collapsing(method: str, n: int, score: float = 1.0) -> pd.DataFrame:
            bad = frame.index[of(frame, method)][:n]
            return judged(frame.assign(score=frame["score"].mask(frame.index.isin(bad), score)))

        assert verdicts(frame)["1d"] == "undecided"
        assert verdicts(collapsing("alice", 20))["1d"] == "holds"
        assert verdicts(collapsing("svae_r", 20))["1d"] == "fails"
        # Bad configurations that don't collapse move the tenth percentile alone.
        assert verdicts(collapsing("alice", 20, 2.0))["1d"] == "undecided"
        assert verdicts(collapsing("svae_r", 20, 2.0))["1d"] == "fails"

    def test_the_tenth_percentile_is_that_over_configurations(self) -> None:
        frame = study(0)
        mine = of(frame, "svae_r")
        scores = frame.loc[mine, "score"].to_numpy().copy()
        scores[:20], scores[20:] = 3.0, 4.99
        frame.loc[mine, "score"] = scores
        reading = claims.Reading.of(frame, claims.RULES["1d"][1])
        assert reading is not None
        theirs = np.quantile(frame.loc[of(frame, "alice"), "score"], 0.1)
        assert reading.found.value == pytest.approx(3.0 - theirs)
        assert f"tenth percentile 3.000 against {theirs:.3f}" in reading.words

    def test_a_method_all_of_whose_runs_collapse_is_not_robust(self) -> None:
        frame = study(0)
        gone = frame.assign(score=frame["score"].mask(of(frame, "svae_r"), 1.0))
        assert gone["score"][of(gone, "svae_r")].std() == 0
        assert verdicts(judged(gone))["1d"] == "fails"

    def test_without_runs_there_is_no_verdict(self) -> None:
        frame = study(0)
        assert set(verdicts(frame[frame["method"] == "alice"]).values()) == {"no data"}
        assert set(verdicts(frame.iloc[:0]).values()) == {"no data"}
        found = verdicts(frame[frame["lam"] > 0])
        assert found["1c"] == found["1e"] == "no data" != found["1b"]

    def test_questions_of_ours_are_not_the_papers(self) -> None:
        whose = {claim.id: claim.whose for claim in claims.toy_claims(study(0))}
        ours = dict.fromkeys(("1b'", "1c", "1d", "1e"), OURS)
        assert whose == {"1a": PAPER, "1b": PAPER, **ours}


class TestLevel:
    def test_the_family_is_every_interval_that_a_verdict_reads(self) -> None:
        assert claims.TESTS == 2 + 1 + 1 + 4 + 2 + 1
        rules = mini.build().tables["claims"]
        assert f"Bonferroni over the {claims.TESTS} intervals" in rules.caption

    def test_what_one_interval_alone_would_decide_is_undecided(self) -> None:
        frame = study(0.0)
        frame.loc[of(frame, "svae_r"), "top"] = [True] * 8 + [False] * 64
        frame.loc[of(frame, "alice"), "top"] = [False] * 71 + [True]
        reading = claims.Reading.of(frame, claims.RULES["1b"][0])
        assert reading is not None
        alone = reading.found.interval()
        assert reading.bounds[0] <= 0 < alone.low
        assert verdicts(frame)["1b"] == "undecided"
        ends = f"+0.097 [{reading.bounds[0]:+.3f}, {reading.bounds[1]:+.3f}]"
        assert f"{ends}, alone [{alone.low:+.3f}, {alone.high:+.3f}]" in evidence(frame, "1b")

    def test_an_undecided_verdict_has_its_power_and_a_decided_one_none(self) -> None:
        frame = study(0.0, n=200)  # of which 10 differ
        words = evidence(frame, "1b")
        reading = claims.Reading.of(frame, claims.RULES["1b"][0])
        assert reading is not None and isinstance(reading.found, intervals.Resampled)
        effect = 0.778 - 0.735
        chance = intervals.power(effect, reading.found.error, claims.TESTS)
        assert f"power {100 * chance:.0f} % against the paper's +0.043" in words
        assert "power" not in evidence(study(0.5, n=200), "1b")
        assert evidence(frame, "1b'").count("against the paper's +0.043") == 1

    def test_a_share_of_few_misses_is_not_taken_for_sure(self) -> None:
        """One miss in 72: the bootstrap left out all shares below 93.1 %."""
        words = evidence(reconstructing(66, 71, 72), "1a")
        assert "ALICE 98.6 % [89.0, 100.0], alone [92.5, 100.0]" in words

    @pytest.mark.parametrize("close", [71, 72])
    def test_the_power_of_a_share_is_that_of_the_papers_value(self, close: int) -> None:
        """ALICE's 96.6 % in 72 runs: only without a miss does the interval exclude 90 %."""
        words = evidence(reconstructing(66, close, 72), "1a").split("; ")[1]
        assert pytest.approx(0.083, abs=5e-4) == 0.966**72
        assert "power 8 % against the paper's 96.6 %" in words

    def test_power_says_what_it_can_not_be(self) -> None:
        words = evidence(study(0.0), "1d")
        assert "power unknown, as all configurations agree" in words  # none collapses
        assert "against the paper's -0.256, which speaks against the claim" in words

    def test_a_quantile_that_no_resample_moves_has_no_power(self) -> None:
        """Two of five runs of either method collapse, so every tenth percentile is 1."""
        frame = study(0.0)
        for method in ("svae_r", "alice"):
            frame.loc[frame.index[of(frame, method)][:29], "score"] = 1.0
        words = evidence(judged(frame), "1d").split("; ")[1]
        assert "power unknown, as all resamples agree" in words and "nan" not in words

    def test_a_difference_in_few_configurations_has_no_power(self) -> None:
        """Five that collapse decide nothing, as a resample without them is too likely."""
        for n in (5, 6):
            frame = study(0.0)
            frame.loc[frame.index[of(frame, "svae_r")][:n], "score"] = 1.0
            words = evidence(judged(frame), "1d").split("; ")[0]
            reading = claims.Reading.of(judged(frame), claims.RULES["1d"][0])
            assert reading is not None
            assert (reading.bounds[1] < 0) == (n == 6)
            assert ("power unknown, as runs differ in 5 configurations" in words) == (n == 5)

    def test_the_papers_values(self) -> None:
        bars = published.paper_cells()
        assert bars["sVAE-r", 0.1]["IS < 1.4"] == pytest.approx(0.019)
        assert bars["ALICE", 0.1]["IS < 1.4"] == 0
        # 8.6 of 101.2 % lie below 2.6, 2.8 % between 2.6 and 3.0.
        tenth = 2.6 + 0.4 * (10.12 - 8.6) / 2.8
        assert bars["sVAE-r", 0.1]["tenth percentile"] == pytest.approx(tenth)
        assert bars["ALI", 0.0]["tenth percentile"] == pytest.approx(1 + 0.4 * 9.99 / 29.7)


# At equal reconstruction


def over_lambda(
    shift: float, n: int = 72, rival: str = "alice", stretch: float = 1
) -> pd.DataFrame:
    """sVAE-r scores more by `shift` at every MSE; lambda weighs so much more in the rival."""
    rng = np.random.default_rng(0)
    common, parts = rng.normal(2, 0.3, size=n), []
    for method, label in (("svae_r", "sVAE-r"), (rival, "the rival")):
        for value in (0.0, 0.01, 0.1):
            weight = value * (1 if method == "svae_r" else stretch)
            cell = pd.DataFrame({"config": range(n), "seed": 0, "lam": value})
            cell["mse"] = 5.0 / (1 + 100 * weight)
            gain = shift * (method == "svae_r") - np.log(cell["mse"])
            cell["score"] = common + gain + rng.normal(0, 0.05, size=n)
            cell["top_good"] = cell["top"] = cell["score"] > common + 0.25
            parts.append(cell.assign(method=method, label=label, high_quality_counted=0.9))
    return pd.concat(parts, ignore_index=True)


def asked(frame: pd.DataFrame) -> dict[str, Claim]:
    return {claim.id: claim for claim in claims.equal_claims(claims.at_equal_error(frame))}


class TestEqualReconstruction:
    def test_the_mean_point_has_the_error_of_the_data(self) -> None:
        x = data.toy_data("0123456789abcdef").x_test.astype(float)
        assert pytest.approx(3.24) == runs.MEAN_POINT
        error = np.square(x - x.mean(0)).mean()  # as the metric: over points and coordinates
        assert error == pytest.approx(runs.MEAN_POINT, rel=0.05)
        found = toy_metrics(x, x, np.broadcast_to(x.mean(0), x.shape), x, x)
        assert found["mse_x"] == pytest.approx(error)
        assert [*runs.TARGETS.values()] == pytest.approx([1.62, 0.81])

    def test_a_clear_gain_holds_its_reverse_fails_and_none_is_undecided(self) -> None:
        for shift, verdict in ((0.5, "holds"), (-0.5, "fails"), (0.0, "undecided")):
            assert asked(over_lambda(shift))["1f"].verdict == verdict
        assert asked(over_lambda(0.5, n=claims.FEWEST - 1))["1f"].verdict == "undecided"

    def test_it_is_no_matter_how_much_lambda_weighs(self) -> None:
        """At equal lambda the rival scores more, by what it reconstructs better."""
        frame = over_lambda(0.0, stretch=3)
        ours, theirs = (frame.loc[of(frame, m, 0.01), "score"] for m in ("svae_r", "alice"))
        assert theirs.mean() > ours.mean() + 0.5
        claim = asked(frame)["1f"]
        assert claim.verdict == "undecided" and claim.whose == OURS

    def test_one_target_against_the_other_fails(self) -> None:
        frame = over_lambda(0.5)
        frame.loc[of(frame, "svae_r"), "score"] -= (
            1.2  # of it a quarter at half, two thirds at a quarter
        )
        found = claims.at_equal_error(frame)
        half, quarter = (
            gain.value for each, gain in found.items() if each.score == "score" and gain
        )
        assert half > 0.1 and quarter < -0.1
        assert asked(frame)["1f"].verdict == "fails"

    def test_the_stricter_measure_is_judged_apart(self) -> None:
        frame = over_lambda(0.5)
        mine = frame["method"] == "svae_r"
        found = asked(frame.assign(top_good=frame["top_good"] & ~mine))
        assert (found["1f"].verdict, found["1f'"].verdict) == ("holds", "fails")

    def test_no_verdict_reads_the_share_by_the_score_alone(self) -> None:
        frame = over_lambda(0.5)
        worse = frame.assign(top=frame["top"] & (frame["method"] != "svae_r"))
        rows = claims.equal_table(claims.at_equal_error(worse)).rows
        assert [row[5][0] for row in rows if row[2] == "share with IS > 4.6"] == ["-", "-"]
        assert [(c.verdict, c.evidence) for c in asked(worse).values()] == [
            (c.verdict, c.evidence) for c in asked(frame).values()
        ]

    def test_a_rival_has_claims_where_it_has_runs(self) -> None:
        assert [*asked(over_lambda(0.5))] == ["1f", "1f'"]
        both = pd.concat([over_lambda(0.5), over_lambda(0.5, rival="alice_sigmoid")])
        both = both.drop_duplicates(["method", "lam", "config"])
        assert [*asked(both)] == ["1f", "1f'", "1h", "1h'"]
        assert asked(both)["1h"].text.endswith("than the rival.")

    def test_without_paths_that_cross_there_is_no_verdict(self) -> None:
        frame = over_lambda(0.5)
        for few in (frame[frame["lam"] == 0.1], frame.iloc[:0], frame[frame["method"] == "alice"]):
            assert {claim.verdict for claim in asked(few).values()} == {"no data"}
        claim = asked(frame[frame["lam"] > 0])["1f"]  # half is 1.62, and 2.5 is the first MSE
        assert claim.verdict != "no data"
        claim = asked(frame[frame["lam"] < 0.1])["1f"]
        assert claim.verdict == "no data" and "72 not reached" in claim.evidence
        nearer = frame.assign(mse=frame["mse"] / 2)  # 1.25 at the second lambda
        claim = asked(nearer[frame["lam"] < 0.1])["1f"]
        assert claim.verdict == "no data" and "at a quarter sVAE-r 0 of 72" in claim.evidence

    def test_paths_that_fail_count_as_the_worst_beside_the_verdict(self) -> None:
        """They are left out of the verdict, and one more line says what that hides."""
        frame = over_lambda(0.5)
        far = of(frame, "svae_r") & (frame["config"] < 30)
        frame.loc[far, "mse"] = 4.0
        found = claims.at_equal_error(frame)
        each, gain = next(iter(found.items()))
        assert gain is not None and (each.misses, len(each.means)) == (30, 42)
        theirs = each.theirs["score"][:30].sum()
        worst = (42 * gain.value + 30 * 1.0 - theirs) / 72
        assert gain.value > 0.4 and worst < 0.1
        claim = claims.equal_claims(found)[0]
        assert claim.verdict == "undecided"  # 42 are fewer than FEWEST
        assert f" 30 paths short of it counted as the worst: {worst:+.3f} [" in claim.evidence
        table = claims.equal_table(found)
        column = table.names.index("if a path short of it counts as the worst")
        assert table.rows[0][column].startswith(f"{worst:+.3f} [")
        assert table.rows[1][column].startswith("-0.375 [")  # 30 of 72 lack a quality of 0.9
        assert "counts such a path as the worst" in table.caption
        whole = claims.equal_table(claims.at_equal_error(over_lambda(0.5)))
        assert len(whole.names) == len(table.names) - 1 and "the worst" not in whole.caption

    def test_no_pair_is_left_where_one_fails_and_the_other_starts_below(self) -> None:
        """Then nothing is compared; where the other reaches the error, one fails in all pairs."""
        frame = over_lambda(0.5)
        frame.loc[frame["method"] == "svae_r", "mse"] = 4.0
        table = claims.equal_table(claims.at_equal_error(frame))
        column = table.names.index("if a path short of it counts as the worst")
        assert table.rows[0][column].startswith("-") and table.rows[1][column] == (
            "-0.900 [-0.900, -0.900]"  # of quality
        )
        frame.loc[frame["method"] == "alice", "mse"] = 0.1
        table = claims.equal_table(claims.at_equal_error(frame))
        assert {line[column] for line in table.rows} == {"–"}

    def test_what_interpolation_adds_stands_beside_the_verdict(self) -> None:
        """At the first λ that reaches the error the rival, whose λ weighs more, is ahead."""
        frame = over_lambda(0.1, stretch=3)
        found = claims.at_equal_error(frame)
        gain = next(iter(found.values()))
        mine, theirs = (
            frame.loc[of(frame, method, value), "score"].mean()
            for method, value in (("svae_r", 0.1), ("alice", 0.01))
        )
        assert gain is not None and gain.value == pytest.approx(0.1, abs=0.03)
        first = mine - theirs
        assert first > 0.9  # 5 / 11 against 5 / 4: our first run lies far below the error
        words = f"at the first λ that reaches it: {first:+.3f} ["
        assert words in claims.equal_claims(found)[0].evidence
        table = claims.equal_table(found)
        column = table.names.index("at the first λ that reaches it")
        assert table.rows[0][column].startswith(f"{first:+.3f} [")

    def test_a_caption_says_which_lambdas_the_paths_have(self) -> None:
        frame = over_lambda(0.5)
        lacking = of(frame, "alice", 0.01) & (frame["config"] == 3)
        words = claims.equal_table(claims.at_equal_error(frame[~lacking])).caption
        assert "values of λ 0, 0.01, 0.1 (143 paths); 0, 0.1 (1 path)." in words

    def test_intervals_are_those_of_a_family_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert claims.EQUAL_TESTS == 3 * 2 * 2
        monkeypatch.setattr(claims, "EQUAL_TESTS", 100)
        found = claims.at_equal_error(over_lambda(0.0))
        gain = next(iter(found.values()))
        assert gain is not None
        wide, alone = (f"[{i.low:+.3f}, {i.high:+.3f}]" for i in map(gain.interval, (100, 1)))
        assert f"{wide}, alone {alone}" in claims.equal_claims(found)[0].evidence
        assert wide in claims.equal_table(found).markdown().replace("\N{NO-BREAK SPACE}", " ")

    def test_at_equal_error_the_sign_is_that_of_the_other_method(self) -> None:
        frame = pd.concat([over_lambda(0.5), over_lambda(0.5, rival="mine")])
        frame = frame.drop_duplicates(["method", "lam", "config"])
        found = claims.at_equal_error(frame, "alice")
        assert {each.labels[0] for each in found} == {"sVAE-r", "the rival"}
        read = {each: gain for each, gain in found.items() if gain and each.score == "score"}
        gains = {each.labels: gain.value for each, gain in read.items()}
        assert all((gain > 0.1) == (ours == "sVAE-r") for (ours, _), gain in gains.items())
        turned = claims.at_equal_error(over_lambda(0.5), "svae_r")
        values = [gain.value for each, gain in turned.items() if gain and each.score == "score"]
        assert values == [pytest.approx(-0.5, abs=0.1)] * 2
        words = claims.equal_table(found, "alice").caption
        assert f"the {len(found)} here cover together" in words and "claims" not in words


def with_dropout(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs, and once more with dropout: other configurations in which ALICE never scores."""
    wet = frame.assign(dropout=0.2, config="wet" + frame["config"].map(str))
    wet = wet.assign(score=wet["score"].mask(wet["method"] == "alice", 1.0))
    return pd.concat([judged(wet), frame.assign(dropout=0.0)], ignore_index=True)


def test_rows_with_dropout_enter_no_claim() -> None:
    frame = study(0.0).assign(lr=ToySpec.lr)
    mixed = with_dropout(frame)
    assert verdicts(mixed)["1b"] == "holds" != verdicts(frame)["1b"]  # what they would do
    found = runs.at_own_rate(mixed)
    assert claims.toy_claims(found) == claims.toy_claims(frame)
    assert {*found["dropout"]} == {0.0}
    wet = runs.at_own_rate(mixed[mixed["dropout"] > 0])
    assert len(wet) == len(frame)  # without others the smallest there is
