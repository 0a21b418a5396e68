"""Which settings matter, from made rows whose effects are known by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bench.render import intervals
from bench.render.tables import Table
from bench.store.rows import to_bytes
from bench.studies.toy_grid import factors
from bench.studies.toy_grid.runs import runs
from bench.studies.toy_grid.spec import ToySpec
from tests.rows import TOY, TOY_ROWS, row

GRID = [spec for spec in TOY.specs("quick") if spec.lam == 0.1]
OURS = [spec for spec in GRID if spec.method == "svae_r"]
Score = Callable[[ToySpec], float | None]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 10_000)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Makes the frame of runs of these trainings; a score of None is a diverged run."""

    def make(specs: Iterable[ToySpec], score: Score, **more: Any) -> pd.DataFrame:
        rows = [row(spec, score(spec), **more) for spec in specs]
        (tmp_path / "toy_grid").mkdir(exist_ok=True)
        content = to_bytes(pa.Table.from_pylist(rows, schema=TOY_ROWS))
        (tmp_path / "toy_grid" / "quick.parquet").write_bytes(content)
        return runs(TOY, tmp_path, "quick")

    return make


def read(table: Table, *keys: str) -> dict[str, str]:
    """The row whose first cells are these, by heading."""
    (line,) = (line for line in table.rows if tuple(line[: len(keys)]) == keys)
    return dict(zip(table.names, line, strict=True))


def effect(frame: pd.DataFrame, factor: str, name: str = "effects_top", method: str = "") -> str:
    (table,) = (table for table in factors.effects(frame) if table.name == name)
    return read(table, method or "sVAE-r", factor)["λ = 0.1"]


def split(cell: str) -> tuple[str, float, float, float]:
    """The means at the levels, the effect and the ends of its interval."""
    means, _, gain = cell.partition(": ")
    value, low, high = gain.replace("[", "").replace("]", "").replace(",", "").split()
    return means, float(value), float(low), float(high)


# Main effects


def test_main_effects_are_differences_of_the_means_at_the_levels(made: Callable[..., Any]) -> None:
    """A run is in the top bin at three decoder layers and one critic update: one in six."""
    frame = made(OURS, lambda s: 4.9 if s.decoder_depth == 3 and s.critic_steps == 1 else 3.0)
    assert split(effect(frame, "decoder depth 2, 3"))[:2] == ("0, 33 %", 0.33)
    assert split(effect(frame, "critic updates 1, 3, 5"))[:2] == ("50, 0, 0 %", -0.5)
    assert split(effect(frame, "model updates 1, 3, 5"))[:2] == ("17, 17, 17 %", 0.0)
    means, gain, low, high = split(effect(frame, "encoder width 32, 64"))
    assert (means, gain) == ("17, 17 %", 0.0) and low < -0.1 < 0.1 < high
    score = split(effect(frame, "decoder depth 2, 3", "effects_score"))
    assert score[:2] == ("3.00, 3.63", 0.63)
    assert effect(frame, "decoder depth 2, 3", "effects_close") == "100, 100 %"


def test_the_middle_level_has_no_part_in_the_effect(made: Callable[..., Any]) -> None:
    frame = made(OURS, lambda s: {1: 2.0, 3: 4.9, 5: 3.0}[s.model_steps] + 0.1 * s.critic_steps)
    cell = effect(frame, "model updates 1, 3, 5", "effects_score")
    assert split(cell)[:2] == ("2.30, 5.20, 3.30", 1.0)


