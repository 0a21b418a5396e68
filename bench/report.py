"""Renders the stored results of a study: figures, tables (paper | ours) and claims.

    python -m bench.report                       every study and scale that has results
    python -m bench.report toy_grid --scale quick
    python -m bench.report --against results/reference
    python -m bench.report toy_grid --baseline alice   every other method beside this one
    python -m bench.report --check               the committed reports against the committed rows

Each report is a folder: report.html, report.md, every table as .md, .tex and .csv, every figure
as .svg or .png, and explore.html, where all runs can be filtered and chosen. Imports no torch.

Exit status: 0, 1 if --check or --against found a difference, 2 usage.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table as RichTable

from bench import plugins
from bench.cli import BASELINE, Parser, UsageError, complain, given_beside, to_path
from bench.process import command
from bench.render.claims import NO_DATA, OURS, PAPER, QUESTIONS, WEIGHT, Claims
from bench.render.compare import agrees
from bench.render.explore import EXPLORER, Explorer, said
from bench.render.figures import Picture
from bench.render.front import find_baseline
from bench.render.page import FIGURES, HTML, Page, sha256
from bench.render.tables import Table, markdown, unbroken
from bench.scores.metrics import Metric
from bench.store.atomic import write_atomically
from bench.store.merge import merged
from bench.store.provenance import REFERENCE, ROOT, need_checkout
from bench.store.rows import Store, StoreError, to_bytes, without
from bench.studies import STUDIES, grids
from bench.studies.study import SCALES, Study

RESULTS = Path("results")
REPORTS = Path("reports")

REFERENCE_REPORTS = ROOT / "reports" / "reference"
VERDICTS = {"claims.md": PAPER, "questions.md": OURS}
"""Files with the verdicts of all studies: the paper's claims, and our questions."""
NEEDS_PLUGIN = "{} with the --plugin that has the study"
OWN_GRID = """\
This is a grid of your own, based on {}: the paper's claims are not judged by it. Values of the \
paper that stand in grey are of the paper's own settings."""
OUTSIDE = "{} of {} trainings have settings that the grid does not have; they count in all numbers."
LEFT_OUT = "Stale trainings were left out: {}. bench.run --redo trains them again."
STALE = "STALE: these trainings are shown, but not today's source made them: {}."


def build(study: Study[Any] | str, scale: str, results: Path, other: Path | None = None) -> Page:
    """The report of what is stored, beside the results in `other` if given.

    Its pictures are drawn when it is written. Raises StoreError if nothing is stored. Raises
    UsageError if there is nothing in `other` to compare with, or no run of the study's baseline.
    """
    chosen = STUDIES[study] if isinstance(study, str) else study
    if chosen.baseline and not chosen.compares:
        raise UsageError(f"{chosen.name} compares no methods in pairs and takes no --baseline")
    kept = STUDIES[chosen.name].store(results, scale)
    left_out, theirs = kept.left_out(), [Metric.stored(told) for told in kept.metrics()]
    chosen = replace(chosen, stored_metrics=theirs)
    rows, bad = chosen.load(results, scale)
    if not len(rows):
        command = f"python -m bench.run {chosen.name} --scale {scale}"
        what = f"results of {chosen.name} at scale {scale} in {results}"
        if left_out:
            raise StoreError(f"all {what} are stale, {'; '.join(left_out)}: {command} --redo")
        if bad:
            path, reason = next(iter(bad.items()))
            raise StoreError(f"no {what} can be read, {len(bad)} files are bad: {path} {reason}")
        raise StoreError(f"no {what}: {command}")
    page = chosen.report(scale, results, other)
    form = STALE if chosen.stale else LEFT_OUT
    warnings = [form.format(line) for line in left_out]
    if loss := chosen.store(results, scale).loss():
        warnings.append(f"{loss[0].upper()}{loss[1:]}.")
    title = page.title or f"{chosen.title} ({scale})"
    if chosen.base:
        warnings.append(OWN_GRID.format(chosen.base))
        page = replace(page, parts=[*_questions(page.parts)])
        configs, own = page.frame["config"], {spec.config for spec in chosen.specs(scale)}
        outside = int((~configs.isin(own)).sum())
        if outside and "data" not in page.frame:  # other images are told of otherwise
            warnings.append(OUTSIDE.format(outside, len(configs)))
    explorer = Explorer(chosen, scale, results, "" if results == RESULTS else str(results))
    if results.resolve() == REFERENCE:
        explorer = Explorer(chosen, scale, results) if scale == chosen.explored_at else None
    warnings = [*warnings, *page.warnings]
    return replace(page, title=title, warnings=warnings, explorer=explorer)


