"""Limits: what can't be trained or scored is refused before anything is trained or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import run
from bench.data.sources import DATASETS, images_in
from bench.studies import STUDIES

TOY, THEORY = ["toy_grid", "--scale", "smoke"], ["theory", "--scale", "smoke"]
MNIST, CIFAR10 = ["mnist", "--scale", "smoke"], ["cifar10", "--scale", "smoke"]
NETS = ["--set", "width=0.05", "--set", "samples=10"]
INT64 = 2**63 - 1


@pytest.fixture(autouse=True)
def without_report(no_report: None) -> None:
    """No test here looks at a page."""


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says as it refuses these options, with and without --dry-run."""
    said = set()
    for more in ([], ["--dry-run"], ["--dry-run", "--json"]):
        results = folder / "refused"
        assert run.main([*arguments, *more, "--results", str(results)]) == 2, more
        out, err = capsys.readouterr()
        *taken, line = err.splitlines()
        assert out == "" and all("taken from" in each for each in taken)
        assert not results.exists()
        said.add(line)
    assert len(said) == 1
    return said.pop()


def trained(arguments: list[str], folder: Path) -> pd.DataFrame:
    """The rows that the command stores."""
    asked = [*arguments, "--engine", "sequential", "--results", str(folder)]
    assert run.main(asked) == 0
    return pd.read_parquet(folder / arguments[0] / "smoke")


@pytest.mark.parametrize(
    ("arguments", "given", "allowed", "option"),
    [
        ([*TOY, "--set", "batch=4096"], "batch is 4096", "2048", "--set batch"),
        ([*TOY, "--set", "batch=128,2049"], "batch is 2049", "2048", "--set batch"),
        ([*TOY, "--set", "batch=0"], "batch is 0", ">= 1", "--set batch"),
        ([*TOY, "--set", f"epochs={2**63}"], f"epochs is {2**63}", f"{INT64}", "--set epochs"),
        ([*TOY, "--lr", "1e-3,1e-300"], "lr is 1e-300", "1e-08 to", "--lr"),
        ([*TOY, "--lr", "1e39"], "lr is 1e+39", "3.4e+38", "--lr"),
        ([*TOY, "--lam", "0,1e-300"], "lam is 1e-300", "0, or", "--lam"),
        ([*TOY, "--lam", "1e308"], "lam is 1e+308", "3.4e+38", "--lam"),
        ([*TOY, "--seeds", "1000000"], "8000000 trainings", "1000000", "--seeds"),
        ([*TOY, "--seeds", f"{10**24}"], "trainings", "1000000", "--seeds"),
        ([*THEORY, "--set", "model_steps=1"], "model_steps is 1", "0, because", "model_steps"),
        ([*THEORY, "--set", "experiment=modes"], "experiment", "--only", "--only experiment"),
        ([*MNIST, "--set", "batch=2001"], "batch is 2001", "2 to 2000", "--set batch"),
        ([*MNIST, "--set", "batch=1"], "batch is 1", ">= 2", "--set batch"),
        ([*MNIST, "--set", "images=63"], "batch is 64", "2 to 63", "--set batch"),
        ([*MNIST, "--set", "images=1"], "images is 1", "2 to 2000", "--set images"),
        ([*MNIST, "--set", "images=2001"], "images is 2001", "2000", "--set images"),
        ([*MNIST, "--set", "samples=9"], "samples is 9", ">= 10", "--set samples"),
        ([*MNIST, "--set", "ais_images=501,9"], "ais_images is 501", "500", "--set ais_images"),
        ([*MNIST, "--set", "networks=paper"], "networks is paper", "suite", "--set networks"),
        ([*MNIST, "--set", "data=none"], "data is none", "stand-in digits", "--set data"),
        ([*MNIST, "--set", "data=stand-in photos"], "method is nf_vae", "dcgan", "--only method"),
        ([*MNIST, "--set", "critic=additive"], "critic is additive", "alice", "--only method"),
        ([*CIFAR10, "--set", "ais_images=1"], "ais_images is 1", ": 0", "--set ais_images"),
    ],
)
def test_a_value_beyond_a_limit(
    arguments: list[str],
    given: str,
    allowed: str,
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, found, after = refused(arguments, tmp_path, capsys).partition("allowed")
    assert found and given in before
    assert allowed in after and option in after


def folder_of(path: Path, number: int) -> Path:
    """A folder of so many images of noise."""
    path.mkdir()
    for i in range(number):
        pixels = np.random.default_rng(i).integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i:03d}.png")
    return path