def test_an_interval_is_that_of_two_means_over_configurations(made: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    frame = made(OURS, lambda s: 3 + 0.5 * (s.critic_depth == 3) + rng.normal(0, 0.4))
    a, b = (frame.loc[frame["critic_depth"] == depth, "score"] for depth in (2, 3))
    wide = 1.96 * np.sqrt(a.var() / len(a) + b.var() / len(b))
    _, gain, low, high = split(effect(frame, "critic depth 2, 3", "effects_score"))
    assert gain == pytest.approx(b.mean() - a.mean(), abs=0.005)
    assert [gain - low, high - gain] == pytest.approx([wide, wide], rel=0.1)


def test_more_seeds_are_not_more_configurations(made: Callable[..., Any]) -> None:
    def score(spec: ToySpec) -> float:
        return 4.9 if int(spec.config[:4], 16) % 3 else 3.0

    once = [table.rows for table in factors.effects(made(OURS, score))]
    again = [replace(spec, seed=seed) for spec in OURS for seed in range(3)]
    assert [table.rows for table in factors.effects(made(again, score))] == once
    half = made(again, lambda s: 4.9 if s.seed == 0 and s.critic_depth == 3 else 3.0)
    assert effect(half, "critic depth 2, 3") == "0, 33 %"
    # A configuration with more seeds weighs no more.
    bad = [replace(spec, seed=1) for spec in OURS if not score(spec) > 4]
    assert [table.rows for table in factors.effects(made([*OURS, *bad], score))] == once


def test_a_diverged_run_counts_as_the_worst(made: Callable[..., Any]) -> None:
    frame = made(OURS, lambda s: None if s.critic_steps == 5 else 4.9)
    factor = "critic updates 1, 3, 5"
    assert effect(frame, factor, "effects_score") == "4.90, 4.90, 1.00"
    assert effect(frame, factor) == effect(frame, factor, "effects_close") == "100, 100, 0 %"


def test_cells_of_a_method_and_lambda_have_their_own_runs(made: Callable[..., Any]) -> None:
    specs = [s for s in TOY.specs("quick") if s.lam in (0.0, 0.1)]

    def score(spec: ToySpec) -> float:
        good = spec.critic_depth == (3 if spec.lam else 2)
        return 4.9 if good and spec.method == "alice" else 3.0

    top = factors.effects(made(specs, score))[0]
    assert read(top, "ALI, ALICE", "critic depth 2, 3")["λ = 0"] == "100, 0 %"
    assert read(top, "ALI, ALICE", "critic depth 2, 3")["λ = 0.1"] == "0, 100 %"
    assert read(top, "sVAE, sVAE-r", "critic depth 2, 3")["λ = 0.1"] == "0, 0 %"


def test_one_configuration_a_level_has_no_main_effect(made: Callable[..., Any]) -> None:
    few = [s for s in OURS if s.critic_steps == s.model_steps == 1][:2]
    assert not any(table.rows for table in factors.effects(made(few, lambda s: 4.9)))
    names = [
        table.name
        for table in factors.tables(made(few, lambda s: 4.9), made(few, lambda s: 4.9), 0.1)
    ]
    assert names == ["worst", "collapses"]


# The spread of seeds and of configurations


def test_the_spread_is_told_apart_by_seeds_and_configurations(made: Callable[..., Any]) -> None:
    """Scores that are drawn with an sd of 0.3 over configurations and 0.1 over seeds."""
    rng = np.random.default_rng(0)
    configs = {s.config: 3 + 0.3 * rng.normal() for s in OURS}
    several = [replace(s, seed=seed) for s in OURS for seed in range(5)]
    draws = {s.id: configs[s.config] + 0.1 * rng.normal() for s in several}
    table = factors.components(made(several, lambda s: draws[s.id]))
    found = read(table, "0.1", "sVAE-r")
    assert abs(float(found["IS: sd of seeds"]) - 0.1) < 0.01
    assert abs(float(found["IS: sd of configurations"]) - 0.3) < 0.05
    share = found["IS: share of seeds"].replace("[", "").replace("]", "").replace(",", "")
    value, low, high = map(float, share.split())
    assert low <= 0.1 <= high and low < value < high
    assert (found["configurations"], found["runs"]) == ("72", "360")
    # Configurations of one seed say nothing of seeds.
    few = [s for s in several if s.seed == 0 or s.config in sorted(configs)[:9]]
    found = read(factors.components(made(few, lambda s: draws[s.id])), "0.1", "sVAE-r")
    assert (found["configurations"], found["runs"]) == ("9", "45")
    assert factors.components(made(OURS, lambda s: draws[s.id])).rows == []


def test_the_spread_of_a_paired_difference_leaves_out_what_both_share(
    made: Callable[..., Any],
) -> None:
    """A configuration shifts both methods alike, and then one of them alone as well."""
    rng = np.random.default_rng(0)
    configs = {s.config: rng.normal() for s in OURS}
    several = [replace(s, seed=seed) for s in GRID for seed in range(5)]
    draws = {s.id: configs[s.config] + 0.1 * rng.normal() for s in several}
    table = factors.components(made(several, lambda s: draws[s.id]))
    assert read(table, "0.1", "ALICE")["IS: share of seeds"].startswith("0.01 ")
    found = read(table, "0.1", "sVAE-r − ALICE")
    assert float(found["IS: share of seeds"].split()[0]) > 0.95
    assert abs(float(found["IS: sd of seeds"]) - 0.1 * 2**0.5) < 0.01
    assert (found["configurations"], found["runs"]) == ("72", "360")
    own = {s.config: rng.normal() for s in OURS}
    moved = {s.id: draws[s.id] + own[s.config] * (s.method == "alice") for s in several}
    found = read(factors.components(made(several, lambda s: moved[s.id])), "0.1", "sVAE-r − ALICE")
    drawn = np.std([*own.values()], ddof=1)
    assert float(found["IS: sd of configurations"]) == pytest.approx(drawn, abs=0.02)


def test_all_of_the_spread_may_be_the_seeds(made: Callable[..., Any]) -> None:
    two = [replace(s, seed=seed) for s in OURS for seed in range(2)]
    found = read(factors.components(made(two, lambda s: 3.0 + s.seed)), "0.1", "sVAE-r")
    assert found["IS: sd of configurations"] == "0.000"
    assert found["IS: share of seeds"] == "1.00 [1.00, 1.00]"
    assert found["log10 MSE: share of seeds"] == "0.00 [0.00, 0.00]"


# The worst configurations and collapse


def test_the_worst_are_those_of_both_methods_at_this_lambda(made: Callable[..., Any]) -> None:
    specs = TOY.specs("quick", methods=["svae_r", "alice", "alice_minimax"], lams=[0.0, 0.1])
    configs = list(dict.fromkeys(spec.config for spec in specs))

    def score(spec: ToySpec) -> float | None:
        place = configs.index(spec.config)
        if spec.lam == 0 or spec.method == "alice_minimax":
            return 5 - 0.05 * place
        if place == 40:
            return None if spec.method == "alice" else 3.0
        return {7: 1.3, 8: 4.0 if spec.method == "alice" else 1.1}.get(place, 4.5)

    table = factors.worst(made(specs, score), 0.1)
    assert len(table.rows) == 10
    lines = [dict(zip(table.names, line, strict=True)) for line in table.rows[:3]]
    assert [line["IS mean"] for line in lines] == ["1.30", "2.00", "2.55"]
    assert [line["IS of ALICE"] for line in lines] == ["1.30", "1.00", "4.00"]
    assert [line["IS of alice_minimax"] for line in lines] == ["4.65", "3.00", "4.60"]
    assert [line["IS < 1.4"] for line in lines] == ["2 of 2", "1 of 2", "1 of 2"]
    worst = next(spec for spec in specs if spec.config == configs[7])
    assert lines[0]["updates"] == f"{worst.critic_steps}:{worst.model_steps}"
    assert lines[0]["depths"] == ", ".join(map(str, worst.depths))
    assert lines[0]["widths"] == ", ".join(map(str, worst.widths))


def test_a_configuration_that_one_method_lacks_has_no_place(made: Callable[..., Any]) -> None:
    lacking = OURS[0].config
    specs = [s for s in GRID if s.method == "svae_r" or s.config != lacking]
    table = factors.worst(made(specs, lambda s: 1.0 if s.config == lacking else 4.0), 0.1)
    assert {line[table.names.index("IS mean")] for line in table.rows} == {"4.00"}


def test_collapsed_runs_stand_under_their_updates(made: Callable[..., Any]) -> None:
    def score(spec: ToySpec) -> float | None:
        gone = (spec.critic_steps, spec.model_steps) == (5, 3) and spec.method == "alice"
        return (None if spec.decoder_depth == 2 else 1.39) if gone else 1.4

    table = factors.collapses(made(GRID, score))
    pairs = ["5:1", "3:1", "5:3", "1:1", "3:3", "5:5", "3:5", "1:3", "1:5"]
    assert table.names == ["λ", "method", *pairs, "all"]
    found = read(table, "0.1", "ALICE")
    assert found["5:3"] == "8 of 8" and found["3:5"] == "0 of 8" and found["all"] == "8 of 72"
    assert read(table, "0.1", "sVAE-r")["all"] == "0 of 72"


# Sensitivities


def slow(specs: Iterable[ToySpec], rate: float = 1e-4) -> list[ToySpec]:
    return [replace(spec, lr=rate) for spec in specs]


def test_a_deviation_is_told_by_pairs(made: Callable[..., Any]) -> None:
    """At the smaller rate half of sVAE-r's runs leave the top bin and a quarter of ALICE's."""

    def score(spec: ToySpec) -> float:
        good = spec.lr == 1e-3 or spec.critic_depth == 2
        good = good or (spec.method == "alice" and spec.encoder_depth == 2)
        return 4.9 if good else 3.0

    frame = made([*GRID, *slow(GRID)], score)
    table = factors.sensitivities(frame)
    words = "learning rate 0.001, 0.0001"
    ours, theirs, gap = (
        read(table, words, "0.1", label) for label in ("sVAE-r", "ALICE", "sVAE-r − ALICE")
    )
    assert split(ours["IS > 4.6"])[:2] == ("100, 50 %", -0.5)
    assert split(theirs["IS > 4.6"])[:2] == ("100, 75 %", -0.25)
    assert split(gap["IS > 4.6"])[:2] == ("+0, -25 %", -0.25)
    _, _, low, high = split(ours["IS > 4.6"])
    assert (low, high) == pytest.approx((-0.61, -0.38), abs=0.03)  # 72 coins
    assert ours["MSE < 0.5"] == "100, 100 %" and ours["MSE median"] == "0.100, 0.100"
    assert ours["modes"] == "5.00, 5.00" and gap["modes"] == "+0.00, +0.00"
    assert {each["n"] for each in (ours, theirs, gap)} == {"72"}
    assert len(table.rows) == 3


@pytest.mark.parametrize(
    "other", [{"epochs": 20}, {"seed": 1}, {"method": "alice"}, {"lam": 0.01}, {"batch": 64}]
)
def test_no_pair_differs_in_another_field(made: Callable[..., Any], other: dict[str, Any]) -> None:
    apart = [replace(spec, **other) for spec in slow(OURS)]
    assert not factors.sensitivities(made([*OURS, *apart], lambda s: 4.9)).rows
    # Only the pair that is one counts.
    table = factors.sensitivities(made([*OURS, *apart, *slow(OURS[:3])], lambda s: 4.9))
    assert [line[-1] for line in table.rows] == ["3"]


def test_a_diverged_run_of_a_pair_counts_as_the_worst(made: Callable[..., Any]) -> None:
    frame = made([*OURS, *slow(OURS)], lambda s: 4.9 if s.lr == 1e-3 else None)
    found = read(factors.sensitivities(frame), "learning rate 0.001, 0.0001", "0.1", "sVAE-r")
    assert found["IS > 4.6"] == found["MSE < 0.5"] == "100, 0 %"
    assert found["MSE median"] == "0.100, inf" and found["modes"] == "5.00, 0.00"


def test_dropout_is_compared_at_our_learning_rate(made: Callable[..., Any]) -> None:
    dropped = [replace(spec, dropout=0.2) for spec in GRID]
    frame = made([*GRID, *dropped], lambda s: 3.0 if s.dropout else 4.9)
    table = factors.sensitivities(frame)
    assert [line[0] for line in table.rows] == ["dropout 0, 0.2"] * 3
    assert read(table, "dropout 0, 0.2", "0.1", "sVAE-r")["IS > 4.6"] == "100, 0 %"
    # A run that deviates twice has no pair.
    assert not factors.sensitivities(made([*GRID, *slow(dropped)], lambda s: 4.9)).rows
    # Two runs that both deviate are no pair of ours.
    assert not factors.sensitivities(made([*dropped, *slow(dropped)], lambda s: 4.9)).rows


def test_resamples_of_several_columns_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)) * [1, 2, 0] + [0, 1, 5]
    together = [found.interval() for found in intervals.together(values)]
    for column, found in zip(values.T, together, strict=True):
        alone = intervals.bootstrap(column).interval()
        near = pytest.approx((alone.value, alone.low, alone.high), abs=0.03 * column.std() + 1e-9)
        assert (found.value, found.low, found.high) == near
