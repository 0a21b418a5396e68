"""What is said of the theory study: its claims, tables, figures and introduction.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.render import claims, intervals
from bench.render.claims import VERDICTS, Claim, claim
from bench.render.figures import Picture, rank
from bench.render.page import Page, damage
from bench.render.tables import Cell, Column, Table, lam, number, percent, tabulate
from bench.render.text import texts
from bench.store.provenance import REFERENCE
from bench.studies.study import Study
from bench.studies.theory import figures
from bench.studies.theory.runs import LEAST, paired, part, runs, traced, traces
from bench.studies.theory.spec import DESCENT, EXACT, JOINT, MODES, SUPPORTS, VANISHING
from bench.studies.toy_grid import runs as toy

TEXT = texts("bench.studies.theory")


def build(study: Study, scale: str, results: Path, other: Path | None = None) -> Page:
    """Returns the page of what is stored. Raises UsageError if there is `other` to compare with."""
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


def _name(heading: str = "method") -> tuple[Column, Cell]:
    return Column(heading, text=True), _first("name")


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


def away(group: pd.DataFrame) -> pd.DataFrame:
    """Returns the stops of these trainings, but the first, that are LEAST nats from the optimum.

    The critic has not learned anything at the first stop.
    """
    found = traces(group, ["dimension"])
    return found[(found["kl_s"] > LEAST) & (found["batch"] > 0)] if len(found) else found


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


# Claims about sections 2 to 4, each as values of trainings whose interval a rule reads

Values = Sequence[tuple[str, np.ndarray]]
"""What each interval is of, and its values, one a training or a pair of trainings."""


FLOOR = 1e-6
"""Divergences below so many nats count as so many in logarithms."""
FEWEST = 58
"""Values that agree entirely decide only if they are so many, as in the toy study."""


def _log_ratio(a: pd.DataFrame, b: pd.DataFrame, column: str) -> np.ndarray:
    """Returns log10 of a over b, a number a seed: the mean over the configurations of both."""
    x, y, seeds = paired(a, b, column)
    logs = np.log10(np.maximum(x, FLOOR)) - np.log10(np.maximum(y, FLOOR))
    return pd.Series(logs).groupby(seeds).mean().to_numpy()


class Evidence:
    """Holds the values that each rule reads."""

    def __init__(self, frame: pd.DataFrame, grid: pd.DataFrame | None) -> None:
        self.frame, self.grid = frame, grid

    def at(self, experiment: str, method: str, critic: str, **more: Any) -> pd.DataFrame:
        """Returns the trainings of a method in an experiment at lambda 0."""
        values = {"experiment": experiment, "method": method, "critic": critic, "lam": 0.0}
        return part(self.frame, **values, **more)

    def five(self, method: str, critic: str) -> pd.DataFrame:
        """Returns trainings on five Gaussians, at the larger number of the critic's updates."""
        here = self.at(SUPPORTS, method, critic)
        return here[here["critic_steps"] == here["critic_steps"].max()]

    def along(self, name: str, least: bool = False) -> np.ndarray:
        """Returns what was traced of sVAE away from the optimum, a number a seed.

        It is the mean over stops and dimensions, or the least.
        """
        stops = away(self.at(DESCENT, "svae_r", JOINT))
        if not len(stops):
            return np.array([])
        by = stops.groupby("seed")[name]
        return (by.min() if least else by.mean()).to_numpy()

    def value(self) -> Values:
        stops = away(self.at(DESCENT, "svae_r", JOINT))
        if not len(stops):
            return []
        ratio = stops["value"] / stops["kl_s"]
        return [("value / KL_s", ratio.groupby(stops["seed"]).mean().to_numpy())]

    def cosine(self, least: bool = False) -> Values:
        names = [f"{player} svae_r kl_s" for player in figures.PLAYERS]
        return [(name.split()[0], self.along(name, least)) for name in names]

    def lowers(self) -> Values:
        found = []
        for what, choose in self._kinds():
            here = choose("svae_r", JOINT)
            logs = pd.Series(np.log10(here["kl_s"].clip(lower=FLOOR) / here["kl_s_start"]))
            found.append((what, logs.groupby(here["seed"]).mean().to_numpy()))
        return found

    def mended(self) -> Values:
        return [
            (what, _log_ratio(choose("svae_exact", JOINT), choose("svae_r", JOINT), "kl_s"))
            for what, choose in self._kinds()
        ]

    def _kinds(self) -> Sequence[tuple[str, Callable[[str, str], pd.DataFrame]]]:
        return [("Gaussian data", partial(self.at, DESCENT)), ("five Gaussians", self.five)]

    def replaced(self) -> Values:
        names = [f"{player} alice svae_r" for player in figures.PLAYERS]
        return [(name.split()[0], self.along(name)) for name in names]

    def reached(self) -> Values:
        a, b = (self.at(DESCENT, method, JOINT) for method in ("alice", "svae_r"))
        return [("log10 ratio", _log_ratio(a, b, "kl_s"))]

    def sure(self) -> Values:
        here = part(self.frame, experiment=VANISHING)
        here = here[here["distance"] == here["distance"].max()]
        below, above = [], []
        for _, row in here.iterrows():
            stops = traced(row)
            size, other = (
                stops[f"gradient {name}"].clip(lower=1e-300).to_numpy()
                for name in ("svae_r", "alice_minimax")
            )
            below.append(math.log10(size[-1] / other[-1]) - 1)
            above.append(math.log10(2 * size[-1] / size[:-1].max()))
        names = "log10 of .1 (14) / (18)", "log10 of 2 (14) / its largest before"
        return [*zip(names, map(np.array, (below, above)), strict=True)]

    def in_the_toy(self) -> Values:
        if self.grid is None:
            return []
        here = self.grid[(self.grid["lam"] == 0) & self.grid["method"].isin(["svae_r", "alice"])]
        ends = [{m: float(t[-1]) for m, t in each} for each in here["decoder_gradient"]]
        below = [e["alice_minimax"] < 0.1 * e["svae_r"] for e in ends]
        shares = pd.Series(below, index=here["config"], dtype=float).groupby(level=0).mean()
        return [("share of runs", shares.to_numpy())]

    def mends_both(self) -> Values:
        both, forward, reverse = (self.five(m, EXACT) for m in ("vae_xz", "vae", "vae_z"))
        found = ("quality", forward, "high_quality"), ("modes", reverse, "modes")
        return [(what, np.subtract(*paired(both, other, name)[:2])) for what, other, name in found]

    def inherits(self) -> Values:
        found = []
        for what, choose in (("two modes", partial(self.at, MODES)), ("five Gaussians", self.five)):
            a, b = (choose(method, EXACT) for method in ("svae_r", "vae_xz"))
            found.append((f"log10 ratio, {what}", _log_ratio(a, b, "kl_s")))
        return found

    def fewer(self) -> Values:
        if self.grid is None:
            return []
        found = []
        for value in (0.0, 0.1):
            a, b = (toy.at(self.grid, method, value) for method in ("svae_r", "alice"))
            x, y = intervals.paired(a, b, "modes_counted")
            found.append((f"modes at λ = {value:g}", x - y))
        return found

    def prior(self) -> Values:
        vae = self.at(SUPPORTS, "vae", EXACT)
        return [
            (f"log10 ratio at {steps} : 1", _log_ratio(here, vae, "prior_pq"))
            for steps, here in self._by_updates("svae_r")
        ]

    def prior_at_best(self) -> Values:
        a, b = (self.five(method, EXACT) for method in ("svae_r", "vae"))
        return [("log10 ratio", _log_ratio(a, b, "prior_pq"))]

    def _by_updates(self, method: str) -> list[tuple[int, pd.DataFrame]]:
        here = self.at(SUPPORTS, method, JOINT)
        return [
            (steps, part(here, critic_steps=steps)) for steps in sorted({*here["critic_steps"]})
        ]

    def free(self) -> Values:
        others = dict(self._by_updates("joint_wgan_gp"))
        return [
            (f"log10 ratio at {steps} : 1", _log_ratio(here, others[steps], "energy_x"))
            for steps, here in self._by_updates("svae_r")
            if steps in others
        ]