def of_folder(path: Path, number: int, *more: str) -> list[str]:
    given = ["--set", "data=cifar10", *NETS, "--only", "method=svae_r", "--lam", "0"]
    return [*CIFAR10, *given, "--data", str(folder_of(path, number)), *more]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("number", "more", "given", "option"),
    [
        (10, ("--set", "batch=64"), "batch is 64; allowed: 2 to 9", "--set batch"),
        (19, ("--set", "batch=9"), "number of test images is 1; allowed: at least 2", "--data"),
        (40, ("--set", "images=37", "--set", "batch=2"), "images is 37; allowed: 0 to 36", "--set"),
    ],
)
def test_a_folder_of_too_few_images(
    number: int,
    more: tuple[str, ...],
    given: str,
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(of_folder(tmp_path / "own", number, *more), tmp_path, capsys)
    assert given in said and option in said.partition("allowed")[2]


@pytest.mark.parametrize("study", ["mnist", "cifar10", "celeba"])
def test_a_dry_run_downloads_nothing(
    study: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [study, "--scale", "quick", "--lam", "0", "--results", str(tmp_path / "r")]
    assert run.main([*asked, "--dry-run"]) == 0
    assert f"{study} at scale quick" in capsys.readouterr().out
    assert not cache.exists() and not (tmp_path / "r").exists()
    assert run.main([*asked, "--dry-run", "--set", "data=none"]) == 2


@pytest.mark.parametrize("more", [[], ["--status"], ["--dry-run"]])
def test_results_that_are_a_file_are_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run.main([*TOY, "--results", str(tmp_path / "file"), *more]) == 2
    assert "is no folder, and can't be written or read; allowed" in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_a_smaller_folder_takes_the_place_of_a_study_that_limits_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CelebA's first 9,000 images are quick's own choice; 41 asked for by hand are not there."""
    celeba = ["celeba", "--scale", "quick", "--data", str(folder_of(tmp_path / "own", 44))]
    celeba += ["--set", "batch=40", "--lam", "0"]
    assert run.main([*celeba, "--dry-run", "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    assert "images is 41" in refused([*celeba, "--set", "images=41"], tmp_path, capsys)


@pytest.mark.usefixtures("cache")
def test_named_images_of_ones_own_have_the_same_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey images without a classifier have a distance, which compares two test images."""
    entry = images_in(str(tmp_path / "m.npz"), channels=1, size=16)
    monkeypatch.setitem(DATASETS, "mine", entry)
    noise = np.random.default_rng(0).integers(256, size=(20, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", images=noise[:10])
    asked = [*MNIST, "--set", "data=mine", *NETS, "--only", "method=svae_r", "--lam", "0"]
    asked += ["--set", "ais_images=0", "--set"]
    said = refused([*asked, "batch=9"], tmp_path, capsys)
    assert "number of test images is 1; allowed: at least 2" in said
    np.savez(tmp_path / "m.npz", images=noise)
    assert "batch is 19; allowed: 2 to 18" in refused([*asked, "batch=19"], tmp_path, capsys)
    (row,) = trained([*asked, "batch=18"], tmp_path).to_dict("records")
    assert (row["status"], row["steps"]) == ("ok", 1)
    assert np.isfinite([row["mse_x"], row["swd"], row["swd_real"]]).all()


@pytest.mark.usefixtures("cache")
def test_a_training_on_a_folder_is_trained_again_on_that_folder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = trained(of_folder(tmp_path / "own", 20, "--set", "batch=2"), tmp_path).to_dict(
        "records"
    )
    capsys.readouterr()
    rows = STUDIES["cifar10"].store(tmp_path, "smoke").rows
    (stored,) = rows.read()[0].to_pylist()
    (_, *others) = stored["anchors"]
    assert rows.change(stored, {"anchors": dict(others)})  # as if a metric were younger
    again = ["cifar10", "--id", row["id"], "--results", str(tmp_path), "--data"]
    assert run.main([*again, str(tmp_path / "own")]) == 0
    assert "the same: all" in capsys.readouterr().out
    assert run.main([*again, str(folder_of(tmp_path / "other", 21))]) == 2
    assert "has other images than cifar10 folder" in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_the_smallest_folder_has_finite_scores(tmp_path: Path) -> None:
    """All of its 18 images are one batch; two are for the test."""
    (row,) = trained(of_folder(tmp_path / "own", 20, "--set", "batch=18"), tmp_path).to_dict(
        "records"
    )
    assert (row["status"], row["steps"]) == ("ok", 1)
    assert np.isfinite([row["swd"], row["swd_real"], row["mse_x"]]).all()
    assert np.isnan(row["inception_score"])  # no classifier knows these images


def test_a_batch_of_all_points_trains(tmp_path: Path) -> None:
    only = ["--set", "batch=2048", "--set", "epochs=2", "--only", "method=alice,svae_r"]
    rows = trained([*TOY, *only, "--lam", "0.1"], tmp_path)
    assert set(rows["status"]) == {"ok"} and (rows["train_seconds"] > 0).all()
    assert (rows.groupby("config")["mse_x"].nunique() == 2).all()  # the methods differ


@pytest.mark.parametrize("images", [2, 3, 5])
def test_the_smallest_batches_of_images_train(images: int, tmp_path: Path) -> None:
    """What is left over of an odd number of images is no batch of one."""
    few = ["--set", f"images={images}", "--set", "batch=2", "--set", "ais_images=0"]
    rows = trained([*MNIST, *NETS, *few, "--only", "method=svae_r", "--lam", "0"], tmp_path)
    assert [*rows["status"], *rows["steps"]] == ["ok", images // 2]
    assert np.isfinite(rows["mse_x"]).all()


def test_every_model_learns_unless_it_is_frozen() -> None:
    for study in ("theory", "toy_grid"):
        for spec in STUDIES[study].specs("smoke"):
            if spec.model_steps:
                with pytest.raises(ValueError, match="model_steps is 0; allowed: an integer >= 1"):
                    replace(spec, model_steps=0)


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf")])
def test_no_number_is_cut_to_an_integer(value: float) -> None:
    (spec, *_) = STUDIES["mnist"].specs("smoke")
    with pytest.raises(ValueError, match=f"samples is {value}; allowed: an integer"):
        replace(spec, samples=value)


@pytest.mark.parametrize(
    ("study", "value"),
    [
        (MNIST, f"samples={10**9}"),
        (MNIST, f"samples={10**18}"),
        (MNIST, f"chains={10**9}"),
        (MNIST, f"temperatures={10**12}"),
        (MNIST, f"critic_steps={10**9}"),
        (THEORY, f"batch={10**9}"),
        (THEORY, f"critic_steps={10**9}"),
        (THEORY, f"width={10**9}"),
        (THEORY, f"dimension={10**7}"),
        (THEORY, f"epochs={10**12}"),
    ],
)
def test_a_training_that_no_memory_holds(
    study: list[str], value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field, _, number = value.partition("=")
    said = refused([*study, "--set", value], tmp_path, capsys)
    assert f"{field} is {number}" in said and f"--set {field}" in said


def test_more_processes_than_memory_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [*TOY, "--seeds", "3000", "--workers", f"{10**9}"]
    assert "--workers 24000; allowed: at most" in refused(many, tmp_path, capsys)


def test_a_disk_without_room_for_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of 40 MB of weights, of which some are there, meets disks of several sizes."""
    asked = ["cifar10", "--scale", "smoke", "--set", "width=0.05", "--set", "samples=10"]
    asked += ["--set", "images=64", "--only", "method=svae_r"]
    specs = STUDIES["cifar10"].specs("smoke", ["svae_r"], given={"width": [0.05]})
    needs = STUDIES["cifar10"].needs(specs[0])
    assert len(specs) == 2 and needs.checkpoint == 3 * needs.weights

    def disk(free: float) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free))

    disk(4.5 * needs.weights)  # a worker's checkpoint, and the weights of one training
    said = refused([*asked, "--workers", "1"], tmp_path, capsys)
    assert "--keep-weights none" in said and "--results" in said
    one = [*asked, "--lam", "0"]
    rows = trained(one, tmp_path)
    (kept,) = (tmp_path / "cifar10" / "_smoke" / "weights").iterdir()
    assert [*rows["status"]] == ["ok"]
    assert needs.weights <= kept.stat().st_size < 1.1 * needs.weights + 20_000
    trained(asked, tmp_path)  # one is left
    disk(2 * needs.weights)
    trained(asked, tmp_path)  # none is left
    capsys.readouterr()
    said = refused([*asked, "--keep-weights", "none"], tmp_path, capsys)
    assert "--keep-weights" not in said and "--results" in said
