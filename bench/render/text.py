"""Captions, notes and the rules of claims: text that lies beside a study, not inside its code."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def texts(package: str) -> dict[str, Any]:
    """What the file `text.toml` of a package holds; `{name}` stands where a value is filled in."""
    return tomllib.loads((resources.files(package) / "text.toml").read_text("utf-8"))


WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def all_of(n: int) -> str:
    """Returns "both" for two things, else "all" with their number in words or digits."""
    return "both" if n == 2 else f"all {WORDS[n] if n < len(WORDS) else n}"


def counted(n: int, what: str) -> str:
    """A number of things, in words."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
