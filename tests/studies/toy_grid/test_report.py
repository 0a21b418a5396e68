"""What a report of the toy study says, also of a grid that is not complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from bench import report
from bench.render.figures import Picture
from bench.spec import columns
from bench.store.rows import to_bytes
from bench.studies.toy_grid import figures, published, runs
from bench.studies.toy_grid import report as toy
from bench.studies.toy_grid.spec import ToySpec
from tests import mini
from tests.rows import TOY, TOY_ROWS, row
from tests.studies.toy_grid.test_claims import over_lambda


def test_the_front_stands_after_the_scores_with_its_table(tmp_path: Path) -> None:
    names = [part.name for part in build(tmp_path, TOY.specs("smoke"), "smoke").parts]
    assert names[:4] == ["figure3", "scores", "front", "equal"]


def test_runs_of_alice_s_authors_are_never_in_a_panel_of_ours() -> None:
    *ours, theirs = figures.front(over_lambda(0.5)).axes
    (grey,) = (line for line in theirs.lines if str(line.get_label()).startswith("ALICE"))
    known = {value: cell for (label, value), cell in published.alice_cells().items()}
    expected = [(known[v]["MSE median"], known[v]["IS mean"]) for v in sorted(known)]
    assert grey.get_xydata() == pytest.approx(np.array(expected))
    for axes in ours:
        labels = {str(line.get_label()) for line in axes.lines if np.size(line.get_xdata()) > 2}
        assert labels == {"sVAE-r", "the rival"}


# A grid that is not complete


def build(folder: Path, specs: Iterable[ToySpec], scale: str = "paper") -> report.Page:
    """The report of these trainings; those at lambda 0 score lower and don't reconstruct."""
    rows = [row(s, 4.7 if s.lam else 3.0, mse_x=0.1 if s.lam else 5.0) for s in specs]
    return report.build("toy_grid", scale, stored(folder, rows, scale))


def stored(folder: Path, rows: Iterable[dict[str, Any]], scale: str = "paper") -> Path:
    """The folder, which has these rows now."""
    (folder / "toy_grid").mkdir(exist_ok=True)
    content = to_bytes(pa.Table.from_pylist([*rows], schema=TOY_ROWS))
    (folder / "toy_grid" / f"{scale}.parquet").write_bytes(content)
    return folder


def said(page: report.Page) -> dict[str, str]:
    """The verdict of each claim, as it is read."""
    claims = page.tables["claims"]
    return {line[0]: line[claims.names.index("verdict")] for line in claims.rows}


PAPER_GRID = TOY.specs("paper")


def test_one_ratio_of_updates_says_so_in_every_verdict(tmp_path: Path) -> None:
    page = build(tmp_path, [s for s in PAPER_GRID if s.critic_steps == s.model_steps == 1])
    part = "(indicative; on 64 of 576 configurations: critic updates 1, model updates 1)"
    found = said(page)
    assert found["1a"] == f"holds {part}" and found["1c"] == f"holds {part}"
    assert {verdict.split(" ", 1)[1] for verdict in found.values()} == {part}
    assert page.missing == 8 * 64 * 6
    assert page.warnings == [
        "The study's own grid is not complete. It lacks 512 of 576 configurations, which are not "
        "begun."
    ]
    scores = page.tables["scores"]
    assert {line[scores.names.index("not trained yet")] for line in scores.rows} == {"0"}
    text = page.texts()["report.md"].replace("\N{NO-BREAK SPACE}", " ")
    assert text.index("is not complete") < text.index("##")


def test_a_thinned_grid_names_no_field(tmp_path: Path) -> None:
    configs = sorted({s.config for s in PAPER_GRID})[::8]
    page = build(tmp_path, [s for s in PAPER_GRID if s.config in configs])
    assert said(page)["1a"] == "holds (indicative; on 72 of 576 configurations)"


def test_the_whole_eighth_is_more_than_indicative(tmp_path: Path) -> None:
    """Where one of its configurations lacks ALICE, verdicts that read ALICE are indicative."""
    specs = TOY.fraction(PAPER_GRID, "1/8")
    (whole, part) = (tmp_path / "whole", tmp_path / "part")
    whole.mkdir()
    part.mkdir()
    page = build(whole, specs)
    found = said(page)
    assert found["1a"] == "holds (on the balanced eighth, 72 of 576 configurations)"
    assert set(found.values()) == {found["1a"], found["1b"], found["1f"]}
    assert not any("indicative" in verdict for verdict in found.values())
    assert page.warnings[0].startswith(
        "Of the study's own grid these are the balanced eighth, 72 of 576 configurations."
    )
    assert page.missing == 0 and "not complete" not in page.warnings[0]
    lacks = [s for s in specs if (s.config, s.method) != (specs[0].config, "alice")]
    page = build(part, lacks)
    assert said(page)["1b"].endswith("(indicative; on 71 of 576 configurations)")
    assert page.warnings[0].endswith("The grid lacks 3 trainings of configurations that are begun.")
    assert page.missing == 3