def _questions(parts: Iterable[Picture | Table]) -> Iterator[Picture | Table]:
    """Yields the parts without verdicts on the paper's claims."""
    for part in parts:
        if isinstance(part, Claims):
            rows = [row for row in part.rows if row[1] != PAPER]
            part = replace(part, title=QUESTIONS, rows=rows)
        if not isinstance(part, Claims) or part.rows:
            yield part


def write(page: Page, folder: Path) -> None:
    """Writes every file of the report. Raises StoreError if the folder can't be written."""
    try:
        page.write(folder)
    except OSError as error:
        raise StoreError(f"report folder {folder} can't be written ({error.strerror})") from None


def after_run(study: Study[Any], scale: str, results: Path, prune: Collection[str] = ()) -> None:
    """Writes the report that bench.run ends with, and prints its table and where it lies.

    Removes weights of those trainings of `prune` that the report does not show, if it says which
    it shows.
    """
    page = build(study, scale, results)
    folder = out_folder(None, results) / study.name / scale
    write(page, folder)
    tell(page, folder)
    if prune and page.shown:
        study.store(results, scale).prune_weights(prune, page.shown)


def tell(page: Page, folder: Path) -> None:
    """Prints a report's warnings, main table, a line per claim, comparison, and where it lies."""
    for warning in page.warnings:
        print(warning, file=sys.stderr)
    if page.main:
        show(page.main)
    if every := page.tables.get("data_sets"):
        show(every)
    for id, verdict, says, evidence in claims_of(page):
        print(f"{id} {verdict}: {says} {evidence}")
    if against := page.tables.get("against"):
        show(against)
        print(against.caption)
    if page.explorer:
        print(f"explorer: {folder / EXPLORER}")
    print(f"report: {folder / HTML}")


def claims_of(page: Page) -> Sequence[Sequence[str]]:
    """Returns a report's claims as id and whose, verdict, what it says, and evidence."""
    rows = _claims(page)
    return [[id if whose == PAPER else f"{id} ({whose})", *more] for id, whose, *more, _ in rows]


def _claims(page: Page) -> Sequence[Sequence[str]]:
    """Returns the rows of a report's claims, none in a report without claims."""
    return page.tables["claims"].rows if "claims" in page.tables else []


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
        justify, style = "left" if column.text else "right", "dim" if column.paper else ""
        whole = column.text and not column.long  # a method's name is not cut short
        shown.add_column(column.name, justify=justify, style=style, no_wrap=whole)
    for row in table.rows:
        shown.add_row(*row)
    # A pipe has no width of its own: what is read from a log should not be folded.
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


def stored(results: Path) -> list[tuple[str, str]]:
    """(study, scale) of all results there, published ones (a file) or one's own (a folder).

    Raises StoreError for a folder that can't be read.
    """
    try:
        return [
            (study, scale)
            for study, scale in product(STUDIES, SCALES)
            if (results / study / f"{scale}.parquet").is_file()
            or (results / study / scale).is_dir()
        ]
    except OSError as error:
        raise StoreError(f"{error.filename} can't be read ({error.strerror})") from None


# The committed reference


