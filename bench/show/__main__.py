"""Shows stored trainings: a table of those that match, and everything about one.

    python -m bench.show                                what is stored
    python -m bench.show 0123abcd                       one training, by its id or the beginning
    python -m bench.show toy_grid --label sVAE-r --lam 0.1 --worst 5
    python -m bench.show mnist --by log_likelihood --html mnist.html
    python -m bench.show toy_grid --columns             what each column means
    python -m bench.show toy_grid --follow              trainings that run with --log

Rows come from --results; without it from the folder results, or else from the published results.
Imports no torch.

Exit status: 0, 1 if FILE can't be written, 2 wrong usage, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import plugins
from bench.cli import Parser, UsageError, complain, positive, to_file, to_path
from bench.frame import SHORTEST, check_folder, find
from bench.process import command, stopped
from bench.show import terminal
from bench.show.choose import (
    Selection,
    chosen_score,
    columns_asked,
    detailed,
    folders_of,
    given,
    matching,
    of_own_settings,
    ordered,
    select,
)
from bench.show.columns import print_columns
from bench.show.details import Details
from bench.show.printed import SHORT, Listing, left_out, listing, print_details, print_listing
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES

ID = re.compile(rf"[0-9a-f]{{{SHORTEST},16}}")
DETAILED, ON_PAGE, LINES = 5, 20, 20
"""Runs whose details a terminal and a page show, and lines of a table on a terminal."""


def plain(value: Any) -> Any:
    """Returns a value of a row as JSON has it; numbers that are not finite are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.show", __doc__)
    add = p.add_argument
    about = f"a study ({', '.join(STUDIES)}, or a plug-in's), or ids, of which {SHORTEST} digits do"
    add("what", nargs="*", metavar="STUDY | ID", help=about)
    about = "default: the largest scale that has rows"
    add("--scale", choices=SCALES, help=about)
    about = "default: results, or else the published results"
    add("--results", type=to_path, metavar="DIR", help=about)
    plugins.add_option(p)
    many: dict[str, Any] = {"action": "append", "default": []}
    add("--label", **many, metavar="LABEL[,LABEL]", help="keeps trainings of this name in tables")
    add("--method", **many, metavar="METHOD[,METHOD]", help="keeps trainings of this method")
    add("--lam", **many, metavar="L[,L]", help="keeps trainings at this λ")
    add("--seed", **many, metavar="N[,N]", help="keeps trainings of this seed")
    about = """keeps trainings whose column has one of these values, such as critic_steps=1,3, or
        keeps a range, such as 'mse_x<0.1'; <, <=, > and >= are allowed, in quotes"""
    add("--only", **many, metavar="FIELD=VALUE[,VALUE]", help=about)
    about = f"the N worst, diverged ones first; up to {DETAILED} with all details"
    add("--worst", type=positive, metavar="N", help=about)
    about = f"the N best; up to {DETAILED} with all details"
    add("--best", type=positive, metavar="N", help=about)
    about = """sorts by this column instead of the study's score. Where nothing says which values
        are better, COLUMN:higher or COLUMN:lower does."""
    add("--by", metavar="COLUMN", default="", help=about)
    add("--stale", action="store_true", help="also shows rows that other source has made")
    about = f"writes the same as one page, with details of up to {ON_PAGE} trainings"
    add("--html", type=to_file, metavar="FILE", help=about)
    about = "prints rows as JSON, one object for an ID, else a list"
    add("--json", action="store_true", help=about)
    add("--columns", action="store_true", help="prints what each column means, and its type")
    about = "draws trainings that run with --log, or the one of this ID, until none is under way"
    add("--follow", nargs="?", const="", metavar="ID", help=about)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    try:
        plugins.load(args.plugin)
        if args.results and (args.follow is None or args.results.exists()):
            check_folder(args.results)
        folders = folders_of(args)
        for folder in folders:
            grids.adopt(folder)
        words = [*args.what, *([args.follow] if args.follow else [])]
        studies, ids = _sorted(words, folders)
        _check(args, studies, ids)
        on = terminal.console()
        if args.columns:
            print_columns(studies, args, on)
        elif args.follow is not None:
            from bench.show.follow import follow

            return follow(studies, ids, args, on)
        elif ids:
            return _show_ids(studies, ids, args, on)
        elif studies:
            return _show_study(studies[0], args, on)
        else:
            print_stored(args, on)
        return 0
    except UsageError as error:
        return complain("bench.show", error)
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return stopped(stop)


