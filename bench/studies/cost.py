"""Measures what trainings take, and how fast this machine works beside other programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

STAT, AUTOGROUP = Path("/proc/stat"), Path("/proc/sys/kernel/sched_autogroup_enabled")
STAYS = 0.1
"""Share of its time that Linux leaves to a program of niceness 10 beside one of niceness 0."""
FULL = 0.95
"""Share of its cores' time that a machine works if it has more work than cores."""


def matmul_rate(device: str, width: int | None = None, budget: float = 0.15) -> float:
    """Returns the FLOP/s of batched products of this width, measured for `budget` seconds.

    A GPU multiplies as many matrices as a stack of the toy study has. Its products are wide by
    default, because the start of a narrow one takes longer than the product.
    """
    import torch

    width = width or (64 if device == "cpu" else 512)
    n, batch = (16, 128) if device == "cpu" else (128, 128)
    a = torch.ones(n, width, width, device=device)
    b = torch.ones(n, width, batch, device=device)
    torch.set_num_threads(1)  # as in a worker
    return 2 * n * width * width * batch * times_a_second(lambda: torch.bmm(a, b), device, budget)


def times_a_second(work: Callable[[], object], device: str, budget: float) -> float:
    """Returns how often a second the work is done, at best, measured for `budget` seconds."""
    import torch

    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    best = 0.0
    work()
    wait()
    stop = time.perf_counter() + budget
    while (start := time.perf_counter()) < stop:
        for _ in range(4):
            work()
        wait()
        best = max(best, 4 / (time.perf_counter() - start))
    return best


def cpu_seconds(step: Callable[[], object], budget: float = 0.15) -> float:
    """Returns the processor's seconds of a step, measured for `budget` seconds.

    The first step does not count, because it may compile code. Unlike seconds of the clock these
    leave out the time that other programs take.
    """
    import torch

    torch.set_num_threads(1)  # as in a worker
    stop = time.perf_counter() + budget
    step()
    steps, start = 0, time.process_time()
    while not steps or time.perf_counter() < stop:
        step()
        steps += 1
    return (time.process_time() - start) / steps


class Timed(Protocol):
    """Knows what its training took so far: seconds of the clock, and of the processor."""

    seconds: float
    cpu_seconds: float


@contextmanager
def counted(trainers: Sequence[Timed]) -> Iterator[None]:
    """Counts the time inside as training, in equal parts for all of these.

    Seconds of the processor are those of all threads of this process.
    """
    clock, processor = time.perf_counter(), time.process_time()
    yield
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    for trainer in trainers:
        trainer.seconds += clock / len(trainers)
        trainer.cpu_seconds += processor / len(trainers)


class Crowd:
    """Measures, from its making on, how many cores other programs want."""

    def __init__(self) -> None:
        self.cores = _cores()
        self.start = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        return time.perf_counter(), time.process_time(), *_busy(self.cores)

    def others(self) -> float:
        """Returns for how many cores other programs have work; 0 where the system does not say."""
        wall, own, busy, pressing = (
            max(b - a, 1e-9) for a, b in zip(self.start, self._now(), strict=True)
        )
        found = max(0.0, pressing - own) / wall
        # Where no core is idle, other programs want more than they get, as this process does.
        return found * wall / min(own, wall) if busy > FULL * len(self.cores) * wall else found

    def share(self, workers: int) -> float:
        """Returns the share of a core that each of so many processes will have."""
        return min(1.0, len(self.cores) / (workers + self.others())) if self.cores else 1.0


def _cores() -> set[str]:
    """Returns the lines of STAT that tell of this process's cores, none on other systems."""
    if not STAT.is_file() or not hasattr(os, "sched_getaffinity"):
        return set()
    return {f"cpu{core}" for core in os.sched_getaffinity(0)}


def _busy(cores: set[str]) -> tuple[float, float]:
    """Returns the seconds that these cores have worked, and the seconds that do not yield to us."""
    if not cores:
        return 0.0, 0.0
    busy, yielding = 0, 0
    for line in STAT.read_text().splitlines():
        name, *numbers = line.split()
        if name in cores:
            user, nice, system, _idle, _io, irq, soft, steal = map(int, numbers[:8])
            busy += user + nice + system + irq + soft + steal
            yielding += nice
    # This process is nice as well, or niceness counts among the programs of one session only.
    if os.getpriority(os.PRIO_PROCESS, 0) > 0 or _by_session():
        yielding = 0
    tick = os.sysconf("SC_CLK_TCK")
    return busy / tick, (busy - (1 - STAYS) * yielding) / tick


def _by_session() -> bool:
    """Returns whether Linux shares its cores among sessions, and not among programs."""
    return AUTOGROUP.is_file() and AUTOGROUP.read_text().strip() == "1"
