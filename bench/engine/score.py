"""Scores stored trainings again, from kept weights: each row gets the metrics that it lacks.

    python -m bench.results score mnist --metric reach

A row lacks a metric if its columns are null, or if they come from other code than today's. A row is
written again in one step. So a stop loses nothing, and the same command goes on from there. What
can't be computed is counted, with the reason.

Exit status: 0 if no row lacks what could be asked of it, 1 if some rows could not be scored, 2 for
wrong usage.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import UsageError, complain
from bench.engine.plan import DOWNLOAD, choose_device
from bench.spec import Spec, columns
from bench.studies import STUDIES
from bench.studies.study import SCALES, Job, Study, Unscorable

if TYPE_CHECKING:
    from bench.scores.metrics import Metric
    from bench.store.rows import Store

NEEDS_IMAGENET = "needs --inception-weights"
NO_WEIGHTS = "no weights are kept"
NEVER = "the model or its data have no {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    about = f"one of {', '.join(STUDIES)} (default: every study that has results)"
    add("study", nargs="?", metavar="STUDY", help=about)
    add("--scale", choices=SCALES, help="default: every scale that has results")
    about = "scores results in this folder (default: results)"
    add("--results", type=Path, default=Path("results"), metavar="DIR", help=about)
    about = "scores this metric alone, by the name of a column; the option may be repeated"
    add("--metric", action="append", default=[], metavar="NAME", help=about)
    about = "takes images from this place, as the training did, see bench.run"
    add("--data", type=Path, metavar="DIR|FILE", help=about)
    about = f"also scores colour images by ImageNet's classifier: a file, or {DOWNLOAD}"
    add("--inception-weights", metavar="FILE", help=about)
    about = "scores on this device (default: cuda where torch finds a GPU)"
    add("--device", choices=("cpu", "cuda"), help=about)


def command(args: argparse.Namespace) -> int:
    """Scores what the options ask for, prints what came of it and returns the exit status."""
    from bench.scores import metrics
    from bench.store.rows import StoreError

    try:
        asked = _asked(args)
        args.device = choose_device(args.device)
        imagenet = args.inception_weights is not None
        tallies = []
        for study, scale, wanted in asked:
            if imagenet:
                study.check([], None, args.inception_weights)
            metrics.check(study.metrics(), study.columns(), imagenet)
            tally = score(study, scale, wanted, args)
            print("\n".join(tally.lines(f"{study.name} at scale {scale}")), flush=True)
            tallies.append(tally)
    except StoreError as error:
        return complain("bench.results score", error, 1)
    except UsageError as error:
        return complain("bench.results score", error)
    except OSError as error:
        why = f"results can't be written: {error.strerror or error}; nothing stored is lost"
        return complain("bench.results score", why, 1)
    return int(any(tally.undone for tally in tallies))


def _asked(args: argparse.Namespace) -> list[tuple[Study[Any], str, Sequence[Metric]]]:
    """Returns each study and scale that has results, and the metrics asked for."""
    if args.study is not None and args.study not in STUDIES:
        raise UsageError(f"unknown study {args.study!r}; allowed: {', '.join(STUDIES)}")
    names = [args.study] if args.study else [*STUDIES]
    scales = [args.scale] if args.scale else SCALES
    pairs = [
        (STUDIES[name], scale)
        for name, scale in product(names, scales)
        if len(STUDIES[name].load(args.results, scale)[0])
    ]
    if not pairs:
        which = " ".join(filter(None, [args.study, args.scale and f"at scale {args.scale}"]))
        raise UsageError(f"no results{which and f' of {which}'} in {args.results}")
    if args.study is None and (args.data or args.inception_weights):
        raise UsageError("--data and --inception-weights go with one STUDY")
    known = {name for study, _ in pairs for each in study.metrics() for name in each.columns}
    for name in args.metric:
        if name not in known:
            raise UsageError(f"unknown metric {name!r}; allowed: {', '.join(sorted(known))}")

    def wanted(study: Study[Any]) -> list[Metric]:
        every = study.metrics()
        return [m for m in every if not args.metric or {*m.columns} & {*args.metric}]

    return [(study, scale, wanted(study)) for study, scale in pairs]


@dataclass
class Tally:
    """Counts what became of the rows of a study at one scale."""

    rows: int = 0
    diverged: int = 0
    scored: dict[str, list[str]] = field(default_factory=dict)  # metrics by id
    left: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # reason -> id -> metrics
    undone: bool = False  # whether a row lacks what could be asked of it

    def leave(self, reason: str, id: str, wanted: Sequence[Metric], undone: bool = True) -> None:
        """Counts metrics that can't be computed for a row."""
        self.left.setdefault(reason, {}).setdefault(id, []).extend(m.columns[0] for m in wanted)
        self.undone |= undone

    def lines(self, title: str) -> list[str]:
        """Returns the counts in lines: what was scored, and what was not, with the reason."""
        lacking = {id for by_id in self.left.values() for id in by_id}
        first = f"{title}: {self.rows} trainings, {len(self.scored)} scored now"
        lines = [f"{first}, {len(lacking)} lack a metric"]
        if self.diverged:
            lines.append(f"  {self.diverged} of them diverged: they have no scores")
        for verb, found in (("scored", self.scored), *self.left.items()):
            groups: dict[tuple[str, ...], int] = {}
            for names in found.values():
                groups[tuple(names)] = groups.get(tuple(names), 0) + 1
            lines += [f"  {verb}: {', '.join(each)} ({n} rows)" for each, n in groups.items()]
        return lines


