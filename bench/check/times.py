"""Times toy stacks, and estimates how long every study takes."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import run
from bench.check.children import Found, Task
from bench.check.machine import kib
from bench.check.steps import NO_GRAPH
from bench.engine.plan import Plan, together, worth
from bench.studies import STUDIES
from bench.studies.study import SCALES, Study
from bench.studies.toy_grid.data import N_TRAIN
from bench.studies.toy_grid.job import flops
from bench.studies.toy_grid.train import Trainer
from models.precision import allow_tf32

TIMED = {"cpu": "quick", "cuda": "paper"}
"""The scale whose steps are timed, because a run is likely to have that scale there."""


def stacks(device: str) -> list[list[Task]]:
    """Returns the tasks that train a toy stack of each kind at each scale, a few batches long."""
    measured = ("members", "widths", "seconds_a_batch", "memory", "graph", "no_graph")
    unknown: Found = dict.fromkeys(measured)
    return [
        [
            Task(stack, (scale, cycle, device), {"scale": scale, "cycle": cycle} | unknown)
            for scale in SCALES
        ]
        for cycle in (False, True)
    ]


def stack(scale: str, cycle: bool, device: str, record: bool = True) -> Found:
    """Returns time and memory of the dearest stack that the toy study cuts at this scale.

    `cycle` says whether lambda is above 0 in the stack.
    """
    allow_tf32(False)
    study = STUDIES["toy_grid"]
    kind = [each for each in study.stacks(study.specs(scale), device) if (each[0].lam > 0) is cycle]
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the most memory counts from here, proc(5)
    specs = [replace(spec, epochs=2) for spec in max(kind, key=lambda each: sum(map(flops, each)))]
    trainer = Trainer(specs, device, record=record)
    batches = N_TRAIN // specs[0].batch
    if device == "cuda":
        ends: list[float] = []

        def mark(epoch: int) -> None:
            torch.cuda.synchronize()
            ends.append(time.perf_counter())

        trainer.train(mark)
        seconds, memory = (ends[2] - ends[1]) / batches, torch.cuda.max_memory_reserved()
    else:
        first, second, third = next(trainer.epochs())[:3]
        trainer.updates(first)
        start = time.perf_counter()
        trainer.updates(second)
        trainer.updates(third)
        seconds, memory = (time.perf_counter() - start) / 2, kib("/proc/self/status", "VmHWM")
    widths = sorted({width for spec in specs for width in spec.widths})
    found = {"members": len(specs), "widths": widths, "seconds_a_batch": seconds, "memory": memory}
    wrong = None if all(trainer.finite()) else "parameters are not finite"
    no_graph = None if trainer.graph else NO_GRAPH
    return found | {"graph": trainer.graph, "no_graph": no_graph, "failure": wrong}


def times(device: str) -> list[list[Task]]:
    """Returns the tasks that estimate every study at every scale."""
    unknown = dict.fromkeys(("trainings", "jobs", "workers", "minutes", "by"))
    tasks = [
        Task(minutes, (name, scale, device), {"study": name, "scale": scale} | unknown)
        for name in STUDIES
        for scale in SCALES
    ]
    # Two that measured products at a time would share a GPU. A CPU's workers share the machine too.
    return [tasks] if device == "cuda" else [[task] for task in tasks]


def minutes(name: str, scale: str, device: str, record: bool = True) -> Found:
    """Returns what `bench.run` would need for a whole study, on an idle machine.

    Steps are timed at scale TIMED. Other estimates come from rates of products.
    """
    with TemporaryDirectory() as empty:
        options = [name, "--scale", scale, "--device", device, "--results", empty]
        plan = Plan(run.parser().parse_args([*options, "--status", "--json"]))
    stacks = plan.study.stacks(plan.specs, device)
    products = Study.estimate(plan.study, stacks, device)
    timed = scale == TIMED[device]
    workers = worth(plan.workers, products)
    seconds = together(plan.estimate(stacks) if timed else products, workers)
    found: Found = {"trainings": len(plan.specs), "jobs": len(stacks), "workers": workers}
    return found | {"minutes": seconds / 60, "by": "timing" if timed else "products"}
