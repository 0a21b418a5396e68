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
