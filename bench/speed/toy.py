"""How fast stacks of toy models train here, and how fast many results are stored and read."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.engine import cost
from bench.engine import job as jobs
from bench.engine.job import keep_freed_memory
from bench.engine.plan import count
from bench.spec import columns, protocol
from bench.speed.plain_toy import PlainTrainer
from bench.speed.turns import TURN, Line, in_turns, steps_a_turn
from bench.studies import STUDIES
from bench.studies.cuda import allow_tf32
from bench.studies.study import Job
from bench.studies.toy_grid import runs as frames
from bench.studies.toy_grid.job import TRACES, flops, stacks
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer

WIDTHS = {32: 5.5, 64: 3.0, 128: 2.0, 256: 1.4, 512: 1.1}
"""Training steps a second a core against the plain loop, at least, by width."""
MANY = 100_000


def sections(folder: Path) -> Iterator[Iterator[Line]]:
    """Everything that is measured, in an empty folder."""
    yield against_plain_loop()
    yield two_workers()
    yield memory(folder / "memory")
    yield many_specs()
    yield many_results(folder)
    if torch.cuda.is_available():
        yield paper_on_gpu()


def spec(width: int) -> ToySpec:
    """Two hidden layers of this width in all networks, three updates of each kind a batch."""
    nets = ("encoder", "decoder", "critic")
    widths: dict[str, Any] = {f"{net}_width": width for net in nets}
    steps = {"critic_steps": 3, "model_steps": 3}
    return ToySpec(study="toy_grid", scale="quick", method="svae_r", lam=0.1, **steps, **widths)


def members(width: int) -> list[ToySpec]:
    """A stack as `stacks` cuts it: methods, lambdas and seeds of one configuration."""
    pool = [
        replace(spec(width), method=method, lam=lam, seed=seed)
        for seed in range(16)
        for method in ("svae_r", "alice")
        for lam in (0.01, 0.1)
    ]
    return stacks(pool, "cpu")[0]


def stacked(width: int) -> Callable[[], float]:
    """Training steps a second of all members together."""
    specs = members(width)
    trainer = Trainer(specs)
    (batch, *_) = next(trainer.epochs())
    return steps_a_turn(lambda: trainer.updates(batch), 6 * len(specs))


def plain(width: int) -> Callable[[], float]:
    """Training steps a second of the plain loop."""
    trainer = PlainTrainer(spec(width))
    (batch, *_) = trainer.batches(next(trainer.epochs()))
    return steps_a_turn(lambda: trainer.updates(*batch), 6)


def products(width: int) -> Callable[[], float]:
    """FLOP/s of batched products of this width."""
    return lambda: cost.matmul_rate("cpu", width, TURN)


def against_plain_loop() -> Iterator[Line]:
    for width, least in WIDTHS.items():
        turns = in_turns(stacked(width), plain(width), products(width))
        ratio = statistics.median(s / p for s, p, _ in turns)
        one = spec(width)
        a_step = flops(one) / (one.epochs * 16 * 6)
        share = statistics.median(s * a_step / rate for s, _, rate in turns)
        rate = statistics.median(rate for _, _, rate in turns)
        yield (
            f"steps/s/core, stack of {len(members(width))} : plain loop, width {width}",
            f"{ratio:.2f} x, {share:.0%} of this core's {rate / 1e9:.0f} GFLOP/s in products",
            f">= {least} x",
        )


def _work(kind: str, start: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    turn = {"train": stacked, "products": products}[kind](64)
    turn()
    start.wait()
    rates.put(statistics.mean(turn() for _ in range(8)))


def together(kind: str, n: int) -> float:
    """Summed rate of n processes doing the same thing at once."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(n), context.Queue()
    workers = [context.Process(target=_work, args=(kind, start, rates)) for _ in range(n)]
    for worker in workers:
        worker.start()
    total = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def two_workers() -> Iterator[Line]:
    kinds = ("train", "products")
    turns = [{kind: together(kind, 2) / together(kind, 1) for kind in kinds} for _ in range(3)]
    ratio = statistics.median(turn["train"] / turn["products"] for turn in turns)
    speedups = {kind: statistics.median(turn[kind] for turn in turns) for kind in kinds}
    yield (
        "speed-up of two workers : of two independent product processes",
        f"{ratio:.2f} ({speedups['train']:.2f} : {speedups['products']:.2f})",
        ">= 0.95",
    )


