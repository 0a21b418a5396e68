"""Simulates how long a study takes on many workers, from recorded times of its jobs.

    python -m bench.speed.simulate                toy_grid at paper scale on 1 to 1,000 workers
    python -m bench.speed.simulate cifar10        1 to 33 workers: no training of images is divided

The committed results say how much longer jobs took than `Study.seconds` estimates. The simulation
carries that ratio, and its scatter over stacks, to the stacks of the scale asked for. Workers are
alike, and the longest job starts first, as in the engine. Starting workers and storing rows cost
nothing here.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import report
from bench.cli import Parser, UsageError, complain, duration, to_file
from bench.process import command
from bench.render import tables
from bench.spec import Spec, columns
from bench.store.provenance import need_checkout
from bench.store.rows import StoreError
from bench.studies import STUDIES
from bench.studies.selection import Shard
from bench.studies.study import SCALES

FEWEST = 20
"""Recorded stacks that say enough of how their times scatter."""
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SIZES = (1, 2, 4, 8, 16, 32)
HEADINGS = ["workers", "time", "efficiency", "bound by", "stragglers add"]
HEADINGS += ["best stack size", "time then", "time by --shard"]


class Recorded(NamedTuple):
    """Holds what the committed results say about a study's times."""

    rate: float  # FLOP/s at which `Study.seconds` gives the recorded total
    scatter: tuple[float, ...]  # of each stack: recorded time to that estimate


def recorded(name: str, results: Path) -> Recorded:
    """Returns the times of the study's own trainings in float32.

    They are those of the largest published scale with FEWEST stacks, or of the one with most.
    Raises StoreError if nothing is published.
    """
    scales = [s for s in SCALES[::-1] if (results / name / f"{s}.parquet").is_file()]
    found = []
    for scale in scales:
        found.append(_times(name, scale, results))
        if len(found[-1].scatter) >= FEWEST:
            return found[-1]
    if not found:
        raise StoreError(f"no times of {name} are published in {results}")
    return max(found, key=lambda times: len(times.scatter))


def _times(name: str, scale: str, results: Path) -> Recorded:
    """Returns the times at a scale, of the processor where any row knows them.

    The processor's seconds leave out what other programs took.
    """
    study = STUDIES[name]
    real: defaultdict[float, float] = defaultdict(float)
    work: defaultdict[float, float] = defaultdict(float)  # at 1 FLOP/s
    rows = study.load(results, scale)[0].to_pylist()
    seeds = 1 + max(row["seed"] for row in rows)
    own = {spec.id for spec in study.specs(scale, seeds=seeds)}
    rows = [row for row in rows if row["id"] in own]
    for row in [row for row in rows if row["cpu_seconds"]] or rows:
        spec = study.kind(**{column: row[column] for column in columns(study.kind)})
        stack = row["cpu_seconds"] or row["train_seconds"]  # members share one time
        fixed = study.seconds(spec, math.inf)  # seconds that no rate shortens
        real[stack] += stack + (row.get("evaluation_seconds") or 0.0) - fixed
        work[stack] += study.seconds(spec, 1.0) - fixed
    rate = sum(work.values()) / sum(real.values())
    return Recorded(rate, tuple(real[stack] * rate / work[stack] for stack in real))


