"""Trains the spec of one stored row again, and says whether the row came out the same."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.cli import UsageError, duration
from bench.engine.plan import check_memory, choose_device, job_of
from bench.frame import find, named
from bench.scores import metrics
from bench.store import provenance
from bench.store.schema import TIMES
from bench.studies.study import Job, Study

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
    study, row, folder = find(args.id, args.results, args.study, args.scale)
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
    with tempfile.TemporaryDirectory() as results:
        job = job_of(args, [spec], Path(results), device, provenance.commit())
        now = train_once(study, job)
    print(f"now: {_made(now)}")
    if why := study.today().stale(row):
        print(f"the stored row was made by {why}")
    if younger := _younger(study, row, now):
        print(f"the stored row lacks: {', '.join(younger)}")
    compared, differing = compare(study, row, now)
    now = _of_known_names(study, row, now)
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


def compare(
    study: Study[Any], row: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Returns the columns that a row and the same training made again have, and which differ."""
    younger, known = _younger(study, row, now), _of_known_names(study, row, now)
    names = [name for name in _numbers(study) if name not in younger]
    compared = [name for name in names if row[name] is not None or now[name] is not None]
    return compared, [name for name in compared if not _equal(row[name], known[name])]


def train_once(
    study: Study[Any],
    job: Job,
) -> dict[str, Any]:
    """Runs a job of one training in this process, which stores its row; returns the row.

    Raises UsageError if the training fails.
    """
    import torch

    from bench.engine.job import run_job

    (spec,) = job.specs
    store = study.store(Path(job.results), spec.scale)
    store.prepare("results")
    threads = torch.get_num_threads()
    try:
        verdict = run_job(job)
    finally:
        torch.set_num_threads(threads)
    if verdict.end != "done":
        raise UsageError(f"training {spec.id} failed: {verdict.reason}")
    return next(named(row) for row in store.every().to_pylist() if row["id"] == spec.id)


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
    found = dict(now)
    for n in (name for name in maps if now[name] is not None):
        found[n] = {name: each for name, each in now[n].items() if name in (row[n] or {})}
    return found


def _equal(a: Any, b: Any) -> bool:
    """Says whether two values of a row are equal to the last bit; NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
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
    if isinstance(values, dict):
        values = [*values.values()]
    if isinstance(values, list | tuple):
        return [number for each in values for number in _flat(each)]
    return [float(values)] if isinstance(values, int | float) else []