def test_a_path_that_misses_a_target_is_trained_all_the_same(tmp_path: Path) -> None:
    specs = TOY.fraction(PAPER_GRID, "1/8")
    far = specs[0].config
    rows = [row(s, 4.0, mse_x=5.0 if s.config == far or not s.lam else 0.1) for s in specs]
    found = report.build("toy_grid", "paper", stored(tmp_path, rows))
    assert said(found)["1f"].endswith("(on the balanced eighth, 72 of 576 configurations)")
    claims = found.tables["claims"]
    evidence = {line[0]: line[claims.names.index("evidence")] for line in claims.rows}["1f"]
    assert evidence.endswith("over 71 configurations")


def test_further_seeds_of_the_balanced_32nd_leave_the_eighth_whole(tmp_path: Path) -> None:
    """One that is lacking is told. Another method with a seed is not asked for more."""
    more = TOY.fraction(TOY.specs("paper", seeds=3), "1/32")
    specs = [*TOY.fraction(PAPER_GRID, "1/8"), *(spec for spec in more if spec.seed)]
    beside = TOY.fraction(TOY.specs("paper", methods=["alice_minimax"], lams=[0.1]), "1/8")
    (tmp_path / "whole").mkdir()
    page = build(tmp_path / "whole", [*specs, *beside])
    assert page.missing == 0
    assert said(page)["1a"].endswith(
        "(on the balanced eighth, 72 of 576 configurations; 18 configurations have 3 seeds)"
    )
    assert page.warnings[0].endswith("or none is. 18 configurations have 3 seeds.")
    scores = page.tables["scores"]
    lacking = {line[1]: line[scores.names.index("not trained yet")] for line in scores.rows}
    assert lacking.pop("alice_minimax") == "0" and {*lacking.values()} == {"0"}
    (tmp_path / "part").mkdir()
    page = build(tmp_path / "part", [s for s in specs if s.id != more[-1].id])
    assert more[-1].seed == 2 and page.missing == 1
    assert "The grid lacks 1 training of configurations that are begun." in page.warnings[0]
    assert said(page)["1b"].endswith(
        "72 of 576 configurations; 17 configurations have 3 seeds, 1 configuration has 2 seeds)"
    )


def test_a_further_seed_that_was_begun_is_asked_for_where_the_first_is(tmp_path: Path) -> None:
    """Five configurations have it, so the eighth lacks it in 67, at each lambda and method."""
    eighth = TOY.fraction(PAPER_GRID, "1/8")
    five = sorted({spec.config for spec in eighth})[:5]
    more = [s for s in TOY.specs("paper", seeds=2) if s.seed and s.config in five]
    page = build(tmp_path, [*eighth, *more])
    assert page.missing == 67 * 6
    assert page.warnings[0].startswith("Of the study's own grid these are the balanced eighth")
    assert page.warnings[0].endswith(
        "The grid lacks 402 trainings of configurations that are begun. "
        "5 configurations have 2 seeds."
    )
    part = "(on the balanced eighth, 72 of 576 configurations; 5 configurations have 2 seeds)"
    assert {verdict[-len(part) :] for verdict in said(page).values()} == {part}


def test_a_path_with_a_gap_is_no_part_of_what_a_claim_rests_on(tmp_path: Path) -> None:
    """One configuration lacks one training at λ = 0.1, and reaches no error before."""
    specs = TOY.fraction(PAPER_GRID, "1/8")
    lost = next(s for s in specs if s.method == "svae_r" and s.lam == 0.1)
    rows = [row(s, 4.0, mse_x=0.1 if s.lam == 0.1 else 5.0) for s in specs if s.id != lost.id]
    found = report.build("toy_grid", "paper", stored(tmp_path, rows))
    assert said(found)["1f"].endswith("(indicative; on 71 of 576 configurations)")
    equal = found.tables["equal"]
    ours, theirs = (
        {line[equal.names.index(name)] for line in equal.rows}
        for name in ("paths of sVAE-r that reach it", "of the other")
    )
    assert ours == {"71 of 72 (1 not trained to the end)"} and theirs == {"72 of 72"}
    assert not any("the worst" in name for name in equal.names)