def lacks(row: Mapping[str, Any], metric: Metric, today: str | None) -> bool:
    """Says whether a row lacks a metric: a column is null, or comes from other code than today's.

    `today` is the digest of the metric's source, None if it is not known.
    """
    if any(row.get(name) is None for name in metric.columns):
        return True
    stored = dict(row.get("metric_digests") or ()).get(metric.columns[0])
    return None not in (stored, today) and stored != today


def digests(metrics: Sequence[Metric]) -> dict[str, str]:
    """Returns the digest of each metric's source, by its first column."""
    return {}


def score(
    study: Study[Any], scale: str, metrics: Sequence[Metric], args: argparse.Namespace
) -> Tally:
    """Gives every stored row of a study at one scale the metrics that it lacks, if they can be had.

    Raises StoreError if the results can't be read, and OSError if they can't be written.
    """
    from bench.scores.metrics import asks_for

    needs, known, tally, today = cache(asks_for), study.every_method(), Tally(), digests(metrics)
    imagenet = args.inception_weights is not None
    scoring = _Scoring(study, study.store(args.results, scale), tally, args, today)
    groups: dict[tuple[Metric, ...], list[Spec]] = {}
    for row in study.load(args.results, scale)[0].to_pylist():
        tally.rows += 1
        if row["status"] != "ok":
            tally.diverged += 1
            continue
        wanted = [m for m in metrics if lacks(row, m, today.get(m.columns[0]))]
        spec = _spec(study, row) if row["method"] in known else None
        if wanted and spec is None:
            tally.leave("the suite can't make this training any more", row["id"], wanted)
        if not wanted or spec is None:
            continue
        never, now = (tuple(study.absent(spec, i)) for i in (True, imagenet))
        possible = []
        for metric in wanted:
            if name := needs(metric, never):
                tally.leave(NEVER.format(name), spec.id, [metric], undone=False)
            elif needs(metric, now):
                tally.leave(NEEDS_IMAGENET, spec.id, [metric], undone=bool(args.metric))
            else:
                possible.append(metric)
        if possible and not scoring.path(spec).is_file():
            tally.leave(NO_WEIGHTS, spec.id, possible)
        elif possible:
            groups.setdefault(tuple(possible), []).append(spec)
            scoring.rows[spec.id] = row
    for wanted, specs in groups.items():
        for stack in study.stacks(specs, args.device):
            scoring.score(stack, wanted)
    return tally


