"""Which settings matter in the toy study: tables from a frame of runs. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from bench.render import intervals
from bench.render.figures import rank
from bench.render.intervals import Resampled
from bench.render.tables import Column, Table, lam, number
from bench.render.text import texts
from bench.spec import columns
from bench.studies.toy_grid.runs import CLOSE, COLLAPSED, GOOD, SETTINGS, TOP, at, cells
from bench.studies.toy_grid.spec import ToySpec

TEXT = texts("bench.studies.toy_grid")
SIZES, NETWORKS = ("depth", "width"), ("encoder", "decoder", "critic")
FACTORS = ["critic_steps", "model_steps"]
FACTORS += [f"{network}_{size}" for size, network in product(SIZES, NETWORKS)]
"""The settings that the grid varies."""
MEASURES = {
    "top": f"share IS > {TOP}",
    "close": f"share MSE < {CLOSE}",
    "score": "mean inception score",
}
"""The columns whose main effects are told, in words."""
SHARES = {"top": f"IS > {TOP}", "top_good": f"and quality ≥ {GOOD}", "close": f"MSE < {CLOSE}"}
"""The shares that a sensitivity is about."""
OWN = ("svae_r", "alice")
"""The two methods of the paper's toy study."""
WORST = 10
"""Configurations in the table of the worst."""


def tables(frame: pd.DataFrame, mine: pd.DataFrame, value: float) -> list[Table]:
    """Returns the tables of this module that have rows.

    `frame` has all runs and `mine` the runs of `at_own_rate`. The worst configurations are those
    at lambda `value`.
    """
    found = [
        *effects(mine),
        components(mine),
        worst(mine, value),
        collapses(mine),
        sensitivities(frame),
    ]
    return [table for table in found if table.rows]


def _table(
    kind: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], **values: object
) -> Table:
    title, caption = (TEXT["factors"][kind][name].format(**values) for name in ("title", "caption"))
    return Table(kind, title, caption, columns, rows)


def _named(field: str) -> str:
    """Returns a field of the spec in words."""
    return TEXT["fields"].get(field, field.replace("_", " "))


# Main effects

Levels = Mapping[str, Sequence[int]]
"""The levels of each factor."""


def effects(frame: pd.DataFrame) -> list[Table]:
    """Returns a table for each of the MEASURES: a row a method and factor, a column a lambda.

    A cell has the mean at each level and the main effect. It is blank where a level has fewer than
    two configurations.
    """
    levels = {name: sorted(frame[name].unique()) for name in FACTORS}
    levels = {name: known for name, known in levels.items() if len(known) > 1}
    lams = sorted(frame["lam"].unique())
    rows: dict[str, list[list[str]]] = {column: [] for column in MEASURES}
    for method in sorted(frame["method"].unique(), key=rank):
        runs = frame[frame["method"] == method]
        label = ", ".join(runs.sort_values("lam")["label"].unique())
        shown = [_effects(at(runs, method, value), levels) for value in lams]
        for (factor, known), column in product(levels.items(), MEASURES):
            cells = [each.get((factor, column), "") for each in shown]
            if any(cells):
                named = f"{_named(factor)} {', '.join(map(str, known))}"
                rows[column].append([label, named, *cells])
    heads = [Column(head, text=True) for head in ("method", "factor and its levels")]
    heads += [Column(f"λ = {lam(value)}", text=True, long=True) for value in lams]
    return [
        replace(_table("effects", heads, rows[name], measure=words), name=f"effects_{name}")
        for name, words in MEASURES.items()
    ]


def _effects(runs: pd.DataFrame, levels: Levels) -> dict[tuple[str, str], str]:
    """Returns for each factor and measure the means at the levels, and the effect.

    The effect is the mean at the highest level minus the mean at the lowest. Its interval is
    bootstrapped over configurations, within the levels.
    """
    by = runs.groupby("config")
    values = by[[*MEASURES]].mean()
    means, parts = {}, []
    for factor, known in levels.items():
        here = by[factor].first()
        chosen = [(here == level).to_numpy() for level in known]
        if min(each.sum() for each in chosen) < 2:
            continue
        for column in MEASURES:
            y = values[column].to_numpy(float)
            found = means[factor, column] = [float(y[each].mean()) for each in chosen]
            # Means of these over configurations vary as the difference of the two means does.
            part = np.full(len(y), found[-1] - found[0])
            for each, end, sign in ((chosen[0], found[0], -1), (chosen[-1], found[-1], 1)):
                part[each] += sign * len(y) / each.sum() * (y[each] - end)
            parts.append(part)
    if not means:
        return {}
    gains = intervals.together(np.stack(parts, 1))
    return {
        key: _told(ends, gain, ".2f" if key[1] == "score" else ".0%")
        for (key, ends), gain in zip(means.items(), gains, strict=True)
    }


