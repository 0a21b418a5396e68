"""What every table is: final strings under headings, in every format. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Column:
    """A heading; `paper` columns hold the paper's values and are greyed."""

    name: str
    text: bool = False
    paper: bool = False


@dataclass(frozen=True)
class Table:
    """Cells are final strings, the same in every format."""

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def filled(self) -> Table:
        """The table without columns of nothing: a score that no run has."""
        columns = range(len(self.columns))
        kept = [i for i in columns if any(row[i] not in ("–", "") for row in self.rows)]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)

    def markdown(self) -> str:
        def row(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        heads = [f"*{c.name}*" if c.paper else c.name for c in self.columns]
        rule = ["---" if c.text else "---:" for c in self.columns]
        cells = [
            [f"*{v}*" if c.paper and v else v for c, v in zip(self.columns, r, strict=True)]
            for r in self.rows
        ]
        lines = [row(heads), row(rule), *map(row, cells)]
        return "\n".join(lines) + f"\n\n{self.caption}\n"

    def latex(self) -> str:
        """A booktabs table; needs the packages booktabs and xcolor."""

        def cell(column: Column, text: str) -> str:
            text = _tex(text)
            return rf"\textcolor{{gray}}{{{text}}}" if column.paper and text else text

        def row(cells: Sequence[str]) -> str:
            pairs = zip(self.columns, cells, strict=True)
            return " & ".join(cell(c, v) for c, v in pairs) + r" \\"

        align = "".join("l" if c.text else "r" for c in self.columns)
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_tex(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{align}}}",
                r"\toprule",
                row([c.name for c in self.columns]),
                r"\midrule",
                *(row(r) for r in self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def csv(self) -> str:
        frame = pd.DataFrame(self.rows, columns=[c.name for c in self.columns])
        return frame.to_csv(index=False, lineterminator="\n")


def tabulate(
    name: str,
    title: str,
    caption: str,
    columns: Sequence[tuple[Column, Callable[[Any], str]]],
    groups: Iterable[Any],
    hide_empty: bool = False,
) -> Table:
    """A table with a row for each group of runs, whose every column is a function of the group.

    `hide_empty` leaves out columns of nothing.
    """
    rows = [[cell(group) for _, cell in columns] for group in groups]
    table = Table(name, title, caption, [column for column, _ in columns], rows)
    return table.filled() if hide_empty else table


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "λ": r"$\lambda$",
    "≥": r"$\geq$",
    "²": r"\textsuperscript{2}",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "σ": r"$\sigma$",
    "∞": r"$\infty$",
    "′": "'",
    "±": r"$\pm$",
    "é": r"\'e",
    "…": r"\ldots{}",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def lam(value: float) -> str:
    return f"{value:g}"


def number(value: float, digits: int = 3) -> str:
    """A value for a cell: blank where there is none, ∞ as inf."""
    if math.isnan(value):
        return "–"
    return f"{value:g}" if math.isinf(value) else f"{value:.{digits}f}"


def summary(table: Table, without: Collection[str]) -> Table:
    """The columns of a table that a reader looks at first: all but these."""
    kept = [i for i, column in enumerate(table.columns) if column.name not in without]
    return Table(
        "summary",
        "Summary",
        table.caption,
        [table.columns[i] for i in kept],
        [[row[i] for i in kept] for row in table.rows],
    )
