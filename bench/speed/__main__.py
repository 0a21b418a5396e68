"""Measures how fast the suite is on this machine, beside plain loops on equal cores.

    python -m bench.speed                  takes about ten minutes; leave the machine otherwise idle
    python -m bench.speed --check          compares ratios with those of ten recorded runs
    python -m bench.speed --device cuda    measures a GPU alone, in less than three minutes

The suite and a plain loop work in turns of a fraction of a second, so that other programs slow
both. The ratio shown is the median over turns.

Exit status: 0, 1 if --check found a ratio below those of the recorded runs, 2 for wrong usage.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from bench.cli import Parser, UsageError, complain, to_file
from bench.engine.job import keep_freed_memory
from bench.engine.plan import choose_device
from bench.process import command
from bench.render.tables import markdown
from bench.speed import gpu, images, toy
from bench.speed.rates import Line
from bench.store.provenance import cpu_name, need_checkout

HEADINGS = ("measured", "here", "asked for")


RECORDED = Path(__file__).parent / "ratios.csv"
"""The lines of recorded runs that tell a ratio: what was measured, here, asked for."""
LEVEL = 0.05
"""Chance that --check finds any ratio too low although nothing has changed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("python -m bench.speed", __doc__)
    parser.add_argument("--out", type=to_file, metavar="FILE", help="also writes the table here")
    about = """measures this device: cpu, the default, beside other programs, or cuda alone, with
        its share of the rate of products and of memory"""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=about)
    only = parser.add_mutually_exclusive_group()
    about = "measures ratios alone, and fails if one is lower than recorded ratios allow"
    only.add_argument("--check", action="store_true", help=about)
    about = f"measures ratios alone, and adds them to {RECORDED.name}"
    only.add_argument("--record", action="store_true", help=about)
    about = "shows recorded ratios, and measures all else"
    only.add_argument("--recorded", action="store_true", help=about)
    args = parser.parse_args(arguments)
    try:
        if args.record:
            need_checkout("--record")
    except UsageError as error:
        return complain("bench.speed", error)
    torch.set_num_threads(1)
    keep_freed_memory()
    if args.device == "cuda":
        try:
            if args.check or args.record or args.recorded:
                raise UsageError("ratios are of a CPU; allowed with --device cuda: --out")
            choose_device("cuda")
        except UsageError as error:
            return complain("bench.speed", error)
        _write(gpu.report(gpu.Device("cuda")), args.out)
        return 0
    lines = of_runs(recorded()) if args.recorded else []
    with tempfile.TemporaryDirectory() as folder:
        limits = () if args.check or args.record else toy.limits(Path(folder))
        beside = () if args.recorded else (*toy.ratios(), *images.ratios())
        for line in chain(*beside, *limits):
            lines.append(line)
            print(": ".join(line[:2]), flush=True)
    machine = f"{cpu_name()}, torch {torch.__version__}, one thread a process"
    text = f"{markdown(HEADINGS, lines)}\n\nMeasured on {machine}.\n"
    _write(text, args.out)
    if args.record:
        with RECORDED.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(filter(ratio, lines))
    low = too_low(lines, recorded()) if args.check else []
    for line in low:
        print(line, file=sys.stderr)
    return int(bool(low))


def _write(text: str, out: Path | None) -> None:
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


def ratio(line: Line) -> float | None:
    """Returns the ratio that a line tells, such as "1.25 x", or None."""
    found = re.match(r"([\d.]+) x", line[1])
    return float(found[1]) if found else None


def recorded() -> list[Line]:
    """Returns the lines of all recorded runs."""
    if not RECORDED.exists():
        return []
    with RECORDED.open(encoding="utf-8", newline="") as file:
        return [(measured, here, asked) for measured, here, asked in csv.reader(file)]


def by_name(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Returns the ratios of these lines by what they measure."""
    found: dict[str, list[float]] = {}
    for line in lines:
        if known := ratio(line):
            found.setdefault(line[0], []).append(known)
    return found


def of_runs(lines: Sequence[Line]) -> list[Line]:
    """Returns a line for each ratio of recorded runs: that of the median run, with the extremes."""
    found = []
    for name, ratios in by_name(lines).items():
        middle = sorted(ratios)[len(ratios) // 2]
        _, here, asked = next(line for line in lines if line[0] == name and ratio(line) == middle)
        start, _, rest = here.partition(" x")
        extremes = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} runs"
        found.append((name, f"{start} x ({extremes}){rest}", asked))
    return found


def too_low(lines: Sequence[Line], runs: Sequence[Line]) -> list[str]:
    """Returns a line for each ratio that is lower than the next of these runs would be.

    The bound is the lower end of Student's t prediction interval for logarithms of ratios, at a
    family-wise LEVEL. A ratio with fewer than two recorded runs has no bound.
    """
    from scipy.stats import t

    found, low = by_name(lines), []
    known = {name: np.log(of) for name, of in by_name(runs).items() if name in found}
    known = {name: logs for name, logs in known.items() if len(logs) > 1}
    for name, logs in known.items():
        n = len(logs)
        quantile = t.ppf(1 - LEVEL / len(known), n - 1)
        least = float(np.exp(logs.mean() - quantile * logs.std(ddof=1) * (1 + 1 / n) ** 0.5))
        (here,) = found[name]
        if here < least:
            low.append(f"{name}: {here:.2f} x, below {least:.2f} x, the bound from {n} runs")
    return low


if __name__ == "__main__":
    command(main)
