"""Measures how fast stacks of toy models train, and how fast many results are stored and read."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bench.engine import job as jobs
from bench.engine.plan import count
from bench.spec import columns, protocol
from bench.speed.baselines.toy import PlainTrainer
from bench.speed.rates import Line, Rates, Rival, steps_a_turn
from bench.studies import STUDIES
from bench.studies.study import Job
from bench.studies.toy_grid.job import TRACES, flops, stacks
from bench.studies.toy_grid.runs import runs
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer
from models.products import forward, layer

T = TypeVar("T")

WIDTHS = {32: (5.5, 1.2), 64: (3.0, 1.2), 128: (2.0, 1.2), 256: (1.4, 1.05), 512: (1.1, 1.0)}
"""Least ratio of the suite's steps a second a core to the plain loop's and to JAX's, by width."""
NO_JAX = 'not measured: pip install -e ".[jax]"'
MANY = 100_000
STUDY = STUDIES["toy_grid"]
SPAWN = multiprocessing.get_context("spawn")


def ratios() -> Iterator[Iterator[Line]]:
    """Yields what is measured beside a rival in turns."""
    yield training()


def limits(folder: Path) -> Iterator[Iterator[Line]]:
    """Yields all other measurements, which use an empty folder."""
    yield two_workers()
    yield memory(folder / "memory")
    yield many_results(folder)


def spec(width: int) -> ToySpec:
    """Returns sVAE-r with two hidden layers of this width and three updates of each kind."""
    shape: dict[str, Any] = {f"{net}_width": width for net in ("encoder", "decoder", "critic")}
    shape |= {"critic_steps": 3, "model_steps": 3}
    return ToySpec(study="toy_grid", scale="quick", method="svae_r", lam=0.1, **shape)


def members(width: int) -> list[ToySpec]:
    """Returns a stack as the study cuts it: methods, lambdas and seeds of one configuration."""
    pool = [
        replace(spec(width), method=method, lam=lam, seed=seed)
        for seed in range(16)
        for method in ("svae_r", "alice")
        for lam in (0.01, 0.1)
    ]
    return stacks(pool, "cpu")[0]


def suite(width: int) -> Rival:
    """Returns the suite's trainer as a rival; its rate is in steps of all members together."""
    specs = members(width)
    trainer = Trainer(specs)
    batches = chain.from_iterable(trainer.epochs())
    return steps_a_turn(lambda: trainer.updates(next(batches)), 6 * len(specs))


def plain(width: int) -> Rival:
    """Returns the plain loop as a rival; its rate is in steps."""
    trainer = PlainTrainer(spec(width))
    batches = chain.from_iterable(trainer.batches() for _ in repeat(None))
    return steps_a_turn(lambda: trainer.updates(*next(batches)), 6)


def in_jax(width: int) -> Rival | None:
    """Returns a JAX program of as many members as a rival, or None without JAX."""
    # XLA reads this when JAX first computes. Other rivals have one thread as well.
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.setdefault("XLA_FLAGS", one_thread)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        from bench.speed.baselines.jax_toy import JaxTrainer
    except ImportError:
        return None
    m = len(members(width))
    trainer = JaxTrainer(spec(width), m)
    return steps_a_turn(trainer.advance, 6 * m * len(trainer.data[0]))


def kernel_products(width: int) -> Rival:
    """Returns a rival that runs the compiled products alone; its rate is in FLOP/s."""
    n, batch, layers = 8, 128, 8
    w, b, x = torch.randn(n, width, width), torch.zeros(n, width, 1), torch.ones(n, width, batch)
    flops = 2 * layers * n * width**2 * batch
    w /= width**0.5
    return steps_a_turn(lambda: forward([layer(w, b)] * layers, x, keep=False), flops)


def training() -> Iterator[Line]:
    for width, (least, least_of_jax) in WIDTHS.items():
        rivals = {"suite": suite(width), "plain": plain(width), "products": kernel_products(width)}
        jax = in_jax(width)
        rates = Rates(**rivals, **({"jax": jax} if jax else {}))
        one, stack = spec(width), f"steps/s/core, stack of {len(members(width))}"
        yield (
            f"{stack} : plain loop, width {width}",
            rates.summary(flops(one) / (one.epochs * 16 * 6), "this core's "),
            f">= {least} x",
        )
        yield (
            f"{stack} : one jitted JAX program, width {width}",
            f"{rates.ratio('suite', 'jax'):.2f} x" if jax else NO_JAX,
            f">= {least_of_jax} x",
        )


