"""The columns of stored results: those of every study, and how a study's own are declared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import pyarrow as pa

from bench.spec import Spec, columns

SCHEMA_VERSION = 3
"""Bumped when columns change. Older files are read, newer ones refused with advice."""

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
    "time": pa.timestamp("us", tz="UTC"),
}
"""What a column can be declared as."""

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
    "stack_size": int,  # trainings in the same tensor program
    "train_seconds": float,  # of the stack, evaluation left out, per member
    "finished": "time",
}


def rows(kind: type[Spec], own: Mapping[str, Any]) -> pa.Schema:
    """One row a finished training: identity, every field of its spec, a study's own, provenance.

    The metadata of a spec's field carry its default as JSON: what rows have that are older than
    the field.
    """
    given = [(f.name, f.default) for f in fields(kind) if f.default is not MISSING]
    defaults = {name: {DEFAULT: json.dumps(default)} for name, default in given}
    spec = _fields(columns(kind), defaults)
    return pa.schema([*_fields(IDENTITY), *spec, *_fields(own), *_fields(PROVENANCE)])


def samples(own: Mapping[str, Any]) -> pa.Schema:
    """What is kept of a training for pictures."""
    return pa.schema(_fields({"id": str, **own}))


def _fields(declared: Mapping[str, Any], metadata: Mapping[str, Any] = {}) -> list[pa.Field]:
    return [pa.field(n, TYPES[kind], metadata=metadata.get(n)) for n, kind in declared.items()]