def test_runs_as_the_paper_s_lie_no_further_away_than_chance(tmp_path: Path) -> None:
    """Shares of the bins are compared, at the paper's own size alone."""
    specs = [s for s in TOY.fraction(PAPER_GRID, "1/8") if s.lam == 0.1]
    table = build(tmp_path, specs).tables["distances"]
    lines = {line[1]: dict(zip(table.names, line, strict=True)) for line in table.rows}
    # All of ours are in the top bin, where the paper has 77.8 and 73.5 % of what it has drawn.
    assert lines["sVAE-r"]["IS"] == "23.1 %" and lines["ALICE"]["IS"] == "26.9 %"
    assert "sVAE-r IS 23.1 % and MSE" in table.caption
    beyond = "sVAE-r at λ = 0.1 by the IS, sVAE-r at λ = 0.1 by the MSE, ALICE at λ = 0.1 by the IS"
    # They are in the first bin of the MSE, where the paper has 91.3 and 96.6 of 99.5 and 99.7 %.
    means = [(line["IS mean by bins"], line["paper IS mean by bins"]) for line in lines.values()]
    assert means == [("4.80", "4.37"), ("4.80", "4.41")]
    assert lines["ALICE"]["MSE"] == "3.1 %" and lines["sVAE-r"]["MSE"] == "8.2 %"
    assert f"Of 4 distances 3 exceed chance ({beyond}), where 0.2 are" in table.caption
    swapped = [line["IS, to the other method's bars (by chance)"] for line in lines.values()]
    assert [words.split(" (")[0] for words in swapped] == ["26.9 %", "23.1 %"]
    assert "scale quick" not in " ".join(table.names)
    bars = published.paper_bars()
    theirs = bars[(bars["label"] == "ALICE") & (bars["lam"] == 0.1) & (bars["metric"] == "MSE")]
    counts = (theirs["percent"] * 10).round().astype(int)
    drawn = np.repeat((theirs["bin_lo"] + 0.25).to_numpy(), counts)
    # Those above the last bin count for nothing: Figure 3 does not draw them.
    drawn = np.append(drawn, np.full(1000 - len(drawn), np.inf))
    frame = pd.DataFrame({"config": range(1000), "mse": drawn})
    found = published._distance(frame, theirs)
    assert found.value < 1e-3 < found.chance < 0.1 and found.p > 0.9 and found.power > 0.99
    assert not found.far
    twice = pd.concat([frame, frame.assign(mse=frame["mse"].where(frame["config"] > 9, 7.9))])
    assert published._distance(twice, theirs).value == pytest.approx(0.005, abs=1e-3)
    far = published._distance(frame.assign(mse=7.9), theirs)
    assert far.far and far.p == 0
    # Of samples that are drawn from the bars one in twenty is beyond chance.
    few = frame[np.isfinite(frame["mse"])]
    draws = [
        few.sample(72, replace=True, random_state=i).assign(config=range(72)) for i in range(200)
    ]
    assert 2 <= sum(published._distance(each, theirs).far for each in draws) <= 18
    build(tmp_path, (s for s in TOY.specs("quick") if s.lam == 0.1), "quick")
    both = report.build("toy_grid", "paper", tmp_path).tables["distances"]
    lines = [dict(zip(both.names, line, strict=True)) for line in both.rows]
    assert [line["IS, scale quick"] for line in lines] == ["23.1 %", "26.9 %"]
    (tmp_path / "quick").mkdir()
    (tmp_path / "one").mkdir()
    quick = build(tmp_path / "quick", TOY.specs("quick"), "quick")
    assert "distances" not in quick.tables
    at_one = build(tmp_path / "one", [s for s in TOY.specs("quick") if s.lam == 0.1], "quick")
    assert "equal" not in at_one.tables  # no table is without rows


def test_distances_are_of_the_first_seed(tmp_path: Path) -> None:
    """The paper has one run a configuration, and only such runs scatter as its bars do."""
    specs = TOY.fraction(PAPER_GRID, "1/8") + TOY.fraction(TOY.specs("paper", seeds=2), "1/32")
    rows = [row(s, 4.7 if s.seed == 0 else 1.0) for s in {s.id: s for s in specs}.values()]
    table = report.build("toy_grid", "paper", stored(tmp_path, rows)).tables["distances"]
    lines = [dict(zip(table.names, line, strict=True)) for line in table.rows]
    assert {line["IS mean by bins"] for line in lines} == {"4.80"}
    assert {line["configurations"] for line in lines} == {"72"}


