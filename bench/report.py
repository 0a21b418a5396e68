"""Renders the stored results of a study: figures, tables (paper | ours) and claims.

    python -m bench.report                       every study and scale that has results
    python -m bench.report toy_grid --scale quick
    python -m bench.report --against results/reference
    python -m bench.report --check               the committed reports against the committed rows

Each report is a folder: report.html (self-contained), report.md, every table as .md, .tex and
.csv, every figure as .png and .svg. Imports no torch.

Exit status: 0, 1 if --check or --against found a difference, 2 usage.
"""

from __future__ import annotations

import argparse
import base64
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jinja2
import matplotlib as mpl
import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable

from bench.cli import Parser, UsageError, complain
from bench.render import figures
from bench.render.page import Page
from bench.render.tables import Table
from bench.store.atomic import write_atomically
from bench.store.provenance import ROOT
from bench.store.rows import StoreError, to_bytes
from bench.studies import STUDIES
from bench.studies.study import SCALES

RESULTS = Path("results")
REPORTS = Path("reports")

# What is committed lies in the checkout, wherever the command is called from.
REFERENCE = ROOT / "results" / "reference"
REFERENCE_REPORTS = ROOT / "reports" / "reference"
README = ROOT / "README.md"

DPI = 150


@dataclass(frozen=True)
class Report:
    """All that is said of one study at one scale; pictures are drawn when it is written."""

    study: str
    scale: str
    page: Page
    origin: str  # where the rows came from, one paragraph

    @property
    def tables(self) -> dict[str, Table]:
        return self.page.tables

    def texts(self) -> dict[str, str]:
        """Every text file by name; equal rows give equal texts."""
        texts = {}
        for table in self.tables.values():
            texts[f"{table.name}.md"] = table.markdown()
            texts[f"{table.name}.tex"] = table.latex()
            texts[f"{table.name}.csv"] = table.csv()
        texts["report.md"] = self._markdown()
        return texts

    def title(self) -> str:
        return f"{STUDIES[self.study].title} ({self.scale})"

    def _markdown(self) -> str:
        parts = [f"# {self.title()}", *self.page.notes, self.origin]
        parts += [f"## {t.title}\n\n{t.markdown()}" for t in self.tables.values()]
        parts += [
            f"## {p.title}\n\n![{p.title}]({p.name}.png)\n\n{p.caption}" for p in self.page.pictures
        ]
        return "\n\n".join(part.strip() for part in parts) + "\n"


def build(study: str, scale: str, results: Path, other: Path | None = None) -> Report:
    """The report of what is stored, beside the results in `other` if given.

    Raises StoreError if nothing is stored.
    """
    if not len(STUDIES[study].load(results, scale)[0]):
        raise StoreError(
            f"no results of {study} at scale {scale} in {results}: "
            f"python -m bench.run {study} --scale {scale}"
        )
    page = STUDIES[study].report(scale, results, other)
    return Report(study, scale, page, _origin(page.frame))


def _origin(frame: pd.DataFrame) -> str:
    """One paragraph: how many runs, made by which code, on what."""

    def kinds(column: str) -> str:
        values = frame[column].dropna().map(str).unique()
        return ", ".join(sorted(values)) or "unknown"

    commits = frame["commit"].map(lambda c: c[:10] if isinstance(c, str) else "unknown")
    dirty = " with uncommitted changes" if frame["dirty"].fillna(True).any() else ""
    hours = frame["train_seconds"].sum() / 3600
    return (
        f"{len(frame)} trainings, {frame['seed'].nunique()} seed(s), "
        f"{frame['config'].nunique()} configurations; commit {', '.join(sorted(set(commits)))}"
        f"{dirty}; torch {kinds('torch')}, numpy {kinds('numpy')}, Python {kinds('python')}; "
        f"{kinds('device')} ({kinds('device_name')}), {kinds('precision')}, "
        f"{kinds('threads')} thread(s) a process, stacks of {kinds('stack_size')}; "
        f"{hours:.2f} hours of training in all."
    )


