"""What is stored can be looked at: by filters, one by one, on a terminal and as a page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from bench import run
from bench.cli import UsageError
from bench.frame import find, runs
from bench.render.drawings import Cloud, Curves, Field, Pictures, of_arrays, of_row
from bench.report import stored
from bench.show import terminal
from bench.show.__main__ import main
from bench.show.details import commands
from bench.store.provenance import REFERENCE
from bench.studies import STUDIES
from bench.studies.theory.spec import TheorySpec
from tests.rows import TOY, points, row, smoke

SPECS = smoke(seeds=2)
ALICE = sorted((s for s in SPECS if (s.method, s.lam) == ("alice", 0.1)), key=lambda s: s.id)


@pytest.fixture
def filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Stores the smoke study; ALICE at 0.1 has scores 1, 2, none (diverged) and null."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's own workers set it
    rows = {spec.id: row(spec) for spec in SPECS}
    scores = [1.0, 2.0, None, 3.0]
    for spec, score in zip(ALICE, scores, strict=True):
        rows[spec.id] = row(spec, score)
    rows[ALICE[3].id]["inception_score"] = None
    TOY.store(tmp_path, "smoke").write([*rows.values()], [points(spec) for spec in SPECS[:3]])

    def show(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments, "--results", str(tmp_path)]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return show


def lines(text: str, *ids: str) -> list[str]:
    """Returns which of these ids begin lines of a table, in the order of the lines."""
    begins = [line[:8] for line in text.splitlines()]
    return [id for begin in begins for id in ids if begin == id[:8]]


ONLY = ("toy_grid", "--label", "ALICE", "--lam", "0.1")


def test_the_best_come_first_and_the_diverged_last(filled: Callable[..., str]) -> None:
    out = filled(*ONLY)
    one, two, gone, lacking = (spec.id for spec in ALICE)
    assert lines(out, one, two, gone, lacking) == [two, one, gone, lacking]
    assert "4 of 16 trainings of toy_grid at scale smoke" in out
    assert "1 of them diverged" in out and "1 have none and come last" in out
    (line,) = (line for line in out.splitlines() if line.startswith(gone[:8]))
    assert "diverged" in line


def test_the_diverged_are_the_worst(filled: Callable[..., str]) -> None:
    one, two, gone, _ = (spec.id for spec in ALICE)
    out = filled(*ONLY, "--worst", "2", "--json")
    assert [each["id"] for each in json.loads(out)] == [gone, one]
    assert [each["id"] for each in json.loads(filled(*ONLY, "--best", "9", "--json"))] == [
        *(two, one, gone)
    ]
    lower = filled(*ONLY, "--by", "inception_score:lower", "--best", "1", "--json")
    assert json.loads(lower)[0]["id"] == one
    out = filled(*ONLY, "--worst", "1")
    assert "This training diverged" in out and gone in out


def test_diverged_trainings_alone(filled: Callable[..., str]) -> None:
    out = filled("toy_grid", "--only", "status=diverged", "--worst", "2")
    assert "1 of 16 trainings" in out and ALICE[2].id in out
    assert lines(filled("toy_grid", "--only", "dirty=false"), ALICE[1].id) == [ALICE[1].id]


def test_a_score_whose_lower_values_are_better(filled: Callable[..., str], tmp_path: Path) -> None:
    best, other = SPECS[0], SPECS[1]
    TOY.store(tmp_path, "smoke").write([row(best, mse_x=0.01), row(other, mse_x=9.0)], [])
    found = json.loads(filled("toy_grid", "--by", "mse_x", "--best", "1", "--json"))
    assert found[0]["id"] == best.id
    found = json.loads(filled("toy_grid", "--by", "mse_x", "--worst", "2", "--json"))
    assert [each["id"] for each in found] == [ALICE[2].id, other.id]


def test_everything_about_one(filled: Callable[..., str]) -> None:
    id = ALICE[1].id
    out = filled(id[:9])
    told = " ".join(out.split())
    assert f"{id} of toy_grid at scale smoke" in told
    assert "encoder_depth\u00a02" in out and "lr\u00a00.001" in out
    assert re.search(r"inception_score 2.000 ↑ 1 of 3 inception score of n_samples", told)
    assert "places among 4 runs of ALICE at λ = 0.1" in told
    assert "decoder gradient" in out and "alice" in out
    assert f"python -m bench.run --id {id} --results" in out
    assert "commit 0000000000" in told and "source: today's" in told
    assert "\x1b" not in out


def test_the_command_for_images_of_ones_own_names_their_place(tmp_path: Path) -> None:
    kept = {"id": "0" * 16, "scale": "smoke", "status": "ok", "plugins": None}
    told = [
        commands(STUDIES["mnist"], {**kept, "data_place": place}, tmp_path)
        for place in (None, "a b.npz")
    ]
    given = [each["train it again and compare"].partition(str(tmp_path))[2] for each in told]
    assert given == ["", " --data 'a b.npz'"]


def test_samples_are_drawn_where_they_were_kept(filled: Callable[..., str]) -> None:
    assert "samples, in front of x" in filled(SPECS[0].id)
    out = filled(SPECS[5].id)
    assert "samples, in front of x" not in out
    assert "No samples of this training were kept" in out


def test_what_varies_is_in_the_table_and_what_does_not_is_not(filled: Callable[..., str]) -> None:
    head = filled(*ONLY).split("─")[0]
    assert "decoder_" in head and "encoder_" not in head and "seed" in head


@pytest.mark.parametrize(
    ("condition", "n"), [(">1", 1), (">=1", 2), ("<2", 1), ("<=2", 2), ("<=2e0", 2)]
)
def test_ranges_of_numbers(condition: str, n: int, filled: Callable[..., str]) -> None:
    found = json.loads(filled(*ONLY, "--only", f"inception_score{condition}", "--json"))
    assert len(found) == n


def test_what_the_shown_trainings_have_in_common_is_told(filled: Callable[..., str]) -> None:
    out = filled("toy_grid", "--only", "decoder_depth=3")
    assert "in common: epochs 2, decoder_depth 3, decoder_width 64\n" in out
    out = filled("toy_grid", "--best", "1")
    assert "in common" not in out  # a single training's spec is printed


def test_what_most_of_the_shown_trainings_share_is_told(
    filled: Callable[..., str], tmp_path: Path
) -> None:
    """Four of five that score below 2 have a deep decoder, as has half of all."""
    every = TOY.specs("smoke", seeds=3)
    deep = [spec for spec in every if spec.decoder_depth == 3]
    low = [*deep[:4], next(spec for spec in every if spec not in deep)]
    (tmp_path / "toy_grid").rename(tmp_path / "before")
    TOY.store(tmp_path, "smoke").write([row(s, 1.5 if s in low else 3.0) for s in every], [])
    out = " ".join(filled("toy_grid", "--only", "inception_score<2").split())
    assert "mostly: decoder_depth 3 (4 of 5; of all 50%), decoder_width 64 (4 of 5" in out
    assert "mostly" not in filled("toy_grid")


def test_columns_that_were_asked_about_fit_first(
    filled: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe has room for all; a narrow terminal says how to see what it leaves out."""
    monkeypatch.setenv("COLUMNS", "60")
    table = ("toy_grid", "--only", "mse_x>0", "--only", "status=ok")
    out = filled(*table)
    head = out.split("─")[0].splitlines()[-1]
    assert "mse_x" in head and "status" in head and "mse_z" not in head
    assert "too narrow for: " in out and "COLUMNS=400" in out
    monkeypatch.delenv("COLUMNS")
    out = filled(*table)
    assert "mse_z" in out.split("─")[0].splitlines()[-1] and "too narrow" not in out


