"""Selects the trainings of a study that a command's options name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bench.cli import UsageError
from bench.spec import OPTIONS, S, Spec, columns
from bench.studies.study import Study

MANY = 30
"""Values that an error names at most."""


@dataclass(frozen=True)
class Shard:
    """Part `i` of `n`, from 1 to n, is disjoint from the others; together they cover all."""

    i: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `i/n`. Raises argparse's error for anything else."""
        i, slash, n = text.partition("/")
        if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: i/n with i from 1 to n, like 2/3")
        return cls(int(i), int(n))

    def of(self, specs: Sequence[S]) -> list[S]:
        """Returns every n-th training by id, so that each machine cuts a selection alike.

        Ids are hashes, so each part gets its share of cheap and costly trainings.
        """
        mine = set(sorted(spec.id for spec in specs)[self.i - 1 :: self.n])
        return [spec for spec in specs if spec.id in mine]

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"


def select(study: Study[Any], scale: str, args: argparse.Namespace) -> list[Spec]:
    """Returns the trainings that the options of `bench.run.parser` name. Raises UsageError."""
    kinds = columns(study.kind)
    asked = assignments("--only", args.only, ["label", *kinds])
    every = study.every_method()
    values = given(study, args)
    methods = list(every) if {"method", "label"} & asked.keys() else None
    methods, lams = values.pop("method", methods), values.pop("lam", args.lam)
    for name in methods or study.methods:
        if name not in every:
            raise UsageError(f"unknown method {name!r}; allowed: {', '.join(every)}")
    try:
        specs = study.specs(scale, methods, lams, args.lr, args.seeds, args.precision, values)
    except ValueError as error:
        raise UsageError(str(error)) from None
    specs = [spec for spec in specs if spec.lam == 0 or every[spec.method]]
    if args.fraction is not None:
        specs = study.fraction(specs, args.fraction)
    for field, texts in asked.items():
        specs = _kept(study, specs, field, texts)
    if args.shard is not None:
        whole, specs = specs, args.shard.of(specs)
        if not specs:
            raise UsageError(f"--shard {args.shard} is empty: {len(whole)} trainings are selected")
    return specs


def given(study: Study[Any], args: argparse.Namespace) -> dict[str, list[Any]]:
    """Returns the values of every field that --set names. Raises UsageError."""
    kinds, values = columns(study.kind), dict[str, list[Any]]()
    allowed = sorted(kinds.keys() - {"study", "scale", "precision"})
    for field, texts in assignments("--set", args.set, allowed).items():
        if field in OPTIONS and getattr(args, OPTIONS[field].strip("-")) is not None:
            raise UsageError(f"--set {field} and {OPTIONS[field]} mean the same; allowed: one")
        try:
            values[field] = list(dict.fromkeys(map(kinds[field], texts)))
        except ValueError:
            of = f"allowed: values of type {kinds[field].__name__}"
            raise UsageError(f"--set {field}={','.join(texts)}; {of}") from None
    return values


def configurations(study: Study[Any], specs: Sequence[Spec]) -> str:
    """Returns a table of specs in lines: a configuration a line, with the fields that differ.

    Methods of a configuration that are trained at the same lambdas stand in one line.
    """
    apart = ("study", "scale", "method", "lam", "seed")
    fields = [name for name in columns(study.kind) if name not in apart]
    differ = [name for name in fields if len({getattr(spec, name) for spec in specs}) > 1]
    cells: dict[tuple[tuple[str, ...], str], tuple[set[float], set[int]]] = {}
    for spec in specs:
        key = tuple(str(getattr(spec, name)) for name in differ)
        lams, seeds = cells.setdefault((key, spec.method), (set(), set()))
        lams.add(spec.lam)
        seeds.add(spec.seed)
    lines: dict[tuple[tuple[str, ...], str, str], list[str]] = {}
    for (key, method), (lams, seeds) in cells.items():
        words = ", ".join(f"{value:g}" for value in sorted(lams))
        lines.setdefault((key, words, _seeds(seeds)), []).append(method)
    heads = [*differ, "methods", "lam", "seeds"]
    rows = [[*key, ", ".join(names), lams, seeds] for (key, lams, seeds), names in lines.items()]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *rows)]
    alike = {name: getattr(specs[0], name) for name in fields if name not in differ}
    same = ", ".join(f"{name} {value}" for name, value in alike.items() if value != "")
    return "\n".join([*table, f"the same in all: {same}"])


def _seeds(seeds: Collection[int]) -> str:
    first, last = min(seeds), max(seeds)
    if len(seeds) > 2 and len(seeds) == last - first + 1:
        return f"{first} to {last}"
    return ", ".join(map(str, sorted(seeds)))


def shrunk(before: Sequence[Spec], after: Sequence[Spec]) -> list[str]:
    """Returns in words what a study's check has made smaller, such as "batch 58 instead of 64"."""
    found = (
        f"{name} {getattr(new, name)} instead of {getattr(old, name)}"
        for old, new in zip(before, after, strict=True)
        for name, kind in columns(type(old)).items()
        if kind is int and getattr(new, name) != getattr(old, name)
    )
    return [*dict.fromkeys(found)]


def assignments(option: str, texts: Sequence[str], fields: Collection[str]) -> dict[str, list[str]]:
    """Returns {field: values} of all FIELD=VALUE[,VALUE] of an option. Raises UsageError."""
    found: dict[str, list[str]] = {}
    allowed = f"FIELD=VALUE[,VALUE]; allowed fields: {', '.join(fields)}"
    for text in texts:
        field, sign, values = text.partition("=")
        if not sign or field not in fields:
            raise UsageError(f"{option} {text}; allowed: {allowed}")
        found.setdefault(field, []).extend(values.split(","))
    return found


def _kept(study: Study[Any], specs: Sequence[Spec], field: str, texts: Sequence[str]) -> list[Spec]:
    """Returns the specs whose field, or label, has one of these values."""
    labels, kind = field == "label", columns(study.kind).get(field, str)
    values = [study.label(s.method, s.lam) if labels else getattr(s, field) for s in specs]
    own = f" (own values: {OPTIONS[field]})" if field in OPTIONS else ""
    wanted = among(values, kind, texts, f"--only {field}=", field, own)
    return [spec for spec, value in zip(specs, values, strict=True) if value in wanted]


def among(
    values: Iterable[Any],
    kind: Callable[[str], Any],
    texts: Sequence[str],
    option: str,
    field: str,
    more: str = "",
) -> set[Any]:
    """Returns what these texts of an option mean, each of which is one of the values of a field.

    Raises UsageError for a text that is none of them; it says which there are, and `more`.
    """
    present, wanted = set(values), set()
    for text in texts:
        each = None
        with suppress(ValueError):
            each = kind(text)
        if each not in present:
            there = ", ".join(str(value) or '""' for value in sorted(present)[:MANY])
            there += f" and {len(present) - MANY} others" if len(present) > MANY else ""
            raise UsageError(f"{option}{text}; allowed: {field} in this selection: {there}{more}")
        wanted.add(each)
    return wanted