def _sorted(words: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Returns which words are studies, and which are ids. Raises UsageError for others."""
    theirs = {name for folder in folders for name, _ in grids.unknown(folder)}
    studies = [word for word in words if word in STUDIES]
    ids = [word for word in words if word not in STUDIES]
    for word in ids:
        if word in theirs:
            raise UsageError(
                f"unknown study {word!r}; allowed: {word} with the --plugin that has it"
            )
        if re.fullmatch(f"[0-9a-f]{{1,{SHORTEST - 1}}}", word):
            raise UsageError(f"id {word!r} is too short; allowed: at least {SHORTEST} digits")
        if not ID.fullmatch(word):
            allowed = f"{', '.join(STUDIES)}, or {SHORTEST} to 16 digits of an id"
            raise UsageError(f"unknown study or id {word!r}; allowed: {allowed}")
    return studies, ids


def _check(args: argparse.Namespace, studies: Sequence[str], ids: Sequence[str]) -> None:
    """Raises UsageError for options that do not go together."""
    picks = {f"--{name}": getattr(args, name) for name in ("label", "method", "lam", "seed")}
    picks |= {"--only": args.only, "--worst": args.worst, "--best": args.best, "--by": args.by}
    following = args.follow is not None
    chosen = [option for option, value in picks.items() if value]
    if following:
        chosen += ["--json"] * args.json + ["--html"] * bool(args.html)
        if chosen:
            raise UsageError(f"{chosen[0]} and --follow exclude each other")
    if chosen and (ids or not studies or args.columns):
        raise UsageError(
            f"{chosen[0]} chooses among the trainings of one STUDY; allowed: one STUDY"
        )
    if args.worst and args.best:
        raise UsageError("--worst and --best exclude each other")
    if len(studies) > 1 and not args.columns:
        raise UsageError(f"{len(studies)} studies are named; allowed: one STUDY")
    if args.html and (args.json or args.columns or not (studies or ids)):
        raise UsageError("--html goes with a STUDY or an ID, without --json or --columns")
    if args.json and not (studies or ids or args.columns):
        raise UsageError("--json goes with a STUDY, an ID or --columns")


def _show_ids(
    studies: Sequence[str], ids: Sequence[str], args: argparse.Namespace, on: Console
) -> int:
    every: list[Details] = []
    found: list[dict[str, Any]] = []
    for id in ids:
        study, row, folder = find(id, args.results, *studies[:1], scale=args.scale)
        whole = Selection.of(study, row["scale"], folder)
        if args.json:
            found += map(plain, whole.of_ids([row["id"]]))
        else:
            every += detailed(whole, [row["id"]], whole.frame)
    if args.json:
        print(json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False))
        return 0
    for one in every:
        if not args.html:
            print_details(one, on)
    title = every[0].title if len(every) == 1 else f"{len(every)} trainings"
    return _page(args, title, None, every) if args.html else 0


def _show_study(name: str, args: argparse.Namespace, on: Console) -> int:
    whole = select(name, args)
    found = of_own_settings(matching(whole, args), whole, columns_asked(args))
    score = chosen_score(found, args)
    n, found = len(found.frame), ordered(found, score, args)
    if not len(found.frame):
        raise UsageError(f"none of these {n} trainings has a value of {score.column}: --by COLUMN")
    ids = found.frame["id"].tolist()
    if args.json:
        print("".join(f"{line}\n" for line in left_out(found)), end="", file=sys.stderr)
        print(json.dumps([plain(row) for row in found.of_ids(ids)], ensure_ascii=False))
        return 0
    few = ON_PAGE if args.html else DETAILED if args.worst or args.best else 1
    every = detailed(found, ids, whole.frame) if len(ids) <= few else []
    most = 10**3 if args.html else max(args.worst or 0, args.best or 0, LINES)
    table = listing(whole, found, score, columns_asked(args), most)
    if args.html:
        if not every:
            more = f"details of up to {ON_PAGE} trainings: --best {ON_PAGE}, or ids"
            table = replace(table, below=[*table.below, more])
        return _page(args, f"{STUDIES[name].title} ({found.scale})", table, every)
    print_listing(table)
    for one in every:
        print_details(one, on)
    if not every:
        on.print(Text("one of them:", style="dim"))
        print(f"    python -m bench.show {ids[0][:SHORT]}{given(args)}")
    return 0


def _page(
    args: argparse.Namespace, title: str, table: Listing | None, every: Sequence[Details]
) -> int:
    from bench.show.page import write

    try:
        write(args.html, title, table, every)
    except OSError as error:
        return complain("bench.show", f"{args.html} can't be written: {error.strerror}", 1)
    print(f"page: {args.html}")
    return 0


def print_stored(args: argparse.Namespace, on: Console) -> None:
    """Prints which studies and scales have rows. Raises UsageError if none has."""
    folders = folders_of(args)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("study", "scale", "trainings", "diverged", "stale", "results"):
        number = name in ("trainings", "diverged", "stale")
        table.add_column(name, justify="right" if number else "left")
    for cells in _stored(folders):
        table.add_row(*map(Text, cells))
    if not table.row_count:
        where = " or ".join(map(str, folders))
        raise UsageError(
            f"no results in {where}: python -m bench.run {next(iter(STUDIES))}{given(args)}"
        )
    on.print(table)
    for name in sorted({name for folder in folders for name, _ in grids.unknown(folder)}):
        print(f"not shown: {name} with the --plugin that has the study", file=sys.stderr)
    on.print(Text("STUDY lists trainings, --columns says what columns mean:"))
    print(f"    python -m bench.show STUDY{given(args)}")


def _stored(folders: Sequence[Path]) -> Iterator[list[str]]:
    for folder in dict.fromkeys(folders):
        for name, study in STUDIES.items():
            for scale in SCALES:
                store = replace(study, stale=False).store(folder, scale)
                rows = store.every()
                if len(rows):
                    gone = rows["status"].to_pylist().count("diverged")
                    counts = [len(rows), gone, len(store.stale())]
                    yield [name, scale, *(f"{n:,}" for n in counts), str(folder)]


if __name__ == "__main__":
    command(main)
