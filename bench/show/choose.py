"""Chooses stored trainings by the options of bench.show, and sorts them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import ge, gt, le, lt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bench.cli import UsageError, options
from bench.frame import RESULTS, Found, named
from bench.scores.metrics import Metric
from bench.show.details import APART, Details, Score, details, scores
from bench.spec import columns
from bench.store import schema
from bench.store.provenance import REFERENCE
from bench.studies import STUDIES
from bench.studies.selection import among, assignments
from bench.studies.study import SCALES, Study

if TYPE_CHECKING:
    from bench.store.rows import Store


SIGNS: dict[str, Callable[[Any, Any], Any]] = {"<=": le, ">=": ge, "<": lt, ">": gt}
RANGE = re.compile(r"(\w+)(<=|>=|<|>)(.*)")
"""What --only takes beside FIELD=VALUE: a field, a sign and a number."""


@dataclass(frozen=True)
class Selection:
    """Stored trainings of a study at a scale: the rows, and their columns without nested ones."""

    study: Study[Any]
    scale: str
    folder: Path
    rows: pa.Table
    frame: pd.DataFrame
    bad: Mapping[Path, str]  # files that can't be read, with the reason
    left_out: Mapping[str, Collection[Any]] = field(default_factory=dict)
    """Values, by field, of trainings of other settings that nobody asked for, and of the others."""

    @property
    def store(self) -> Store:
        """Returns where they are stored."""
        return self.study.store(self.folder, self.scale)

    @classmethod
    def of(cls, study: Study[Any], scale: str, folder: Path) -> Selection:
        """Returns all rows there, with metrics of plug-ins that are not loaded."""
        told = study.store(folder, scale).metrics()
        study = replace(study, stored_metrics=[Metric.stored(each) for each in told])
        rows, bad = study.load(folder, scale)
        flat = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
        return cls(study, scale, folder, rows, rows.select(flat).to_pandas(), bad)

    def narrowed(self, frame: pd.DataFrame) -> Selection:
        """Returns the trainings of some rows of `frame` alone."""
        rows = self.rows.filter(pc.field("id").isin(pa.array(frame["id"], pa.string())))
        return replace(self, rows=rows, frame=frame.reset_index(drop=True))

    def of_ids(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns these rows with plain lists, and dicts of lists by name."""
        rows = self.rows.filter(pc.field("id").isin(pa.array(ids, pa.string()))).to_pylist()
        found = {row["id"]: named(row) for row in rows}
        return [found[id] for id in ids]


def folders_of(args: argparse.Namespace) -> list[Path]:
    """Returns the folders of results that the command looks into, in this order."""
    return [RESULTS, REFERENCE] if args.results is None else [args.results]


def given(args: argparse.Namespace, scale: str | None = None) -> str:
    """Returns what a command has to repeat so that it looks into the same place."""
    return options(scale, args.results, args.plugin)


def select(name: str, args: argparse.Namespace) -> Selection:
    """Returns the stored trainings of a study, at the largest scale that has any.

    Prints which rows are left out. Raises UsageError if there are none.
    """
    folders = folders_of(args)
    study = replace(STUDIES[name], stale=args.stale)
    left_out: list[str] = []
    for folder in folders:
        for scale in [args.scale] if args.scale else SCALES[::-1]:
            whole = Selection.of(study, scale, folder)
            for path, reason in whole.bad.items():
                print(f"not read: {path} {reason}", file=sys.stderr)
            stale = [] if args.stale else whole.store.left_out()
            left_out += [f"left out as stale (--stale shows them): {line}" for line in stale]
            if len(whole.rows):
                print("\n".join(left_out), end="\n" * bool(left_out), file=sys.stderr)
                return whole
    where = " or ".join(map(str, folders))
    at = f" at scale {args.scale}" if args.scale else ""
    if left_out:
        raise UsageError(f"all rows of {name}{at} in {where} are stale; --stale shows them")
    train = f"python -m bench.run {name}{given(args, args.scale)}"
    raise UsageError(f"no rows of {name}{at} in {where}: {train}")


def matching(selection: Selection, args: argparse.Namespace) -> Selection:
    """Returns the trainings that --label, --method, --lam, --seed and --only name.

    Raises UsageError for a value that no row has.
    """
    frame = selection.frame
    named = {name: getattr(args, name) for name in ("label", "method", "lam", "seed")}
    asked = {name: (f"--{name} ", _split(texts)) for name, texts in named.items() if texts}
    fields = [str(name) for name in frame if frame[name].dtype.kind != "M"]  # no times
    ranges = [found for text in args.only if (found := RANGE.fullmatch(text))]
    equal = [text for text in args.only if not RANGE.fullmatch(text)]
    for name, texts in assignments("--only", equal, fields).items():
        before = asked.get(name, ("", []))[1]
        asked[name] = (f"--only {name}=", [*before, *texts])
    for name, (option, texts) in asked.items():
        values = frame[name].dropna()
        kind = _kind(selection.rows.schema.field(name).type)
        wanted = among(values, kind, texts, option, name)
        frame = frame[frame[name].isin(wanted)]
    for found in ranges:
        frame = frame[_within(frame, *found.groups())]
    if not len(frame) and ranges:
        raise UsageError(f"--only {' --only '.join(found[0] for found in ranges)}: no row is so")
    return selection.narrowed(frame)


def columns_asked(args: argparse.Namespace) -> list[str]:
    """Returns the columns that --only and --by name."""
    only = (re.split("[<>=]", text)[0] for text in args.only)
    return [*dict.fromkeys([*only, *filter(None, [args.by.partition(":")[0]])])]


