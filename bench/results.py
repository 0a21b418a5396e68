"""Works on stored results.

    python -m bench.results merge A B --into DIR     rows of A and B, joined in DIR
    python -m bench.results score                    metrics that rows lack, from kept weights
    python -m bench.results weights STUDY            publishes weights of published rows

Exit status: 0, 1 if there were conflicts or files that can't be read, if rows could not be scored
or if a folder takes no files, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from bench.cli import Parser, UsageError, complain, to_path
from bench.engine import publish, score
from bench.process import command
from bench.store.merge import merge
from bench.store.rows import Store, Unwritable, tell_aside
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES

MERGE = """Joins folders of results: every study and scale in them, with samples and kept weights.

One training may have a row in several folders. Then the first row is kept, unless it alone is
stale. The command says how many rows differ in numbers. Rows that are in DIR already come first,
whatever the order of folders. Rows of other code, other data or another kind of device are in
conflict: the command names them, and keeps the row that lost in DIR/STUDY/_SCALE/aside/. The
folders are only read. The command can be stopped and repeated at any moment, and DIR may be in use
by runs.
"""


def store(results: Path, study: str, scale: str) -> Store:
    """Returns the store of a study, also of a study that is not declared here."""
    if study in STUDIES:
        return STUDIES[study].store(results, scale)
    plain = pa.schema([pa.field("id", pa.string())])
    return Store(results, study, scale, plain, plain)


def stored(results: Path) -> set[tuple[str, str]]:
    """Returns study and scale of all results in a folder, own or published.

    Raises OSError for the folder of a known study that can't be read.
    """
    for known in STUDIES:
        if (results / known).is_dir():
            next((results / known).iterdir(), None)  # glob says nothing
    folders = {(path.parent.name, path.name) for path in results.glob("*/*") if path.is_dir()}
    files = {(path.parent.name, path.stem) for path in results.glob("*/*.parquet")}
    return {(study, scale) for study, scale in folders | files if scale in SCALES}


def merge_all(folders: Sequence[Path], into: Path) -> int:
    """Merges these folders of results in their order, tells what became of their rows.

    Returns the number of conflicts and of files that can't be read. Raises UsageError for a folder
    without results.
    """
    for folder in folders:
        grids.adopt(folder)
    found = {folder: stored(folder) for folder in folders}
    if empty := [folder for folder in folders if not found[folder]]:
        raise UsageError(f"no results in {empty[0]}; a folder of results has STUDY/SCALE/")
    faults = 0
    for study, scale in sorted(set().union(*found.values())):
        target = store(into, study, scale)
        tell_aside(target.prepare("--into"))
        print(f"{study} at scale {scale}:")
        for folder in (folder for folder in folders if (study, scale) in found[folder]):
            source = store(folder, study, scale)
            if source.folder.resolve() == target.folder.resolve():
                continue
            if loss := source.loss():
                print(f"python -m bench.results: {loss}", file=sys.stderr)
            told = merge(source, target)
            for line in told.bad:
                print(f"skipped: {line}", file=sys.stderr)
            for line in told.conflicts:
                print(f"    conflict: {line}")
            counts = told.counts
            print(
                f"    {folder}: {len(counts.taken)} rows taken, {len(counts.there)} already there, "
                f"{len(counts.differing)} differ in numbers, {len(told.conflicts)} conflicts"
            )
            faults += len(told.conflicts) + len(told.bad)
        if loss := target.loss():
            print(f"python -m bench.results: {loss}", file=sys.stderr)
        print(f"    {into}: {len(target.rows.read()[0])} rows")
    return faults


def _merge(args: argparse.Namespace) -> int:
    try:
        return int(merge_all(args.folders, args.into) > 0)
    except Unwritable as error:
        return complain("bench.results", error, 1)
    except UsageError as error:
        return complain("bench.results", error)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}; nothing stored is lost"
        return complain("bench.results", f"{why}, the same command goes on", 1)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.results", __doc__)
    commands = p.add_subparsers(required=True, metavar="COMMAND")
    joins = commands.add_parser("merge", help="joins folders of results", description=MERGE)
    joins.add_argument("folders", nargs="+", type=to_path, metavar="DIR", help="folders of results")
    about = "the folder that gets all rows: a new folder, or a folder that has results already"
    joins.add_argument("--into", type=to_path, required=True, metavar="DIR", help=about)
    joins.set_defaults(command=_merge)
    about = "computes metrics that rows lack, from kept weights"
    scores = commands.add_parser("score", help=about, description=score.__doc__)
    score.add_arguments(scores)
    scores.set_defaults(command=score.command)
    about = "publishes kept weights of published rows"
    weights = commands.add_parser("weights", help=about, description=publish.__doc__)
    publish.add_arguments(weights)
    weights.set_defaults(command=publish.command)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    return args.command(args)


if __name__ == "__main__":
    command(main)