def test_figure_3_has_the_paper_s_lambdas_and_others_stand_apart(tmp_path: Path) -> None:
    specs = TOY.specs("smoke", METHODS, [0.0, 1.0])
    frames = {}
    for part in report.build("toy_grid", "smoke", stored(tmp_path, map(row, specs), "smoke")).parts:
        if isinstance(part, Picture) and part.name in ("figure3", "histograms"):
            titles = {axes.get_title("left") for axes in part.draw().axes}
            frames[part.name] = {title.split("λ = ")[1] for title in titles}
    assert frames == {"figure3": {"0"}, "histograms": {"1"}}
    only = [s for s in specs if s.lam]
    page = report.build("toy_grid", "smoke", stored(tmp_path, map(row, only), "smoke"))
    assert [picture.name for picture in page.pictures][:2] == ["front", "histograms"]


def test_a_complete_grid_says_nothing_new(tmp_path: Path) -> None:
    page = build(tmp_path, TOY.specs("quick"), "quick")
    assert said(page)["1a"] == "holds (indicative)"
    assert page.missing == 0 and not page.warnings


def test_quick_stays_indicative_beside_its_part(tmp_path: Path) -> None:
    few = [s for s in TOY.specs("quick") if s.model_steps != 5]
    assert said(build(tmp_path, few, "quick"))["1a"] == (
        "undecided (indicative; on 48 of 72 configurations: model updates 1, 3)"
    )


def test_seeds_that_some_configurations_lack_are_told(tmp_path: Path) -> None:
    both = TOY.specs("quick", seeds=2)
    first = both[0].config
    page = build(tmp_path, [s for s in both if s.seed == 0 or s.config == first], "quick")
    assert said(page)["1b"].endswith("; on 72 of 72 configurations; 1 configuration has 2 seeds)")
    assert page.missing == 432 - 6
    assert page.warnings == [
        "The study's own grid is not complete. The grid lacks 426 trainings of configurations that "
        "are begun. 1 configuration has 2 seeds."
    ]


def test_verdicts_rest_on_the_runs_that_they_read(tmp_path: Path) -> None:
    """ALICE is begun in one depth of the encoder alone, and not at all at lambda 0."""
    specs = [
        s
        for s in TOY.specs("quick")
        if s.method == "svae_r" or (s.lam == 0.1 and s.encoder_depth == 2)
    ]
    page = build(tmp_path, specs, "quick")
    half = "on 36 of 72 configurations: encoder depth 2"
    found = said(page)
    assert found["1a"] == f"undecided (indicative; on 72 of 72 configurations and {half})"
    assert found["1b"].endswith(f"(indicative; {half})")
    assert found["1c"] == found["1e"] == "no data (indicative)"
    scores = page.tables["scores"]
    lines = {tuple(line[:2]): dict(zip(scores.names, line, strict=True)) for line in scores.rows}
    assert lines["0.1", "ALICE"]["not trained yet"] == "36"
    assert lines["0.1", "ALICE"]["diverged"] == "0"
    assert lines["0.1", "ALICE"]["MSE < 0.5"] == "100.0 %"
    assert ("0", "ALI") not in lines and ("0.01", "ALICE") not in lines


def test_other_settings_are_no_part_of_the_grid(tmp_path: Path) -> None:
    page = build(tmp_path, TOY.specs("quick", given={"epochs": [20]}), "quick")
    assert said(page)["1a"] == (
        "holds (indicative; on 72 configurations of other settings: epochs 20)"
    )
    assert page.missing == 432


def test_a_method_that_was_begun_is_asked_for_whole(tmp_path: Path) -> None:
    own, more = TOY.specs("quick"), TOY.specs("quick", methods=["alice_minimax"], lams=[0.1])
    page = build(tmp_path, [*own, *more[:10]], "quick")
    assert page.missing == 62
    assert said(page)["1a"] == "holds (indicative)"  # its own grid is complete
    scores = page.tables["scores"]
    (line,) = (line for line in scores.rows if line[1] == "alice_minimax")
    assert line[scores.names.index("not trained yet")] == "62"


