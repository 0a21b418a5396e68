"""`bench.run --log`: what it writes of each study, and that no training notices it."""

from __future__ import annotations

import csv
import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import run
from bench.engine.job import run_job
from bench.render.pixels import BEHIND, FRONT
from bench.store import checkpoint
from bench.store import log as logs
from bench.store.log import FIRST
from bench.studies import STUDIES
from bench.studies.study import Job
from bench.studies.toy_grid.study import ToyStudy
from tests import lives
from tests.conftest import POSIX
from tests.lives import Life
from tests.rows import SMOKE
from tests.studies.images.test_train import SMALL
from tests.studies.images.test_train import spec as image_spec
from tests.test_plugins import EXAMPLE

TOY = STUDIES["toy_grid"].specs("smoke", lams=[0.1])
THEORY = STUDIES["theory"].specs("smoke")
TIMES = ("train_seconds", "cpu_seconds", "evaluation_seconds", "finished")
STACKS = {
    "toy_grid": TOY,
    "toy_grid, dropout": [replace(spec, dropout=0.3) for spec in TOY],
    "theory": THEORY,
    **{
        f"images, {method} {precision}": [image_spec(method, precision=precision, epochs=2)]
        for method, precision in (
            ("svae_r", "float32"),
            ("as_vae", "float32"),
            ("dcgan", "float32"),
            ("svae_r", "bf16"),
        )
    },
    "images in colour": [image_spec("alice", data="stand-in photos", ais_images=0)],
}


def trained(specs: list[Any], folder: Path, log: bool) -> dict[str, dict[str, Any]]:
    """Rows, samples and weights of these trainings by id."""
    job = Job(tuple(specs), str(folder), "cpu", {"commit": None, "dirty": None}, weights="all")
    verdict = run_job(replace(job, log=log))
    assert verdict.end == "done", verdict.reason
    store = STUDIES[specs[0].study].store(folder, specs[0].scale)
    found = {}
    for row in store.load()[0].to_pylist():
        tensors = {}
        if store.weights_of(row["id"]).exists():
            weights, _ = checkpoint.read(store.weights_of(row["id"]))
            tensors = {name: each.numpy().tobytes() for name, each in weights.items()}
        kept = {key: each for key, each in row.items() if key not in TIMES}
        found[row["id"]] = {"row": kept, "weights": tensors, "seconds": row["train_seconds"]}
    for sample in store.samples.read()[0].to_pylist():
        found[sample["id"]]["samples"] = sample
    assert found.keys() == {spec.id for spec in specs}
    return found


def log_of(folder: Path, spec: Any) -> Path:
    return folder / spec.study / f"_{spec.scale}" / "logs" / spec.id


def table(folder: Path) -> dict[str, list[float]]:
    """The columns of a log, nan where nothing was measured; every line is whole."""
    text = (folder / "log.csv").read_text()
    assert text.endswith("\n")
    header, *lines = csv.reader(text.splitlines())
    assert tuple(header[:5]) == FIRST and {*map(len, lines)} == {len(header)}
    values = [[float(field or "nan") for field in line] for line in lines]
    return dict(zip(header, map(list, zip(*values, strict=True)), strict=True))


@pytest.mark.parametrize("stack", STACKS)
def test_a_training_with_a_log_has_the_bits_of_one_without(stack: str, tmp_path: Path) -> None:
    specs = STACKS[stack]
    if stack == "theory":  # a learned critic, an optimal critic, traces
        specs = [spec for spec in specs if spec.method in ("svae_r", "joint_wgan_gp")]
        specs = [spec for spec in specs if spec.stream == specs[0].stream]
    alone, watched = (trained(specs, tmp_path / str(log), log) for log in (False, True))
    for each in (*alone.values(), *watched.values()):
        seconds = each.pop("seconds")
        assert seconds > 0
    np.testing.assert_equal(watched, alone)  # nan equals nan
    assert not list(tmp_path.glob("False/*/*/logs"))
    assert {path.name for path in tmp_path.glob("True/*/*/logs/*")} == {s.id for s in specs}


