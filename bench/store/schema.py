"""The schema declares the columns of stored results, those of all studies and a study's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import pyarrow as pa

from bench.spec import Spec, columns

SCHEMA_VERSION = 8
"""Raised by hand when columns change. The store reads older files and refuses newer files."""

DEFAULT = "bench.default"

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

IDENTITY = {
    "id": str,  # Spec.id
    "config": str,  # Spec.config: equal for runs that are compared in pairs
    "protocol": int,  # bench.spec.protocol
    "label": str,  # name in tables: method and whether lambda > 0
    "status": str,  # "ok", or "diverged": parameters or outputs not finite
}

PROVENANCE = {
    "commit": str,  # of the suite, null outside a git checkout
    "dirty": bool,  # whether tracked files differed from the commit
    **dict.fromkeys(("suite", "python", "torch", "numpy"), str),  # versions
    "device": str,  # "cpu" or "cuda"
    "device_name": str,
    "threads": int,  # of the process that trained it
    "stack_size": int,  # trainings of the same job
    "graph": bool,  # whether a CUDA graph ran its updates
    "train_seconds": float,  # of the stack, evaluation left out, per member
    "finished": "time",
    "method_digest": str,  # of the method's source, see bench.store.source
    "metric_digests": "texts by name",  # of each metric's source, by the metric's first column
}


TIMES = ("evaluation_seconds",)
"""A study's own columns that no second training repeats."""


def rows(kind: type[Spec], own: Mapping[str, Any]) -> pa.Schema:
    """Returns the schema of rows: identity, fields of the spec, the study's own, provenance.

    A spec's field carries its default as JSON metadata, for rows that are older than the field.
    """
    given = [(f.name, f.default) for f in fields(kind) if f.default is not MISSING]
    defaults = {name: {DEFAULT: json.dumps(default)} for name, default in given}
    spec = _fields(columns(kind), defaults)
    return pa.schema([*_fields(IDENTITY), *spec, *_fields(own), *_fields(PROVENANCE)])


def samples(own: Mapping[str, Any]) -> pa.Schema:
    """Returns the schema of what is kept of each training for figures."""
    return pa.schema(_fields({"id": str, **own}))


def _fields(declared: Mapping[str, Any], metadata: Mapping[str, Any] = {}) -> list[pa.Field]:
    return [pa.field(n, TYPES[kind], metadata=metadata.get(n)) for n, kind in declared.items()]
