"""Tells what this machine can do, and whether all that the studies need works here.

    python -m bench.check            takes about a minute, and leaves nothing behind

It measures products, makes a training step of every method, trains toy stacks for a few batches,
looks for data, weights and room, and estimates how long every study takes. It downloads nothing.

    python -m bench.check --plugin my.py        takes seconds

It holds the methods and metrics of my.py to the contracts of the suite's own, and looks at nothing
else. It says in the method's terms what is wrong. What is allowed but may be a slip is a note, for
example a term of the paper's that the method leaves out.

Exit status: 0, 1 if something that a study needs is broken or a contract is (a line each on
standard error), 2 for wrong usage and for a file that can't be loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from joblib import cpu_count

from bench import plugins, run
from bench.check import machine, own
from bench.check.children import Found, Task, results_of
from bench.check.page import broken, text
from bench.check.scores import scores
from bench.check.steps import steps
from bench.check.times import stacks, times
from bench.cli import Parser, UsageError, complain, duration, to_path
from bench.engine.plan import choose_device
from bench.process import command

CHILDREN = 4  # processes at work at a time, or fewer on fewer cores


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.check", __doc__)
    about = "prints one object with all that was found, see bench/README.md"
    p.add_argument("--json", action="store_true", help=about)
    about = "checks this device (default: cuda where torch finds a GPU)"
    p.add_argument("--device", choices=("cpu", "cuda"), help=about)
    about = "looks whether results can be kept in this folder (default: results)"
    p.add_argument("--results", type=to_path, default=run.RESULTS, metavar="DIR", help=about)
    about = "checks what this file adds to the suite, and nothing else; may be given several times"
    plugins.add_option(p, about)
    return p


def look(device: str, results: Path) -> Iterator[Found]:
    """Yields parts of what is found, each as soon as it is known."""
    children = min(CHILDREN, cpu_count())
    yield {"device": device, "versions": machine.versions(), "machine": machine.parts()}
    unknown: Found = {"rates": [], "bandwidth": None, "free": None}
    (products,) = results_of([[Task(machine.products, (device,), unknown)]], 1)
    yield {"products": products}
    estimates = times(device)
    found = results_of([*estimates, *steps(device)], children)
    n = sum(map(len, estimates))
    yield {"steps": found[n:]}
    one = 1 if device == "cuda" else children  # trainings share no GPU by default
    yield {"stacks": results_of(stacks(device), one)}
    yield {"scores": results_of(scores(device), children)}
    yield {"free": machine.room(results), "results": machine.results_folder(results)}
    yield {"data": machine.data(), "weights": machine.weights()}
    yield {"times": found[:n]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    start, found = time.monotonic(), {}
    try:
        device, children = choose_device(args.device), min(CHILDREN, cpu_count())
        theirs = args.plugin and own.look_at(args.plugin, device, children)
        for part in theirs or look(device, args.results):
            found |= part
            for line in () if args.json else text(part):
                print(line, flush=True)
    except UsageError as error:
        return complain("bench.check", error)
    lines = broken(found)
    found |= {"broken": lines, "seconds": time.monotonic() - start}
    if args.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print(f"\nchecked in {duration(found['seconds'])}, {len(lines)} broken")
    for line in lines:
        print(f"broken: {line}", file=sys.stderr)
    return int(bool(lines))


if __name__ == "__main__":
    command(main)
