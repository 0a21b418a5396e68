"""What is said of the toy study: its tables, claims, figures and notes. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from bench.cli import UsageError
from bench.render import claims, compare, front, intervals, tables
from bench.render.compare import Spread, Statistic
from bench.render.figures import Picture, rank
from bench.render.page import Page, damage
from bench.render.tables import Cell, Column, Table, extra, lam, mean, number, percent, spread
from bench.render.text import all_of, counted, texts
from bench.scores.metrics import Metric
from bench.studies.study import Study
from bench.studies.toy_grid import factors, figures
from bench.studies.toy_grid.claims import (
    DIFFER,
    EQUAL_TESTS,
    FEWEST,
    LAM,
    TESTS,
    at_equal_error,
    equal_claims,
    equal_table,
    toy_claims,
)
from bench.studies.toy_grid.published import alice_cells, distances, paper_cells
from bench.studies.toy_grid.runs import (
    CLOSE,
    GOOD,
    NOISE_SCORES,
    SETTINGS,
    TOP,
    at,
    at_own_rate,
    by_setting,
    cells,
    evened,
    missing,
    own,
    part,
    parts,
    per_cell,
    runs,
    seeds_of,
    to_complete,
    whole_paths,
)
from bench.studies.toy_grid.spec import ToySpec

TEXT = texts("bench.studies.toy_grid")
SCORES = {"inception score": "score", "high quality": "high_quality_counted", "MSE of x": "mse"}
SHARES = {
    f"share IS > {TOP}": "top",
    f"share IS > {TOP}, quality ≥ {GOOD}": "top_good",
    f"share MSE < {CLOSE}": "close",
}
"""What is compared of runs, by name, and its column."""
KNOWN = ("inception_score", "mse_x", "mse_z", "modes", "high_quality")
"""Columns of metrics that the table of scores has, or leaves out."""


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """The page of what is stored; `other` are results to compare with.

    Raises UsageError if nothing can be compared.
    """
    frame = runs(study, results, scale)
    mine, grid = at_own_rate(frame), own(study, scale, frame)
    baseline = front.find_baseline(mine, study.baseline)
    fractions = parts(study, grid)
    gaps = _gaps(mine, grid, fractions)
    notes = [TEXT["baselines"]]
    there = [name for name, own in SETTINGS.items() if {*frame.get(name, [own])} != {own}]
    if there:
        values = (f"{TEXT['fields'][name]} {mine[name].iloc[0]:g}" for name in there)
        notes.append(TEXT["one_setting"].format(settings=" and ".join(values)))
    if others := frame.attrs["other_precision"]:
        notes.append(TEXT["left_out"].format(n=others))

    def points(frame: pd.DataFrame) -> figures.Figure:
        return figures.points(frame, study.store(results, scale).load_samples().to_pandas())

    special = {"histograms": figures.figure3, "points": points}
    special["front"] = partial(figures.front, baseline=baseline)
    counts = {
        "updates": per_cell(mine, "critic_steps", "model_steps"),
        "ratios": per_cell(mine, "ratio", "updates"),
    }

    words = _words(mine, baseline)
    in_paper = mine["lam"].isin({value for _, value in paper_cells()})
    drawn = {"figure3": mine[in_paper], "histograms": mine[~in_paper]}

    def picture(name: str, text: dict[str, str]) -> Picture:
        caption = text["caption"].format(runs=counts.get(name), broad=words["broad"])
        draw = special.get(name) or getattr(figures, name)
        return Picture(name, partial(draw, drawn.get(name, mine)), **{**text, "caption": caption})

    first, beyond, path, *others = (picture(*each) for each in TEXT["figures"].items())
    resting, equal = partial(part, grid, fractions, mine) if gaps else None, at_equal_error(mine)
    whole = whole_paths(mine, {spec.lam for spec in grid})
    found = toy_claims(mine, resting) + equal_claims(equal, resting, whole)
    family = {"tests": TESTS, "equal": EQUAL_TESTS, "fewest": FEWEST, "differ": DIFFER}
    rules = TEXT["rules"].format(**family, fixed=claims.FIXED)
    beside = at_equal_error(mine, baseline) if baseline else equal
    shown = [first, scores(frame, study.metrics(), grid, fractions)]
    if scale == "paper":
        narrow = runs(study, results, "quick")
        shown.append(distances(mine, LAM, at_own_rate(narrow) if len(narrow) else None))
    shown += [path, equal_table(beside, baseline), beyond, *others]
    shown += [claims.table(found, scale, rules), pairs(mine, baseline), gradients(mine, baseline)]
    shown += factors.tables(frame, mine, LAM)
    shown.append(claims.changes(TEXT["changes"]))
    if other is not None:
        shown.append(comparison(frame, runs(study, other, scale), other))
    return Page(
        frame=frame,
        parts=[
            each
            for each in shown
            if len(each.rows if isinstance(each, Table) else drawn.get(each.name, mine))
        ],
        warnings=[*damage(frame), *gaps],
        notes=notes,
        missing=missing(study, scale, frame),
        shown=figures.shown(mine),
    )


def _gaps(frame: pd.DataFrame, grid: Sequence[ToySpec], fractions: Sequence[set[str]]) -> list[str]:
    """Returns a warning that says what is not trained yet of the study's own `grid`, or nothing.

    It says so as well if the configurations that complete it are the balanced eighth, or if only
    some have further seeds. `fractions` are the grid's `parts`.
    """
    known, configs = set(frame["config"]), {spec.config for spec in grid}
    goal = to_complete(configs, fractions, frame)
    begun = [each for each in grid if each.config in known and (each.config, each.seed) in goal]
    wanted = Counter(config for config, _ in goal)
    unbegun, lacking = len(wanted.keys() - known), len({each.id for each in begun} - {*frame["id"]})
    words = []
    if len(wanted) < len(configs):
        words.append(TEXT["eighth"].format(n=len(wanted), all=len(configs)))
    elif unbegun or lacking:
        words.append(TEXT["incomplete"])
        words += [TEXT["not_begun"].format(n=unbegun, all=len(configs))] * bool(unbegun)
    if lacking:
        words.append(TEXT["not_trained"].format(trainings=counted(lacking, "training")))
    seeds = frame[frame["config"].isin(wanted)].groupby("config")["seed"].nunique()
    if more := seeds_of(seeds):
        words.append(f"{more}.")
    return [" ".join(words)] if words else []


def scores(
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    grid: Sequence[ToySpec] = (),
    fractions: Sequence[set[str]] = (),
) -> Table:
    """Returns per lambda and label the score, the shares, what is to be trained, the paper beside.

    Any of the `metrics` that is not KNOWN has a column where there are values of it. `grid` has
    the trainings of the study's own grid and `fractions` its `parts`.
    """
    paper, alice, groups = paper_cells(), alice_cells(), []
    planned = {(spec.method, spec.lam) for spec in grid}
    for place, (_, rows) in enumerate(by_setting(frame)):
        begun = {*rows["config"]}
        for _, value, group in cells(rows):
            # A cell should have every configuration that was begun at its settings. Its seeds are
            # those of the study's own cells, or of itself if it is none of them, as in `missing`.
            is_own = place == 0 and (group["method"].iloc[0], value) in planned
            of = rows if is_own else group
            groups.append(group.assign(expected=len(to_complete(begun, fractions, of))))

    def published(heading: str, form: Callable[[float], str] = percent) -> tuple[Column, Cell]:
        def cell(runs: pd.DataFrame) -> str:
            cell = runs["label"].iloc[0], runs["lam"].iloc[0]
            known = {**alice.get(cell, {}), **paper.get(cell, {})}
            return form(known[heading]) if heading in known else ""

        return Column(f"paper {heading}", paper=True), cell

    def setting(name: str) -> tuple[str, Cell]:
        return TEXT["fields"][name], lambda runs: f"{runs[name].iloc[0]:g}"

    several = [name for name in SETTINGS if name in frame and frame[name].nunique() > 1]

    def form(values: pd.Series, digits: int) -> str:
        known = values.dropna().index
        return mean(evened(frame.loc[known])[values.name], digits)

    more, words = extra(metrics, frame, KNOWN, form)
    shown: list[tuple[Column | str, Cell]] = [
        ("λ", lambda runs: lam(runs["lam"].iloc[0])),
        (Column("method", text=True), lambda runs: runs["label"].iloc[0]),
        *map(setting, several),
        ("IS mean ± sd", lambda runs: spread(runs["inception_score"])),
        published("IS mean", lambda value: number(value, 2)),
        (f"IS > {TOP}", lambda runs: percent(runs["top"].mean())),
        published(f"IS > {TOP}"),
        (f"and quality ≥ {GOOD}", lambda runs: percent(runs["top_good"].mean())),
        ("modes", lambda runs: mean(runs["modes_counted"], 2)),
        ("MSE median", lambda runs: number(runs["mse"].median(), 4)),
        published("MSE median", lambda value: number(value, 4)),
        (f"MSE < {CLOSE}", lambda runs: percent(runs["close"].mean())),
        published(f"MSE < {CLOSE}"),
    ]
    columns = [(column, partial(_of_evened, cell)) for column, cell in shown]
    columns += [
        *more,
        ("n", lambda runs: str(len(runs))),
        ("diverged", lambda runs: str((runs["status"] == "diverged").sum())),
        ("not trained yet", lambda runs: str(runs["expected"].iloc[0] - len(runs))),
    ]
    noise = ", ".join(f"{name} {score}" for name, score in NOISE_SCORES.items())
    caption = TEXT["scores"].format(noise=noise) + words
    return tables.tabulate("scores", TEXT["titles"]["scores"], caption, columns, groups)


def _of_evened(cell: Cell, runs: pd.DataFrame) -> str:
    return cell(evened(runs))


def pairs(frame: pd.DataFrame, baseline: str = "") -> Table:
    """sVAE-r against each other method, at each lambda, over equal configurations and seeds.

    With a `baseline` each other method stands against that one instead. A score is compared by how
    often it is better, a share by its mean difference.
    """
    fixed = baseline or "svae_r"
    others = sorted({*frame["method"]} - {fixed}, key=lambda name: (rank(name), name))
    both = [(other, baseline) if baseline else (fixed, other) for other in others]
    asked = product(both, sorted(frame["lam"].unique()), (SCORES | SHARES).items())
    with ThreadPoolExecutor() as pool:  # resampling takes nearly all of the time, without Python
        found = [*pool.map(lambda each: _pair(frame, *each), asked)]
    rows = [[labels[0 if baseline else 1], *cells] for labels, cells in filter(None, found)]
    heads = ("value", "95 % interval", "p", "detectable", "better : worse", "configurations")
    name = Column("method" if baseline else "against", text=True)
    columns = [name, Column("λ"), Column("comparison", text=True), *map(Column, heads)]
    words = _words(frame, baseline)
    return Table("pairs", words["title"], TEXT["pairs"].format(**words), columns, rows)


def _words(frame: pd.DataFrame, baseline: str, n: int = 0) -> dict[str, str]:
    """Returns what titles and captions say of who is compared, in `n` intervals."""
    labels = front.labels_of(frame, baseline)
    values = {"labels": labels, "reduction": TEXT["reductions"].get(baseline, baseline), "n": n}
    words = TEXT["baseline" if baseline else "paper"]
    return {name: text.format(**values) for name, text in words.items()}


def _pair(
    frame: pd.DataFrame, methods: tuple[str, str], value: float, what: tuple[str, str]
) -> tuple[tuple[str, str], list[str]] | None:
    """Returns both labels and cells of a row of `pairs`, None without a pair at this lambda."""
    a, b = (at(frame, method, value) for method in methods)
    name, column = what
    x, y = intervals.paired(a, b, column)
    if not len(x):
        return None
    if name in SHARES:
        words, form = f"{name}: difference", "+.3f"
        found, size = intervals.difference(x, y), intervals.detectable(x, y)
        least = "none" if size > 1 else number(size)  # no two shares differ by more
    else:
        words, form = f"{name}: P({a['label'].iloc[0]} better)", ".3f"
        found, least = intervals.improvement(a, b, column, larger=column != "mse"), ""
    gain = found.interval()
    middle, low, high = (f"{each:{form}}" for each in (gain.value, gain.low, gain.high))
    p = tables.p_value(intervals.wilcoxon(x, y))
    better, worse = (y, x) if column == "mse" else (x, y)
    counts = f"{(better > worse).sum()} : {(better < worse).sum()}"
    ends = [f"{low} to {high}", p, least, counts, str(len(x))]
    labels = str(a["label"].iloc[0]), str(b["label"].iloc[0])
    return labels, [lam(value), words, middle, *ends]


def gradients(frame: pd.DataFrame, baseline: str = "") -> Table:
    """Gradient that reaches the decoder at the end of training, by reduction of the logit.

    It stands relative to that of sVAE-r, or of the `baseline`.
    """
    fixed, rows = baseline or "svae_r", []
    for label, value, group in cells(frame):
        traces = evened(group)["decoder_gradient"]
        ends = [{method: trace[-1] for method, trace in each} for each in traces]
        last = pd.DataFrame(ends).astype(float)
        whole = last.get(fixed, pd.Series(np.nan, last.index))  # older rows may lack it
        for method in sorted(map(str, last), key=rank):
            ratio = (last[method] / whole).dropna()
            name = TEXT["reductions"].get(method, method)
            sizes = [number(last[method].median(), 4), number(ratio.median())]
            sizes += [number(float(ratio.quantile(0.1))), percent((ratio < 0.1).mean())]
            rows.append([lam(value), label, name, *sizes])
    words = _words(frame, baseline)
    ratio = f"median ratio to {words['to']}"
    heads = ("median size", ratio, "10th percentile", "runs below a tenth")
    texts = [Column(head, text=True) for head in ("trained as", "reduction")]
    columns = [Column("λ"), *texts, *map(Column, heads)]
    every = all_of(len({row[2] for row in rows})).capitalize()
    caption = TEXT["gradients"].format(all=every, **words)
    return Table("gradients", TEXT["titles"]["gradients"], caption, columns, rows)


# Comparison with other results

STATISTICS = {
    "IS mean": "score",
    **SHARES,
    "high quality mean": "high_quality_counted",
    "log10 MSE mean": "log_mse",
}


def comparison(ours: pd.DataFrame, other: pd.DataFrame, name: Path) -> Table:
    """Our mean of each statistic, theirs, and whether the difference is one of seeds.

    Only configurations that both have count, and an infinite MSE counts as 1e6. The spread is
    that over the seeds of `other` within a configuration, pooled over the configurations of a
    cell. A cell in which all seeds agree gets the spread of one seed of one configuration
    changing its verdict.

    Raises UsageError if there is nothing in common to compare, or one seed only.
    """

    def by_cell(runs: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
        counted = runs.assign(log_mse=np.log10(runs["mse"].clip(1e-6, 1e6)))
        counted = counted.astype(dict.fromkeys(STATISTICS.values(), float))
        return {(label, value): runs for label, value, runs in cells(counted)}

    mine, theirs = by_cell(ours), by_cell(other)
    for cell in mine.keys() & theirs.keys():
        both = mine[cell], theirs[cell]
        common = set.intersection(*(set(runs["config"]) for runs in both))
        here, there = (runs[runs["config"].isin(common)] for runs in both)
        if there["seed"].nunique() < 2:
            del theirs[cell]
        else:
            mine[cell], theirs[cell] = here, there
    if not mine.keys() & theirs.keys():
        raise UsageError(f"nothing to compare with in {name}: no common runs with two seeds")
    statistics = [
        Statistic(what, itemgetter(column), partial(_spread, column=column))
        for what, column in STATISTICS.items()
    ]
    return compare.comparison(mine, theirs, statistics, str(name), TEXT["compared"])


def _spread(runs: pd.DataFrame, column: str) -> Spread:
    within = Spread.pooled(values for _, values in runs.groupby("config")[column])
    assert within is not None
    # One verdict among all of a cell's that is otherwise unanimous.
    return within if within.sd else Spread(1 / np.sqrt(len(runs)), within.freedom)
