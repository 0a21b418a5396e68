"""Loads files of a user's own, which add to the registries of the suite."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cli import UsageError


@dataclass(frozen=True)
class Plugin:
    """Names what a file has added; metrics by their first column."""

    name: str
    digest: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    data: tuple[str, ...]
    studies: tuple[str, ...]


def load(paths: Sequence[Path]) -> list[Plugin]:
    """Returns what each file has added. Raises UsageError for a file that can't be loaded."""
    return [_load(path) for path in paths]


def _load(path: Path) -> Plugin:
    before = _names()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        spec = importlib.util.spec_from_file_location(f"plugin_{digest}", path)
        assert spec is not None and spec.loader is not None, "no file of Python"
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:  # a user's file may raise anything
        raise UsageError(f"{path} can't be loaded: {type(error).__name__}: {error}") from error
    added = [
        tuple(name for name in after if name not in then)
        for after, then in zip(_names(), before, strict=True)
    ]
    return Plugin(path.name, digest, *added)


def _names() -> list[list[str]]:
    from bench.data.sources import DATASETS
    from bench.scores.metrics import IMAGES, TOY
    from bench.studies import STUDIES
    from models.methods import METHODS

    metrics = dict.fromkeys(each.columns[0] for each in (*TOY, *IMAGES))
    return [[*METHODS], [*metrics], [*DATASETS], [*STUDIES]]