def _told(ends: Sequence[float], gain: Resampled, form: str) -> str:
    """Returns values in this format, and their difference where it has a spread."""
    found = gain.interval()
    shown = ", ".join(f"{round(end, 2) + 0.0:{form}}" for end in ends)  # no -0
    if form.endswith("%"):
        shown = shown.replace("%", "", len(ends) - 1).replace("%", " %")
    return shown if found.low == found.high else f"{shown}: {found:+.2f}"


# The spread of seeds and of configurations

SPREAD = {"score": "IS", "top": f"IS > {TOP}", "log_mse": "log10 MSE"}
"""The columns whose spread is told, in words."""


def components(frame: pd.DataFrame) -> Table:
    """Returns how much of the spread is the seed's, a row a method and lambda with several seeds.

    Below the two methods of the paper's study stands their paired difference. (Searle, Casella &
    McCulloch, *Variance Components*, section 3.6: unbalanced data, by the analysis of variance.)
    """
    rows, told = [], frame.assign(log_mse=np.log10(frame["mse"].clip(1e-6, 1e6)))
    for label, value, runs in _with_differences(told):
        by = runs.astype({"top": float}).groupby("config")[[*SPREAD]]
        sizes = by.size().to_numpy()
        several = sizes > 1
        if several.sum() < 2:
            continue
        means, variances = (each.to_numpy()[several] for each in (by.mean(), by.var()))
        n = sizes[several][:, None]
        row = [lam(value), label]
        for mean, variance in zip(means.T, variances.T, strict=True):
            m, squares = mean[:, None] - mean.mean(), (n - 1) * variance[:, None]
            sums = intervals.together(np.hstack([n, n**2, n * m, n * m**2, squares]))
            within, between = _variances(len(n), *(np.array(each.value) for each in sums))
            found = _share(*_variances(len(n), *(each.found for each in sums)))
            share = Resampled(float(_share(within, between)), found).interval()
            row += [number(math.sqrt(within)), number(math.sqrt(between)), f"{share:.2f}"]
        rows.append([*row, str(len(n)), str(n.sum())])
    each = ("sd of seeds", "sd of configurations", "share of seeds")
    heads = [f"{words}: {of}" for words, of in product(SPREAD.values(), each)]
    columns = [Column("λ"), Column("method", text=True)]
    columns += map(Column, [*heads, "configurations", "runs"])
    return _table("components", columns, rows)


def _with_differences(frame: pd.DataFrame) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Yields the cells of each lambda, and the paired difference of the OWN methods there."""
    for value in sorted(frame["lam"].unique()):
        yield from cells(frame[frame["lam"] == value])
        ours, theirs = (at(frame, method, value) for method in OWN)
        both = ours.merge(theirs, on=["config", "seed"], suffixes=("", " "))
        if len(both):
            gaps = {name: both[name] * 1.0 - both[f"{name} "] * 1.0 for name in SPREAD}
            label = f"{both['label'].iloc[0]} − {both['label '].iloc[0]}"
            yield label, value, both[["config"]].assign(**gaps)


def _variances(
    k: int, n: np.ndarray, n2: np.ndarray, total: np.ndarray, square: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the variances of seeds and of configurations; a negative estimate counts as 0.

    Given are means over k configurations: of the number of seeds, of its square, of the number
    times the mean over seeds, of the number times that mean's square, and of the seeds' sum of
    squares around it.
    """
    within = rest / (n - 1)
    between = k * (square - total**2 / n) / (k - 1)
    typical = (k * n - n2 / n) / (k - 1)
    return within, np.maximum(0.0, (between - within) / typical)