def write(report: Report, folder: Path) -> None:
    """Writes every file of the report. Raises StoreError if the folder can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in report.texts().items():
            (folder / name).write_text(text, encoding="utf-8")
        _draw(report, folder)
        (folder / "report.html").write_text(_html(report, folder), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"report folder {folder} can't be written ({error.strerror})") from None


def _draw(report: Report, folder: Path) -> None:
    with mpl.rc_context(cast(Any, figures.STYLE)):
        for picture in report.page.pictures:
            figure = picture.draw()
            figure.savefig(folder / f"{picture.name}.png", dpi=DPI)
            figure.set_layout_engine("none")  # it stands: don't work it out twice
            figure.savefig(folder / f"{picture.name}.svg", metadata={"Date": None})


def _html(report: Report, folder: Path) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = resources.files("bench.render").joinpath("templates/report.html.j2").read_text()
    pictures = [
        {
            "name": picture.name,
            "title": picture.title,
            "caption": picture.caption,
            "data": base64.b64encode((folder / f"{picture.name}.png").read_bytes()).decode(),
        }
        for picture in report.page.pictures
    ]
    return environment.from_string(template).render(
        report=report, tables=report.tables.values(), pictures=pictures
    )


def after_run(study: str, scale: str, results: Path) -> None:
    """What bench.run ends with: the report, its table on the terminal, and where it lies."""
    report = build(study, scale, results)
    folder = out_folder(None, results) / study / scale
    write(report, folder)
    show(report.tables["summary"])
    for id, says, _, verdict, evidence in report.tables["claims"].rows:
        print(f"{id} {verdict}: {says} {evidence}")
    print(f"report: {folder / 'report.html'}")


def out_folder(out: Path | None, results: Path) -> Path:
    """Reports of results/ go to reports/, of the reference to its own, of DIR to DIR/reports."""
    if out is not None:
        return out
    if results.resolve() == REFERENCE:
        return REFERENCE_REPORTS
    return REPORTS if results == RESULTS else results / "reports"


def show(table: Table) -> None:
    """Prints a table on the terminal."""
    shown = RichTable(title=table.title)
    for column in table.columns:
        style = "dim" if column.paper else ""
        shown.add_column(column.name, justify="left" if column.text else "right", style=style)
    for row in table.rows:
        shown.add_row(*row)
    # A pipe has no width of its own: what is read from a log should not be folded.
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


# The committed reference


def published() -> list[tuple[str, str]]:
    """(study, scale) of every committed reference."""
    return [
        (study, scale)
        for study in STUDIES
        for scale in SCALES
        if (REFERENCE / study / f"{scale}.parquet").is_file()
    ]


def publish(study: str, scale: str, results: Path) -> None:
    """Makes the stored results the committed reference: rows, points shown, report, README.

    Raises StoreError for rows of uncommitted code, which nobody could make again, and for a
    study with trainings missing.
    """
    kept = STUDIES[study].store(results, scale)
    rows = kept.load()[0]
    if rows["dirty"].to_pylist() != [False] * len(rows):
        raise StoreError("only results of committed code can be published (see column `dirty`)")
    page = build(study, scale, results).page
    if page.missing:
        raise StoreError(f"only complete studies can be published: {page.missing} missing")
    folder = REFERENCE / study
    folder.mkdir(parents=True, exist_ok=True)
    order = rows.sort_by("id")
    write_atomically(folder / f"{scale}.parquet", to_bytes(order), folder / "_tmp")
    points = kept.load_samples().sort_by("id")
    mask = [id in page.shown for id in points["id"].to_pylist()]
    content = to_bytes(points.filter(mask))
    write_atomically(folder / f"{scale}_samples.parquet", content, folder / "_tmp")
    (folder / "_tmp").rmdir()
    write(build(study, scale, REFERENCE), REFERENCE_REPORTS / study / scale)
    README.write_text(_embed(README.read_text("utf-8")), encoding="utf-8")


BLOCK = re.compile(r"(<!-- report: (\S+) -->\n)(.*?)(<!-- end of report -->)", re.DOTALL)


def _embed(readme: str) -> str:
    """The README with every block `<!-- report: FILE -->` holding that committed file."""

    def block(match: re.Match[str]) -> str:
        path = REFERENCE_REPORTS / match[2]
        if not path.is_file():
            raise StoreError(f"{README.name} shows {path}, which is not there")
        text = path.read_text("utf-8")
        return f"{match[1]}\n{text}\n{match[4]}"

    return BLOCK.sub(block, readme)


def check() -> list[str]:
    """Differences between the committed reports and README and what the rows say, as diffs."""
    found = [] if published() else [f"no reference in {REFERENCE}"]
    for study, scale in published():
        folder = REFERENCE_REPORTS / study / scale
        texts = build(study, scale, REFERENCE).texts()
        files = folder.iterdir() if folder.is_dir() else []
        kept = {p.name for p in files if p.suffix in (".md", ".tex", ".csv")}
        for name in sorted(texts.keys() | kept):
            path = folder / name
            committed = path.read_text("utf-8") if path.is_file() else ""
            found += _diff(str(path), committed, texts.get(name, ""))
    readme = README.read_text("utf-8")
    try:
        found += _diff(str(README), readme, _embed(readme))
    except StoreError as error:
        found.append(str(error))
    return found


def _diff(name: str, committed: str, rebuilt: str) -> list[str]:
    lines = difflib.unified_diff(
        committed.splitlines(),
        rebuilt.splitlines(),
        f"{name} (committed)",
        f"{name} (rebuilt)",
        lineterm="",
        n=0,
    )
    return list(lines)


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    p.add_argument("--scale", choices=SCALES, help="default: every scale with results")
    p.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: results")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: reports, or DIR/reports")
    p.add_argument("--against", type=Path, metavar="DIR", help="compare with the results there")
    p.add_argument("--check", action="store_true", help="committed reports against their rows")
    p.add_argument(
        "--publish", action="store_true", help="make the results of STUDY at --scale the reference"
    )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return _run(args)
    except UsageError as error:
        return complain("bench.report", error)


def _run(args: argparse.Namespace) -> int:
    unknown = [study for study in args.studies if study not in STUDIES]
    if unknown:
        raise UsageError(f"unknown study {unknown[0]!r}; allowed: {', '.join(STUDIES)}")
    if args.check:
        differences = check()
        print("\n".join(differences) or "committed reports and README agree with their rows")
        return 1 if differences else 0
    if args.publish:
        if len(args.studies) != 1 or args.scale is None:
            raise UsageError("--publish needs one STUDY and a --scale")
        publish(args.studies[0], args.scale, args.results)
        return 0
    wanted = [
        (study, scale)
        for study in args.studies or STUDIES
        for scale in ([args.scale] if args.scale else SCALES)
        if args.scale or _has_results(args.results, study, scale)
    ]
    if not wanted:
        raise UsageError(f"no results in {args.results}: python -m bench.run {next(iter(STUDIES))}")
    agree, compared = True, False
    for study, scale in wanted:
        try:
            report = build(study, scale, args.results, args.against)
            compared = True
        except StoreError as error:
            if args.against is None or len(wanted) == 1:
                raise
            print(f"{study} at scale {scale}: {error}", file=sys.stderr)
            report = build(study, scale, args.results)
        folder = out_folder(args.out, args.results) / study / scale
        write(report, folder)
        show(report.tables["claims"])
        show(report.tables["summary"])
        if "against" in report.tables:
            show(report.tables["against"])
            print(report.tables["against"].caption)
            agree &= report.page.agrees
        print(f"report: {folder / 'report.html'}")
    if not compared:
        raise StoreError(f"nothing was compared with {args.against}")
    return 0 if agree else 1


def _has_results(results: Path, study: str, scale: str) -> bool:
    return (results / study / f"{scale}.parquet").is_file() or (results / study / scale).is_dir()


if __name__ == "__main__":
    sys.exit(main())
