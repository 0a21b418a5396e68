"""Prints trainings, everything about one, and what columns mean."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from bench.show import terminal
from bench.show.choose import Selection, other_settings
from bench.show.details import APART, Details, Score, scores, shown
from bench.spec import columns

SHORT = 8
"""Digits of an id in a table, as long as they are enough."""
MOST, TIMES = 0.75, 1.5
"""What most trainings share is told from this share on, and from so many times that of all."""
WIDE = 400
"""Columns that any table fits into."""


@dataclass(frozen=True)
class Listing:
    """A table of trainings, and lines about it."""

    above: Sequence[str]
    columns: Mapping[str, str]  # headings by column
    rows: Sequence[Mapping[str, str]]
    order: Sequence[str]  # of columns, the most important first
    below: Sequence[str]


def listing(
    all_of: Selection, found: Selection, score: Score, asked: Collection[str], most: int
) -> Listing:
    """Returns the table of the trainings found, at most so many, among all of their study.

    Columns that were `asked` about come first where not all fit.
    """
    frame, study = found.frame, found.study
    rated = {score.column: score, **scores(study)}
    filled = {name for name in rated if frame[name].notna().any()} | {score.column}
    rated = {name: each for name, each in rated.items() if name in filled}
    if score.column in APART:
        rated.pop(score.column, None)
    seeds = ["seed"] if all_of.frame["seed"].nunique() > 1 else []
    fields = [name for name in columns(study.kind) if name not in (*APART, score.column)]
    listed = frame.head(most)
    varying = [name for name in fields if listed[name].nunique(dropna=False) > 1]
    told = [name for name in fields if all_of.frame[name].nunique(dropna=False) > 1]
    others = other_settings(all_of)
    common = [name for name in fields if name not in varying and name in (*told, *others)]
    head = ["id", "label", "lam", *seeds]
    more = [name for name in asked if name not in (*head, *fields, *rated)]
    names = [*head, *varying, *rated, *more]
    first = [name for name in (score.column, *asked) if name in names]
    order = [*dict.fromkeys(["id", *seeds, *first, *head, *varying, *rated])]
    n = SHORT
    while n < 16 and all_of.frame["id"].str[:n].duplicated().any():
        n += 1
    lines = []
    for row in listed.to_dict("records"):
        line = {
            name: shown(_none(row[name]), rated[name].digits if name in rated else None)
            for name in names
        }
        line["id"] = row["id"][:n]
        if row["status"] == "diverged" and score.column in rated:
            line[score.column] = "diverged"
        lines.append(line)
    heads = {name: name for name in names} | {"lam": "λ"}
    return Listing(
        above=[
            _headline(all_of, found),
            *left_out(found),
            *_mixed(found, others),
            _sorting(found, score),
            *_common(listed, common),
            *_mostly(frame, told, all_of.frame),
        ],
        columns=heads,
        rows=lines,
        order=order,
        below=_below(frame, most),
    )


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _headline(all_of: Selection, found: Selection) -> str:
    n, every = len(found.frame), len(all_of.frame)
    what = f"{n:,} of {every:,} trainings" if n < every else f"{every:,} trainings"
    gone = int((found.frame["status"] == "diverged").sum())
    diverged = f", {gone:,} of them diverged" if gone else ""
    where = f"{found.study.name} at scale {found.scale}, in {found.folder}"
    return f"{what} of {where}{diverged}"


def left_out(found: Selection) -> list[str]:
    """Returns a line on trainings of other settings that were left out, if there are any."""
    if not found.left_out:
        return []
    options = _only(found.left_out)
    return [f"without trainings of other settings than the study's own; with them: {options}"]


def _only(values: Mapping[str, Collection[Any]]) -> str:
    """Returns the options that keep to these values of each field."""
    texts = ((name, ",".join(map(str, sorted(each)))) for name, each in values.items())
    return " ".join(f"--only {shlex.quote(f'{name}={text}')}" for name, text in texts)


def _mixed(found: Selection, others: Mapping[str, Collection[Any]]) -> list[str]:
    """Returns a line on trainings of other settings than the study's own, if there are any."""
    frame = found.frame
    other = {name: ~frame[name].isin(own) & frame[name].notna() for name, own in others.items()}
    other = {name: mask for name, mask in other.items() if mask.any()}
    n = int(pd.DataFrame(other).any(axis=1).sum())
    if not n:
        return []
    line = f"{n:,} of {len(frame):,} are of other settings than the study's own"
    if n == len(frame):
        return [f"{line}: {', '.join(other)}"]
    own = {name: set(frame.loc[~mask, name].dropna()) for name, mask in other.items()}
    return [f"{line}: {_only(own)} keeps to its own"]