def test_settings_come_before_further_scores_and_the_seed_stays(
    filled: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width, there, absent in ((50, "seed", "mse_x"), (60, "decoder_", "mse_x")):
        monkeypatch.setenv("COLUMNS", str(width))
        head = filled("toy_grid").split("─")[0]
        assert "seed" in head and there in head and absent not in head


def test_settings_that_are_not_the_studys_own_are_told(
    filled: Callable[..., str], tmp_path: Path
) -> None:
    own = TOY.specs("smoke", seeds=4)
    one, two, three, *_ = (s for s in own if (s.method, s.lam) == ("alice", 0.1))
    wild = [replace(one, lr=1e30, seed=seed) for seed in (0, 1)]
    rows = {spec.id: row(spec) for spec in own}
    rows |= {one.id: row(one, 2.0), two.id: row(two, 1.0), three.id: row(three, mse_x=None)}
    rows |= {spec.id: row(spec, None) for spec in wild}
    rows |= {(slow := replace(one, lr=1e-4)).id: row(slow, 4.9)}
    (tmp_path / "toy_grid").rename(tmp_path / "before")
    TOY.store(tmp_path, "smoke").write([*rows.values()], [])
    out = " ".join(filled("toy_grid", "--worst", "1").split())
    assert "other settings than the study's own; with them: --only lr=0.0001,0.001,1e+30" in out
    assert two.id[:8] in out and "32 of 35" not in out  # neither diverged nor slow
    assert {each["lr"] for each in json.loads(filled("toy_grid", "--json"))} == {0.001}
    both = " ".join(filled("toy_grid", "--only", "lr=0.0001,0.001,1e30").split())
    assert "3 of 35 are of other settings than the study's own: --only lr=0.001 keeps" in both
    kept = filled("toy_grid", "--only", "lr=0.001")
    assert "of other settings" not in kept and "32 of 35 trainings" in kept
    gone = filled("toy_grid", "--only", "lr=1e30")
    assert "2 of 2 are of other settings than the study's own: lr\n" in gone
    assert "in common: lr 1e+30" in gone
    # Neither runs of other settings nor one without the score change a place.
    told = " ".join(filled(one.id).split())
    assert "2.000 ↑ 7 of 8 " in told and "0.100 ↓ 1 of 7 " in told
    assert "places among 8 runs of ALICE at λ = 0.1, the study's own settings" in told
    told = " ".join(filled(slow.id).split())
    assert "4.900" in told and "places among" not in told


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_nothing_is_wider_than_the_terminal(
    width: int, filled: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = filled(*ONLY) + filled(SPECS[0].id) + filled("toy_grid", "--columns")
    text += filled()
    wide = [line for line in text.splitlines() if len(line.rstrip()) > width]
    assert all(re.match("    (python -m|from) bench", line) for line in wide), wide
    one = filled(*ONLY, "--best", "1").splitlines()
    assert any(ALICE[1].id[:8] in line and "2.000" in line for line in one)


def test_stale_rows_are_named_and_left_out(filled: Callable[..., str], tmp_path: Path) -> None:
    spec = SPECS[0]
    TOY.store(tmp_path, "smoke").write([row(spec, method_digest="0" * 12)], [])
    assert spec.id not in filled("toy_grid", "--json")
    assert spec.id in filled("toy_grid", "--json", "--stale")
    assert f"This row is stale: another {spec.method} made it" in filled(spec.id)


def test_json_has_plain_lists_and_no_nan(filled: Callable[..., str], tmp_path: Path) -> None:
    spec = SPECS[0]
    traced = {"svae_r": [math.nan, 1.0], "alice": [math.inf, 0.5]}
    TOY.store(tmp_path, "smoke").write([row(spec, decoder_gradient=traced, mse_x=math.nan)], [])
    found = json.loads(filled(spec.id, "--json"))
    assert found["decoder_gradient"] == {"svae_r": [None, 1.0], "alice": [None, 0.5]}
    assert found["trace_epoch"] == [0, 10] and found["mse_x"] is None
    assert found["finished"].startswith("2026-01-01T00:00:00")
    assert len(json.loads(filled(spec.id, SPECS[1].id, "--json"))) == 2


def test_a_page_holds_everything(filled: Callable[..., str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert filled(*ONLY, "--worst", "3", "--html", str(page)) == f"page: {page}\n"
    html = page.read_text("utf-8")
    ids = [spec.id for spec in ALICE[:3]]
    assert all(f'id="run-{id}"' in html and f'href="#run-{id}"' in html for id in ids)
    assert "This training diverged" in html and "image/svg+xml;base64" in html
    sources = re.findall(r'(?:src|href|srcset)="([^"]*)"', html)
    assert all(each.startswith(("data:", "#")) for each in sources)
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html
    filled(SPECS[0].id, "--html", str(page))
    assert "data:image/png;base64" in page.read_text("utf-8")


def test_the_folder_results_comes_before_the_published_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["toy_grid", "--scale", "smoke"]) == 0
    assert "80 trainings of toy_grid" in capsys.readouterr().out
    TOY.store(Path("results"), "smoke").write([row(SPECS[0])], [])
    assert main(["toy_grid"]) == 0
    assert "1 trainings of toy_grid at scale smoke, in results" in capsys.readouterr().out


@pytest.mark.parametrize("study", STUDIES)
def test_published_rows_of_every_study(
    study: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([study, "--best", "1"]) == 0
    out = capsys.readouterr().out
    *_, (_, scale) = (each for each in stored(REFERENCE) if each[0] == study)
    assert f"of {study} at scale {scale}" in out and "python -m bench.run --id" in out
    assert "└" in out or study == "theory"  # curves


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown study or id 'nothing'; allowed: toy_grid"),
        (["012"], "id '012' is too short; allowed: at least 4 digits"),
        (["0" * 16], "allowed: the id of a row"),
        (["toy_grid", "--label", "X"], "--label X; allowed: label in this selection: ALI, ALICE"),
        (["toy_grid", "--lam", "7"], "--lam 7; allowed: lam in this selection: 0.0, 0.1"),
        (["toy_grid", "--only", "lr="], "--only lr=; allowed: lr in this selection: 0.001"),
        (["toy_grid", "--only", "nope>1"], "--only nope>1; allowed fields: protocol"),
        (["toy_grid", "--only", "lam>"], "--only lam>; allowed: a number after >"),
        (["toy_grid", "--only", "lam>9", "--only", "lam<=3"], "--only lam>9 --only lam<=3: no row"),
        (["toy_grid", "--only", "nope=1"], "allowed fields: id"),
        (["toy_grid", "--only", "status=gone"], "status in this selection: diverged, ok"),
        (["toy_grid", "--only", "dirty=perhaps"], "dirty in this selection: False"),
        (["toy_grid", "--only", "finished=now"], "allowed fields: id"),
        (["toy_grid", "--by", "nope"], "--by nope; allowed: protocol"),
        (["toy_grid", "--by", "epochs", "--worst", "2"], "epochs:higher or epochs:lower"),
        (["toy_grid", "--scale", "paper"], "python -m bench.run toy_grid --scale paper"),
        (["toy_grid", "mnist"], "allowed: one STUDY"),
        (["--label", "ALICE"], "--label chooses among the trainings of one STUDY"),
        (["toy_grid", "--best", "1", "--worst", "1"], "exclude each other"),
        (["--json"], "--json goes with"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, filled: Callable[..., str]
) -> None:
    err = filled(*arguments, status=2)
    assert message in err and err.count("\n") == 1 and err.startswith("python -m bench.show: ")


def test_an_id_of_another_study_or_scale_is_told_where_it_is(
    filled: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id = SPECS[0].id
    there = f"is a row of toy_grid at scale smoke in {tmp_path}, not of "
    assert there + "mnist\n" in filled("mnist", id, status=2)
    assert there + "a study at scale quick\n" in filled(id, "--scale", "quick", status=2)
    assert run.main(["mnist", "--id", id, "--results", str(tmp_path)]) == 2
    assert there + "mnist\n" in capsys.readouterr().err
    assert "allowed: the id of a row" in filled("mnist", "f" * 16, status=2)


def test_a_folder_of_results_has_to_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for name, why in (("none", "is missing"), ("file", "is no folder")):
        place = tmp_path / name
        line = f"{place} {why}; allowed: a folder of results"
        for words in (["toy_grid"], ["0" * 16], [], ["--columns"]):
            assert main([*words, "--results", str(place)]) == 2
            assert capsys.readouterr().err == f"python -m bench.show: {line}\n"
        for call in (lambda at: runs("toy_grid", "smoke", at), lambda at: find("0" * 16, at)):
            with pytest.raises(UsageError, match=re.escape(line)):
                call(place)


def test_hints_keep_the_folder_of_results(filled: Callable[..., str], tmp_path: Path) -> None:
    folder = f" --results {tmp_path}"
    assert f"--scale paper{folder}\n" in filled("toy_grid", "--scale", "paper", status=2)
    assert re.search(rf"one of them:\n    python -m bench.show \w+{folder}\n", filled("toy_grid"))


def test_a_beginning_that_several_ids_share(filled: Callable[..., str], tmp_path: Path) -> None:
    ids = [f"abcd{digit * 12}" for digit in "01"]
    TOY.store(tmp_path, "smoke").write([row(SPECS[0]) | {"id": id} for id in ids], [])
    assert f"id 'abcd' begins 2 rows in {tmp_path}" in filled("abcd", status=2)
    assert ids[1] in filled("abcd1")


def test_looking_imports_no_torch(python: Callable) -> None:
    code = "import sys; from bench.show.__main__ import main; main(['toy_grid', '--best', '1']); "
    status, _, err = python("-c", code + "assert 'torch' not in sys.modules")
    assert (status, err) == (0, "")


# Drawings


def on(width: int = 80, colour: bool = False) -> Console:
    system = "truecolor" if colour else None
    return Console(width=width, color_system=system, force_terminal=colour, record=True)


def text_of(drawing: Any, width: int = 80, colour: bool = False) -> str:
    console = on(width, colour)
    with console.capture() as caught:
        console.print(terminal.drawn(drawing, console, width))
    return caught.get()


def test_lines_without_finite_values_are_not_drawn() -> None:
    at = np.arange(3.0)
    curves = Curves("loss", "step", {"a": (at, at * np.nan), "b": (at, np.array([1, np.inf, 3.0]))})
    assert [*curves.finite] == ["b"] and len(curves.finite["b"][0]) == 2
    assert "no finite value" in text_of(Curves("loss", "step", {"a": (at, at * np.nan)}))
    assert "b" in text_of(curves)


@pytest.mark.parametrize("colour", [False, True])
def test_a_curve_is_drawn_from_its_first_value(colour: bool) -> None:
    at = np.linspace(0.03, 1, 31)
    text = text_of(Curves("loss", "epoch", {"a": (at, 2 + at)}), 50, colour)
    (axis,) = (line for line in Text.from_ansi(text).plain.splitlines() if "└" in line)
    axis = axis.strip()[1:-1]
    assert axis.index("┬") == pytest.approx((0.5 - 0.03) / 0.97 * len(axis), abs=1.5)


def test_a_single_value_has_short_numbers() -> None:
    one = np.array([1 / 31])
    text = text_of(Curves("loss", "epoch", {"a": (one, 1 + one)}))
    assert "0.0323" in text and "0.03226" not in text and "1.03" in text


def test_a_logarithmic_scale_is_told() -> None:
    at = np.arange(4.0)
    text = text_of(Curves("loss", "step", {"a": (at, 10.0 ** -(2 * at))}))
    assert "vertical: logarithmic" in text and "1e-4" in text
    assert "logarithmic" not in text_of(Curves("loss", "step", {"a": (at, at)}))


def test_points_that_are_not_finite_are_counted() -> None:
    x = np.zeros((4, 2))
    bad = np.array([[np.nan, 0.0], [np.inf, 0.0], [0.5, 0.5], [1.0, 1.0]])
    assert "(2 beyond 3.5 or not finite)" in text_of(Cloud("Points", {"x": x, "samples": bad}))
    text_of(Cloud("Points", {"x": x, "samples": x * np.nan}))


def test_an_image_keeps_its_shape_and_is_bright_where_it_is_bright() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[-2:] = 255
    assert terminal.image(pixels, on(), 8).plain.split("\n") == [*[" " * 8] * 3, "@" * 8]
    pixels[:6] = 255  # mostly white: paper is left blank
    assert terminal.image(pixels, on(), 8).plain.split("\n")[0] == " " * 8
    coloured = terminal.image(pixels, on(colour=True), 8)
    assert coloured.plain == "\n".join(["▀" * 8] * 4)
    assert str(coloured.spans[0].style) == "#ffffff on #ffffff"
    small = terminal.image(np.zeros((40, 90), np.uint8), on(), 30).plain.split("\n")
    assert [len(line) for line in small] == [30] * 6


def test_rows_and_arrays_become_drawings() -> None:
    (losses,) = of_row({"trace_step": [1, 2], "loss": [1.0, 2.0], "other": [1.0], "name": "x"})
    assert isinstance(losses, Curves) and losses.x == "step" and [*losses.lines] == ["loss"]
    assert of_row({"trace_step": None, "loss": None}) == []
    images = np.zeros((3, 1, 4, 4), np.uint8)
    pair, alone = of_arrays({"x": images, "x_rec": images, "samples": images})
    assert isinstance(pair, Pictures) and pair.beside is not None
    assert isinstance(alone, Pictures) and alone.beside is None
    (field,) = of_arrays({"density_z": np.eye(3)})
    assert isinstance(field, Field) and field.grey[0].tolist() == [0, 0, 255]  # the highest row
    (cloud,) = of_arrays({"samples": np.ones((4, 2)), "x": np.zeros((4, 2))})
    assert isinstance(cloud, Cloud) and [*cloud.points] == ["x", "samples"]


def test_theory_draws_traces_of_one_unit_each() -> None:
    study = STUDIES["theory"]
    assert study.kind is TheorySpec
    traces = {"kl_s": [3.0, 2.0], "decoder follows kl_s": [0.1, 0.9], "gradient alice": [1.0, 1.0]}
    found = study.drawings({"trace_batch": [0, 10], "traces": traces}, {"density_x": np.ones(201)})
    assert [each.title for each in found] == [
        "divergences, nats",
        "cosine of the decoder's gradient with that of a divergence",
        "gradient at the decoder, by method",
        "density of samples",
    ]