def test_a_log_of_points(tmp_path: Path) -> None:
    """Its last record has the row's scores and seconds, because both are of all test points."""
    epochs = 100
    specs = [replace(spec, epochs=epochs) for spec in TOY[:2]]
    rows = trained(specs, tmp_path, True)
    for spec in specs:
        folder = log_of(tmp_path, spec)
        found, row = table(folder), rows[spec.id]["row"]
        assert 25 <= len(found["epoch"]) <= 40
        assert found["epoch"] == sorted({*found["epoch"]})
        assert found["epoch"][0] == 0 and found["epoch"][-1] == epochs
        assert found["share"] == [epoch / epochs for epoch in found["epoch"]]
        assert found["seconds"] == sorted(found["seconds"])
        assert found["seconds"][-1] == rows[spec.id]["seconds"]
        assert np.isfinite([found["critic_loss"], found["model_loss"]]).all()
        names = list(found)[6:]
        assert names == [each.columns[0] for each in STUDIES["toy_grid"].metrics()]
        assert {name: found[name][-1] for name in names} == {name: row[name] for name in names}
        scored = [e for e, n in zip(found["epoch"], found["n_samples"], strict=True) if n == 1024]
        assert len(scored) == 8 and scored[0] <= epochs / 50
        pictures = sorted(folder.glob("samples-*.png"))
        assert [int(path.stem[8:]) for path in pictures] == scored
        with Image.open(pictures[-1]) as image:
            assert {0, BEHIND, FRONT} < {*image.tobytes()}
        about = json.loads((folder / "spec.json").read_text())
        label = STUDIES["toy_grid"].label(spec.method, spec.lam)
        assert about["id"] == spec.id and about["label"] == label
        assert {key: about[key] for key in vars(spec) if key in about} == {
            key: each for key, each in vars(spec).items() if key in about
        }


def test_a_log_of_images(tmp_path: Path) -> None:
    """Its losses are the row's, at the row's steps."""
    for method in ("svae_r", "dcgan"):
        one = image_spec(method, epochs=5)
        ((_, found),) = trained([one], tmp_path / method, True).items()
        folder, row = log_of(tmp_path / method, one), found["row"]
        log = table(folder)
        steps = 20
        assert row["trace_step"] == [step * steps for step in log["epoch"]]
        assert log["share"] == [step / 100 for step in row["trace_step"]]
        assert log["critic_loss"] == row["critic_loss"]
        assert log["model_loss"] == row["model_loss"]
        scored = [i for i, n in enumerate(log["n_samples"]) if n == one.samples]
        assert 4 <= len(scored) <= 8 and log["share"][scored[-1]] == 1
        assert np.isfinite([log["inception_score"][i] for i in scored]).all()
        assert ("mse_x" in log) == (method == "svae_r")
        assert not {"inception_score_1", "fid", "mse_x_batch"} & log.keys()
        pictures = sorted(folder.glob("samples-*.png"))
        assert [int(path.stem[8:]) for path in pictures] == [row["trace_step"][i] for i in scored]
        with Image.open(pictures[0]) as image:
            wide, high = image.size
        assert high == 8 * 56 and (wide > 2 * high) == (method == "svae_r")


def test_the_scores_of_a_log_are_of_frozen_networks(tmp_path: Path) -> None:
    """The last scores are near the row's, which has more samples and more batches behind it."""
    one = image_spec(epochs=40, samples=1000, ais_images=0, images=320)
    ((_, found),) = trained([one], tmp_path, True).items()
    log = table(log_of(tmp_path, one))
    assert log["share"][-1] == 1
    assert log["mse_x"][-1] == pytest.approx(found["row"]["mse_x"], rel=0.1)
    assert log["swd"][-1] == pytest.approx(found["row"]["swd"], rel=0.1)


def test_a_log_of_the_theory_study(tmp_path: Path) -> None:
    specs = [spec for spec in THEORY if spec.stream == THEORY[0].stream]
    trained(specs, tmp_path, True)
    for spec in specs:
        log = table(log_of(tmp_path, spec))
        assert list(log)[5:] == ["n_samples", "kl_pq", "kl_qp", "kl_s"]
        assert log["share"] == [i / 20 for i in range(21)]
        assert np.isfinite([log["model_loss"], log["kl_s"]]).all()
        assert log["epoch"][-1] == spec.epochs


@pytest.mark.parametrize("one", [replace(TOY[0], lr=1e30), image_spec(lr=1e30, epochs=2)])
def test_a_diverged_training_has_its_log(one: Any, tmp_path: Path) -> None:
    ((_, found),) = trained([one], tmp_path, True).items()
    assert found["row"]["status"] == "diverged"
    log = table(log_of(tmp_path, one))
    assert log["share"][-1] == 1
    assert not math.isfinite(log["model_loss"][-1]) and math.isnan(log["inception_score"][-1])
    text = (log_of(tmp_path, one) / "log.csv").read_text().splitlines()[-1]
    assert "nan" in text or "inf" in text