def test_no_figure_shows_a_run_that_was_not_trained(tmp_path: Path) -> None:
    lacking = [s for s in TOY.specs("quick") if s.lam == 0.1 and s.method == "svae_r"]
    lacking = [s for s in lacking if (s.critic_steps, s.model_steps) == (3, 5)]
    specs = [s for s in TOY.specs("quick") if s not in lacking]
    frame = runs.at_own_rate(build(tmp_path, specs, "quick").frame)
    for draw, whole in ((figures.updates, 0), (figures.ratios, 35 - 9)):
        dashes = [np.size(axes.lines[0].get_xdata()) for axes in draw(frame).axes]
        assert dashes == [whole] * 8 + [whole + 1] * 2 + [whole] * 2
    left = figures.figure3(frame).axes[4]
    legend = left.get_legend_handles_labels()[1]
    assert legend[0].endswith("of 64") and legend[1].endswith("of 72")
    heights = [bar.get_height() for bar in left.patches]  # type: ignore[attr-defined]
    assert sum(height == pytest.approx(100) for height in heights) == 2  # of either's own runs


# Four methods


METHODS = ["svae_r", "alice", "alice_minimax", "alice_sigmoid"]


def loaded(folder: Path, rows: Iterable[dict[str, Any]], scale: str = "quick") -> pd.DataFrame:
    """These rows as a report reads them."""
    return runs.runs(TOY, stored(folder, rows, scale), scale)


def test_a_cell_of_a_heat_map_is_the_share_of_its_runs(tmp_path: Path) -> None:
    """Of eight runs of sVAE-r at 1:5 three score, one of them with quality, and two reconstruct."""
    specs = TOY.specs("quick", lams=[0.1])
    mine = [s for s in specs if (s.critic_steps, s.model_steps) == (1, 5)]
    mine = [s for s in mine if s.method == "svae_r"]
    made = {s.id: row(s, 2.0, mse_x=3.0) for s in specs}
    for s, (score, quality, mse) in zip(
        mine, [(4.9, 0.9, 3.0), (4.7, 0.2, 0.4), (4.61, 0.79, 0.5), (4.6, 0.9, 0.1)], strict=False
    ):
        made[s.id] = row(s, score, high_quality=quality, mse_x=mse)
    made[mine[-1].id] = row(mine[-1], None)  # a diverged run counts as neither
    frame = loaded(tmp_path, made.values())
    first, last = range(2), range(2, 4)
    for draw, place, size in ((figures.updates, (0, 2), 9), (figures.ratios, (0, 2), 35)):
        axes = draw(frame).axes
        values = [each.collections[0].get_array().filled(np.nan) for each in axes]  # type: ignore
        assert [each.size for each in values] == [size] * 4
        assert values[0][place] == 37.5 and values[1][place] == 25.0
        words = [[text.get_text() for text in each.texts] for each in axes]
        assert sorted(words[0]) == ["0\n0"] * 8 + ["38\n12"]
        assert sorted(words[1]) == ["0"] * 8 + ["25"]
        assert all(np.nansum(values[i]) == 0 for i in last)  # ALICE's runs are its own
        assert all(np.nansum(values[i]) == values[i][place] for i in first)


def test_seeds_of_a_configuration_share_its_weight_in_every_figure(tmp_path: Path) -> None:
    """Of two configurations the one with three seeds generates."""
    specs = TOY.specs("quick", methods=["svae_r"], lams=[0.1], seeds=3)
    first, second = [s for s in specs if (s.critic_steps, s.model_steps, s.seed) == (1, 5, 0)][:2]
    made = [row(s, 4.8) for s in specs if s.config == first.config] + [row(second, 2.0)]
    frame = loaded(tmp_path, made)
    traces = [[("svae_r", np.array([size] * 2))] for size in np.where(frame["top"], 1.0, 3.0)]
    frame["decoder_gradient"] = pd.Series(traces, frame.index)
    assert len(frame) == 4
    shares = figures.updates(frame).axes[0].collections[0].get_array()
    assert shares.compressed().tolist() == [50.0]  # type: ignore[union-attr]
    curve = max(figures.profile(frame).axes[0].lines, key=lambda line: np.size(line.get_xdata()))
    x, y = np.asarray(curve.get_xydata()).T
    assert y[(x == 2.0) & (y < 1)].min() == 0.5  # is above the lower score
    assert figures.front(frame).axes[0].lines[0].get_ydata() == pytest.approx([3.4])
    assert figures.gradient(frame).axes[0].lines[0].get_ydata() == pytest.approx([2.0, 2.0])
    assert toy.gradients(frame).rows[0][3] == "2.0000"


