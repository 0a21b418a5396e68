"""Trains the spec of one stored row again, and says whether the row came out the same."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from bench.cli import UsageError, duration
from bench.engine.plan import check_memory, choose_device, job_of
from bench.scores import metrics
from bench.spec import Spec
from bench.store import provenance
from bench.store.provenance import REFERENCE
from bench.store.schema import TIMES
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES, Study

ROUNDING = 1e-9
"""Processors round apart: numbers that differ by no more than this share are the same."""
ROUNDING_32 = 2**-23
"""The same of columns that are stored in float32, whose last bit is this share."""
MADE_BY = ("device", "device_name", "torch", "numpy", "python", "commit")


def again(args: argparse.Namespace) -> int:
    """Trains the spec of row `args.id` again; returns 0 if it came out the same, else 1.

    Numbers that differ by no more than ROUNDING are the same, and so are numbers of float32 that
    differ in their last bit. The command says so. The row is looked for in the results folder, then
    in the published results; it stays as it is.
    Raises UsageError if there is no such row or if it can't be trained here.
    """
    study, row, folder = _stored(args)
    spec = study.spec_of(row)
    if spec is None:
        raise UsageError(f"--id {args.id}; today's code gives the spec of this row another id")
    (checked,) = study.check([spec], args.data, args.inception_weights)
    if checked != spec:
        raise UsageError(f"--id {args.id} was trained on {getattr(spec, 'data', '')}: see --data")
    device = choose_device(args.device or row["device"])
    check_memory({spec: study.needs(spec)}, 1, device)
    what = f"{row['label']} at λ = {spec.lam:g}, seed {spec.seed}, of {spec.study} at {spec.scale}"
    print(f"{what}, stored in {folder}")
    print(f"stored: {duration(row['train_seconds'])} of training by {_made(row)}", flush=True)
    now = _trained(study, spec, device, args)
    print(f"now: {_made(now)}")
    if why := study.today().stale(row):
        print(f"the stored row was made by {why}")
    if younger := _younger(study, row, now):
        print(f"the stored row lacks: {', '.join(younger)}")
    compared = [n for n in _numbers(study) if row[n] is not None or now[n] is not None]
    compared = [name for name in compared if name not in younger]
    now = _of_known_names(study, row, now)
    differing = [name for name in compared if not _equal(row[name], now[name])]
    for name in differing:
        print(f"  {name}: {_difference(row[name], now[name])}")
    if not differing:
        print(f"the same: all {len(compared)} columns are equal to the last bit")
        return 0
    told = f"{len(differing)} of {len(compared)} columns differ"
    gaps = {name: _gap(row[name], now[name]) for name in differing}
    small = [n for n in differing if str(study.columns().get(n)).startswith("float32")]
    if all(gap <= (ROUNDING_32 if name in small else ROUNDING) for name, gap in gaps.items()):
        most = max(gaps.values())
        print(f"the same but for rounding: {told}, by {most:.1g} of the number at most")
        return 0
    print(f"NOT the same: {told}")
    return 1


def _stored(args: argparse.Namespace) -> tuple[Study[Any], dict[str, Any], Path]:
    """Returns the study of the row that is asked for, the row, and the results that have it."""
    grids.adopt(args.results)
    names = [args.study] if args.study else list(STUDIES)
    scales = [args.scale] if args.scale else SCALES
    for folder, name, scale in product((args.results, REFERENCE), names, scales):
        study = replace(STUDIES[name], stale=True)
        table, bad = study.load(folder, scale)
        for path, reason in bad.items():
            print(f"not read: {path} {reason}", file=sys.stderr)
        for row in table.to_pylist():
            if row["id"] == args.id:
                return study, row, folder
    places = f"{args.results} or {REFERENCE}"
    raise UsageError(f"--id {args.id}; allowed: the id of a row in {places}")


def _trained(
    study: Study[Any], spec: Spec, device: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Returns the row that today's source makes of this spec."""
    from bench.engine.job import run_job

    with tempfile.TemporaryDirectory() as folder:
        job = job_of(args, [spec], Path(folder), device, provenance.commit())
        verdict = run_job(job)
        if verdict.end != "done":
            raise UsageError(f"--id {spec.id} could not be trained: {verdict.reason}")
        (row,) = study.load(Path(folder), spec.scale)[0].to_pylist()
        return row


def _made(row: Mapping[str, Any]) -> str:
    known = {name: str(row[name] or "unknown") for name in MADE_BY}
    known["commit"] = known["commit"][:10] + (" with changes" if row["dirty"] else "")
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _numbers(study: Study[Any]) -> Iterator[str]:
    """Yields the columns that a training makes and a second training makes again."""
    yield "status"
    for name in (*metrics.columns(study.metrics()), *study.columns()):
        if name not in TIMES:
            yield name


def _younger(study: Study[Any], row: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the metrics that were added after the row was stored."""
    if row["status"] != "ok":
        return []
    names = metrics.columns(study.metrics())
    return [name for name in names if row[name] is None and now[name] is not None]


def _of_known_names(
    study: Study[Any], row: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns today's row, whose numbers by name are those that the stored row has as well."""
    maps = [n for n, kind in study.columns().items() if kind == "numbers by name"]
    found = {n: [pair for pair in now[n] or () if pair[0] in dict(row[n] or ())] for n in maps}
    return {**now, **{n: pairs if now[n] is not None else None for n, pairs in found.items()}}


def _equal(a: Any, b: Any) -> bool:
    """Says whether two values of a row are equal to the last bit; NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _difference(then: Any, now: Any) -> str:
    a, b = _flat(then), _flat(now)
    if len(a) == len(b) > 1:
        unequal = sum(not _equal(*pair) for pair in zip(a, b, strict=True))
        return f"{unequal} of {len(a)} values differ, by {_gap(then, now):.1g} of a number at most"
    return f"{then!r} then, {now!r} now"


def _gap(then: Any, now: Any) -> float:
    """Returns the largest difference of two numbers, relative to the larger number.

    It is infinite for values that are not as many numbers.
    """
    a, b = _flat(then), _flat(now)
    if not a or len(a) != len(b):
        return math.inf
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if not _equal(x, y)]
    gaps = (abs(x - y) / max(abs(x), abs(y)) for x, y in pairs)
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def _flat(values: Any) -> list[float]:
    """Returns the numbers of nested lists and maps, in order."""
    if isinstance(values, list | tuple):
        return [number for each in values for number in _flat(each)]
    return [float(values)] if isinstance(values, int | float) else []
