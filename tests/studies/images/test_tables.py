"""The tables that all image studies share, and those of MNIST's other settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bench.render.tables import Table
from bench.studies import STUDIES
from bench.studies.images import runs as frames
from bench.studies.images import tables
from bench.studies.mnist.report import annealing, critics

SHARED: dict[str, Any] = {
    "config": "c",
    "status": "ok",
    "data": "mnist",
    "networks": "suite",
    "critic": "",
}
SHARED |= {"frechet": 1.0, "anchors": [("mean image: mse_x", 0.27)]}


def runs(**columns: Any) -> pd.DataFrame:
    n = len(columns["seed"])
    return pd.DataFrame({name: [value] * n for name, value in SHARED.items()} | columns)


def by_heading(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.names, row, strict=True)) for row in table.rows]


def test_batch_norm_both_ways_is_compared_run_by_run() -> None:
    frame = runs(
        method=["svae_r", "svae_r", "dcgan"],
        label=["sVAE", "sVAE", "DCGAN"],
        lam=[0.0, 0.0, 0.0],
        seed=[0, 1, 0],
        mse_x=[0.2, 0.4, np.nan],
        mse_x_batch=[0.1, 0.3, np.nan],
    )
    (table,) = tables.batch_norm(frame)
    (row,) = by_heading(table)  # DCGAN has no encoder
    assert row["MSE of x, frozen"].startswith("0.300") and row["n"] == "2"
    assert row["batch / frozen"].startswith("0.62")  # of each run, not of the means
    assert tables.batch_norm(frame.assign(mse_x_batch=np.nan)) == []
    assert tables.batch_norm(frame.drop(columns="mse_x_batch")) == []


def test_ranks_under_each_classifier_and_how_far_they_agree() -> None:
    scores = [8.0, 7.0, 6.0]
    frame = runs(
        method=["a", "b", "c"],
        label=["A", "B", "C"],
        lam=[0.0] * 3,
        seed=[0] * 3,
        inception_score=scores,
        inception_score_1=[7.9, 7.1, 6.1],
        inception_score_2=[7.0, 7.2, 6.2],  # swaps the first two
        frechet=[1.0, 2.0, 3.0],
        frechet_1=[1.0, 2.0, 3.0],
        frechet_2=[1.0, 2.0, 3.0],
    )
    (table,) = tables.rankings(frame)
    rows = by_heading(table)
    assert [row["ranks by IS"] for row in rows] == ["1, 1, 2", "2, 2, 1", "3, 3, 3"]
    assert [row["ranks by Fréchet"] for row in rows] == [
        "1, 1, 1",
        "2, 2, 2",
        "3, 3, 3",
    ]
    assert "0.33 by IS and 1.00 by Fréchet" in table.caption
    further = ("inception_score_1", "inception_score_2", "frechet_1", "frechet_2")
    assert tables.rankings(frame.assign(**dict.fromkeys(further, np.nan))) == []


def test_other_settings_are_named_by_what_differs() -> None:
    frame = runs(
        method=["svae_r"] * 2,
        label=["sVAE-r"] * 2,
        lam=[10.0] * 2,
        seed=[0, 1],
        inception_score=[8.0, 8.2],
        mse_x=[0.1, 0.2],
    )
    (table,) = tables.settings([({"width": 0.25, "epochs": 6}, frame)])
    (row,) = by_heading(table)
    assert row["settings"] == "width 0.25, epochs 6"
    assert row["MSE of x"].startswith("0.150") and row["n"] == "2"
    assert tables.settings([]) == []


def test_matching_alone_is_shown_under_both_critics() -> None:
    own = runs(
        method=["svae_r", "svae_r", "vae"],
        label=["sVAE", "sVAE-r", "VAE"],
        lam=[0.0, 1.0, 0.0],
        seed=[0, 0, 0],
        inception_score=[8.0, 8.0, 7.0],
        mse_x=[0.36, 0.2, 0.05],
    )
    other = own.iloc[:1].assign(critic="additive", mse_x=0.55)
    assert critics(own, []) == []
    (table,) = critics(own, [other])
    found = {row["critic f(x, z)"]: row["MSE of x"] for row in by_heading(table)}
    assert found == {"joint": "0.360", "additive": "0.550"}
    assert "0.270" in table.caption


def test_annealing_is_shown_at_each_number_of_images_and_temperatures() -> None:
    own = runs(
        method=["vae", "svae_r"],
        label=["VAE", "sVAE-r"],
        lam=[0.0, 0.1],
        seed=[0, 0],
        ais_images=[40, 40],
        temperatures=[500, 500],
        log_likelihood=[-98.0, -110.0],
        log_likelihood_se=[4.0, 5.0],
        bdmc_gap=[0.5, 1.0],
    )
    more = own.iloc[:1].assign(ais_images=400, log_likelihood=-97.5, log_likelihood_se=1.2)
    most = more.assign(temperatures=2000, log_likelihood=-97.1)
    assert annealing(own, []) == []
    (table,) = annealing(own, [more, most])
    assert [row["more than by the fewest"] for row in by_heading(table)] == ["", "", "+0.40"]
    found = [
        (row["images"], row["temperatures"], row["log p(x) ≥, nats"]) for row in by_heading(table)
    ]
    assert found == [("40", "500", "-98.00"), ("400", "500", "-97.50"), ("400", "2000", "-97.10")]


def test_a_row_of_anchors_is_no_method_that_was_not_run() -> None:
    frame = runs(method=["vae"], label=["VAE"], lam=[0.0], seed=[0], mse_x=[0.1])
    ((known, none),) = tables.with_anchors([], frame)
    assert known["label"] == "mean image"
    assert [cell((known, none)) for _, cell in tables.NUMBERS] == ["", ""]


class TestPairs:
    """Scores of seeds 0, 1 and 2; the GAN has one lambda, and no error."""

    METRICS = STUDIES["cifar10"].metrics()

    def frame(self) -> pd.DataFrame:
        rows = []
        for method, lam, score in (
            *(("svae_r", 0.0, 6.0), ("svae_r", 1.0, 5.0)),
            *(("alice", 0.0, 4.0), ("alice", 1.0, 2.0), ("gan", 0.0, 3.0)),
        ):
            for seed, more in enumerate((0.0, 0.1, 0.3)):
                gain = more if method == "alice" else 2 * more
                each = {"method": method, "label": f"{method} {lam:g}", "lam": lam, "seed": seed}
                error = np.nan if method == "gan" else 0.2
                rows.append(each | {"inception_score": score + gain, "mse_x": error})
        return runs(**{name: [r[name] for r in rows] for name in rows[0]})

    def test_differences_are_of_equal_seeds_and_minus_the_baseline(self) -> None:
        (table,) = tables.pairs(self.frame(), self.METRICS, "alice")
        assert table.title == "Each method against alice 0, alice 1, paired"
        rows = by_heading(table)
        lams = [(r["method"], r["λ"], r["λ of alice 0, alice 1"]) for r in rows]
        assert lams == [
            *(("svae_r 0", "0", "0"), ("svae_r 1", "1", "1")),
            *(("gan 0", "0", "0"), ("gan 0", "0", "1")),
        ]
        gains = [r["IS (our classifier)"].split()[0] for r in rows]
        assert gains == ["+2.13", "+3.13", "-0.87", "+1.13"]
        # By hand: mean 2.1333 and sd 0.1528 of three, t = 24.2 at two degrees of freedom.
        assert rows[0]["IS (our classifier)"] == "+2.13 [+1.75, +2.51]"
        assert "equal reconstruction" not in table.caption
        assert rows[0]["p of IS (our classifier)"] == "0.002" and rows[0]["pairs"] == "3"
        assert [r["MSE of x"].split()[0] for r in rows] == ["+0.000", "+0.000", "–", "–"]

    def test_another_baseline_turns_the_sign_and_none_has_no_table(self) -> None:
        (table,) = tables.pairs(self.frame(), self.METRICS, "gan")
        found = {
            (r["method"], r["λ of gan 0"]): r["IS (our classifier)"] for r in by_heading(table)
        }
        assert "no table compares at equal reconstruction" in table.caption
        assert found["alice 0", "0"].startswith("+0.87")
        assert found["alice 1", "0"].startswith("-1.13") and len(found) == 4
        assert tables.pairs(self.frame(), self.METRICS, "") == []

    def test_a_pair_of_which_a_run_diverged_is_counted_apart(self) -> None:
        frame = self.frame()
        lost = (frame["label"] == "alice 0") & (frame["seed"] == 2)
        frame["status"] = frame["status"].mask(lost, "diverged")
        frame["inception_score"] = frame["inception_score"].mask(lost)
        first = by_heading(tables.pairs(frame, self.METRICS, "alice")[0])[0]
        assert (first["pairs"], first["with a diverged run"]) == ("2", "1")
        assert first["IS (our classifier)"].startswith("+2.05")


def test_a_method_that_the_suite_does_not_know_is_in_figures_over_lambda() -> None:
    frame = runs(
        method=["svae_r", "mine", "mine", "dcgan", "svae_r_density", "svae_r_density"],
        lam=[0.0, 0.0, 1.0, 0.0, 0.0, 1e-3],
        seed=[0] * 6,
    )
    assert {*frames.swept(frame)["method"]} == {"svae_r", "mine"}