def _spec(study: Study[Any], row: Mapping[str, Any]) -> Spec | None:
    """Returns the spec of a row, or None if today's code would give it another id."""
    try:
        spec = study.kind(**{name: row[name] for name in columns(study.kind)})
    except (TypeError, ValueError):
        return None
    return spec if spec.id == row["id"] else None


class _Scoring:
    """Scores stacks of kept weights, and writes and counts what comes of it."""

    def __init__(
        self,
        study: Study[Any],
        store: Store,
        tally: Tally,
        args: argparse.Namespace,
        today: Mapping[str, str],
    ) -> None:
        self.study, self.store, self.tally, self.args, self.today = study, store, tally, args, today
        self.rows: dict[str, Mapping[str, Any]] = {}

    def path(self, spec: Spec) -> Path:
        """Returns the file of a training's weights."""
        return self.store.weights / f"{spec.id}.safetensors"

    def score(self, stack: Sequence[Spec], wanted: Sequence[Metric]) -> None:
        """Scores the weights of a stack; if that fails, scores each of its members alone."""
        import torch

        from bench.engine.job import keep_freed_memory

        torch.set_num_threads(1)  # as in training, so that scores have the same bits
        keep_freed_memory()
        kept = {}
        for spec in stack:
            try:
                kept[spec] = self._weights(spec)
            except Unscorable as error:
                self.tally.leave(str(error), spec.id, wanted)
        if not kept:
            return
        try:
            pairs = [(self.rows[spec.id], weights) for spec, weights in kept.items()]
            found = self.study.score(self._job(list(kept), wanted), pairs, wanted)
        except Exception as error:  # a user's metric may raise anything
            if len(kept) > 1:
                for spec in kept:
                    self.score([spec], wanted)
                return
            (spec,), known = kept, isinstance(error, Unscorable)
            reason = " ".join(str(error).split())
            reason = reason if known else f"{type(error).__name__}: {reason}"
            self.tally.leave(reason, spec.id, wanted)
            return
        for spec, found_columns in zip(kept, found, strict=True):
            self._write(spec, found_columns, wanted)

    def _job(self, specs: Sequence[Spec], wanted: Sequence[Metric]) -> Job:
        from bench.scores.metrics import asks_for

        args, weights = self.args, self.args.inception_weights
        absent = tuple(self.study.absent(specs[0], False))
        asked = any(asks_for(metric, absent) for metric in wanted)  # else ImageNet's is idle
        data = args.data and str(args.data)
        inception = weights if asked else None
        return Job(tuple(specs), str(args.results), args.device, {}, data=data, inception=inception)

    def _weights(self, spec: Spec) -> dict[str, Any]:
        """Returns kept weights. Raises Unscorable for a damaged file and for another training's."""
        from bench.engine.job import weights_about
        from bench.store import checkpoint

        try:
            tensors, about = checkpoint.read(self.path(spec))
        except checkpoint.Damaged:
            raise Unscorable("the file of weights is damaged") from None
        about.pop("keep", None)
        if about != weights_about(spec, self.rows[spec.id]):
            raise Unscorable("the weights are of another training")
        return tensors

    def _write(self, spec: Spec, found: Mapping[str, Any], wanted: Sequence[Metric]) -> None:
        row = self.rows[spec.id]
        done = [m for m in wanted if m.columns[0] in found]
        absent = [m for m in wanted if m.columns[0] not in found]
        if absent:
            self.tally.leave(NEVER.format("such output"), spec.id, absent, undone=False)
        if not done:
            return
        new = {m.columns[0]: self.today[m.columns[0]] for m in done if m.columns[0] in self.today}
        if new:
            old = dict(row.get("metric_digests") or ())
            found = {**found, "metric_digests": old | new}
        if self.store.rows.change(row, found):
            self.tally.scored[spec.id] = [m.columns[0] for m in done]
        else:
            self.tally.leave("the row was replaced meanwhile", spec.id, done)