def publish(
    study: str, scale: str, results: Path, partial: bool = False, replacing: bool = False
) -> list[str]:
    """Makes the stored results the committed reference: rows, points shown, report, documents.

    With `partial` finished rows of committed code join the published rows. A published row stays,
    unless it is stale and a row of today's source takes its place, or if `replacing`.
    Returns lines on what was not taken and on what is missing.

    Raises StoreError for rows of uncommitted code, which nobody could make again, and for a study
    with trainings missing, unless `partial` leaves both out. Raises it if published rows that are
    not stale would go, and for rows of one lambda that come from several kinds of device.
    """
    chosen = STUDIES[study]
    if chosen.base or plugins.home("studies", study):
        raise StoreError(f"{study} is a study of your own; only the suite's own are published")
    kept, published = (chosen.store(folder, scale) for folder in (results, REFERENCE))
    rows, said = kept.load()[0], [f"not published, stale: {line}" for line in kept.left_out()]
    clean = rows.filter(pc.field("dirty") == False)  # noqa: E712
    if dirty := len(rows) - len(clean):
        if not partial:
            raise StoreError(
                f"{dirty} rows are of uncommitted or unknown code (columns `commit` and `dirty`); "
                "only results of committed code can be published"
            )
        said.append(f"not published: {dirty} rows of uncommitted or unknown code")
    own = clean.filter(pc.field("plugins").is_valid())
    if len(own):
        if not partial:
            raise StoreError(f"{len(own)} rows were made with plug-ins, which are not published")
        said.append(f"not published: {len(own)} rows that were made with plug-ins")
        clean = clean.filter(~pc.field("plugins").is_valid())
    points = kept.load_samples()
    if partial:
        if not len(clean):
            raise StoreError(f"no row of committed code in {results}: nothing to publish")
        before, there = published.every(), published.load_samples()
        if replacing:
            every, before = before, without(before, clean["id"].to_pylist())
            said.append(f"{len(every) - len(before)} published rows are replaced")
        found = merged(before, clean, chosen.today())
        clean = found.table
        for each in found.conflicts:
            what = "published anew" if each.replaced else "not published"
            said.append(f"{what}: row {each.id}, {each.why} differ")
        if n := len(found.counts.differing):
            said.append(f"{n} published rows stay, though theirs are other numbers")
        # A published row has its points only while the report shows it, and may be shown again.
        same = {*found.counts.there} - {*found.counts.differing, *there["id"].to_pylist()}
        mine = pa.array([*found.counts.taken, *sorted(same)], pa.string())
        is_mine = pc.field("id").isin(mine)
        points = pa.concat_tables([there.filter(~is_mine), points.filter(is_mine)])
    elif missing := build(study, scale, results).missing:
        more = "--partial publishes what is there"
        raise StoreError(f"only complete studies can be published: {missing} missing; {more}")
    elif gone := _gone(published, clean):
        path = REFERENCE / study / f"{scale}.parquet"
        raise StoreError(f"{gone} would go: --partial keeps them, removing {path} lets them go")
    ids = {*clean["id"].to_pylist()}
    seeds = 1 + max(clean["seed"].to_pylist())
    own = {spec.id for spec in chosen.specs(scale, seeds=seeds)}
    if not (ids & own or chosen.names_settings):
        raise StoreError(f"no row is of the study's own trainings at {scale}: nothing to publish")
    _one_device(clean)
    folder = REFERENCE / study
    folder.mkdir(parents=True, exist_ok=True)
    content = to_bytes(clean.sort_by("id").combine_chunks())
    write_atomically(folder / f"{scale}.parquet", content, folder / "tmp")
    page = build(study, scale, REFERENCE)
    shown = points.filter(pc.field("id").isin(pa.array(sorted(page.shown), pa.string())))
    content = to_bytes(shown.sort_by("id").combine_chunks())
    write_atomically(folder / f"{scale}_samples.parquet", content, folder / "tmp")
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    write(page, REFERENCE_REPORTS / study / scale)
    _renew_documents({(study, scale): page})
    return said + _missing(chosen, scale, ids)


def _gone(published: Store, rows: pa.Table) -> str:
    """Returns how many published rows of today's source these rows lack, "" for none."""
    gone = without(published.load()[0], rows["id"].to_pylist())
    seeds = ", ".join(map(str, sorted({*gone["seed"].to_pylist()})))
    return f"{len(gone)} published rows, of seeds {seeds}," if len(gone) else ""


def _one_device(rows: pa.Table) -> None:
    """Raises StoreError if rows of one lambda come from several kinds of device."""
    kinds: dict[float, set[str]] = {}
    for row in rows.select(["lam", "device"]).to_pylist():
        kinds.setdefault(row["lam"], set()).add(row["device"])
    for value, devices in sorted(kinds.items()):
        if len(devices) > 1:
            raise StoreError(
                f"rows at λ = {value:g} come from {' and '.join(sorted(devices))}; a published "
                "grid has one kind of device at one λ"
            )


def _missing(study: Study[Any], scale: str, ids: set[str]) -> list[str]:
    """Returns a line on the study's own trainings that are not among these, if there are any."""
    specs = study.specs(scale)
    counts = Counter(f"{s.method} at λ = {s.lam:g}" for s in specs if s.id not in ids)
    if not counts:
        return []
    cells = ", ".join(f"{cell} ({n})" for cell, n in sorted(counts.items()))
    return [f"missing: {counts.total()} of {len(specs)} trainings: {cells}"]


