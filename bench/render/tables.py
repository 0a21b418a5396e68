"""What every table is: final strings under headings, in every format. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import pandas as pd

_UNIT, _SIGN = r"(?<=\d) (?=%|nats|h\b|min\b)", r"(?<=[<>≥±=]) (?=\w)|(?<=\w) (?=[<>≥±=] ?\w)"
_TIED = re.compile(rf"{_UNIT}|{_SIGN}|(?<=\d,) (?=[-+]?[\d.]+\])")
"""Spaces that belong to a number: before its unit, around ± and >, within an interval."""


def unbroken(text: str) -> str:
    """The text, whose numbers keep their units and intervals on one line."""
    return _TIED.sub("\N{NO-BREAK SPACE}", text)


Cell = Callable[[Any], str]
"""What a column says of a group of runs."""


@dataclass(frozen=True)
class Column:
    """A heading; `paper` columns hold the paper's values and are greyed, `long` ones sentences."""

    name: str
    text: bool = False
    paper: bool = False
    long: bool = False  # a cell may take several lines


@dataclass(frozen=True)
class Table:
    """Cells are final strings, the same in every format."""

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        """The headings."""
        return [column.name for column in self.columns]

    def _each(self, cells: Iterable[str], form: str) -> list[str]:
        """A row's cells, those of the paper's columns in this form."""
        pairs = zip(self.columns, cells, strict=True)
        return [form.format(cell) if column.paper and cell else cell for column, cell in pairs]

    def markdown(self) -> str:
        """The table and its caption; the paper's values are in italics, no short cell breaks."""
        heads, *rows = (self._each(row, "*{}*") for row in (self.names, *self.rows))
        spaces = [" " if column.long else "\N{NO-BREAK SPACE}" for column in self.columns]
        rows = [
            [cell.replace(" ", space) for cell, space in zip(row, spaces, strict=True)]
            for row in rows
        ]
        rules = ["---" if c.text else "---:" for c in self.columns]
        return f"{markdown(heads, rows, rules)}\n\n{self.caption}\n"

    def latex(self) -> str:
        """A booktabs table; needs the packages booktabs and xcolor."""
        lines = ([cell.translate(_TEX) for cell in row] for row in (self.names, *self.rows))
        grey = r"\textcolor{{gray}}{{{}}}"
        heads, *rows = (" & ".join(self._each(line, grey)) + r" \\" for line in lines)
        return _LATEX % {
            "caption": self.caption.translate(_TEX),
            "name": self.name,
            "align": "".join("l" if c.text else "r" for c in self.columns),
            "rows": "\n".join([heads, r"\midrule", *rows]),
        }

    def csv(self) -> str:
        """The cells under their headings."""
        frame = pd.DataFrame(self.rows, columns=self.names)
        return frame.to_csv(index=False, lineterminator="\n")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], rules: Sequence[str] = ()) -> str:
    """A Markdown table; `rules` align its columns, `---:` to the right, `---` where not given."""
    lines = [heads, rules or ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def tabulate(
    name: str,
    title: str,
    caption: str,
    columns: Sequence[tuple[Column | str, Cell]],
    groups: Iterable[Any],
    hide_empty: bool = False,
) -> Table:
    """A table with a row for each group of runs, whose every column is a function of the group.

    A heading alone stands over numbers. `hide_empty` leaves out columns of nothing: of a score
    that no run has.
    """
    heads = [head if isinstance(head, Column) else Column(head) for head, _ in columns]
    rows = [[cell(group) for _, cell in columns] for group in groups]
    pairs = zip(heads, *rows, strict=True)
    kept = [not hide_empty or not {*cells} <= {"–", ""} for _, *cells in pairs]
    rows = [list(compress(row, kept)) for row in rows]
    return Table(name, title, caption, list(compress(heads, kept)), rows)


def percent(share: float) -> str:
    """A share for a cell: blank where there is none."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def lam(value: float) -> str:
    """A lambda for a cell."""
    return f"{value:g}"


def number(value: float, digits: int = 3) -> str:
    """A value for a cell: blank where there is none, ∞ as inf."""
    if math.isnan(value):
        return "–"
    return f"{value:g}" if math.isinf(value) else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """A p for a cell: blank where there is none."""
    return "< 0.001" if p < 0.001 else number(p)


def mean(values: pd.Series, digits: int) -> str:
    """The mean of those values that there are, for a cell."""
    return number(float(values.astype(float).mean()), digits)


def spread(values: pd.Series, digits: int = 3) -> str:
    """The mean ± the standard deviation of those values that there are; of one, the mean alone."""
    values = values.dropna().astype(float)
    shown = mean(values, digits)
    return shown if len(values) < 2 else f"{shown} ± {number(float(values.std()), digits)}"


def partly(runs: pd.DataFrame, metric: Any, form: Callable[[pd.Series, int], str]) -> str:
    """A cell of a group's values of a metric, which says of how many runs if some lack a value.

    Diverged runs have none, and are counted elsewhere.
    """
    values = runs.loc[runs["status"] != "diverged", metric.columns[0]]
    text, n = form(values, metric.digits), int(values.notna().sum())
    return f"{text} (n = {n})" if 0 < n < len(values) else text


def extra(
    metrics: Iterable[Any],
    frame: pd.DataFrame,
    shown: Collection[str],
    form: Callable[[pd.Series, int], str] = mean,
) -> tuple[list[tuple[Column, Cell]], str]:
    """Columns for `tabulate` of the metrics that have values but no column, and their words.

    A metric has `columns` of `frame`, whose first is shown, `heading`, `digits` and
    `explanation`. `shown` are the columns that the table has, or leaves out on purpose. `form`
    makes a cell of a group's values and the digits, see `partly`. The words are for the caption.
    """
    filled = {*frame.columns[frame.notna().any()]} - {*shown}
    there = [each for each in metrics if each.columns[0] in filled]

    def cell(metric: Any) -> Cell:
        return lambda runs: partly(runs, metric, form)

    def explained(metric: Any) -> str:
        words = metric.explanation
        named = not words or words.lower().startswith(metric.heading.lower())
        return words if named else f"{metric.heading}: {words}"

    def lacking(metric: Any) -> str:
        n = int((frame[metric.columns[0]].isna() & (frame["status"] != "diverged")).sum())
        return f"{n} of {len(frame)} trainings have no {metric.heading}." if n else ""

    columns = [(Column(each.heading), cell(each)) for each in there]
    words = (text for each in there for text in (explained(each), lacking(each)) if text)
    return columns, "".join(f" {text}" for text in words)


_LATEX = r"""\begin{table}
\centering
\caption{%(caption)s}
\label{tab:%(name)s}
\begin{tabular}{%(align)s}
\toprule
%(rows)s
\bottomrule
\end{tabular}
\end{table}
"""
_SPELLED = {character: f"\\{character}" for character in "&%$#_{}"}
_SPELLED |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPELLED |= {"<": "$<$", ">": "$>$", "≥": r"$\geq$", "−": "$-$", "×": r"$\times$", "±": r"$\pm$"}
_SPELLED |= {"λ": r"$\lambda$", "σ": r"$\sigma$", "∞": r"$\infty$", "²": r"\textsuperscript{2}"}
_SPELLED |= {"–": "--", "′": "'", "é": r"\'e", "…": r"\ldots{}"}
_TEX = str.maketrans(_SPELLED)