def of_own_settings(found: Selection, whole: Selection, fields: Collection[str]) -> Selection:
    """Returns the trainings found at the study's own settings, as the reports show them.

    These `fields` may have any value. Where all trainings are of other settings, all stay.
    """
    others = {n: own for n, own in other_settings(whole).items() if n not in fields}
    frame, left_out = found.frame, {}
    for name, own in others.items():
        kept = frame[frame[name].isin(own) | frame[name].isna()]
        if 0 < len(kept) < len(frame):
            left_out[name] = set(frame[name].dropna())
            frame = kept
    return replace(found.narrowed(frame), left_out=left_out)


def _within(frame: pd.DataFrame, name: str, sign: str, limit: str) -> pd.Series:
    """Returns which rows keep a range. Raises UsageError for a column or a limit of no number."""
    numbers = [str(each) for each in frame if frame[each].dtype.kind in "if"]
    if name not in numbers:
        raise UsageError(f"--only {name}{sign}{limit}; allowed fields: {', '.join(numbers)}")
    try:
        return SIGNS[sign](frame[name], float(limit))
    except ValueError:
        raise UsageError(f"--only {name}{sign}{limit}; allowed: a number after {sign}") from None


def _split(texts: Iterable[str]) -> list[str]:
    return [each for text in texts for each in text.split(",")]


def _kind(of: pa.DataType) -> Any:
    if pa.types.is_boolean(of):
        return _truth
    return int if pa.types.is_integer(of) else float if pa.types.is_floating(of) else str


def _truth(text: str) -> bool:
    if (lower := text.lower()) not in ("true", "false"):
        raise ValueError(text)
    return lower == "true"


def chosen_score(selection: Selection, args: argparse.Namespace) -> Score:
    """Returns what sorts the trainings: --by, or the study's own score. Raises UsageError."""
    rated, frame = scores(selection.study), selection.frame
    if not args.by:
        gone = bool((frame["status"] == "diverged").all())
        filled = [name for name in rated if gone or frame[name].notna().any()]
        own = selection.study.first_score
        first = own if own in filled else next(iter(filled), "")
        if first:
            return rated[first]
        if args.best or args.worst:
            raise UsageError("no score has a value; allowed: --by COLUMN:higher or COLUMN:lower")
        numbers = [name for name in selection.study.columns() if name in frame]
        numbers = [name for name in numbers if frame[name].dtype.kind in "if"] or ["lam"]
        return _unrated(numbers[0])
    name, _, direction = args.by.partition(":")
    if name not in frame or frame[name].dtype.kind not in "if":
        numbers = [str(name) for name in frame if frame[name].dtype.kind in "if"]
        raise UsageError(f"--by {args.by}; allowed: {', '.join(numbers)}")
    if direction not in ("", *schema.BETTER):
        raise UsageError(f"--by {args.by}; allowed: {name}:higher or {name}:lower")
    if direction:
        return replace(rated.get(name, _unrated(name, direction)), about=schema.BETTER[direction])
    if name in rated:
        return rated[name]
    if args.best or args.worst:
        why = f"nothing says which values of {name} are better"
        raise UsageError(f"--by {name}: {why}; allowed: --by {name}:higher or {name}:lower")
    return _unrated(name)


def _unrated(name: str, direction: str = "") -> Score:
    return Score(name, name.replace("_", " "), None, schema.BETTER.get(direction, ""))


def ordered(selection: Selection, score: Score, args: argparse.Namespace) -> Selection:
    """Returns the trainings by a score, the best first, or the --best or --worst alone.

    Diverged trainings are the worst. Trainings without the score come last, and are not among the
    worst.
    """
    frame = selection.frame
    values, order = frame[score.column], score.order(frame[score.column], frame["status"])
    lacks = selection.rows[score.column].is_null().to_pandas() & (frame["status"] != "diverged")
    frame = frame.assign(order=order, lacks=lacks, nan=values.isna())
    frame = frame.sort_values(["lacks", "order", "nan", "id"], ignore_index=True)
    if args.worst or args.best:
        frame = frame[~frame["lacks"]]
    if args.worst:
        frame = frame[::-1].head(args.worst)
    if args.best:
        frame = frame.head(args.best)
    return replace(selection, frame=frame.reset_index(drop=True))


def detailed(selection: Selection, ids: Sequence[str], every: pd.DataFrame) -> list[Details]:
    """Returns all that there is to say of these trainings, among `every` run of their study."""
    points = selection.store.load_samples()
    points = points.filter(pc.field("id").isin(pa.array(ids, pa.string())))
    kept = {row["id"]: row for row in points.to_pylist()}
    own = other_settings(selection, every)
    found = []
    for row in selection.of_ids(ids):
        same = ["label", "lam", *selection.study.apart]
        like = every[(every[same] == [row[name] for name in same]).all(axis=1)]
        other = {name: row[name] for name, values in own.items() if row[name] not in values}
        for name, values in own.items():
            like = like[like[name] == row[name] if name in other else like[name].isin(values)]
        place = Found(selection.study, row, selection.folder)
        found.append(details(place, kept.get(row["id"]), like, other if own else None))
    return found


def other_settings(selection: Selection, frame: pd.DataFrame | None = None) -> dict[str, set[Any]]:
    """Returns the study's own values of each field of which stored rows have other values.

    Methods, lambdas, seeds and fields of `Study.apart` do not count.
    """
    study, frame = selection.study, selection.frame if frame is None else frame
    specs = study.specs(selection.scale)
    fields = [name for name in columns(study.kind) if name not in (*APART, *study.apart)]
    own = {name: {getattr(spec, name) for spec in specs} for name in fields}
    return {name: own[name] for name in fields if {*frame[name].dropna()} - own[name]}
