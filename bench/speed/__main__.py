"""How fast the suite is here: ratios measured in one run on equal cores, never bare seconds.

    python -m bench.speed            about five minutes; leave the machine otherwise idle

Rival timings are taken in turns of a fraction of a second and compared turn by turn, so that a
busy neighbour slows both. The ratio shown is the median over turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.cli import Parser
from bench.engine.job import keep_freed_memory
from bench.speed import images, toy
from bench.speed.turns import Line
from bench.store import provenance

HEADINGS = ("measured", "here", "asked for")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m bench.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table as Markdown")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    lines: list[Line] = []
    console = Console(width=None if Console().is_terminal else 150)
    with tempfile.TemporaryDirectory() as folder:
        for line in chain(*toy.sections(Path(folder)), *images.sections()):
            lines.append(line)
            console.print(": ".join(line[:2]), highlight=False)
    table = Table(*HEADINGS)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if args.out:
        args.out.write_text(markdown(lines), encoding="utf-8")
    return 0


def markdown(lines: Sequence[Line]) -> str:
    rows = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, ("---",) * 3, *lines)]
    machine = f"{provenance.cpu_name()}, torch {torch.__version__}, one thread a process"
    return "\n".join([*rows, "", f"Ratios measured in one run: {machine}.", ""])


if __name__ == "__main__":
    raise SystemExit(main())