def test_equal_ratios_of_other_numbers_of_updates_stand_apart(tmp_path: Path) -> None:
    specs = TOY.specs("quick", methods=["alice"], lams=[0.0])
    rows = (row(s, 4.7 if s.critic_steps == s.model_steps == 3 else 1.0) for s in specs)
    axes = figures.ratios(loaded(tmp_path, rows)).axes[0]
    shares = axes.collections[0].get_array().filled(np.nan)  # type: ignore[union-attr]
    names = [
        [t.get_text() for t in each] for each in (axes.get_yticklabels(), axes.get_xticklabels())
    ]
    assert names == [["1:5", "1:3", "3:5", "1:1", "5:3", "3:1", "5:1"], ["2", "4", "6", "8", "10"]]
    filled = {(names[0][y], names[1][x]): shares[y, x] for y, x in np.argwhere(~np.isnan(shares))}
    sums = {(c, m): c + m for c in (1, 3, 5) for m in (1, 3, 5)}
    expected = {f"{c}:{m}" if c != m else "1:1": n for (c, m), n in sums.items()}
    assert {ratio for ratio, _ in filled} == {*expected}
    assert filled["1:1", "6"] == 100 and sum(filled.values()) == 100
    assert len(filled) == 9 and {n for ratio, n in filled if ratio == "1:1"} == {"2", "6", "10"}


def test_the_caption_of_a_heat_map_counts_the_runs_of_a_cell(tmp_path: Path) -> None:
    both = TOY.specs("quick", seeds=2)
    first = both[0].config
    page = build(tmp_path, [s for s in both if s.seed == 0 or s.config == first], "quick")
    captions = {picture.name: picture.caption for picture in page.pictures}
    assert "A cell has 8 to 9 runs" in captions["updates"]
    assert "A cell has 8 to 9 runs" in captions["ratios"]


def test_numbers_of_alice_stand_beside_alice_alone(tmp_path: Path) -> None:
    """Where Figure 3 has a bar it stays the source."""
    specs = TOY.specs("smoke", METHODS, [0.0, 0.01, 0.1, 1.0, 10.0])
    table = toy.scores(loaded(tmp_path, map(row, specs), "smoke"), TOY.metrics())
    cells = {(r[0], r[1]): dict(zip(table.names, r, strict=True)) for r in table.rows}
    paper = [name for name in table.names if name.startswith("paper")]
    said = {cell: tuple(line[name] for name in paper) for cell, line in cells.items()}
    assert paper == ["paper IS mean", "paper IS > 4.6", "paper MSE median", "paper MSE < 0.5"]
    assert said["1", "ALICE"] == ("4.60", "74.7 %", "0.0154", "")
    assert said["10", "ALICE"] == ("3.34", "0.3 %", "0.0008", "")
    assert said["0.1", "ALICE"] == ("4.41", "73.5 %", "0.0815", "96.6 %")
    assert said["0", "ALI"] == ("2.77", "22.0 %", "4.3740", "0.0 %")
    assert said["0.1", "sVAE-r"] == ("4.37", "77.8 %", "", "91.3 %")
    theirs = {cell for cell, line in said.items() if any(line)}
    figure3 = {(f"{lam:g}", label) for label, lam in published.paper_cells()}
    assert theirs == figure3 | {("1", "ALICE"), ("10", "ALICE")} and len(said) == 20
    assert "github.com/ChunyuanLI/ALICE" in table.caption


def test_modes_are_means_over_runs_and_a_diverged_run_covers_none(tmp_path: Path) -> None:
    specs = TOY.specs("smoke", seeds=2, methods=["svae_r"], lams=[0.0])
    rows = [
        row(specs[0], None),
        *(row(s, modes=n) for s, n in zip(specs[1:], (5, 4, 3), strict=True)),
    ]
    table = toy.scores(loaded(tmp_path, rows, "smoke"), TOY.metrics())
    assert table.rows[0][table.names.index("modes")] == "3.00"
    assert table.names.count("modes") == 1 and "a diverged run covers 0" in table.caption


