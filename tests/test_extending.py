"""What a user adds is trained by the command and stands in the tables.

The recipes are those of bench/README.md: their files and commands are read from it and run as they
stand, so that a recipe that is broken there fails here.
"""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import plugins, report, run, spec
from bench import results as stored_results
from bench.check import __main__ as check
from bench.data.sources import DATASETS, images_in
from bench.scores.metrics import IMAGES, TOY, Metric
from bench.studies import STUDIES
from models import colour, mnist
from models.methods import METHODS
from models.objectives import OBJECTIVES
from tests.conftest import ROOT
from tests.rows import OWN_METHODS

BLOCK = re.compile(r"^```(python|toml|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = [f"--set={each}" for each in ("width=0.0625", "images=160", "samples=100")]
REGISTRIES: tuple[Any, ...] = (OBJECTIVES, OWN_METHODS, DATASETS, STUDIES, TOY, IMAGES)
REGISTRIES += (mnist.PARTS, colour.PARTS, plugins.LOADED, spec.PROTOCOLS)
COMMANDS = {"bench.check": check.main, "bench.report": report.main}
COMMANDS["bench.results"] = stored_results.main


@pytest.fixture(autouse=True)
def restored(cache: Path) -> Iterator[None]:
    """Takes away what a recipe adds; the working folder and the cache of data are empty."""
    kept = [each.copy() for each in REGISTRIES]
    yield
    for each, before in zip(REGISTRIES, kept, strict=True):
        each.clear()
        each.extend(before) if isinstance(each, list) else each.update(before)


@dataclass(frozen=True)
class Recipe:
    """A section of bench/README.md: its files by name, and its commands."""

    files: dict[str, str]
    commands: list[list[str]]

    @classmethod
    def of(cls, heading: str) -> Recipe:
        """Returns the recipe under this heading."""
        section = (ROOT / "bench" / "README.md").read_text("utf-8").split(f"\n### {heading}\n")[1]
        found = BLOCK.findall(section.split("\n### ")[0])
        blocks = [text for kind, text in found if kind != "bash"]
        lines = "".join(text for kind, text in found if kind == "bash").splitlines()
        named = {block.splitlines()[0].removeprefix("# "): block for block in blocks}
        return cls(named, [shlex.split(line) for line in lines])

    def follow(self) -> list[str]:
        """Writes the files into the current folder and runs the commands; returns the reports."""
        for file, block in self.files.items():
            Path(file).write_text(block, "utf-8")
        pages = []
        for python, *arguments in self.commands:
            assert python == "python"
            if arguments[0] in self.files:
                runpy.run_path(arguments[0])
            elif arguments[1] == "bench.run":
                pages.append(ran(*arguments[2:]))
            else:
                assert COMMANDS[arguments[1]](arguments[2:]) == 0, arguments
        return pages


def ran(*options: str) -> str:
    """Returns the report after bench.run, in this process and with small trainings of images.

    It is empty after a command that writes none.
    """
    small = SMALL if options[0] in ("mnist", "celeba") else []
    assert run.main([*options, "--engine", "sequential", *small]) == 0
    if "--dry-run" in options:
        return ""
    newest = max(Path("reports").rglob("report.md"), key=lambda path: path.stat().st_mtime_ns)
    return newest.read_text("utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_a_joint_matching_method() -> None:
    """Its runs stand beside runs that are older than the method."""
    older, known = ran("toy_grid", "--scale", "smoke", "--lam", "0.1"), {*OBJECTIVES}
    pages = Recipe.of("Add a joint-matching method").follow()
    (added,) = OBJECTIVES.keys() - known
    assert len(pages) == 2 and "| sVAE-r |" in older and "| sVAE-r |" in pages[0]
    for label in (OBJECTIVES[added].label, OBJECTIVES[added].label_cycle):
        assert f"| {label} |" not in older
        assert all(f"| {label} |" in page for page in pages)


@pytest.mark.usefixtures("no_pictures")
def test_a_method_of_images() -> None:
    known = {*OWN_METHODS}
    pages = Recipe.of("Add a method of images").follow()
    (added,) = OWN_METHODS.keys() - known
    assert len(pages) == 2 and all(f"| {METHODS[added].label} |" in page for page in pages)


@pytest.mark.usefixtures("no_pictures")
def test_a_metric() -> None:
    """Results that are older than the metric get it from their kept weights."""
    pages = Recipe.of("Add a metric").follow()
    for study, metrics, before in zip(("toy_grid", "mnist"), (TOY, IMAGES), pages, strict=True):
        added = metrics[-1]
        frame = STUDIES[study].load(Path("results"), "smoke")[0].to_pandas()
        assert frame[added.columns[0]].notna().all()
        page = (Path("reports") / study / "smoke" / "report.md").read_text("utf-8")
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
def test_a_grid() -> None:
    """Both ways to write it down give the same trainings, but for the name."""
    pages = Recipe.of("Train a grid of your own").follow()
    assert ["| ALICE-minimax |" in page for page in pages if page] == [True, True]
    one, other = (STUDIES[name].load(Path("results"), "smoke")[0] for name in ("wide", "wider"))
    assert len(one) == len(other) == 32
    fields = ("encoder_width", "critic_steps", "model_steps", "method", "lam", "seed")
    tables = [{tuple(row[f] for f in fields) for row in each.to_pylist()} for each in (one, other)]
    assert tables[0] == tables[1]


@pytest.mark.usefixtures("no_pictures")
def test_images_of_ones_own() -> None:
    """One command trains on them, and so does an entry that a plug-in adds."""
    (page,) = Recipe.of("Train on your own images").follow()
    assert "| sVAE-r |" in page and "flowers.npz (celeba folder " in page
    assert "paper" not in page.split("## How these")[0].replace("is about the paper", "")
    DATASETS["flowers"] = images_in("flowers.npz", channels=3, size=32)
    flowers = ["--scale", "smoke", "--set", "data=flowers", "--only", "method=svae_r"]
    page = ran("celeba", *flowers)
    assert "| sVAE-r |" in page and "(flowers folder " in page


def test_a_study() -> None:
    """Nothing else of the suite knows of its kind."""
    known = {*STUDIES}
    (page,) = Recipe.of("Add a study").follow()
    (added,) = STUDIES.keys() - known
    assert "| sVAE-r | 0.25 |" in page
    stored = STUDIES[added].store(Path("results"), "smoke").load_samples().to_pandas()
    assert [list(throws) for throws in stored["throws"]] == [[0, 1]] * 2


@pytest.mark.usefixtures("no_pictures")
def test_a_comparison() -> None:
    """The last report has every other method beside the baseline; the verdicts are the same."""
    (before,) = Recipe.of("Compare with what you care about").follow()
    after = Path("reports/toy_grid/smoke/report.md").read_text("utf-8")
    verdicts = [
        [line for line in page.splitlines() if line.startswith("- **1")] for page in (before, after)
    ]
    assert verdicts[0] == verdicts[1] != []
    assert "sVAE-r against each baseline, paired" in before
    pairs = after.split("## Each method against ALI, ALICE, paired")[1].split("##")[0]
    assert {line.split("|")[1].strip() for line in pairs.splitlines() if line[:2] == "| "} == {
        *("method", "---", "sVAE", "sVAE-r", "ALI-minimax", "ALICE-minimax")
    }