def _renew_documents(built: Mapping[tuple[str, str], Page]) -> None:
    """Writes the tables of all verdicts, and documents with what they show of reports."""
    pages = {each: built.get(each) or build(*each, REFERENCE) for each in stored(REFERENCE)}
    for name, whose in VERDICTS.items():
        (REFERENCE_REPORTS / name).write_text(verdicts(pages, whose), encoding="utf-8")
    for document in documents():
        document.write_text(_embed(document), encoding="utf-8")


def verdicts(pages: Mapping[tuple[str, str], Page], whose: str) -> str:
    """Returns the paper's claims or our questions in one Markdown table, and their reports.

    They are of each study at one scale: the largest that is complete, or the largest if none is. A
    claim without data there is that of the next scale that has data.
    """
    order = sorted(pages, key=lambda each: (not pages[each].missing, SCALES.index(each[1])))
    found: dict[tuple[str, str], tuple[str, Sequence[str]]] = {}
    for study, scale in order:
        for row in _claims(pages[study, scale]) if scale != "smoke" else ():
            key = study, row[0]
            if row[1] == whose and (key not in found or not row[2].startswith(NO_DATA)):
                found[key] = scale, row
    shown = sorted({(study, scale) for (study, _), (scale, _) in found.items()})
    words = {scale: WEIGHT[scale][0] for _, scale in shown}
    where = {each: ", ".join(each) if len(words) > 1 else each[0] for each in shown}
    rows = [
        [f"{id}: {says}", _weighed(verdict, scale), DETAILS.sub("", why), where[study, scale]]
        for (study, _), (scale, (id, _, verdict, says, why, _)) in found.items()
    ]
    rows.sort(key=lambda row: _by_number(row[0]))
    notes = [f"Verdicts of scale {scale} are {word}." for scale, word in words.items() if word]
    if len(words) == 1 and notes:
        notes = [f"Every verdict is {' '.join(words.values())}."]
    links = (f"[{named}]({'/'.join(each)}/report.md)" for each, named in where.items())
    notes.append(f"Reports: {', '.join(links)}.")
    table = markdown(["claim", "verdict", "why", "where"], rows)
    return unbroken("\n\n".join([table, *([" ".join(notes)] if rows else [])])) + "\n"


def _weighed(verdict: str, scale: str) -> str:
    """Returns a verdict without the word on what it weighs at a scale."""
    word = WEIGHT[scale][0]
    return verdict.replace(f" ({word})", "").replace(f"({word}; ", "(") if word else verdict


DETAILS = re.compile(r", alone \[[^]]*\]|; over \d+(?: and \d+)? configurations| \(n = [^)]*\)")
"""What only the report says: single intervals beside family-wise intervals, and counts."""


def _by_number(claim: str) -> tuple[int, str]:
    """Returns what sorts claims: 9a before 10a."""
    id = claim.partition(":")[0]
    digits = re.match(r"\d*", id)
    return int(digits[0]) if digits and digits[0] else 0, id


def documents() -> list[Path]:
    """The documents of the checkout: its READMEs."""
    rooms = ("", "models", "results", "reports")
    there = [*(ROOT / room / "README.md" for room in rooms), *ROOT.glob("bench/**/README.md")]
    return [path for path in there if path.is_file()]


BLOCK = re.compile(r"(<!-- report: (\S+) -->\n)(.*?)(<!-- end of report -->)", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)")


def _embed(document: Path) -> str:
    """A document with every block `<!-- report: FILE -->` holding that committed file.

    Raises StoreError if there is no such file.
    """

    def block(match: re.Match[str]) -> str:
        path = REFERENCE_REPORTS / match[2]
        if not path.is_file():
            raise StoreError(f"{document.name} shows {path}, which is not there")
        # A link in the file starts from where the file lies.
        place = os.path.relpath(path.parent, document.parent)
        text = LINK.sub(f"]({Path(place).as_posix()}/", path.read_text("utf-8"))
        return f"{match[1]}\n{text}\n{match[4]}"

    return BLOCK.sub(block, document.read_text("utf-8"))