def test_pairs_name_the_baseline_of_each_row(tmp_path: Path) -> None:
    """ALICE is better than sVAE-r and minimax worse; the sigmoid has runs at lambda 1 alone."""
    specs = [s for s in TOY.specs("smoke", METHODS, [0.0, 1.0]) if s.lam or s.method != METHODS[3]]
    scores = dict(zip(METHODS, (4.7, 4.8, 4.0, 4.7), strict=True))
    frame = loaded(tmp_path, (row(s, scores[s.method]) for s in specs), "smoke")
    table = toy.pairs(frame)
    assert table.names[:4] == ["against", "λ", "comparison", "value"]
    found = [[*r[:2], r[3]] for r in table.rows if r[2].startswith("inception score: P(sVAE")]
    assert found == [
        ["ALI", "0", "0.000"],
        ["ALICE", "1", "0.000"],
        ["alice_sigmoid", "1", "0.500"],
        ["alice_minimax", "0", "1.000"],
        ["alice_minimax", "1", "1.000"],
    ]
    assert len(table.rows) == 5 * 6


def test_pairs_count_in_which_configurations_the_first_is_better() -> None:
    """Of the error less is better; a configuration's seeds are averaged first."""
    frame = over_lambda(0.5, n=9).assign(top=False, close=True)
    frame = frame[frame["lam"] == 0.1]
    ours = (frame["method"] == "svae_r").to_numpy()
    frame.loc[ours, "mse"] += np.array([-1.0] * 2 + [1.0] * 6 + [0.0])
    frame.loc[ours, "top"] = [True] * 4 + [False] * 5
    frame.loc[~ours, "top"] = [False] * 3 + [True] * 3 + [False] * 3
    other = frame.assign(seed=1)
    other.loc[ours, "top"] = [False] * 9  # the mean of one configuration is that of the other
    other.loc[~ours, "top"] = [True] + [False] * 8
    table = toy.pairs(pd.concat([frame, other], ignore_index=True))
    found = {r[2]: r[table.names.index("better : worse")] for r in table.rows}
    assert found["MSE of x: P(sVAE-r better)"] == "2 : 6"
    assert found["share MSE < 0.5: difference"] == "0 : 0"
    assert found["share IS > 4.6: difference"] == "2 : 2"


class TestBaseline:
    def test_pairs_are_of_each_other_method_with_the_baseline(self, tmp_path: Path) -> None:
        """The sigmoid has runs at lambda 1 alone; ALICE is better than every other method."""
        specs = [s for s in TOY.specs("smoke", METHODS, [0, 1]) if s.lam or s.method != METHODS[3]]
        scores = dict(zip(METHODS, (4.7, 4.8, 4.0, 4.7), strict=True))
        frame = loaded(tmp_path, (row(s, scores[s.method]) for s in specs), "smoke")
        table = toy.pairs(frame, "alice")
        assert (
            table.names[0] == "method" and table.title == "Each method against ALI, ALICE, paired"
        )
        found = {(*r[:2], r[2]): r[3] for r in table.rows}
        assert {key[:2] for key in found} == {
            *(("sVAE", "0"), ("sVAE-r", "1"), ("alice_sigmoid", "1")),
            *(("alice_minimax", "0"), ("alice_minimax", "1")),
        }
        assert found["sVAE-r", "1", "inception score: P(sVAE-r better)"] == "0.000"
        assert found["alice_minimax", "1", "share IS > 4.6: difference"] == "-1.000"
        assert found["sVAE-r", "1", "share IS > 4.6: difference"] == "+0.000"
        turned = toy.pairs(frame, "alice_minimax")
        (gain,) = (r[3] for r in turned.rows if r[:2] == ["ALICE", "1"] and "IS > 4.6: d" in r[2])
        assert gain == "+1.000"

    def test_gradients_stand_relative_to_the_baseline_and_are_counted(self) -> None:
        frame = mini.build().frame
        assert "Both are asked" in toy.gradients(frame).caption
        table = toy.gradients(frame, "alice")
        assert "median ratio to non-saturating (19)" in table.names
        ratios = {r[2]: r[4] for r in table.rows}
        assert ratios == {"mean of f (14)": "2.000", "non-saturating (19)": "1.000"}
        four = {name: [0.1, 1.0] for name in METHODS}
        more = frame.assign(decoder_gradient=pd.Series([[*four.items()]] * len(frame), frame.index))
        assert "All four are asked" in toy.gradients(more).caption

    @pytest.mark.parametrize("name", ["alice", "ALI", "ALICE"])
    def test_all_else_is_the_same(self, name: str) -> None:
        page = mini.build()
        other = report.build(replace(TOY, baseline=name), "smoke", mini.FOLDER)
        changed = {n for n, table in other.tables.items() if table != page.tables[n]}
        assert changed == {"pairs", "equal", "gradients"}
        captions = [{p.name: p.caption for p in each.pictures} for each in (page, other)]
        assert {n for n in captions[0] if captions[0][n] != captions[1][n]} == {"front"}
        assert "ALI, ALICE, the baseline" in captions[1]["front"]


