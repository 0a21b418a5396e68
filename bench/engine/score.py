"""Scores stored trainings again, from kept weights: each row gets the metrics that it lacks.

    python -m bench.results score mnist --metric reach

A row lacks a metric if its columns are null, or if they come from other code than today's. The
anchors of images are scores of images that no model made, so they need no weights. A row is
written again in one step. So a stop loses nothing, and the same command goes on from there. The
last lines say which metrics were scored and which were not, why, and (in brackets) for how many
rows.

Exit status: 0 if no row lacks what could be asked of it, 1 if some rows could not be scored, 2 for
wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins
from bench.cli import UsageError, complain, positive, to_path
from bench.engine.plan import DOWNLOAD, choose_device
from bench.spec import Spec
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES, Job, Kept, Study, Unscorable

if TYPE_CHECKING:
    from bench.scores.metrics import Metric
    from bench.store.rows import Store

NEEDS_IMAGENET = "needs --inception-weights"
NO_WEIGHTS = "no weights are kept"
PUBLISHED = "published rows are only read"
NEVER = "asks for what this model or its images do not have"
RAISES = "raises, as told above, or asks for what this model or its images do not have"
STALE = "the training is stale"
OTHER_CODE = "the suite can't make this training any more"
OTHER_CLASSIFIER = "another classifier than today's made the scores"
REPLACED = "the row was replaced meanwhile"
KILLED = "the worker was killed"
"""Reasons why a row lacks a metric."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    about = f"one of {', '.join(STUDIES)} (default: every study that has results)"
    add("study", nargs="?", metavar="STUDY", help=about)
    add("--scale", choices=SCALES, help="default: every scale that has results")
    about = "scores results in this folder (default: results)"
    add("--results", type=to_path, default=Path("results"), metavar="DIR", help=about)
    about = "scores this metric alone, by the name of a column; the option may be repeated"
    add("--metric", action="append", default=[], metavar="NAME", help=about)
    about = "takes images from this place, as the training did, see bench.run"
    add("--data", type=to_path, metavar="DIR|FILE", help=about)
    about = f"also scores colour images by ImageNet's classifier: a file, or {DOWNLOAD}"
    add("--inception-weights", metavar="FILE", help=about)
    about = "scores in N processes of one thread each (default: 1)"
    add("--workers", type=positive, default=1, metavar="N", help=about)
    about = "scores on this device (default: cuda where torch finds a GPU)"
    add("--device", choices=("cpu", "cuda"), help=about)
    plugins.add_option(parser)


def command(args: argparse.Namespace) -> int:
    """Scores what the options ask for, prints what came of it and returns the exit status."""
    from bench.scores import metrics

    try:
        plugins.load(args.plugin)
        grids.adopt(args.results)
        asked = _asked(args)
        for study, scale, _ in asked:
            if loss := study.store(args.results, scale).loss():
                print(f"python -m bench.results score: {loss}", file=sys.stderr)
        args.device = choose_device(args.device)
        imagenet = args.inception_weights is not None
        tallies = []
        for study, scale, wanted in asked:
            study.check([], args.data, args.inception_weights)
            metrics.check(study.metrics(), study.taken(), imagenet)
            tally = score(study, scale, wanted, args)
            print("\n".join(tally.lines(f"{study.name} at scale {scale}")), flush=True)
            tallies.append(tally)
    except UsageError as error:
        return complain("bench.results score", error)
    except OSError as error:
        why = f"results can't be written: {error.strerror or error}; nothing stored is lost"
        return complain("bench.results score", why, 1)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    return int(any(tally.undone for tally in tallies))


def _asked(args: argparse.Namespace) -> list[tuple[Study[Any], str, Sequence[Metric]]]:
    """Returns each study and scale that has results, and the metrics asked for."""
    if args.study is not None and args.study not in STUDIES:
        raise UsageError(f"unknown study {args.study!r}; allowed: {', '.join(STUDIES)}")
    names = [args.study] if args.study else [*STUDIES]
    scales = [args.scale] if args.scale else SCALES
    every = {name: replace(STUDIES[name], stale=True) for name in names}
    pairs = [
        (study, scale)
        for study, scale in product(every.values(), scales)
        if len(study.load(args.results, scale)[0])
    ]
    if not pairs:
        which = " ".join(filter(None, [args.study, args.scale and f"at scale {args.scale}"]))
        raise UsageError(
            f"no results{which and f' of {which}'} in {args.results}; allowed: a folder of "
            "results, which has STUDY/SCALE/ (--results)"
        )
    if args.study is None and (args.data or args.inception_weights):
        raise UsageError("--data and --inception-weights go with one STUDY")
    known = {name for study, _ in pairs for each in _metrics(study) for name in each.columns}
    for name in args.metric:
        if name not in known:
            raise UsageError(f"unknown metric {name!r}; allowed: {', '.join(sorted(known))}")

    def wanted(study: Study[Any]) -> list[Metric]:
        every = _metrics(study)
        return [m for m in every if not args.metric or {*m.columns} & {*args.metric}]

    return [(study, scale, wanted(study)) for study, scale in pairs]


