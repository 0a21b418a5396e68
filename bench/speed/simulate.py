"""How long a study would take on many workers: recorded job times, dealt out on paper.

    python -m bench.speed.simulate                    toy_grid at paper scale on 1 to 1,000 workers
    python -m bench.speed.simulate cifar10            on 1 to 33: no training of images is divided
    python -m bench.speed.simulate --out FILE         also write the table as Markdown

The committed reference says how long trainings really took against what `seconds` of the study's
package estimates; that ratio, and its scatter from stack to stack, is carried over to the stacks
of the scale asked for. Workers are alike and take the longest job first, as the engines do;
starting them and storing rows are left out.
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
from bench.cli import Parser, UsageError, complain
from bench.render import tables
from bench.spec import Spec, columns
from bench.store.rows import StoreError
from bench.studies import STUDIES
from bench.studies.selection import Shard
from bench.studies.study import SCALES

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SIZES = (1, 2, 4, 8, 16, 32)
HEADINGS = ["workers", "time", "efficiency", "bound by", "stragglers add"]
HEADINGS += ["best stack size", "time then", "time by --shard"]


class Recorded(NamedTuple):
    """What the reference says of a study's times."""

    rate: float  # FLOP/s at which `seconds` comes out right on the whole
    scatter: tuple[float, ...]  # of single stacks: real time to that estimate


def recorded(name: str, results: Path) -> Recorded:
    """From float32's rows at the largest scale published. Raises StoreError if none is."""
    study = STUDIES[name]
    scales = [s for s in SCALES if (results / name / f"{s}.parquet").is_file()]
    if not scales:
        raise StoreError(f"no times of {name} are published in {results}")
    real: defaultdict[float, float] = defaultdict(float)
    work: defaultdict[float, float] = defaultdict(float)  # at 1 FLOP/s
    for row in study.load(results, scales[-1])[0].to_pylist():
        if row["precision"] == "float32":
            spec = study.kind(**{column: row[column] for column in columns(study.kind)})
            stack = row["train_seconds"]  # members share one time
            fixed = study.seconds(spec, math.inf)  # what takes its time at any rate
            real[stack] += stack + (row.get("evaluation_seconds") or 0.0) - fixed
            work[stack] += study.seconds(spec, 1.0) - fixed
    rate = sum(work.values()) / sum(real.values())
    return Recorded(rate, tuple(real[stack] * rate / work[stack] for stack in real))


def deal(jobs: Sequence[float], workers: int) -> float:
    """Seconds until the last of the jobs ends, each started by the first worker that is free."""
    free = [0.0] * workers
    for job in jobs:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


class Simulation:
    """The stacks of a study at a scale and what they take."""

    def __init__(self, specs: Sequence[Spec], times: Recorded) -> None:
        self.specs, self.times = specs, times
        self.study = STUDIES[specs[0].study]
        self.stacks: list[list[Spec]] = self.study.stacks(specs, "cpu")
        self.each = {spec.id: self.study.seconds(spec, times.rate) for spec in specs}
        self.largest = max(map(len, self.stacks))

    def jobs(self, size: int = sys.maxsize, scatter: bool = True) -> list[float]:
        """Seconds of each job, the longest estimate first; stacks cut to at most `size`."""
        starts = ((stack, i) for stack in self.stacks for i in range(0, len(stack), size))
        return self._times([stack[i : i + size] for stack, i in starts], scatter)

    def _times(self, stacks: Sequence[Sequence[Spec]], scatter: bool = True) -> list[float]:
        cost = self.study.cost_of_size
        found = []
        for stack in stacks:
            estimate = sum(self.each[spec.id] for spec in stack) * cost.get(len(stack), 1.0)
            # Its own: a stack takes as long whoever runs it.
            luck = random.Random(stack[0].id).choice(self.times.scatter)
            found.append((estimate, luck if scatter else 1.0))
        found.sort(key=lambda job: job[0], reverse=True)
        return [estimate * luck for estimate, luck in found]

    def shards(self, n: int) -> float:
        """Seconds until the last of n processes ends, each with a shard of its own."""
        parts = [Shard(i, n).of(self.specs) for i in range(1, n + 1)]
        return max(sum(self._times(self.study.stacks(part, "cpu"))) for part in parts)

    def line(self, workers: int) -> tuple[str, ...]:
        """One line of the table, see HEADINGS."""
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
            duration(time),
            f"{share / time:.0%}",
            bound,
            f"{time / deal(foreseen, workers) * sum(foreseen) / sum(jobs) - 1:+.0%}",
            str(best),
            duration(times[best]),
            duration(self.shards(workers)),
        )


def duration(seconds: float) -> str:
    """In minutes or hours, to three digits."""
    if seconds >= 3.6e6:
        return f"{seconds / 3600:,.0f} h"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def markdown(study: str, scale: str, simulation: Simulation) -> str:
    """The table of a study at a scale, and what it is made from."""
    most = min(len(simulation.specs), WORKERS[-1])  # more would have nothing to do
    lines = [simulation.line(n) for n in (*(w for w in WORKERS if w < most), most)]
    jobs, scatter = simulation.jobs(), simulation.times.scatter
    return (
        f"{tables.markdown(HEADINGS, lines, ['---:'] * 8)}\n\n"
        f"{study} at scale {scale}: {len(simulation.specs):,} trainings in {len(jobs)} stacks of "
        f"up to {simulation.largest}, {duration(sum(jobs))} of one core in all, the largest "
        f"stack {duration(max(jobs))}. Times come from {len(scatter)} recorded stacks (their "
        f"estimate, scaled; single stacks took {min(scatter):.2f} to {max(scatter):.2f} of it, sd "
        f"{statistics.pstdev(scatter):.2f}). Simulated, not run.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("python -m bench.speed.simulate", __doc__)
    parser.add_argument("study", nargs="?", default="toy_grid", choices=STUDIES, metavar="STUDY")
    parser.add_argument("--scale", choices=SCALES, default="paper", help="paper")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table as Markdown")
    args = parser.parse_args(arguments)
    try:
        times = recorded(args.study, report.REFERENCE)
        specs = STUDIES[args.study].specs(args.scale)
        text = markdown(args.study, args.scale, Simulation(specs, times))
        if args.out:
            args.out.write_text(text, encoding="utf-8")
    except StoreError as error:
        return complain("bench.speed.simulate", error)
    except OSError as error:
        return complain("bench.speed.simulate", UsageError(f"--out {args.out}: {error.strerror}"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
