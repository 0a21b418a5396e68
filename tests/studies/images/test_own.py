"""A user's own images are trained on by one command, and no report takes them for the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import report, run
from bench.data.load import load
from bench.studies import STUDIES
from bench.studies.images import cost, domain
from bench.studies.images.spec import ImageSpec

pytestmark = pytest.mark.usefixtures("cache")
RNG = np.random.default_rng(3)
TINY = ["--set", "width=0.05", "--set", "samples=10", "--engine", "sequential"]


def pngs(place: Path, n: int = 64, side: int = 20) -> Path:
    place.mkdir()
    for i in range(n):
        pixels = RNG.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return place


def trained(results: Path, *arguments: str) -> str:
    """The report after the command."""
    study = arguments[0]
    assert run.main([*arguments, "--scale", "smoke", *TINY, "--results", str(results)]) == 0
    return (results / "reports" / study / "smoke" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("scale", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("study", ["mnist", "cifar10", "celeba"])
def test_sixty_four_images_are_enough_at_every_scale(
    tmp_path: Path, study: str, scale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study's own values shrink, and a line says so; values of the user are refused."""
    asked = [study, "--scale", scale, "--data", str(pngs(tmp_path / "mine")), "--dry-run"]
    asked += ["--results", str(tmp_path / "r"), "--only", "method=svae_r"]
    assert run.main(asked) == 0
    said = capsys.readouterr().err.splitlines()
    assert "64 images taken from" in said[0] and said[1].startswith("few images: batch 58 instead")
    assert ("ais_images 6 instead" in said[1]) == (study == "mnist")
    for given in ("batch=64", *(["ais_images=10"] if study == "mnist" else [])):
        assert run.main([*asked, "--set", given]) == 2
        field, _, value = given.partition("=")
        assert f"{field} is {value}; allowed: " in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_a_report_shows_every_data_set_and_no_verdict_on_other_images(tmp_path: Path) -> None:
    """What was trained first, what was trained last, and images of another size."""
    only = ("--only", "method=svae_r", "--lam", "0.1")
    first = trained(tmp_path, "mnist", "--data", str(pngs(tmp_path / "mine")), *only)
    assert first.startswith("# mine (mnist folder ") and "| sVAE-r | 0.1 |" in first
    assert "The images are mine (mnist folder " in first
    for absent in ("Every data set", "| claim |", "ALICE's own", "PixelRNN", "Figure 4", "Table 1"):
        assert absent not in first
    np.savez(tmp_path / "grey.npz", images=RNG.integers(256, size=(70, 28, 28), dtype=np.uint8))
    trained(tmp_path, "mnist", "--data", str(tmp_path / "grey.npz"), *only)
    page = report.build("mnist", "smoke", tmp_path)
    table = page.tables["data_sets"]
    names = [row[0].partition(" (")[0] for row in table.rows]
    assert names == ["grey.npz", "mine"] and "claims" not in page.tables  # the last one first
    assert [picture.name for picture in page.pictures][-1] == "others_0"
    errors = [float(row[table.names.index("MSE of x")]) for row in table.rows]
    assert all(error > 0 for error in errors)
    both = trained(tmp_path, "mnist", *only)  # the study's own: synthetic digits
    assert both.startswith("# MNIST") and "| claim |" in both
    rows = report.build("mnist", "smoke", tmp_path).tables["data_sets"].rows
    assert [row[0].partition(" (")[0] for row in rows] == ["stand-in digits", "grey.npz", "mine"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("study", ["cifar10", "celeba"])
def test_a_report_of_ones_own_colours(tmp_path: Path, study: str) -> None:
    mine = str(pngs(tmp_path / "mine", side=16))
    page = trained(tmp_path, study, "--data", mine, "--only", "method=svae_r", "--lam", "0.1")
    assert page.startswith("# mine (") and "| sVAE-r | 0.1 |" in page
    before = page.partition("## How these results")[0].replace("is about the paper", "")
    assert "paper" not in before and "| claim |" not in page and "CelebA" not in page
    row = STUDIES[study].load(tmp_path, "smoke")[0].to_pylist()[0]
    assert row["data"].startswith(f"{study} folder ") and row["data"].endswith(" 16")
    assert row["data_place"] == "mine" and row["batch"] == 58


def test_ids_of_trainings_on_images_of_the_studys_own_shape_stay(tmp_path: Path) -> None:
    """The id is that of the rows which a user has from earlier versions."""
    np.savez(tmp_path / "m.npz", images=np.zeros((20, 32, 32, 3), np.uint8), labels=np.zeros(20))
    name = domain.data_of("cifar10", load("cifar10", tmp_path / "m.npz"))
    assert name == "cifar10 folder 9a8aabf16d0f"
    known = {"study": "cifar10", "scale": "own", "method": "svae_r", "lam": 0.1}
    assert ImageSpec(**known, data=name, ais_images=0).id == "0a319d801ca49e59"
    other = tmp_path / "o.npz"
    np.savez(other, images=np.zeros((20, 16, 16, 3), np.uint8))
    assert domain.data_of("cifar10", load("cifar10", other)).endswith(" 16")


def test_estimates_count_the_images_that_there_are(tmp_path: Path) -> None:
    (spec, *_) = STUDIES["mnist"].specs("quick", methods=["svae_r"], lams=[0.1])
    seconds = []
    for n in (640, 6400):
        np.savez(tmp_path / f"{n}.npz", images=np.zeros((n, 28, 28), np.uint8))
        own = replace(spec, data=domain.data_of("mnist", load("mnist", tmp_path / f"{n}.npz")))
        seconds.append(cost.training_seconds(own))
        assert domain.domain(own.data).test == n // 10
    assert seconds[1] / seconds[0] == pytest.approx(10)
    many = replace(own, samples=100_000, ais_images=0)
    assert cost.evaluation_seconds(many) > 2 * cost.evaluation_seconds(replace(many, samples=10))