def check() -> list[str]:
    """Differences between what is committed and what the rows say, as diffs and lines.

    Reports, their figures and the documents are checked: a figure by what it plots and by its
    files' digests.
    """
    pages = {each: build(*each, REFERENCE) for each in stored(REFERENCE)}
    if not pages:
        return [f"no reference in {REFERENCE}"]
    found, known = [], set()
    for name, whose in VERDICTS.items():
        found += _differences(REFERENCE_REPORTS / name, verdicts(pages, whose))
    for (study, scale), page in pages.items():
        for path in _explain(study, scale, write=False):
            found.append(f"{path} explains its columns otherwise than columns.toml")
        folder = REFERENCE_REPORTS / study / scale
        texts = page.texts() | {HTML: page.html(folder)}
        for name, text in texts.items():
            found += _differences(folder / name, text)
        found += _figures(folder, page)
        found += _explorer(folder, page)
        known |= {folder / name for name in (*texts, FIGURES)}
        known |= {folder / EXPLORER} if page.explorer else set()
        known |= {folder / file for picture in page.pictures for file in picture.files}
    for document in documents():
        known |= {REFERENCE_REPORTS / m[2] for m in BLOCK.finditer(document.read_text("utf-8"))}
        try:
            found += _differences(document, _embed(document))
        except StoreError as error:
            found.append(str(error))
    lone = (REFERENCE_REPORTS / name for name in VERDICTS if REFERENCE_REPORTS / name not in known)
    found += [f"no document shows {path}" for path in lone]
    kept = {path for path in REFERENCE_REPORTS.rglob("*") if path.is_file()}
    return found + [f"{path} belongs to no published rows" for path in sorted(kept - known)]


def _explain(study: str, scale: str, write: bool) -> list[Path]:
    """Gives published files today's lines on columns, see `Store.explain`; not with plug-ins."""
    return [] if plugins.LOADED else STUDIES[study].store(REFERENCE, scale).explain(write)


def _figures(folder: Path, page: Page) -> Iterator[str]:
    """A line for each figure that plots something else, or whose file is another, than noted."""
    try:
        noted = json.loads((folder / FIGURES).read_text("utf-8"))
    except (OSError, ValueError):
        noted = {"plotted": {}, "files": {}}
    for picture in page.pictures:
        if noted["plotted"].get(picture.name) != picture.plotted():
            yield f"{folder / picture.name} does not plot what the rows say"
        for file in picture.files:
            if not noted["files"].get(file) == sha256(folder / file) != "":
                yield f"{folder / file} is not the file that was published"


def _explorer(folder: Path, page: Page) -> Iterator[str]:
    """A line if the explorer says something else than the rows; versions of Vega don't count."""
    if page.explorer:
        path = folder / EXPLORER
        try:
            same = said(path.read_text("utf-8")) == said(page.explorer.html())
        except (OSError, ValueError):
            same = False
        if not same:
            yield f"{path} does not say what the rows say"


def _differences(path: Path, rebuilt: str) -> Iterator[str]:
    committed = path.read_text("utf-8") if path.is_file() else ""
    names = f"{path} (committed)", f"{path} (rebuilt)"
    texts = committed.splitlines(), rebuilt.splitlines()
    return difflib.unified_diff(*texts, *names, lineterm="", n=0)


