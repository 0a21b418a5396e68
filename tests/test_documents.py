"""The documents: their links, their commands, the places that they name."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import report, run
from bench.cli import duration
from bench.studies import STUDIES
from bench.studies.images import cost
from bench.studies.selection import select
from tests.conftest import ROOT

FOLDERS = ("", "bench", "bench/data", "bench/engine", "bench/speed", "models", "results", "reports")
DOCUMENTS = [*(ROOT / folder / "README.md" for folder in FOLDERS), ROOT / "results" / "PYTHON.md"]
CODE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Module and arguments of every `python -m` in code blocks and in the text."""
    lines = [line for block in CODE.findall(text) for line in block.splitlines()]
    lines += re.findall(r"`(python -m [^`\n]+)`", CODE.sub("", text))
    for line in lines:
        _, found, command = line.partition("python -m ")
        if found:
            module, *arguments = shlex.split(command.replace("$SLURM_ARRAY_TASK_ID", "1"))
            yield module, arguments


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


@each_document
def test_a_clone_has_what_links_lead_to(path: Path) -> None:
    """Nothing that git ignores, such as a file among a user's own results."""
    git = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(git, capture_output=True, encoding="utf-8").stdout.split("\0")[:-1]
    if not listed:
        pytest.skip("no checkout")
    tracked = {ROOT / name for name in listed}
    tracked |= {folder for file in tracked for folder in file.parents}
    assert path in tracked
    for link in LINK.findall(CODE.sub("", path.read_text("utf-8"))):
        if "://" not in link and (place := link.partition("#")[0]):
            assert (path.parent / place).resolve() in tracked, link


@each_document
def test_links_resolve(path: Path) -> None:
    for link in LINK.findall(CODE.sub("", path.read_text("utf-8"))):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_commands_are_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by the parser of its own module, which then runs nothing."""

    def parse(self: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> Any:
        if self.parse_known_args(arguments)[1]:
            self.error(f"unknown in {arguments}")
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setitem(STUDIES, "coins", STUDIES["toy_grid"])  # of a recipe
    for module, arguments in commands(path.read_text("utf-8")):
        folder = (ROOT / module.replace(".", "/")).is_dir()
        main = importlib.import_module(f"{module}.__main__" if folder else module).main
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, (module, arguments)


@pytest.mark.parametrize(
    ("study", "scale"), [each for each in report.stored(report.REFERENCE) if each[1] != "smoke"]
)
def test_the_published_trainings_are_those_of_the_commands(study: str, scale: str) -> None:
    """Those of a command that is still to be made lack some; no other command does."""
    page, speed = (
        (ROOT / folder / "README.md").read_text("utf-8") for folder in ("reports", "bench/speed")
    )
    missing = [*commands(page.split("### Still to be made")[1].split("\n## ")[0])]
    told = [
        (each in missing, run.parser().parse_args(each[1]))
        for each in (*commands(page), *commands(speed))
        if each[0] == "bench.run"
    ]
    stored = {each for each in report.stored(report.REFERENCE) if each[1] != "smoke"}
    assert {(args.study, args.scale) for _, args in told} == stored
    chosen = [each for each in told if (each[1].study, each[1].scale) == (study, scale)]
    published = {*STUDIES[study].load(report.REFERENCE, scale)[0]["id"].to_pylist()}
    named: set[str] = set()
    for to_come, args in chosen:
        ids = {spec.id for spec in select(STUDIES[study], scale, args)}
        assert bool(ids - published) == to_come, args
        named |= ids
    assert published <= named


def test_the_layout_names_every_folder() -> None:
    tree = CODE.findall((ROOT / "bench" / "README.md").read_text("utf-8"))[0]
    named, parents = set(), [""]
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 4, line.split()[0].rstrip("/")
        parents[depth + 1 :] = [f"{parents[depth]}/{name}"]
        named.add(parents[depth + 1].lstrip("/"))
    assert all((ROOT / each).exists() for each in named)
    packages = {str(each.parent.relative_to(ROOT)) for each in ROOT.glob("bench/**/__init__.py")}
    assert packages - named <= {"bench/speed/baselines"}


def test_the_map_leads_to_what_it_names() -> None:
    """Each cell of "Where is …" names files, and behind each what is defined in it."""
    text = (ROOT / "bench" / "README.md").read_text("utf-8")
    rows = text.split("\n## Where is …\n")[1].split("\n## ")[0].splitlines()
    places = [row.split(" | ")[1] for row in rows if "](" in row]
    assert len(places) > 30
    for place in places:
        for link, names in re.findall(r"\]\(([^)]+)\)((?:[ ,]*`[^`]+`)*)", place):
            for name in re.findall(r"`([^`]+)`", names):
                code = (ROOT / "bench" / link).read_text("utf-8")
                defined = rf"^\s*((def|class) )?\[?{re.escape(name)}(\b|\])"
                assert re.search(defined, code, re.MULTILINE), (link, name)


def test_what_a_gpu_is_expected_to_take_is_what_the_suite_foresees() -> None:
    rate = 4e13
    toy = STUDIES["toy_grid"]
    expected = [sum(toy.seconds(spec, rate) for spec in toy.specs("paper"))]
    for study in ("mnist", "cifar10"):
        spec = STUDIES[study].specs("paper", ["svae_r"], [0.1])[0]
        expected.append(cost.training_seconds(spec, rate, cost.GPU))
        if spec.ais_images:
            expected.append(cost.evaluation_seconds(spec, rate, cost.GPU))
    text = (ROOT / "bench" / "speed" / "README.md").read_text("utf-8")
    table = text.split("| expected |")[1].split("\n\n")[0]
    told = [line.split(" | ")[1].removesuffix(" |") for line in table.splitlines()[2:]]
    assert told == [duration(expected[0], 3), *map(duration, expected[1:])]