def _metrics(study: Study[Any]) -> list[Metric]:
    """Returns the metrics of a study, and ANCHORS last if its rows have any."""
    from bench.scores.metrics import ANCHORS

    return [*study.metrics(), *([ANCHORS] if ANCHORS.columns[0] in study.columns() else [])]


@dataclass
class Tally:
    """Counts what became of the rows of a study at one scale."""

    rows: int = 0
    diverged: int = 0
    scored: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id -> metrics
    # reason -> id -> metrics that can't be computed
    left: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    undone: bool = False  # whether a row lacks what could be asked of it

    def leave(self, reason: str, id: str, names: Iterable[str], undone: bool = True) -> None:
        """Counts metrics that can't be computed for a row."""
        by_id = self.left.setdefault(reason, {})
        by_id[id] = (*by_id.get(id, ()), *names)
        self.undone |= undone

    def lines(self, title: str) -> list[str]:
        """Returns the counts in lines: what was scored, and what was not, with the reason."""
        lacking = {id for by_id in self.left.values() for id in by_id}
        first = f"{title}: {self.rows} trainings, {len(self.scored)} scored now"
        lines = [f"{first}, {len(lacking)} lack a metric"]
        if self.diverged:
            lines.append(f"  {self.diverged} of them diverged: they have no scores")
        for what, found in (("scored", self.scored), *self.left.items()):
            if counts := Counter(name for names in found.values() for name in names):
                rows = (f"{name} ({n})" for name, n in counts.items())
                lines.append(f"  {what}: {', '.join(rows)}")
        return lines


def lacks(row: Mapping[str, Any], metric: Metric, changed: Collection[str]) -> bool:
    """Says whether a row lacks a metric: a column is null, or other source than today's made it.

    `changed` names what other source made of the row, see `bench.store.source.Today.changed`.
    """
    null = any(row.get(name) is None for name in metric.columns)
    return null or metric.columns[0] in changed


@dataclass(frozen=True)
class ScoreJob(Job):
    """A job that scores kept weights of a stack: its rows, and metrics by their first columns."""

    rows: tuple[Mapping[str, Any], ...] = ()
    wanted: tuple[str, ...] = ()

    @property
    def parts(self) -> list[ScoreJob]:
        """Returns a job for each member of the stack."""
        pairs = zip(self.specs, self.rows, strict=True)
        return [replace(self, specs=(spec,), rows=(row,)) for spec, row in pairs]


def score(
    study: Study[Any], scale: str, metrics: Sequence[Metric], args: argparse.Namespace
) -> Tally:
    """Gives every stored row of a study at one scale the metrics that it lacks, if they can be had.

    Raises StoreError if the results can't be read, and OSError if they can't be written.
    """
    from bench.engine.executors import start
    from bench.engine.job import Verdict

    tally = Tally()
    queue = deque(_jobs(study, scale, metrics, args, tally))
    workers = min(args.workers, len(queue))
    executor = start("loky" if workers > 1 else "sequential", None, workers, "cpu")
    running: dict[Future[Any], ScoreJob] = {}
    try:
        while queue or running:
            while queue and len(running) < executor.ahead:
                future = executor.submit(score_job, queue[0])  # type: ignore[arg-type]
                running[future] = queue.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                outcomes = executor.outcome(future, job)
                if isinstance(outcomes, Verdict):
                    outcomes = [(spec.id, KILLED, job.wanted) for spec in job.specs]
                for id, reason, names in outcomes:
                    if reason:
                        tally.leave(reason, id, names, undone=reason != NEVER)
                    else:
                        tally.scored[id] = names
    finally:
        executor.stop()
    return tally