def _share(within: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Returns the seed's share of both variances, 0 where neither varies."""
    both = within + between
    return np.divide(within, both, out=np.zeros_like(both), where=both > 0)


# The worst configurations


def worst(frame: pd.DataFrame, value: float) -> Table:
    """Returns the configurations of the lowest mean score at lambda `value`, the worst first.

    The mean is over the two methods of the paper's study, each over its seeds. A configuration
    that one of them lacks has no place. Other methods have a column of their own.
    """
    here = frame[frame["lam"] == value]
    scores = here.pivot_table(index="config", columns="method", values="score")
    methods = sorted(map(str, scores), key=rank)
    own = [method for method in methods if method in OWN] or methods
    ranked = scores[own].dropna().mean(axis=1).sort_values(kind="stable").head(WORST)
    labels = dict(zip(here["method"], here["label"], strict=True))
    rows = []
    for config, mean in ranked.items():
        runs = here[here["config"] == config]
        mine, first = runs[runs["method"].isin(own)], runs.iloc[0]
        settings = [
            f"{first['critic_steps']}:{first['model_steps']}",
            *(", ".join(f"{first[f'{net}_{size}']}" for net in NETWORKS) for size in SIZES),
        ]
        each = [number(scores[method][str(config)], 2) for method in methods]
        collapsed = f"{mine['collapsed'].sum()} of {len(mine)}"
        rows.append([*settings, number(mean, 2), *each, collapsed, number(mine["mse"].median())])
    heads = ["updates", "depths", "widths", "IS mean", *(f"IS of {labels[m]}" for m in methods)]
    heads += [f"IS < {COLLAPSED}", "MSE median"]
    words = " and ".join(labels[method] for method in own)
    return _table("worst", [*map(Column, heads)], rows, lam=lam(value), methods=words)


# Collapse by the numbers of updates


def collapses(frame: pd.DataFrame) -> Table:
    """Returns how many runs of each method and lambda collapsed, by the numbers of updates."""
    steps = ["critic_steps", "model_steps"]
    pairs = sorted(
        {*frame[steps].itertuples(index=False, name=None)},
        key=lambda pair: (pair[1] / pair[0], sum(pair)),
    )

    def count(runs: pd.DataFrame) -> str:
        return f"{runs['collapsed'].sum()} of {len(runs)}" if len(runs) else ""

    rows = []
    for label, value, runs in cells(frame):
        each = [count(runs[(runs[steps] == list(pair)).all(axis=1)]) for pair in pairs]
        rows.append([lam(value), label, *each, count(runs)])
    heads = [Column("λ"), Column("method", text=True)]
    heads += [Column(f"{critic}:{model}") for critic, model in pairs]
    return _table("collapses", [*heads, Column("all")], rows, collapsed=COLLAPSED)


# What our deviations from the paper's text change

_TOLD = [*SHARES, "modes_counted", "mse"]
"""The columns that a sensitivity is about."""


def sensitivities(frame: pd.DataFrame) -> Table:
    """Returns what other SETTINGS change, a row a method and lambda.

    Runs are paired that differ in nothing else. A row below the two methods of the paper's study
    has their difference under both settings.
    """
    rows = []
    for words, pairs in _deviations(frame):
        for value in sorted(pairs["lam"].unique()):
            here = {m: at(pairs, m, value) for m in sorted(pairs["method"].unique(), key=rank)}
            shown = [(runs, "") for runs in here.values()]
            if here.keys() >= {*OWN}:
                shown.append((_difference(*(here[method] for method in OWN)), "+"))
            found = [_sensitivity(runs, sign) for runs, sign in shown if len(runs)]
            rows += [[words, lam(value), *cells] for cells in found]
    heads = [Column("setting", text=True), Column("λ"), Column("method", text=True)]
    heads += [Column(words, text=True, long=True) for words in SHARES.values()]
    heads += map(Column, ["modes", "MSE median", "n"])
    return _table("sensitivities", heads, rows)


def _deviations(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields each other setting in words, and a row a pair: each column twice, once `_changed`.

    Configuration and seed of a pair are those of the run at our own setting.
    """
    same = (frame[[*SETTINGS]] == pd.Series(SETTINGS)).all(axis=1)
    for name, default in SETTINGS.items():
        keys = [field for field in columns(ToySpec) if field != name]
        for value in sorted({*frame[name]} - {default}):
            changed = frame.loc[frame[name] == value, [*keys, *_TOLD]]
            pairs = frame[same].merge(changed, on=keys, suffixes=("", "_changed"))
            yield f"{_named(name)} {default:g}, {value:g}", pairs


def _difference(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Returns the pairs that both have, every column their difference, without an MSE."""
    both = a.merge(b, on=["config", "seed"], suffixes=("", " "))
    found = both[["config", "seed"]].assign(label=both["label"] + " − " + both["label "])
    for name in (f"{column}{end}" for column, end in product(_TOLD, ("", "_changed"))):
        found[name] = both[name].astype(float) - both[f"{name} "].astype(float)
    return found.assign(mse=np.nan, mse_changed=np.nan)


def _sensitivity(pairs: pd.DataFrame, sign: str) -> list[str]:
    """Returns the cells of a row but for setting and lambda; differences have a `sign`."""
    ends = [f"{column}{end}" for column, end in product(_TOLD, ("", "_changed"))]
    by = pairs[["config", *ends]].astype(dict.fromkeys(ends, float)).groupby("config").mean()
    shares = [
        _told((x.mean(), y.mean()), intervals.difference(y, x), f"{sign}.0%")
        for x, y in (by[[name, f"{name}_changed"]].to_numpy().T for name in SHARES)
    ]
    modes = ", ".join(
        f"{by[name].mean():{sign}.2f}" for name in ("modes_counted", "modes_counted_changed")
    )
    errors = ", ".join(number(pairs[name].median()) for name in ("mse", "mse_changed"))
    return [pairs["label"].iloc[0], *shares, modes, "" if sign else errors, str(len(by))]
