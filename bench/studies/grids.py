"""Grids of your own: a study that takes all but its axes from another.

A grid is a file of TOML (`bench.run --study grid.toml`), or a call in a plug-in (`Study.derive`):

    name = "wide"
    base = "toy_grid"
    methods = ["svae_r", "alice"]
    lams = [0.0, 0.1]
    seeds = 3

    [axes]
    encoder_width = [64, 128]
    "critic_steps,model_steps" = [[1, 3], [3, 1]]

Rows of such a study say in their column `grid` what it is, so a report needs no file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.cli import UsageError
from bench.studies import STUDIES
from bench.studies.study import SCALES

FIELDS = ("name", "base", "kind", "title", "methods", "lams", "seeds", "axes")
"""What a file of TOML may say."""


def bases() -> dict[str, str]:
    """Returns the kind of each study that a grid can be based on, by name."""
    from bench.studies.images.study import ImageStudy
    from bench.studies.toy_grid.study import ToyStudy

    kinds = {ToyStudy: "toy", ImageStudy: "images"}
    return {name: kinds[type(study)] for name, study in STUDIES.items() if type(study) in kinds}


def add(text: str) -> None:
    """Adds the study that a text of TOML describes to STUDIES. Raises ValueError."""
    given = tomllib.loads(text)
    if unknown := sorted(given.keys() - {*FIELDS}):
        raise ValueError(f"unknown key {unknown[0]}; allowed: {', '.join(FIELDS)}")
    if missing := [key for key in ("name", "base") if key not in given]:
        raise ValueError(f"{missing[0]} is missing; a grid has a name and the base of all else")
    kinds = bases()
    base, kind = given.pop("base"), given.pop("kind", None)
    if base not in kinds:
        raise ValueError(f"base is {base!r}; allowed: {', '.join(kinds)}")
    if kind not in (None, kinds[base]):
        raise ValueError(f"kind is {kind!r}; {base} has kind {kinds[base]}")
    study = STUDIES[base].derive(given.pop("name"), **given)
    if study.name in STUDIES:
        raise UsageError(f"study {study.name} exists already; allowed: another name")
    known = study.every_method()
    for method in study.methods:
        if method not in known:
            raise ValueError(f"methods has {method!r}; allowed: {', '.join(known)}")
    STUDIES[study.name] = study


def adopt(results: Path) -> None:
    """Adds to STUDIES the grids of which a folder of results has rows, by what the rows say.

    Other studies that are not known stay unknown. Of several grids of one name the newest counts.
    """
    import pyarrow as pa

    for name, path in [*unknown(results)]:
        with suppress(OSError, pa.ArrowException, TypeError, ValueError, KeyError):
            learn(name, _newest(path))


def learn(name: str, grid: str) -> None:
    """Adds the study that `Study.grid` tells to STUDIES. Raises ValueError, TypeError, KeyError."""
    told = json.loads(grid)
    STUDIES[name] = STUDIES[told.pop("base")].derive(name, **told)


def unknown(results: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name of each study that is not known here, and its folders and files of rows."""
    for path in sorted(results.glob("*/*")):
        if path.name.removesuffix(".parquet") in SCALES and path.parent.name not in STUDIES:
            yield path.parent.name, path


def _newest(path: Path) -> str:
    """Returns the last grid that these rows say. Raises ValueError if they say none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        with suppress(OSError, pa.ArrowException, KeyError), file.open("rb") as content:
            found += pq.read_table(content, columns=["grid", "finished"]).to_pylist()
    rows = [row for row in found if row["grid"]]
    return max(rows, key=lambda row: row["finished"])["grid"]
