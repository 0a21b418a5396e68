"""The schema declares the columns of stored results, those of all studies and a study's own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from typing import Any

import pyarrow as pa

from bench.spec import Spec, columns

SCHEMA_VERSION = 9
"""Raised by hand when columns change. The store reads older files and refuses newer files."""

DEFAULT, METRIC, ABOUT = "bench.default", "bench.metric", "bench.about"
"""Metadata of a column: its default as JSON, a plug-in's metric, and what the column says."""
BETTER = {"higher": "higher is better", "lower": "lower is better"}
"""How the line on a column ends that says which of two values is better."""

TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float64()),
    "float32s": pa.list_(pa.float32()),
    "float32s by name": pa.map_(pa.string(), pa.list_(pa.float32())),
    "numbers by name": pa.map_(pa.string(), pa.float64()),
    "texts by name": pa.map_(pa.string(), pa.string()),
    "time": pa.timestamp("us", tz="UTC"),
}
"""Arrow's type for each way to declare a column."""

IDENTITY = {"id": str, "config": str, "protocol": int, "label": str, "status": str}

PROVENANCE = {
    "commit": str,
    "dirty": bool,
    **dict.fromkeys(("suite", "python", "torch", "numpy"), str),
    "device": str,
    "device_name": str,
    "threads": int,
    "stack_size": int,
    "graph": bool,
    "train_seconds": float,
    "cpu_seconds": float,
    "finished": "time",
    "method_digest": str,
    "metric_digests": "texts by name",
    "plugins": "texts by name",
    "grid": str,
}
"""The file columns.toml says what these columns and those of the suite's studies mean."""


TIMES = ("evaluation_seconds",)
"""A study's own columns that no second training repeats."""


def rows(
    kind: type[Spec],
    own: Mapping[str, Any],
    metrics: Mapping[str, str] = {},
    about: Mapping[str, str] = {},
) -> pa.Schema:
    """Returns the schema of rows: identity, fields of the spec, the study's own, provenance.

    A spec's field carries its default as JSON metadata, for rows that are older than the field.
    `metrics` are plug-ins' metrics as JSON, by their first column. `about` says by column what the
    columns mean; the metadata ABOUT of a column has its line.
    """
    given = [(f.name, f.default) for f in fields(kind) if f.default is not MISSING]
    defaults = {name: json.dumps(default) for name, default in given}
    every = {**IDENTITY, **columns(kind), **own, **PROVENANCE}
    return pa.schema(_fields(every, {DEFAULT: defaults, METRIC: metrics, ABOUT: about}))


def samples(own: Mapping[str, Any], about: Mapping[str, str] = {}) -> pa.Schema:
    """Returns the schema of what is kept of each training for figures; see `rows`."""
    return pa.schema(_fields({"id": str, **own}, {ABOUT: about}))


def _fields(
    declared: Mapping[str, Any], notes: Mapping[str, Mapping[str, str]]
) -> Iterator[pa.Field]:
    for name, kind in declared.items():
        own = {key: texts[name] for key, texts in notes.items() if name in texts}
        yield pa.field(name, TYPES[kind], metadata=own or None)


@cache
def explanations(part: str) -> dict[str, str]:
    """Returns a line on each column of a part of columns.toml, such as "every" or "images"."""
    text = (resources.files("bench.store") / "columns.toml").read_text("utf-8")
    return tomllib.loads(text)[part]


def about(field: pa.Field) -> str:
    """Returns what the metadata of a column says about it, "" for nothing."""
    return (field.metadata or {}).get(ABOUT.encode(), b"").decode()


def better(text: str) -> str:
    """Returns whether "higher" or "lower" values are better, by the line on a column, or ""."""
    return next((word for word, end in BETTER.items() if text.rstrip(".").endswith(end)), "")
