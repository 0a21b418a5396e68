"""Stored rows as a data frame: `from bench import runs`.

    runs("toy_grid", "quick").groupby(["label", "lam"])["inception_score"].mean()

Imports no torch, and pandas only when it is asked.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import plugins
from bench.cli import UsageError, options
from bench.store.provenance import REFERENCE
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES, Study

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RESULTS = Path("results")
"""Where commands keep results, unless they are told otherwise."""
SHORTEST = 4
"""Digits of an id that may stand for all of it."""


class Found(NamedTuple):
    """A stored row, its study, and the folder of results that has it."""

    study: Study[Any]
    row: dict[str, Any]
    folder: Path


def runs(
    study: str,
    scale: str,
    results: Path | str | None = None,
    *,
    samples: bool = False,
    stale: bool = False,
) -> pd.DataFrame:
    """Returns one row for each finished training of a study at a scale, diverged ones included.

    Columns are those of `python -m bench.show --columns`, and `has_weights`: whether `load` finds
    weights. Nested columns hold plain lists, and columns of names hold dicts. With `samples` there
    is also a column `kept` of arrays by name, None where nothing was kept: `x`, `x_rec` and
    `samples` are points (n, 2) or images (n, c, h, w) of uint8; the theory study has densities.

    Rows come from the folder `results`. None is the folder "results" if it has such rows, else the
    published rows; `attrs["results"]` says which. Rows that other source than today's has made are
    left out with a warning, unless `stale`. Raises UsageError where nothing is stored.
    """
    import pandas as pd

    plugins.load()
    folders = [Path(results)] if results is not None else [RESULTS, REFERENCE]
    if results is not None:
        check_folder(folders[0])
    for folder in folders:
        grids.adopt(folder)
    if study not in STUDIES:
        raise UsageError(f"unknown study {study!r}; allowed: {', '.join(STUDIES)}")
    if scale not in SCALES:
        raise UsageError(f"unknown scale {scale!r}; allowed: {', '.join(SCALES)}")
    chosen = replace(STUDIES[study], stale=stale)
    for folder in folders:
        store = chosen.store(folder, scale)
        table, bad = store.load()
        for path, reason in bad.items():
            warnings.warn(f"not read: {path} {reason}", stacklevel=2)
        for line in [] if stale else store.left_out():
            warnings.warn(f"left out as stale: {line}", stacklevel=2)
        if len(table):
            break
    else:
        where = " or ".join(map(str, folders))
        command = f"python -m bench.run {study}{options(scale, results)}"
        raise UsageError(f"no rows of {study} at scale {scale} in {where}: {command}")
    frame = plain(table)
    frame["has_weights"] = [store.weights_of(id).is_file() for id in frame["id"]]
    if samples:
        arrays = {each["id"]: chosen.arrays(each) for each in store.load_samples().to_pylist()}
        frame["kept"] = pd.Series([*map(arrays.get, frame["id"])], frame.index, dtype=object)
    frame.attrs["results"] = str(folder)
    return frame


def plain(table: pa.Table) -> pd.DataFrame:
    """Returns a frame whose nested columns hold Python's own lists, and dicts of lists by name."""
    import pandas as pd
    import pyarrow as pa

    frame = table.to_pandas()
    for field in table.schema:
        if pa.types.is_nested(field.type):
            values = table[field.name].to_pylist()
            if pa.types.is_map(field.type):
                values = [value if value is None else dict(value) for value in values]
            frame[field.name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def unnested(value: Any) -> Any:
    """Returns a value of a row, where pairs of a column of names are a dict."""
    pairs = isinstance(value, list) and value and all(isinstance(each, tuple) for each in value)
    return dict(value) if pairs else value


def find(
    id: str, results: Path | None = None, study: str | None = None, scale: str | None = None
) -> Found:
    """Returns the stored row of an id, or of the beginning of an id that no other row shares.

    The row is looked for in `results`, by default the folder "results", then among the published
    rows. Stale rows are found as well. Raises UsageError for no such row, and for several. It says
    where the row is if that is another study or scale.
    """
    import pyarrow as pa

    if len(id) < SHORTEST:
        raise UsageError(f"id {id!r} is too short; allowed: at least {SHORTEST} digits")
    own = RESULTS if results is None else results
    if own.exists():
        check_folder(own)
    grids.adopt(own)
    names = [study] if study else list(STUDIES)
    if study and study not in STUDIES:
        raise UsageError(f"unknown study {study!r}; allowed: {', '.join(STUDIES)}")
    for folder in (own, REFERENCE):
        found = {}
        for name, at in product(names, [scale] if scale else SCALES):
            chosen = replace(STUDIES[name], stale=True)
            table, bad = chosen.load(folder, at)
            for path, reason in bad.items():
                print(f"not read: {path} {reason}", file=sys.stderr)
            begins = [each.startswith(id) for each in table["id"].to_pylist()]
            for row in table.filter(pa.array(begins, pa.bool_())).to_pylist():
                found[row["id"]] = Found(chosen, named(row), folder)
        if id in found or len(found) == 1:
            return found[id] if id in found else next(iter(found.values()))
        if found:
            several = ", ".join(sorted(found)[:5])
            raise UsageError(f"id {id!r} begins {len(found)} rows in {folder}, such as {several}")
    if own != RESULTS:
        check_folder(own)
    if study or scale:
        there = find(id, results)
        raise UsageError(
            f"id {id!r} is a row of {there.study.name} at scale {there.row['scale']} in "
            f"{there.folder}, not of {study or 'a study'}{f' at scale {scale}' if scale else ''}"
        )
    raise UsageError(f"id {id!r}; allowed: the id of a row in {own} or {REFERENCE}")


def check_folder(results: Path) -> None:
    """Raises UsageError if there is no such folder of results."""
    if not results.is_dir():
        why = "is no folder" if results.exists() else "is missing"
        raise UsageError(f"{results} {why}; allowed: a folder of results")


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored row whose columns of names are dicts."""
    return {name: unnested(value) for name, value in row.items()}
