"""What a user adds is trained by the command and stands in the tables.

The recipes are those of bench/README.md: their blocks and commands are read from it and run as they
stand, so that a recipe that is broken there fails here.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import report, run
from bench import results as stored_results
from bench.data.sources import DATASETS, images_in
from bench.scores.metrics import IMAGES, TOY, Metric
from bench.studies import STUDIES
from models.methods import METHODS
from models.objectives import OBJECTIVES
from tests.conftest import ROOT
from tests.rows import OWN_METHODS

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = [f"--set={each}" for each in ("width=0.0625", "images=160", "samples=100")]
REGISTRIES: tuple[Any, ...] = (OBJECTIVES, OWN_METHODS, DATASETS, STUDIES, TOY, IMAGES)


@pytest.fixture(autouse=True)
def restored(cache: Path) -> Iterator[None]:
    """Takes away what a recipe adds; the data of its images go to an empty cache."""
    kept = [each.copy() for each in REGISTRIES]
    yield
    for each, before in zip(REGISTRIES, kept, strict=True):
        each.clear()
        each.extend(before) if isinstance(each, list) else each.update(before)


@dataclass(frozen=True)
class Recipe:
    """A section of bench/README.md: its blocks of Python by file, and its commands."""

    blocks: dict[str, str]
    commands: list[list[str]]

    @classmethod
    def of(cls, heading: str) -> Recipe:
        """The recipe under this heading."""
        section = (ROOT / "bench" / "README.md").read_text("utf-8").split(f"\n### {heading}\n")[1]
        found = BLOCK.findall(section.split("\n### ")[0])
        blocks = [text for kind, text in found if kind == "python"]
        lines = "".join(text for kind, text in found if kind == "bash").splitlines()
        named = {block.splitlines()[0].removeprefix("# "): block for block in blocks}
        return cls(named, [shlex.split(line) for line in lines])

    def follow(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The reports after its runs, once the blocks that are parts of the suite are added."""
        scripts = {file: block for file, block in self.blocks.items() if "/" not in file}
        for file, block in self.blocks.items():
            if file not in scripts:
                execute(file, block, monkeypatch)
        pages = []
        for python, *arguments in self.commands:
            assert python == "python"
            if (script := arguments[0]) in scripts:
                execute(script, scripts[script], monkeypatch)
            elif arguments[:2] == ["-m", "bench.run"]:
                pages.append(ran(results, *arguments[2:]))
            elif arguments[:2] == ["-m", "bench.results"]:
                assert stored_results.main([*arguments[2:], "--results", str(results)]) == 0
            else:
                assert arguments[:2] == ["-m", "bench.report"]
                assert report.main([*arguments[2:], "--results", str(results)]) == 0
        return pages


def execute(file: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a block as if it stood at the end of this file, or as a file that is new."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if (ROOT / file).exists():
        names = {**vars(importlib.import_module(name))}
    else:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        names = vars(sys.modules[name])
    exec(compile(block, file, "exec"), names)


def ran(results: Path, study: str, *options: str) -> str:
    """The report after bench.run with these options, in this process; trainings are small."""
    small = SMALL if study in ("mnist", "celeba") else []
    common = ["--engine", "sequential", "--results", str(results)]
    assert run.main([study, *common, *small, *options]) == 0
    return (results / "reports" / study / "smoke" / "report.md").read_text("utf-8")


def test_a_joint_matching_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs stand beside runs that are older than the method."""
    older, known = ran(tmp_path, "toy_grid", "--scale", "smoke", "--lam", "0.1"), {*OBJECTIVES}
    pages = Recipe.of("Add a joint-matching method").follow(tmp_path, monkeypatch)
    (added,) = OBJECTIVES.keys() - known
    assert len(pages) == 2 and "| sVAE-r |" in older and "| sVAE-r |" in pages[0]
    for label in (OBJECTIVES[added].label, OBJECTIVES[added].label_cycle):
        assert f"| {label} |" not in older
        assert all(f"| {label} |" in page for page in pages)


def test_a_method_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {*OWN_METHODS}
    pages = Recipe.of("Add a method of images").follow(tmp_path, monkeypatch)
    (added,) = OWN_METHODS.keys() - known
    assert len(pages) == 2 and all(f"| {METHODS[added].label} |" in page for page in pages)


@pytest.mark.usefixtures("no_pictures")
def test_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored and shown, and results that are older than the metric get it."""
    recipe = Recipe.of("Add a metric")
    studies = [rest for _, _, module, *rest in recipe.commands if module == "bench.run"]
    older = [ran(tmp_path, *arguments, "--seeds", "1") for arguments in studies]
    pages = recipe.follow(tmp_path, monkeypatch)
    for (study, *_), metrics, before, page in zip(
        studies, (TOY, IMAGES), older, pages, strict=True
    ):
        added = metrics[-1]
        frame = STUDIES[study].load(tmp_path, "smoke")[0].to_pandas()
        assert {*frame["seed"]} == {0, 1} and frame[added.columns[0]].notna().all()
        assert f" {added.heading} |" not in before
        assert f" {added.heading} |" in page and added.explanation in page


def test_a_metric_that_fails_is_told_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TOY.append(Metric(("bad",), lambda outputs: 1 / 0, "bad"))
    assert run.main(["toy_grid", "--scale", "smoke", "--results", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "'bad'" in err and "ZeroDivisionError" in err
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.usefixtures("no_pictures")
def test_images_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command trains on them, and so does an entry that a plug-in adds."""
    (page,) = Recipe.of("Train on your own images").follow(tmp_path, monkeypatch)
    assert "| sVAE-r |" in page and "flowers.npz (celeba folder " in page
    assert "paper" not in page.split("## How these")[0].replace("is about the paper", "")
    DATASETS["flowers"] = images_in("flowers.npz", channels=3, size=32)
    flowers = ["--scale", "smoke", "--set", "data=flowers", "--only", "method=svae_r"]
    page = ran(tmp_path / "named", "celeba", *flowers)
    assert "| sVAE-r |" in page and "(flowers folder " in page


def test_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else of the suite knows of its kind."""
    known = {*STUDIES}
    (page,) = Recipe.of("Add a study").follow(tmp_path, monkeypatch)
    (added,) = STUDIES.keys() - known
    assert "| sVAE-r | 0.25 |" in page
    stored = STUDIES[added].store(tmp_path, "smoke").load_samples().to_pandas()
    assert [list(throws) for throws in stored["throws"]] == [[0, 1]] * 2
