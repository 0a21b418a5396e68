"""Says what the columns of stored files mean, by their own metadata."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.show.choose import folders_of
from bench.store import schema
from bench.studies import STUDIES
from bench.studies.study import SCALES, Study

KINDS = {
    "string": "text",
    "int64": "integer",
    "double": "number",
    "float": "number",
    "bool": "true or false",
    "binary": "bytes",
    "timestamp[us, tz=UTC]": "time",
}
"""What a column's type is called here, by Arrow's name of it."""


def told_columns(
    study: Study[Any], folders: Sequence[Path], scale: str | None
) -> tuple[str, dict[str, list[tuple[str, str, str]]]]:
    """Returns name, type and line of every column of rows and samples, and where they are from.

    They are those of a stored file where there is one, else those that the study declares.
    """
    where, parts = "as declared; no file is stored", {}
    stores = [study.store(f, s) for f in folders for s in ([scale] if scale else SCALES[::-1])]
    for kind, title in (("", "rows"), ("_samples", "samples")):
        declared = stores[0].samples.columns if kind else stores[0].rows.columns
        found = [store.stored_columns(kind) for store in stores]
        path, there = next((each for each in found if each[0]), (None, declared))
        where = f"from {path}" if path and not kind else where
        today = {field.name: field for field in declared}
        parts[title] = [
            (field.name, type_of(field.type), schema.about(field) or _declared(today, field))
            for field in there
        ]
    return where, parts


def _declared(today: Mapping[str, pa.Field], field: pa.Field) -> str:
    known = today.get(field.name)
    return schema.about(known) if known else "a column that this suite does not know"


def type_of(kind: pa.DataType) -> str:
    """Returns the name of a column's type in words."""
    if pa.types.is_map(kind):
        return f"{type_of(kind.item_type)} by name"
    if pa.types.is_list(kind):
        return f"list of {type_of(kind.value_type)}s"
    return KINDS.get(str(kind), str(kind))


def print_columns(names: Sequence[str], args: argparse.Namespace, on: Console) -> None:
    """Prints every column of these studies, or of all studies, each line once."""
    folders = folders_of(args)
    seen: dict[tuple[str, tuple[str, str, str]], None] = {}
    for name in names or STUDIES:
        where, parts = told_columns(STUDIES[name], folders, args.scale)
        if args.json:
            keys = ("column", "type", "about")
            for kind, lines in parts.items():
                found = [dict(zip(keys, line, strict=True)) for line in lines]
                print(json.dumps({"study": name, "of": kind, "columns": found}, ensure_ascii=False))
            continue
        on.print(Text(f"{name}, {where}", style="bold"))
        for kind, lines in parts.items():
            fresh = [line for line in lines if (kind, line) not in seen]
            seen |= dict.fromkeys((kind, line) for line in lines)
            if len(fresh) < len(lines):
                on.print(Text(f"{kind}: {len(lines) - len(fresh)} columns as above, and"))
            else:
                on.print(Text(f"{kind}:"))
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            table.add_column(no_wrap=on.width >= 80)
            table.add_column(no_wrap=on.width >= 80, style="dim")
            table.add_column(ratio=1)
            for line in fresh:
                table.add_row(*map(Text, line))
            on.print(table)
        on.print()
