"""Measures how fast the suite is on this machine, beside plain loops on equal cores.

    python -m bench.speed            takes about five minutes; leave the machine otherwise idle

The suite and a plain loop work in turns of a fraction of a second, so that other programs slow
both. The ratio shown is the median over turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch

from bench.cli import Parser
from bench.engine.job import keep_freed_memory
from bench.render.tables import markdown
from bench.speed import images, toy
from bench.store.provenance import cpu_name

HEADINGS = ("measured", "here", "asked for")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("python -m bench.speed", __doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also writes the table here")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for line in chain(*toy.sections(Path(folder)), *images.sections()):
            lines.append(line)
            print(": ".join(line[:2]), flush=True)
    machine = f"{cpu_name()}, torch {torch.__version__}, one thread a process"
    text = f"{markdown(HEADINGS, lines)}\n\nRatios measured in one run: {machine}.\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