def _jobs(
    study: Study[Any],
    scale: str,
    metrics: Sequence[Metric],
    args: argparse.Namespace,
    tally: Tally,
) -> list[ScoreJob]:
    """Returns the jobs that score what rows lack; counts what no job can give them."""
    from bench.scores.metrics import ANCHORS, asks_for

    asks, known, today = cache(asks_for), study.every_method(), study.today()
    weights, store = args.inception_weights, study.store(args.results, scale)
    published = store.published("").is_file()
    rows: dict[str, Mapping[str, Any]] = {}
    groups: dict[tuple[tuple[str, ...], bool], list[Spec]] = {}
    for row in study.load(args.results, scale)[0].to_pylist():
        tally.rows += 1
        if row["status"] != "ok":
            tally.diverged += 1
            continue
        changed = today.changed(row)
        lacking = [m for m in metrics if lacks(row, m, changed)]
        if not lacking:
            continue
        if row["method"] in changed:
            tally.leave(STALE, row["id"], _names(lacking))
            continue
        spec = study.spec_of(row) if row["method"] in known else None
        if spec is None:
            tally.leave(OTHER_CODE, row["id"], _names(lacking))
            continue
        never, without = (tuple(study.absent(spec, imagenet)) for imagenet in (True, False))
        possible, by_imagenet = [], False
        for metric in lacking:
            if asks(metric, never):
                tally.leave(NEVER, spec.id, _names([metric]), undone=False)
            elif asks(metric, without) and weights is None:
                tally.leave(NEEDS_IMAGENET, spec.id, _names([metric]), undone=bool(args.metric))
            else:
                possible.append(metric)
                by_imagenet |= bool(asks(metric, without))
                by_imagenet |= metric is ANCHORS and weights is not None and never != without
        if published:
            there = store.weights_of(spec.id).is_file()
            tally.leave(PUBLISHED if there else NO_WEIGHTS, spec.id, _names(possible))
            continue
        if not store.weights_of(spec.id).is_file():
            if by_weights := [metric for metric in possible if metric is not ANCHORS]:
                tally.leave(NO_WEIGHTS, spec.id, _names(by_weights))
            possible = [metric for metric in possible if metric is ANCHORS]
        if possible:
            groups.setdefault((_names(possible), by_imagenet), []).append(spec)
            rows[spec.id] = row
    return [
        ScoreJob(
            tuple(stack),
            str(args.results.absolute()),
            args.device,
            {},
            data=args.data and str(args.data.absolute()),
            inception=weights if by_imagenet else None,
            rows=tuple(rows[spec.id] for spec in stack),
            wanted=wanted,
            grid=study.grid,
        )
        for (wanted, by_imagenet), specs in groups.items()
        for stack in study.stacks(specs, args.device)
    ]


def _names(metrics: Sequence[Metric]) -> tuple[str, ...]:
    return tuple(metric.columns[0] for metric in metrics)


Outcome = tuple[str, str, tuple[str, ...]]
"""A training's id, why metrics could not be computed ("" if they were), and the metrics."""


def score_job(job: ScoreJob) -> list[Outcome]:
    """Scores a stack and writes its rows again; if it fails, scores each of its members alone.

    Raises OSError if a row can't be written.
    """
    import torch

    from bench.engine.job import keep_freed_memory, study_of
    from bench.scores.metrics import ANCHORS
    from bench.store import weights

    study = study_of(job)
    torch.set_num_threads(1)  # as in training, so that scores have the same bits
    keep_freed_memory()
    store = study.store(Path(job.results), job.specs[0].scale)
    wanted = [metric for metric in _metrics(study) if metric.columns[0] in job.wanted]
    try:
        pairs = zip(job.specs, job.rows, strict=True)
        if wanted == [ANCHORS]:
            kept: list[Kept] = [(row, {}) for _, row in pairs]
        else:
            kept = [(row, weights.read(store, spec, row)) for spec, row in pairs]
        found = study.score(job, kept, wanted)
    except Exception as error:  # a user's metric may raise anything
        if len(job.specs) > 1:
            return [outcome for part in job.parts for outcome in score_job(part)]
        reason = " ".join(str(error).split())
        named = (
            reason
            if isinstance(error, Unscorable | weights.Unusable)
            else f"{type(error).__name__}: {reason}"
        )
        anchors = _names([metric for metric in wanted if metric is ANCHORS and wanted != [ANCHORS]])
        left = tuple(name for name in job.wanted if name not in anchors)
        outcomes = [(spec.id, named, left) for spec in job.specs]
        return outcomes + (score_job(replace(job, wanted=anchors)) if anchors else [])
    pairs = zip(job.rows, found, strict=True)
    return [outcome for row, new in pairs for outcome in _stored(store, job, row, new)]


def _stored(
    store: Store, job: ScoreJob, row: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Outcome]:
    """Writes what was found into a row; yields what was scored and what was not."""
    id = row["id"]
    for name in job.wanted:
        if name not in found:
            own = RAISES if plugins.home("metrics", name) else NEVER
            yield id, OTHER_CLASSIFIER if name == "anchors" else own, (name,)
    if done := tuple(name for name in job.wanted if name in found):
        assert store.today is not None
        made = store.today.of(row)
        made["metric_digests"] |= {name: store.today.metrics[name] for name in done}
        by = {**dict(row["plugins"] or ()), **plugins.digests()}
        found = {**found, **made, "plugins": by or None}
        yield id, "" if store.rows.change(row, found) else REPLACED, done
