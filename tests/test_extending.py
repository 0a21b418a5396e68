"""What a user adds is trained by the command and stands in the tables, from the one place it has.

Each test follows a recipe of the README, from `bench.run` to the pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from bench import report, run
from bench.data.sources import DATASETS, images_in
from bench.render.page import Page
from bench.render.tables import mean, tabulate
from bench.scores.metrics import IMAGES, TOY, Metric, Outputs
from bench.spec import Spec
from bench.studies import STUDIES
from bench.studies.study import Beat, Job, Rows, Study
from models.batch import Batch, Networks, generate
from models.methods import METHODS, Method
from models.objectives import OBJECTIVES, Objective, density_ratio

NARROW = ["--set", "width=0.0625"]


def ran(folder: Path, study: str, *options: str) -> str:
    """The report after a run of the smoke scale in this process, with own options."""
    common = ["--scale", "smoke", "--workers", "1", "--engine", "sequential"]
    assert run.main([study, *common, "--results", str(folder), *options]) == 0
    return (folder / "reports" / study / "smoke" / "report.md").read_text("utf-8")


def test_a_joint_matching_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function and one line; runs that are older than the method stay beside it."""

    def hinge(f_q: Tensor, f_p: Tensor) -> Tensor:
        return (1 + f_p).relu().mean(-1) + (1 - f_q).relu().mean(-1)

    assert "hinge" not in ran(tmp_path, "toy_grid")
    added = Objective(density_ratio, hinge, "ALI-hinge", "ALICE-hinge")
    monkeypatch.setitem(OBJECTIVES, "hinge", added)
    page = ran(tmp_path, "toy_grid", "--only", "method=hinge")
    assert "ALI-hinge" in page and "ALICE-hinge" in page
    assert "| ALI-hinge |" in ran(tmp_path, "mnist", "--only", "method=hinge", *NARROW)


@pytest.mark.parametrize("study", ["mnist", "celeba"])
def test_a_method_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str) -> None:
    """A pair of functions and one line."""

    def ls_critic(nets: Networks, batch: Batch) -> Tensor:
        real, made = (nets["critic"](x) for x in (batch.x, generate(nets, batch)))
        return (real.square() + (made - 1).square()).mean()

    def ls(nets: Networks, batch: Batch, lam: float) -> Tensor:
        return nets["critic"](generate(nets, batch)).square().mean()

    added = Method(ls_critic, ls, {"decoder": "conv", "critic": "f(x)"}, "LSGAN")
    monkeypatch.setitem(METHODS, "lsgan", added)
    assert "| LSGAN |" in ran(tmp_path, study, "--only", "method=lsgan", *NARROW)


def reach(outputs: Outputs) -> float:
    """Reach: the largest number in a sample."""
    return float(outputs.samples.max())


@pytest.mark.parametrize(
    ("study", "metrics", "options"),
    [
        ("toy_grid", TOY, []),
        ("mnist", IMAGES, ["--only", "method=dcgan", *NARROW]),
        ("celeba", IMAGES, ["--only", "method=dcgan", *NARROW]),
    ],
)
def test_a_metric(tmp_path: Path, study: str, metrics: list[Metric], options: list[str]) -> None:
    """One function and one line: it is stored and shown, beside results older than it."""
    assert " reach |" not in ran(tmp_path, study, *options)
    metrics.append(Metric(("reach",), reach, "reach"))
    try:
        page = ran(tmp_path, study, *options, "--seeds", "2")
        frame = STUDIES[study].load(tmp_path, "smoke")[0].to_pandas()
    finally:
        metrics.pop()
    assert (frame["reach"].isna() == (frame["seed"] == 0)).all()
    assert " reach |" in page and "Reach: the largest number in a sample." in page


def test_a_metric_that_fails_is_told_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TOY.append(Metric(("bad",), lambda outputs: 1 / 0, "bad"))
    try:
        assert run.main(["toy_grid", "--scale", "smoke", "--results", str(tmp_path)]) == 2
    finally:
        TOY.pop()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "'bad'" in err and "ZeroDivisionError" in err
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(("study", "channels", "size"), [("mnist", 1, 16), ("celeba", 3, 32)])
def test_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str, channels: int, size: int
) -> None:
    """One entry; every study of images takes it by its name, and no report calls it its own."""
    place = tmp_path / "mine.npz"
    shape = (200, size, size) if channels == 1 else (200, size, size, channels)
    np.savez(place, images=np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))
    monkeypatch.setitem(DATASETS, "mine", images_in(str(place), channels=channels, size=size))
    options = [
        "--set",
        "data=mine",
        "--only",
        "method=svae_r",
        "--lam",
        "0.1",
        "--set",
        "samples=20",
    ]
    page = ran(tmp_path, study, *options, "--set", "ais_images=0", *NARROW)
    assert "| sVAE-r |" in page and "mine folder" in page


@dataclass(frozen=True, kw_only=True)
class Coins(Study[Spec]):
    """A kind of study that no other is like: a training throws a coin."""

    def every_method(self) -> dict[str, bool]:
        return {"svae_r": True, "vae": False}

    def columns(self) -> dict[str, Any]:
        return {"heads": float}

    def sample_columns(self) -> dict[str, Any]:
        return {"throws": "ints"}

    def seconds(self, spec: Spec, rate: float) -> float:
        return 1.0

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        rows = [
            {"id": s.id, "status": "ok", "heads": s.lam / 4, "train_seconds": 0.0}
            for s in job.specs
        ]
        return rows, [{"id": s.id, "throws": [0, 1]} for s in job.specs]

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        frame = self.load(results, scale)[0].to_pandas()
        columns = [
            ("coin", lambda runs: runs["label"].iloc[0]),
            ("heads", lambda runs: mean(runs["heads"], 2)),
        ]
        table = tabulate(
            "coins", "Coins", "All of them.", columns, [g for _, g in frame.groupby("label")]
        )
        return Page(frame, [table])


def test_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hooks and one line; nothing else of the suite knows of it."""
    axes: dict[str, dict[str, Sequence[Any]]] = {"smoke": {"epochs": [1]}}
    lams = {"smoke": (0.0, 1.0)}
    coins = Coins(name="coins", title="Coins", kind=Spec, axes=axes, methods=("svae_r",), lams=lams)
    monkeypatch.setitem(STUDIES, "coins", coins)
    assert "| sVAE-r | 0.25 |" in ran(tmp_path, "coins")
    assert report.main(["coins", "--results", str(tmp_path)]) == 0
    stored = coins.store(tmp_path, "smoke").load_samples().to_pandas()
    assert [list(throws) for throws in stored["throws"]] == [[0, 1]] * 2
