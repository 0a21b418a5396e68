"""What is said of the theory study: its tables, figures and introduction. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.render import claims
from bench.render.claims import Claim
from bench.render.figures import Picture, rank
from bench.render.page import Page, damage
from bench.render.tables import Cell, Column, Table, lam, number, percent, tabulate
from bench.render.text import texts
from bench.store.provenance import REFERENCE
from bench.store.rows import StoreError
from bench.studies.study import Study
from bench.studies.theory import figures
from bench.studies.theory.claims import TESTS, theory_claims
from bench.studies.theory.runs import LEAST, away, part, runs, traced, traces
from bench.studies.theory.spec import DESCENT, EXACT, JOINT, MODES, SUPPORTS, VANISHING
from bench.studies.toy_grid import runs as toy

TEXT = texts("bench.studies.theory")


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """Returns the page of what is stored.

    Raises StoreError if there is `other` to compare with, since no statistic of this study is one
    that a second run repeats.
    """
    if other is not None:
        raise StoreError(f"{study.name} has no comparison with other results")
    frame = runs(study, results, scale)
    grid, where = toy_runs(results, scale)
    samples = study.store(results, scale).load_samples().to_pandas()
    needs = {"supports": SUPPORTS, "learned": SUPPORTS, "modes": MODES, "vanishing": VANISHING}
    needs |= {"descent": DESCENT, "cosines": DESCENT}
    there, critics = set(frame["experiment"]), set(part(frame, experiment=SUPPORTS)["critic"])
    drawn = {name for name, experiment in needs.items() if experiment in there}
    drawn -= {name for name, c in (("supports", EXACT), ("learned", JOINT)) if c not in critics}

    def picture(name: str) -> Picture:
        draw: Callable[..., Any] = getattr(figures, name)
        given = (frame, samples) if name in ("supports", "learned", "modes") else (frame,)
        return Picture(name, partial(draw, *given), **TEXT["figures"][name])

    found = theory_claims(frame, grid)
    rules = TEXT["rules"].format(tests=TESTS, fixed=claims.FIXED)
    parts = [
        *(picture(name) for name in TEXT["figures"] if name in drawn),
        claims.table(found, scale, rules),
        *(table for table in tables(frame, grid, where) if table.rows),
        claims.changes(TEXT["changes"]),
    ]
    notes = [TEXT["others"].format(n=n)] if (n := frame.attrs["others"]) else []
    seeds = int(frame["seed"].max()) + 1
    lacking = {spec.id for spec in study.specs(scale, seeds=seeds)} - set(frame["id"])
    return Page(
        frame=frame,
        parts=parts,
        warnings=damage(frame),
        notes=notes,
        missing=len(lacking),
        shown=figures.shown(frame),
        intro=intro(found),
    )


def intro(found: Sequence[Claim]) -> str:
    """Returns the introduction: the argument, and what the verdicts on these claims say of it."""
    verdicts = {each.id: each.verdict for each in found}
    said = (
        words.get(verdicts[id]) or f"It is {verdicts[id]} whether {words['whether']}."
        for id, words in TEXT["said"].items()
    )
    return TEXT["intro"].format(said=" ".join(said))


def toy_runs(results: Path, scale: str) -> tuple[pd.DataFrame | None, str]:
    """Returns the toy study's runs of these results, or else the published ones, and whose.

    The runs are those of the same scale, or else of quick. None if there are none.
    """
    from bench.studies.toy_grid.study import TOY_GRID

    for folder, each in ((results, scale), (results, "quick"), (REFERENCE, "quick")):
        if len(TOY_GRID.load(folder, each)[0]):
            owner = "published" if folder.resolve() == REFERENCE else "of the same folder"
            return toy.at_own_rate(toy.runs(TOY_GRID, folder, each)), f"{owner}, scale {each}"
    return None, ""


# Tables


def tables(frame: pd.DataFrame, grid: pd.DataFrame | None, where: str) -> list[Table]:
    """Returns every table; a table of an experiment without trainings has no rows."""
    found = [ends(frame), of_modes(frame), descent(frame), vanishing(frame)]
    return found if grid is None else [*found, missing(grid, where)]


def _median(column: str, digits: int = 3) -> Cell:
    def cell(group: pd.DataFrame) -> str:
        values = group[column].astype(float).dropna()
        return number(float(values.median()), digits) if len(values) else "–"

    return cell


def _first(column: str) -> Cell:
    return lambda group: str(group[column].iloc[0])


def _name() -> tuple[Column, Cell]:
    return Column("method", text=True), _first("name")


def ends(frame: pd.DataFrame) -> Table:
    """Returns scores of every method on five Gaussians at the end of training."""
    here = part(frame, experiment=SUPPORTS)
    columns: list[tuple[Column | str, Cell]] = [
        _name(),
        ("λ", lambda group: lam(group["lam"].iloc[0])),
        ("updates", lambda group: f"{group['critic_steps'].iloc[0]} : 1"),
        ("KL_s at the start", _median("kl_s_start", 2)),
        ("KL_s", _median("kl_s", 2)),
        ("KL(p‖q)", _median("kl_pq", 2)),
        ("KL(q‖p)", _median("kl_qp", 2)),
        ("modes", _median("modes", 0)),
        ("quality", lambda group: percent(group["high_quality"].astype(float).median())),
        ("MSE of x", _median("mse_x")),
        ("energy of x", _median("energy_x")),
        ("KL(p(z)‖q(z))", _median("prior_pq")),
        ("KL(q(z)‖p(z))", _median("prior_qp")),
        ("holes", lambda group: percent(group["holes"].astype(float).median())),
        ("energy of z", _median("energy_z")),
        ("n", lambda group: str(len(group))),
        ("diverged", lambda group: str((group["status"] == "diverged").sum())),
    ]
    keys = ["critic", "rank", "lam", "critic_steps"]
    groups = [group for _, group in here.groupby(keys, sort=True)]
    caption = TEXT["ends"].format(n=int(frame["n_samples"].max()))
    return tabulate("ends", TEXT["titles"]["ends"], caption, columns, groups)


def of_modes(frame: pd.DataFrame) -> Table:
    """Returns where one Gaussian ends on two modes."""
    here = part(frame, experiment=MODES)

    def on_one(group: pd.DataFrame) -> str:
        near = (group["mean"].abs() - 2).abs() < 0.5
        return f"{int((near & (group['sd'] < 1)).sum())} of {len(group)}"

    columns: list[tuple[Column | str, Cell]] = [
        _name(),
        ("on one mode", on_one),
        ("KL_s", _median("kl_s", 2)),
        ("KL(p‖q)", _median("kl_pq", 2)),
        ("KL(q‖p)", _median("kl_qp", 2)),
        ("|mean|", lambda group: number(float(group["mean"].abs().median()), 2)),
        ("sd", _median("sd", 2)),
    ]
    groups = [group for _, group in here.groupby("rank", sort=True)]
    return tabulate("modes", TEXT["titles"]["modes"], TEXT["modes"], columns, groups)


def descent(frame: pd.DataFrame) -> Table:
    """Returns how KL_s moved on Gaussian data, and which divergence each player followed."""
    here = part(frame, experiment=DESCENT)

    def at(stop: int, name: str) -> Cell:
        def cell(group: pd.DataFrame) -> str:
            values = [traced(row)[name].iloc[stop] for _, row in group.iterrows()]
            return number(float(np.median(values)), 3)

        return cell

    def cosine(name: str) -> Cell:
        def cell(group: pd.DataFrame) -> str:
            found = away(group)
            pair = [found[f"{player} follows {name}"].median() for player in figures.PLAYERS]
            return " / ".join(number(float(each), 2) for each in pair)

        return cell

    def down(group: pd.DataFrame) -> str:
        return percent(float((away(group)["follows kl_s"] > 0).mean()))

    columns: list[tuple[Column | str, Cell]] = [
        _name(),
        ("dimensions", _first("dimension")),
        ("KL_s at the start", at(0, "kl_s")),
        ("at the end", at(-1, "kl_s")),
        ("the critic's estimate", at(-1, "believed")),
        *((f"cosine with {label}", cosine(name)) for name, label in figures.DIVERGENCES.items()),
        ("a step lowers KL_s", down),
        ("n", lambda group: str(len(group))),
    ]
    groups = [group for _, group in here.groupby(["dimension", "rank"], sort=True)]
    caption = TEXT["descent"].format(least=LEAST)
    return tabulate("descent", TEXT["titles"]["descent"], caption, columns, groups)


def vanishing(frame: pd.DataFrame) -> Table:
    """Returns by distance how much of the gradient each reduction sends to a frozen decoder."""
    here = part(frame, experiment=VANISHING)

    def last(name: str) -> Callable[[pd.DataFrame], float]:
        return lambda group: float(traces(group).groupby("batch")[name].median().iloc[-1])

    def ratio(method: str) -> Cell:
        size, other = last("gradient svae_r"), last(f"gradient {method}")
        return lambda group: f"{other(group) / size(group):.2g}"

    def falls(group: pd.DataFrame) -> str:
        place = figures.falls(traces(group).groupby("batch").median())
        return "never" if place is None else f"{place:.2g}"

    traced_of = [name for name, _ in here["traces"].iloc[0]] if len(here) else []
    methods = [name.split()[1] for name in traced_of if name.startswith("gradient ")]
    methods = [m for m in methods if m in figures.REDUCTIONS and m != "svae_r"]
    columns: list[tuple[Column | str, Cell]] = [
        ("distance, sd", lambda group: f"{group['distance'].iloc[0]:g}"),
        ("overlap", lambda group: f"{2 * stats.norm.sf(group['distance'].iloc[0] / 2):.2g}"),
        ("KL_s", lambda group: f"{group['distance'].iloc[0] ** 2:g}"),
        ("excess", lambda group: f"{last('excess')(group):.2g}"),
        ("size under (14)", lambda group: f"{last('gradient svae_r')(group):.2g}"),
        *((figures.REDUCTIONS[m], ratio(m)) for m in sorted(methods, key=rank)),
        ("(18) at f*", lambda group: f"{at_best(group['distance'].iloc[0]):.2g}"),
        ("falls", falls),
        ("n", lambda group: str(len(group))),
    ]
    groups = [group for _, group in here.groupby("distance", sort=True)]
    caption = TEXT["vanishing"]
    return tabulate("vanishing", TEXT["titles"]["vanishing"], caption, columns, groups)


def at_best(distance: float) -> float:
    """Returns the RMS of d log sigma(f) / d f at f* over decoder pairs, which (14) has as 1.

    There f* is Gaussian with half the squared distance as its mean and the distance as its sd.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    f = distance**2 / 2 + distance * nodes
    slope = stats.logistic.sf(f)  # 1 - sigma(f)
    return float(np.sqrt((weights * slope**2).sum() / weights.sum()))


def missing(grid: pd.DataFrame, where: str) -> Table:
    """Returns modes covered and collapsed runs of the toy study, by update ratio."""
    ratios = sorted({*zip(grid["critic_steps"], grid["model_steps"], strict=True)})

    def shown(runs: pd.DataFrame) -> str:
        if not len(runs):
            return "–"
        return f"{runs['modes_counted'].mean():.2f}, {percent(runs['collapsed'].mean())}"

    def at(critic: int, model: int) -> Cell:
        return lambda g: shown(part(g, critic_steps=critic, model_steps=model))

    columns: list[tuple[Column | str, Cell]] = [
        ("λ", lambda group: lam(group["lam"].iloc[0])),
        (Column("method", text=True), _first("label")),
        ("modes, collapsed", shown),
        *((f"{a} : {b}", at(a, b)) for a, b in ratios),
        ("n", lambda group: str(len(group))),
    ]
    groups = [group for *_, group in toy.cells(grid)]
    caption = TEXT["missing"].format(where=where)
    return tabulate("missing", TEXT["titles"]["missing"], caption, columns, groups)