def many_specs() -> Iterator[Line]:
    seeds = -(-MANY // 3456)
    start = time.perf_counter()
    ids = {each.id for each in STUDIES["toy_grid"].specs("paper", seeds=seeds)}
    yield (
        f"{len(ids):,} specs enumerated and named",
        f"{time.perf_counter() - start:.2f} s",
        "<= 2 s",
    )


def many_results(folder: Path) -> Iterator[Line]:
    """Listing and loading so many stored runs, written as rows of noise."""
    specs = STUDIES["toy_grid"].specs("paper", seeds=-(-MANY // 3456))[:MANY]
    kept = STUDIES["toy_grid"].store(folder, "paper")
    kept.prepare()
    kept.rows.write(map(_row, specs))
    start = time.perf_counter()
    counts, _ = count(specs, kept)
    yield (
        f"status of {counts.done:,} stored runs",
        f"{time.perf_counter() - start:.2f} s",
        "<= 5 s",
    )
    start = time.perf_counter()
    frame = frames.runs(STUDIES["toy_grid"], folder, "paper")
    yield (
        f"load of {len(frame):,} runs for a report",
        f"{time.perf_counter() - start:.2f} s",
        "<= 5 s",
    )


def _row(each: ToySpec) -> dict[str, Any]:
    trace = np.linspace(0, 1, TRACES + 1).tolist()
    return {
        **{name: getattr(each, name) for name in columns(ToySpec)},
        "id": each.id,
        "config": each.config,
        "protocol": protocol(each.study),
        "label": each.method,
        "status": "ok",
        "inception_score": 4.5,
        "mse_x": each.lr,
        "mse_z": 0.5,
        "modes": 5,
        "high_quality": 0.9,
        "trace_epoch": list(range(TRACES + 1)),
        "decoder_gradient": dict.fromkeys(("svae_r", "alice"), trace),
        "finished": datetime.now(UTC),
    }


def memory(folder: Path) -> Iterator[Line]:
    """A worker's whole job on the largest stacks of both scales, one epoch of each."""
    context = multiprocessing.get_context("spawn")
    for scale in ("quick", "paper"):
        specs = STUDIES["toy_grid"].specs(scale, seeds=5)
        once = [s for s in specs if s.critic_steps == s.model_steps == 1]  # memory is the same
        stack = max(stacks(once, "cpu"), key=lambda each: sum(map(flops, each)))
        job = Job(tuple(replace(each, epochs=1) for each in stack), str(folder), "cpu", {})
        peak = context.Queue()
        worker = context.Process(target=_peak, args=(job, peak))
        worker.start()
        size = f"{len(stack)} of toy_grid at {scale} scale"
        yield f"peak memory of a worker, stack of {size}", f"{peak.get():.2f} GiB", "<= 2 GiB"
        worker.join()


def _peak(job: Job, peak: Any) -> None:
    assert jobs.run_job(job).end == "done"
    peak.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def paper_on_gpu() -> Iterator[Line]:
    """Steps of each of the paper study's programs on this GPU, and what all of them would take."""
    for precision, limit in (("float32", 20), ("tf32", 10)):
        tf32 = precision == "tf32"
        allow_tf32(tf32)
        specs = STUDIES["toy_grid"].specs("paper", precision=precision)
        whole = 0.0
        for stack in stacks(specs, "cuda"):
            few = [replace(each, epochs=3) for each in stack]
            marks: list[float] = []

            def mark(epoch: int, marks: list[float] = marks) -> None:
                torch.cuda.synchronize()
                marks.append(time.perf_counter())

            Trainer(few, "cuda").train(mark)
            whole += (marks[3] - marks[2]) * stack[0].epochs
            torch.cuda.empty_cache()
        yield (
            f"3,456 trainings of toy_grid at paper scale, {precision}, from their third epochs",
            f"{whole / 60:.1f} min on one {torch.cuda.get_device_name()}",
            f"<= {limit} min on one H200",
        )
