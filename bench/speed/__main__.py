"""Measures how fast the suite is on this machine, beside plain loops on equal cores.

    python -m bench.speed            takes about ten minutes; leave the machine otherwise idle
    python -m bench.speed --check    compares ratios with those of ten recorded runs, ratios.csv

The suite and a plain loop work in turns of a fraction of a second, so that other programs slow
both. The ratio shown is the median over turns.

Exit status: 0, 1 if --check found a ratio below those of the recorded runs, 2 for wrong usage.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from bench.cli import Parser
from bench.engine.job import keep_freed_memory
from bench.render.tables import markdown
from bench.speed import images, toy
from bench.speed.rates import Line
from bench.store.provenance import cpu_name

HEADINGS = ("measured", "here", "asked for")


RECORDED = Path(__file__).parent / "ratios.csv"
"""A ratio in each row, and what was measured. A run has a row for each of its ratios."""
LEVEL = 0.05
"""Chance that --check finds any ratio too low although nothing has changed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("python -m bench.speed", __doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also writes the table here")
    about = "measures ratios alone, and fails if one is lower than recorded ratios allow"
    parser.add_argument("--check", action="store_true", help=about)
    about = f"measures ratios alone, and adds them to {RECORDED.name}"
    parser.add_argument("--record", action="store_true", help=about)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        limits = () if args.check or args.record else toy.limits(Path(folder))
        for line in chain(*toy.ratios(), *limits, *images.ratios()):
            lines.append(line)
            print(": ".join(line[:2]), flush=True)
    machine = f"{cpu_name()}, torch {torch.__version__}, one thread a process"
    text = f"{markdown(HEADINGS, lines)}\n\nRatios measured in one run: {machine}.\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    found = ratios(lines)
    if args.record:
        with RECORDED.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows((ratio, name) for name, ratio in found.items())
    low = too_low(found, recorded()) if args.check else []
    for line in low:
        print(line, file=sys.stderr)
    return int(bool(low))


def ratios(lines: Sequence[Line]) -> dict[str, float]:
    """Returns the ratio of every line that begins with one, such as 1.25 x, by what it measures."""
    matches = {name: re.match(r"([\d.]+) x", here) for name, here, _ in lines}
    return {name: float(match[1]) for name, match in matches.items() if match}


def recorded() -> dict[str, list[float]]:
    """Returns the ratios of the recorded runs by what they measure."""
    found: dict[str, list[float]] = {}
    if RECORDED.exists():
        with RECORDED.open(encoding="utf-8", newline="") as file:
            for ratio, name in csv.reader(file):
                found.setdefault(name, []).append(float(ratio))
    return found


def too_low(found: Mapping[str, float], runs: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns a line for each ratio that is lower than the next of these runs would be.

    The bound is the lower end of Student's t prediction interval for logarithms of ratios, at a
    family-wise LEVEL. A ratio with fewer than two recorded runs has no bound.
    """
    from scipy.stats import t

    lines = []
    known = {name: np.log(runs[name]) for name in found if len(runs.get(name, ())) > 1}
    for name, logs in known.items():
        n = len(logs)
        quantile = t.ppf(1 - LEVEL / len(known), n - 1)
        least = float(np.exp(logs.mean() - quantile * logs.std(ddof=1) * (1 + 1 / n) ** 0.5))
        if found[name] < least:
            lines.append(
                f"{name}: {found[name]:.2f} x, below {least:.2f} x, the bound from {n} runs"
            )
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