def _common(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Returns a line on settings that these trainings share."""
    values = [f"{name} {shown(_none(frame[name].iloc[0])) or '–'}" for name in names]
    return [f"in common: {', '.join(values)}"] if values and len(frame) > 1 else []


def _mostly(frame: pd.DataFrame, names: Sequence[str], every: pd.DataFrame) -> list[str]:
    """Returns a line on settings of most of these trainings that fewer of `every` one have."""
    found, n = [], len(frame)
    for name in names if n > 3 else ():
        counts = frame[name].value_counts()
        if counts.empty:  # older rows may lack a field
            continue
        value, count = counts.index[0], int(counts.iloc[0])
        share, whole = count / n, float((every[name] == value).mean())
        if 1 > share >= max(MOST, TIMES * whole):
            found.append(f"{name} {shown(value)} ({count} of {n}; of all {whole:.0%})")
    return [f"mostly: {', '.join(found)}"] if found else []


def _sorting(found: Selection, score: Score) -> str:
    lacks = int(found.frame["lacks"].sum())
    lacking = f"; {lacks:,} have none and come last" if lacks else ""
    better = f"{score.better} is better" if score.better else "the largest first"
    return f"by {score.column}, {better}{lacking}"


def _below(frame: pd.DataFrame, most: int) -> list[str]:
    if len(frame) <= most:
        return []
    return [f"{len(frame) - most:,} more: --best {len(frame)} shows all, --only FIELD=VALUE fewer"]


def print_listing(table: Listing) -> None:
    """Prints a table; a terminal leaves out columns that do not fit, and names them."""
    on = terminal.console(pipe=WIDE)
    for line in table.above:
        on.print(Text(line))
    cells = {name: max(len(row[name]) for row in table.rows) for name in table.columns}
    heads = {name: _folded(head, max(cells[name], 9)) for name, head in table.columns.items()}
    widths = {n: max(cells[n], *map(len, head.split("\n"))) for n, head in heads.items()}
    names = terminal.fitted([*table.columns], widths, table.order, on.width)
    printed = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        text = name in ("id", "label") or all(row[name][:1].isalpha() for row in table.rows)
        printed.add_column(heads[name], justify="left" if text else "right", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(Text(row[name], no_wrap=True) for name in names))
    on.print(printed)
    if left := [name for name in table.columns if name not in names]:
        words = f"too narrow for: {', '.join(left)}; all of it by COLUMNS={WIDE}"
        on.print(Text(words, style="dim"))
    for line in table.below:
        on.print(Text(line))


def _folded(head: str, width: int) -> str:
    """Returns a name in lines of at most this width where that can be, broken after underscores."""
    lines = [""]
    for part in re.findall("[^_]+_?", head):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


# One training


def print_details(one: Details, on: Console) -> None:
    """Prints everything about a training."""
    on.print()
    on.print(Rule(Text(one.title, style="bold"), align="left"))
    on.print(Text(f"{one.id} of {one.place}"))
    for remark in one.remarks:
        on.print(Text(remark, style="bold" if "diverged" in remark else ""))
    _print_pairs("Spec", one.spec, on)
    if one.scores:
        on.print(_scores(one, on.width))
    if one.settings:
        _print_pairs("Also in its row", one.settings, on)
    for drawing in one.drawings:
        on.print()
        on.print(terminal.drawn(drawing, on, min(on.width, 120)))
    on.print()
    for what, text in one.origin.items():
        on.print(Text.assemble((f"{what}: ", "dim"), text))
    on.print()
    for what, text in one.commands.items():
        on.print(Text(f"{what}:", style="dim"))
        print(f"    {text}")  # a command is copied whole, so no line of it is broken


def _print_pairs(title: str, pairs: Mapping[str, str], on: Console) -> None:
    text, blank = Text(f"{title}: ", style="bold"), "\u00a0" if "utf" in on.encoding else " "
    for i, (name, value) in enumerate(pairs.items()):
        text.append(f"{', ' if i else ''}", "not bold")
        text.append(f"{name}{blank}", "not bold dim")
        text.append(value.replace(" ", blank), "not bold")
    on.print(text)


def _scores(one: Details, width: int) -> Group:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("score")
    table.add_column("value", justify="right", no_wrap=True)
    if one.like:
        table.add_column("place", justify="right", no_wrap=True)
    wordy = width >= 70
    if wordy:
        table.add_column("what it says")
    for score, value, place in one.scores:
        cells = [score.column, f"{value} {'↑' if score.better == 'higher' else '↓'}"]
        cells += [place] if one.like else []
        table.add_row(*map(Text, [*cells, *([score.about] if wordy else [])]))
    told = "↑ higher is better, ↓ lower" + (f"; places among {one.like}" if one.like else "")
    return Group(Padding(table, (1, 0, 0, 0)), Text(told, style="dim"))