def _work(rival: Callable[[int], Rival], start: Any) -> float:
    torch.set_num_threads(1)
    jobs.keep_freed_memory()
    turn = rival(64)
    turn()
    start.wait()
    return statistics.mean(turn() for _ in range(8))


def together(rival: Callable[[int], Rival], n: int) -> float:
    """Returns the summed rate of n processes that work at once."""
    with SPAWN.Manager() as shared, ProcessPoolExecutor(n, SPAWN) as pool:
        return sum(pool.map(_work, [rival] * n, [shared.Barrier(n)] * n))


def two_workers() -> Iterator[Line]:
    rivals = suite, kernel_products
    turns = [[together(rival, 2) / together(rival, 1) for rival in rivals] for _ in range(3)]
    ours, of_products = (statistics.median(speedups) for speedups in zip(*turns, strict=True))
    ratio = statistics.median(one / other for one, other in turns)
    yield (
        "speed-up of two workers : of two independent product processes",
        f"{ratio:.2f} ({ours:.2f} : {of_products:.2f})",
        ">= 0.95",
    )


def memory(folder: Path) -> Iterator[Line]:
    """Runs a worker's whole job on the largest stacks of both scales, for one epoch."""
    for scale in ("quick", "paper"):
        specs = STUDY.specs(scale, seeds=5)
        once = [s for s in specs if s.critic_steps == s.model_steps == 1]  # memory is the same
        stack = max(stacks(once, "cpu"), key=lambda each: sum(map(flops, each)))
        job = Job(tuple(replace(each, epochs=1) for each in stack), str(folder), "cpu", {})
        with ProcessPoolExecutor(1, SPAWN) as worker:
            peak = worker.submit(_peak, job).result()
        size = f"{len(stack)} of toy_grid at {scale} scale"
        yield f"peak memory of a worker, stack of {size}", f"{peak:.2f} GiB", "<= 2 GiB"


def _peak(job: Job) -> float:
    """Runs the job; returns the most memory in GiB that this process has held."""
    assert jobs.run_job(job).end == "done"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def many_results(folder: Path) -> Iterator[Line]:
    """Times naming, listing and loading MANY runs, stored as constant rows."""
    every = partial(STUDY.specs, "paper", seeds=-(-MANY // 3456))
    named, took = _timed(lambda: {spec.id: spec for spec in every()})
    yield f"{len(named):,} specs enumerated and named", took, "<= 2 s"
    specs = list(named.values())[:MANY]
    kept = STUDY.store(folder, "paper")
    kept.prepare()
    kept.rows.write(_rows(specs))
    (counts, _), took = _timed(lambda: count(specs, kept))
    yield f"status of {counts.done:,} stored runs", took, "<= 5 s"
    frame, took = _timed(lambda: runs(STUDY, folder, "paper"))
    yield f"load of {len(frame):,} runs for a report", took, "<= 5 s"


def _timed(call: Callable[[], T]) -> tuple[T, str]:
    """Returns what the call returns, and how long it took."""
    start = time.perf_counter()
    result = call()
    return result, f"{time.perf_counter() - start:.2f} s"


def _rows(specs: Iterable[ToySpec]) -> Iterator[dict[str, Any]]:
    """Yields rows of these trainings, as if today's code had made them."""
    trace, today = np.linspace(0, 1, TRACES + 1).tolist(), STUDY.today()
    shared: dict[str, Any] = {
        column: 1.0 for metric in STUDY.metrics() for column in metric.columns
    }
    shared |= {
        "status": "ok",
        "trace_epoch": list(range(TRACES + 1)),
        "decoder_gradient": dict.fromkeys(("svae_r", "alice"), trace),
        "finished": datetime.now(UTC),
    }
    shared["metric_digests"] = today.filled(shared)
    for each in specs:
        yield {
            **{name: getattr(each, name) for name in columns(ToySpec)},
            "id": each.id,
            "config": each.config,
            "protocol": protocol(each.study),
            "label": each.method,
            "method_digest": today.method(each.method),
            **shared,
        }