def test_six_methods_have_panels_of_their_own_in_figure_3(tmp_path: Path) -> None:
    """Each panel holds all runs of its method, also on a phone; words say what no bar shows."""
    names = [*METHODS, "hinge", "my_square"]
    specs = TOY.specs("smoke", names, [0.0, 1.0])
    frame = loaded(tmp_path, (row(s, label=f"{s.method} of {s.lam:g}") for s in specs), "smoke")
    figure = figures.figure3(frame)
    assert len(figure.axes) == 2 * 2 * 6
    for axes in figure.axes[::2]:
        heights = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
        assert sum(heights) == pytest.approx(100)
        assert axes.texts[0].get_text().endswith("100% of 2") and axes.get_legend() is None
    titles = [axes.get_title("left") for axes in figure.axes[::2]]
    assert titles[0] == "svae_r of 0, λ = 0" and len({*titles}) == 12
    colours = {to_hex(axes.patches[0].get_facecolor()) for axes in figure.axes[:12:2]}
    assert len(colours) == 6
    few = figures.figure3(frame[frame["method"].isin(METHODS)])
    assert len(few.axes) == 2 * 2
    named = [words for axes in few.axes for words in axes.get_legend_handles_labels()[1]]
    assert len(named) == 2 * 2 * 4 + 2 and not any("paper" in words for words in named)


# Other settings


def test_the_own_learning_rate_comes_before_the_own_dropout() -> None:
    frame = pd.DataFrame({"lr": [1e-4, 1e-3, 1e-3], "dropout": [0.0, 0.2, 0.5]})
    assert runs.at_own_rate(frame).index.to_list() == [1]


def test_scores_tell_dropouts_apart_where_there_are_several(tmp_path: Path) -> None:
    specs = TOY.specs("smoke", seeds=2, methods=["svae_r"], lams=[0.1])
    frame = loaded(tmp_path, map(row, specs), "smoke").assign(dropout=0.0)
    assert "dropout" not in toy.scores(frame, TOY.metrics()).names
    wet = frame[frame["seed"] == 0].assign(dropout=0.2, score=1.0, top=False)
    table = toy.scores(pd.concat([wet, frame], ignore_index=True), TOY.metrics())
    lines = [dict(zip(table.names, line, strict=True)) for line in table.rows]
    assert [line["dropout"] for line in lines] == ["0", "0.2"]
    assert [line["IS > 4.6"] for line in lines] == ["100.0 %", "0.0 %"]
    # Each setting is asked for the seeds that were begun there.
    assert [line["n"] for line in lines] == ["4", "2"]
    assert [line["not trained yet"] for line in lines] == ["0", "0"]


def test_one_seed_at_another_learning_rate_is_complete(tmp_path: Path) -> None:
    own = TOY.specs("smoke", seeds=3)
    other = TOY.specs("smoke", lrs=[1e-4], methods=["alice"], lams=[0.1])
    frame = loaded(tmp_path, map(row, [*own, *other]), "smoke")
    assert runs.missing(TOY, "smoke", frame) == 0
    assert runs.missing(TOY, "smoke", frame[frame["id"] != other[0].id]) == 1
    assert runs.missing(TOY, "smoke", frame[frame["id"] != own[0].id]) == 1


def test_more_seeds_at_another_learning_rate_ask_for_none_at_the_own(tmp_path: Path) -> None:
    specs = TOY.specs("smoke") + TOY.specs("smoke", lrs=[1e-4], seeds=3)
    page = build(tmp_path, specs, "smoke")
    assert page.missing == 0 and not page.warnings


@pytest.mark.skipif("dropout" not in columns(ToySpec), reason="no training has dropout yet")
def test_dropout_is_no_part_of_the_own_grid_and_asked_for_where_it_was_begun(
    tmp_path: Path,
) -> None:
    own = TOY.specs("quick")
    wet = TOY.specs("quick", methods=["alice"], lams=[0.1], given={"dropout": [0.2]})
    page = build(tmp_path, [*own, *wet[:70]], "quick")
    assert page.missing == 2 and not page.warnings
    assert said(page)["1a"] == "holds (indicative)"
    assert "Figures and claims are about dropout 0." in page.notes