@dataclass(frozen=True)
class Rule:
    """Says which intervals a claim reads, so many of them, and between which bounds they lie.

    A claim holds where all intervals lie within, and fails where any lies outside.
    """

    read: Callable[[Evidence], Values]
    low: float = -math.inf
    high: float = math.inf
    intervals: int = 1

    def judge(self, evidence: Evidence) -> tuple[str, str]:
        """Returns verdict and evidence."""
        found = [(what, values[~np.isnan(values)]) for what, values in self.read(evidence)]
        if len(found) < self.intervals or not all(len(values) for _, values in found):
            return "no data", "no trainings"
        each = [(what, len(v), intervals.student(v, TESTS)) for what, v in found]
        if any(1 < len(values) < FEWEST and not np.ptp(values) for _, values in found):
            return VERDICTS[0], "all trainings agree, which a few may do by chance"
        inside = all(self.low < e.low and e.high < self.high for *_, e in each)
        outside = any(e.high < self.low or e.low > self.high for *_, e in each)
        words = "; ".join(f"{what} {e:+.3g}" for what, _, e in each)
        counts = " and ".join(dict.fromkeys(str(n) for _, n, _ in each))
        return VERDICTS[int(inside) - int(outside)], f"{words} (n = {counts})"


RULES: Mapping[str, Rule] = {
    "6a": Rule(Evidence.value, low=0.95, high=1.05),
    "6b": Rule(Evidence.cosine, low=0.95, intervals=2),
    "6c": Rule(partial(Evidence.cosine, least=True), low=0, intervals=2),
    "6d": Rule(Evidence.lowers, high=0, intervals=2),
    "6e": Rule(Evidence.mended, high=0, intervals=2),
    "7a": Rule(Evidence.replaced, low=0.9, intervals=2),
    "7b": Rule(Evidence.reached, low=-0.1, high=0.1),
    "8a": Rule(Evidence.sure, low=0, intervals=2),
    "8b": Rule(Evidence.in_the_toy, low=0.5),
    "9a": Rule(Evidence.mends_both, low=0, intervals=2),
    "9b": Rule(Evidence.inherits, low=-0.1, high=0.1, intervals=2),
    "9c": Rule(Evidence.fewer, low=0, intervals=2),
    "10a": Rule(Evidence.prior, high=0, intervals=2),
    "10b": Rule(Evidence.prior_at_best, high=0),
    "11": Rule(Evidence.free, high=0.1, intervals=2),
}
"""The intervals that each verdict reads, and their bounds."""
TESTS = sum(rule.intervals for rule in RULES.values())
"""The family: so many intervals share one level, whatever is trained already."""


def theory_claims(frame: pd.DataFrame, grid: pd.DataFrame | None) -> list[Claim]:
    """Returns the claims about sections 2 to 4, from our runs and the toy study's."""
    evidence, words = Evidence(frame, grid), TEXT["claims"]
    return [claim(words[id], id, rule.judge(evidence), least=LEAST) for id, rule in RULES.items()]