# The command


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = Parser("python -m bench.report", __doc__)
    p.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    p.add_argument("--scale", choices=SCALES, help="default: every scale that has results")
    p.add_argument(
        "--results", type=to_path, default=RESULTS, metavar="DIR", help="default: results"
    )
    p.add_argument("--out", type=to_path, metavar="DIR", help="default: reports, or DIR/reports")
    other = "compare with the results in DIR on what both have: do they agree within the spread of "
    other += "DIR's seeds? results/reference holds the published results"
    p.add_argument("--against", type=to_path, metavar="DIR", help=other)
    checked = "rebuild the committed reports and documents from the committed rows, and fail on "
    checked += "any difference"
    stale = "also show stale trainings: other source of a method or metric made their rows"
    p.add_argument("--stale", action="store_true", help=stale)
    p.add_argument("--baseline", metavar="METHOD", default="", help=BASELINE)
    p.add_argument("--check", action="store_true", help=checked)
    made = "make the results of STUDY at --scale the reference. Refused are rows of uncommitted "
    made += "code, incomplete studies, and results that lack published rows"
    plugins.add_option(p)
    p.add_argument("--publish", action="store_true", help=made)
    part = "with --publish: let finished rows of committed code join the published rows, and name "
    part += "what is missing"
    p.add_argument("--partial", action="store_true", help=part)
    again = "with --partial: published rows of the same trainings give way to these rows"
    p.add_argument("--replace", action="store_true", help=again)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    p = parser()
    args = p.parse_args(arguments)
    try:
        plugins.load(args.plugin)
        grids.adopt(args.results)
        theirs = {name for name, _ in grids.unknown(args.results)}
        if unknown := [study for study in args.studies if study not in STUDIES]:
            other = NEEDS_PLUGIN.format(unknown[0]) if unknown[0] in theirs else ", ".join(STUDIES)
            raise UsageError(f"unknown study {unknown[0]!r}; allowed: {other}")
        for name in sorted(theirs) if not args.studies else ():
            print(f"no report of {name}: {NEEDS_PLUGIN.format(name)}", file=sys.stderr)
        published = out_folder(args.out, args.results) == REFERENCE_REPORTS
        if args.baseline and (args.check or args.publish or published):
            raise UsageError("published reports take no --baseline: --out names another folder")
        if args.check or args.publish:
            alone = "--check" if args.check else "--publish"
            taken = () if args.check else ("studies", "scale", "results", "partial", "replace")
            if other := given_beside(p, args, {*taken, "plugin", alone[2:]}):
                raise UsageError(f"{alone} takes no {other}")
            need_checkout(alone)
        if args.check:
            differences = check()
            print("\n".join(differences) or "committed reports and documents agree with their rows")
            return 1 if differences else 0
        if args.publish:
            if len(args.studies) != 1 or args.scale is None:
                raise UsageError("--publish needs one STUDY and a --scale")
            if args.replace and not args.partial:
                raise UsageError("--replace goes with --partial")
            for line in publish(
                args.studies[0], args.scale, args.results, args.partial, args.replace
            ):
                print(line)
            print(f"published: {args.studies[0]} at scale {args.scale}")
            return 0
        if args.partial or args.replace:
            raise UsageError("--partial and --replace go with --publish")
        return _reports(args)
    except UsageError as error:
        return complain("bench.report", error)


def _reports(args: argparse.Namespace) -> int:
    """Writes and shows the reports asked for; 1 if one differs from what it is compared with."""
    if args.against is not None and not args.against.is_dir():
        raise UsageError(f"--against {args.against}; allowed: a folder of results")
    asked = product(args.studies or STUDIES, [args.scale] if args.scale else SCALES)
    there = stored(args.results)
    wanted = [each for each in asked if args.scale or each in there]
    if not wanted:
        raise UsageError(f"no results in {args.results}: python -m bench.run {next(iter(STUDIES))}")
    studies = _with_baseline(wanted, args)
    pages, agree, compared = {}, True, False
    for (study, scale), chosen in zip(wanted, studies, strict=True):
        try:
            page, compared = build(chosen, scale, args.results, args.against), True
        except StoreError as error:
            if args.against is None or len(wanted) == 1:
                raise
            print(f"{study} at scale {scale}: {error}", file=sys.stderr)
            page = build(chosen, scale, args.results)
        folder = out_folder(args.out, args.results) / study / scale
        write(page, folder)
        tell(page, folder)
        pages[study, scale] = page
        if against := page.tables.get("against"):
            agree &= agrees(against)
    if not compared:
        raise StoreError(f"nothing was compared with {args.against}")
    if out_folder(args.out, args.results) == REFERENCE_REPORTS:
        for study, scale in pages:
            _explain(study, scale, write=True)
        _renew_documents(pages)
    return 0 if agree else 1


def _with_baseline(wanted: Sequence[tuple[str, str]], args: argparse.Namespace) -> list[Study[Any]]:
    """Returns the study of each report; those have the baseline that compare methods with it.

    Raises UsageError if none has.
    """
    studies = [replace(STUDIES[study], stale=args.stale) for study, _ in wanted]
    if not args.baseline:
        return studies
    if len(studies) == 1:  # its report says what is wrong
        return [replace(studies[0], baseline=args.baseline)]
    found, lacking = [], []
    for chosen, (study, scale) in zip(studies, wanted, strict=True):
        columns = ["method", "label"]
        rows = chosen.load(args.results, scale)[0].select(columns).to_pandas()
        try:
            if chosen.compares and find_baseline(rows, args.baseline):
                chosen = replace(chosen, baseline=args.baseline)
        except UsageError as error:
            lacking.append(f"{study} at scale {scale}: {error}")
        found.append(chosen)
    if not any(chosen.baseline for chosen in found):
        raise UsageError(lacking[0] if lacking else "these studies take no --baseline")
    for line in lacking:
        print(f"{line}; it is reported without one", file=sys.stderr)
    return found


if __name__ == "__main__":
    command(main)