@POSIX
def test_a_killed_training_goes_on_with_its_log(
    tmp_path: Path, live: Callable[..., Life], no_report: None
) -> None:
    """After a kill it equals the log of a training that nothing stopped, but for seconds."""
    options = [each.replace("svae_r,dcgan", "svae_r") for each in SMALL] + ["--log", "--results"]
    assert run.main([*options, str(tmp_path / "whole")]) == 0
    here = [*options, str(tmp_path / "killed")]
    live(*here, first=[lives.third_record_kills]).end(-signal.SIGKILL)
    folders = [next(tmp_path.glob(f"{each}/*/*/logs/*")) for each in ("whole", "killed")]
    whole, killed = map(table, folders)
    assert len(whole["share"]) > 3 and killed["share"] == whole["share"][:3]
    assert run.main(here) == 0
    files = [{path.name for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    whole, killed = map(table, folders)
    for each in (whole, killed):
        del each["seconds"]
    np.testing.assert_equal(killed, whole)


def test_a_log_that_fails_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder can't be made; then a score raises, in another folder."""
    monkeypatch.setattr(logs, "_told", set())
    for one in (TOY[0], image_spec()):
        blocked = log_of(tmp_path, one).parent
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")
        trained([one], tmp_path, True)
        assert capsys.readouterr().err.count(f"no log in {blocked}: ") == 1
    for place in ("toy_grid.job.scatter", "images.watch.glance"):
        monkeypatch.setattr(f"bench.studies.{place}", lambda *_, **__: 1 / 0)
    for one in (TOY[0], image_spec()):
        trained([one], tmp_path / "other", True)
        err = capsys.readouterr().err
        assert err.count("ZeroDivisionError") == 1 and err.count("\n") == 1
    assert len(table(log_of(tmp_path / "other", image_spec()))["epoch"]) == 20


def test_two_workers_log_a_grid_of_a_plug_in(
    tmp_path: Path, python: Callable[..., tuple[int, str, str]]
) -> None:
    """Its methods and its metric are logged without doing anything for it."""
    command = ["-m", "bench.run", "blobs", "--scale", "smoke", "--set", "epochs=2"]
    command += ["--plugin", str(EXAMPLE), "--workers", "2", "--no-report"]
    status, out, err = python(*command, "--log")
    assert status == 0, err
    work = Path("results") / "blobs" / "_smoke" / "logs"
    watch = f"python -m bench.show blobs --scale smoke --plugin {EXAMPLE} --follow"
    assert f"logs: {work}; watch by: {watch}" in out
    logged = [*(tmp_path / work).iterdir()]
    about = [json.loads((folder / "spec.json").read_text()) for folder in logged]
    assert {each["method"] for each in about} == {"svae_r", "hinge"}
    for folder in logged:
        log = table(folder)
        assert log["share"] == [0, 0.5, 1] and math.isfinite(log["reach"][-1])


def test_what_the_command_says(
    tmp_path: Path,
    no_report: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is said or written without --log, and a study without logs says so."""
    at = ["--engine", "sequential", "--results", str(tmp_path / "a b")]
    assert run.main([*SMOKE, *at]) == 0
    assert "log" not in capsys.readouterr().out and not list(tmp_path.glob("*/*/*/logs"))
    assert run.main([*SMOKE, *at, "--seeds", "3", "--log"]) == 0
    where = tmp_path / "a b" / "toy_grid" / "_smoke" / "logs"
    watch = f"python -m bench.show toy_grid --scale smoke --results '{tmp_path / 'a b'}' --follow"
    assert f"logs: {where}; watch by: {watch}\n" in capsys.readouterr().out
    assert len([*where.iterdir()]) == 16  # of the trainings that were left
    assert run.main([*SMOKE, *at, "--seeds", "3", "--log"]) == 0
    assert "logs:" not in capsys.readouterr().out  # nothing is left to train
    assert run.main([*SMOKE, *at, "--seeds", "4", "--log", "--dry-run"]) == 0
    assert "logs:" not in capsys.readouterr().out  # nothing is written
    monkeypatch.setattr(ToyStudy, "logs", False)
    assert run.main([*SMOKE, *at, "--seeds", "4", "--log"]) == 0
    assert "--log: toy_grid writes no logs\n" in capsys.readouterr().out
    assert run.main(["--id", "0" * 16, "--log"]) == 2
    assert capsys.readouterr().err.count("--id writes no log") == 1
