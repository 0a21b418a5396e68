"""Publishes kept weights beside the published rows that they belong to.

By default these are the weights of the trainings that the published report shows. A file is taken
only if its own row has all numbers of the published row, to the last bit. Weights are rounded to
half precision where this changes no score by more than a thousandth of itself, or by more than
0.0001, which is one of 10,000 samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError, complain, to_path
from bench.engine.again import compare
from bench.frame import named
from bench.spec import Spec
from bench.store.provenance import REFERENCE, need_checkout
from bench.studies import STUDIES
from bench.studies.study import SCALES, Job, Study

if TYPE_CHECKING:
    from torch import Tensor

UNCHANGED, ONE = 1e-3, 1.01e-4
"""Half precision may change a score by such a share of itself, or by so much."""
MOST = 10 * 10**6
"""Bytes of all published weights, at most."""
PRIVATE = ("celeba",)
"""Studies of images of real people, of which nothing but numbers is published."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("study", choices=[name for name in STUDIES if name not in PRIVATE], metavar="STUDY")
    add("ids", nargs="*", metavar="ID", help="default: those that the published report shows")
    add("--scale", choices=SCALES, required=True)
    about = "has the kept weights and their rows (default: results)"
    add("--results", type=to_path, default=Path("results"), metavar="DIR", help=about)
    about = "takes images from this place, as the training did, see bench.run"
    add("--data", type=to_path, metavar="DIR|FILE", help=about)


def command(args: argparse.Namespace) -> int:
    """Publishes weights, says what became of each, and returns the exit status."""
    try:
        need_checkout("publishing weights")
        return publish(args)
    except UsageError as error:
        return complain("bench.results weights", error)


def publish(args: argparse.Namespace) -> int:
    """Returns 0 if all weights that were asked for are published, else 1.

    Weights of rows that are not published any more are removed. Raises UsageError for unknown ids,
    and if there would be more than MOST bytes.
    """
    from bench import report
    from bench.store import checkpoint, weights

    study = replace(STUDIES[args.study], stale=True)
    ours, theirs = (study.store(folder, args.scale) for folder in (args.results, REFERENCE))
    published = {row["id"]: named(row) for row in theirs.every().to_pylist()}
    mine = {row["id"]: named(row) for row in ours.every().to_pylist()}
    wanted = args.ids or sorted(report.build(args.study, args.scale, REFERENCE).shown)
    if unknown := [id for id in wanted if id not in published]:
        raise UsageError(f"id {unknown[0]!r}; allowed: the id of a published row of {args.study}")
    before = {path.stem for path in theirs.weights.glob("*.safetensors")}
    for id in before - published.keys() | (set() if args.ids else before - {*wanted}):
        theirs.weights_of(id).unlink()
        print(f"{id}: removed, for the report does not show it")
    left = 0
    for id in wanted:
        spec = study.spec_of(published[id])
        why = _hindrance(study, published[id], mine.get(id), spec)
        if not why and spec is not None:
            try:
                tensors = weights.read(ours, spec, mine[id])
            except weights.Unusable as error:
                why = str(error)
            else:
                rounded = _rounded(study, spec, mine[id], tensors, args.data)
                about = weights.about(spec, mine[id])
                if rounded:
                    about[weights.ROUNDED] = "float16"
                checkpoint.save(theirs.weights_of(id), rounded or tensors, about)
                size = theirs.weights_of(id).stat().st_size
                kind = "float16" if rounded else "float32"
                print(f"{id}: {size:,} bytes of {kind}")
        if why:
            left += 1
            print(f"{id}: not published, {why}")
    total = sum(path.stat().st_size for path in REFERENCE.glob("*/*_weights/*"))
    print(f"{total:,} bytes of published weights in all, of {MOST:,} at most")
    return int(left > 0 or total > MOST)


def _hindrance(
    study: Study[Any],
    published: Mapping[str, Any],
    mine: Mapping[str, Any] | None,
    spec: Spec | None,
) -> str:
    """Returns why weights can't be those of a published row, "" if they can."""
    if mine is None:
        return "there is no such row in the results"
    if spec is None:
        return "today's code gives its spec another id"
    if mine["status"] != "ok":
        return "the training diverged"
    _, differing = compare(study, published, mine)
    return f"{', '.join(differing)} differ from the published row" if differing else ""


def _rounded(
    study: Study[Any],
    spec: Spec,
    row: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    data: Path | None,
) -> dict[str, Tensor]:
    """Returns the tensors in half precision, none if this changes a score."""
    from bench.store.weights import full

    half = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    if not all(bool(each.isfinite().all()) for each in half.values()):
        return {}
    stored = [metric for metric in study.metrics() if row.get(metric.columns[0]) is not None]
    job = Job((spec,), "", "cpu", {}, data=data and str(data.absolute()))
    (found,) = study.score(job, [(row, full(half))], stored)
    for metric in stored:
        for name in metric.columns:
            if not math.isclose(found[name], row[name], rel_tol=UNCHANGED, abs_tol=ONE):
                return {}
    return half
