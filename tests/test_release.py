"""What a release says of itself: one version, its citation, the versions that it was tried with."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from importlib.util import find_spec
from typing import Any

import pytest

from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
NAME = re.compile(r"[\w.-]+")


def name(requirement: str) -> str:
    """A package's name as pip compares it."""
    found = NAME.match(requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_every_direct_dependency_has_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = [name(pin) for pin in pins]
    assert len({*names}) == len(names)
    tests = PROJECT["optional-dependencies"]["test"]
    assert {name(each) for each in (*PROJECT["dependencies"], *tests)} <= {*names}


def test_the_version_is_told_the_same_everywhere() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    cited = dict(re.findall(r"^(version|date-released): (.+)$", text, re.MULTILINE))
    first = re.search(r"^## \[(.+)\] - (.+)$", CHANGELOG, re.MULTILINE)
    assert first is not None and date.fromisoformat(first[2])
    assert cited == {"version": first[1], "date-released": first[2]}
    assert PROJECT["version"] == first[1]


def test_the_citation_can_be_read() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    needed = {"cff-version", "message", "title", "abstract", "keywords", "authors", "license"}
    assert needed | {"version", "date-released", "type", "preferred-citation"} == cited.keys()
    assert cited["cff-version"] == "1.2.0" and cited["license"] == PROJECT["license"]
    paper = cited["preferred-citation"]
    assert len(paper["authors"]) == 8 and (paper["start"], paper["end"]) == (661, 669)
    assert paper["volume"] == 84 and paper["year"] == 2018


def test_the_changelog_names_commands_that_there_are() -> None:
    modules = {*re.findall(r"python -m (bench\.\w+)", CHANGELOG)}
    assert len(modules) >= 5
    assert not [module for module in modules if find_spec(module) is None]