def deal(jobs: Sequence[float], workers: int) -> float:
    """Returns the seconds until the last job ends; the first free worker starts each job."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


class Simulation:
    """Holds the stacks of a study at a scale, and the seconds that they take."""

    def __init__(self, specs: Sequence[Spec], times: Recorded) -> None:
        self.specs, self.times = specs, times
        self.study = STUDIES[specs[0].study]
        self.stacks: list[list[Spec]] = self.study.stacks(specs, "cpu")
        self.each = {spec.id: self.study.seconds(spec, times.rate) for spec in specs}
        self.largest = max(map(len, self.stacks))

    def jobs(self, size: int = sys.maxsize, scatter: bool = True) -> list[float]:
        """Returns the seconds of each job, longest estimate first; jobs are at most `size` long."""
        starts = ((stack, i) for stack in self.stacks for i in range(0, len(stack), size))
        return self._times([stack[i : i + size] for stack, i in starts], scatter)

    def _times(self, stacks: Sequence[Sequence[Spec]], scatter: bool = True) -> list[float]:
        cost = self.study.cost_of_size
        found = []
        for stack in stacks:
            estimate = sum(self.each[spec.id] for spec in stack) * cost.get(len(stack), 1.0)
            # The scatter depends on the stack alone: it takes as long on any worker.
            luck = random.Random(stack[0].id).choice(self.times.scatter)
            found.append((estimate, luck if scatter else 1.0))
        found.sort(key=lambda job: job[0], reverse=True)
        return [estimate * luck for estimate, luck in found]

    def shards(self, n: int) -> float:
        """Returns the seconds until the last of n processes ends, each with its own shard."""
        parts = [Shard(i, n).of(self.specs) for i in range(1, n + 1)]
        return max(sum(self._times(self.study.stacks(part, "cpu"))) for part in parts)

    def line(self, workers: int) -> tuple[str, ...]:
        """Returns one line of the table, see HEADINGS."""
        jobs, foreseen = self.jobs(), self.jobs(scatter=False)
        time, share = deal(jobs, workers), sum(jobs) / workers
        bound = "the work" if time < 1.05 * share else "the end: few jobs a worker"
        if max(jobs) > 0.95 * time:
            bound = "the largest stack"
        sizes = [*(size for size in SIZES if size < self.largest), self.largest]
        times = {size: deal(self.jobs(size), workers) for size in sizes}
        best = max(size for size in times if times[size] <= 1.01 * min(times.values()))
        return (
            f"{workers:,}",
            duration(time, 3),
            f"{share / time:.0%}",
            bound,
            f"{time / deal(foreseen, workers) * sum(foreseen) / sum(jobs) - 1:+.0%}",
            str(best),
            duration(times[best], 3),
            duration(self.shards(workers), 3),
        )


def markdown(study: str, scale: str, simulation: Simulation) -> str:
    """Returns the table of a study at a scale, and a note on how it was made."""
    most = min(len(simulation.specs), WORKERS[-1])  # more workers would have nothing to do
    lines = [simulation.line(n) for n in (*(w for w in WORKERS if w < most), most)]
    jobs, scatter = simulation.jobs(), simulation.times.scatter
    return (
        f"{tables.markdown(HEADINGS, lines, ['---:'] * 8)}\n\n"
        f"{study} at scale {scale}: {len(simulation.specs):,} trainings in {len(jobs)} stacks of "
        f"up to {simulation.largest}, {duration(sum(jobs), 3)} of one core in all, the largest "
        f"stack {duration(max(jobs), 3)}. Times come from {len(scatter)} recorded stacks (their "
        f"estimate, scaled; single stacks took {min(scatter):.2f} to {max(scatter):.2f} of it, sd "
        f"{statistics.pstdev(scatter):.2f}). Simulated, not run.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("python -m bench.speed.simulate", __doc__)
    metavar = "|".join(STUDIES)
    parser.add_argument("study", nargs="?", default="toy_grid", choices=STUDIES, metavar=metavar)
    parser.add_argument("--scale", choices=SCALES, default="paper", help="default: paper")
    parser.add_argument("--out", type=to_file, metavar="FILE", help="also writes the table here")
    args = parser.parse_args(arguments)
    try:
        need_checkout("The simulation")
        times = recorded(args.study, report.REFERENCE)
        specs = STUDIES[args.study].specs(args.scale)
        text = markdown(args.study, args.scale, Simulation(specs, times))
        if args.out:
            args.out.write_text(text, encoding="utf-8")
    except UsageError as error:
        return complain("bench.speed.simulate", error)
    except OSError as error:
        return complain("bench.speed.simulate", UsageError(f"--out {args.out}: {error.strerror}"))
    print(text)
    return 0


if __name__ == "__main__":
    command(main)
