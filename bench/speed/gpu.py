"""Measures a device alone: how near its trainings come to its products and to its memory.

A share "of products" is FLOP/s over the rate of one large matrix product of the same precision. A
share "of bandwidth" is bytes a second over the rate of a copy. Bytes are counted once, in a step
that runs without a graph: each operation reads its inputs and writes its outputs, and views move
nothing. Caches spare some of these bytes, and workspaces of libraries add others.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.cli import duration
from bench.data import load as data
from bench.data.load import Images
from bench.render.tables import markdown
from bench.scores.ais import log_likelihood, value_and_slope
from bench.speed import images as photos
from bench.store.provenance import cpu_name
from bench.studies import STUDIES
from bench.studies.cuda import Unrecorded, out_of_memory
from bench.studies.images.cost import decoder_flops, step_flops
from bench.studies.images.evaluate import annealed_run, freeze, scores, test_bits
from bench.studies.images.train import Trainer
from bench.studies.toy_grid import job as toy_job
from bench.studies.toy_grid import train as toy_train
from bench.studies.toy_grid.spec import ToySpec
from models.precision import allow_tf32

HEADINGS = ("measured", "here", "of products", "of bandwidth")
Line = tuple[str, str, str, str]

LIMIT = 150.0
"""Seconds by which the last measurement ends: with imports and start three minutes pass."""
PRECISIONS = ("float32", "tf32", "bf16")
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
TOGETHER = {"mnist": "float32", "cifar10": "bf16"}
"""Precision of the trainings that share the device, by study."""


@dataclass(frozen=True)
class Sizes:
    """Says how much is measured; tests measure less."""

    scale: str = "paper"
    rows: int = 8192  # of the square matrices whose product is timed
    numbers: int = 2**28  # that are copied, in float32
    steps: int = 40  # of images that are timed
    together: tuple[int, ...] = (1, 4, 8)  # trainings of images at once
    images: int = 10_000  # for scores: as many training and test images as MNIST tests


class Stack(NamedTuple):
    """What was measured of a stack of the toy study."""

    cycle: bool
    flops: float  # of the whole training
    seconds: float  # of the whole training


@dataclass
class Device:
    """Holds a device, its rates by precision once they are measured, and its toy stacks."""

    name: str  # cuda or cpu
    sizes: Sizes = field(default_factory=Sizes)
    products: dict[str, float] = field(default_factory=dict)  # FLOP/s
    bandwidth: float = math.nan  # bytes a second
    stacks: dict[str, list[Stack]] = field(default_factory=dict)

    def synchronize(self) -> None:
        if self.name == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], calls: int) -> float:
        """Returns the seconds of a call, as a mean over so many calls after one."""
        work()
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        self.synchronize()
        return (time.perf_counter() - start) / calls

    def line(self, what: str, here: str, precision: str, flops: float, moved: float) -> Line:
        """Returns a line; `flops` and `moved` bytes are those of a second."""
        shares = flops / self.products.get(precision, math.nan), moved / self.bandwidth
        of_products, of_bandwidth = ("" if math.isnan(each) else f"{each:.0%}" for each in shares)
        return what, here, of_products, of_bandwidth


# Counting bytes


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write."""

    OVERWRITE = (torch.ops.aten.copy_, torch.ops.aten.zero_, torch.ops.aten.fill_)
    EMPTY = "empty", "empty_like", "empty_strided", "new_empty"
    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        aliases = [each.alias_info for each in func._schema.returns if each.alias_info]
        view = any(not alias.is_write for alias in aliases)
        if view or func._opname in self.EMPTY:
            return out
        arguments = func._schema.arguments
        given = dict(zip((each.name for each in arguments), args, strict=False)) | kwargs
        changed = []
        for each in arguments:  # fused Adam is declared to write gradients, which it only reads
            if each.alias_info and each.alias_info.is_write and each.name != "grads":
                changed += _tensors(given.get(each.name))
        new = [t for t in _tensors(out) if all(t is not other for other in changed)]
        read = _tensors(list(given.values()))
        if func._overloadpacket in self.OVERWRITE:
            read = [t for t in read if all(t is not other for other in changed)]
        self.moved += sum(map(_bytes, (*read, *changed, *new)))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Returns the bytes that a tensor's numbers take; repeated numbers count once."""
    if tensor.is_mkldnn:
        return tensor.numel() * tensor.itemsize
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, step in sides if step) * tensor.itemsize


def traffic(work: Callable[[], object]) -> int:
    """Returns the bytes that the operations of a call read and write, see this module."""
    with _Traffic() as counter:
        work()
    return counter.moved


# Rates of the device


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Lets products round to TF32 inside, if that is the precision."""
    allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        allow_tf32(False)


def peaks(device: Device) -> Iterator[Line]:
    """Yields the rates of a large product in each precision, and of a copy."""
    n = device.sizes.rows
    for precision in PRECISIONS:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        square = torch.randn(n, n, device=device.name).to(kind)
        with rounding(precision):
            took = min(device.seconds(partial(torch.mm, square, square), 4) for _ in range(3))
        device.products[precision] = rate = 2 * n**3 / took
        yield f"product of {n:,} x {n:,}, {precision}", f"{rate / 1e12:,.1f} TFLOP/s", "100%", ""
    source = torch.randn(device.sizes.numbers, device=device.name)
    target = torch.empty_like(source)
    took = min(device.seconds(lambda: target.copy_(source), 4) for _ in range(3))
    device.bandwidth = 2 * source.numel() * source.itemsize / took
    yield "a copy, bytes read and written", f"{device.bandwidth / 1e9:,.0f} GB/s", "", "100%"


# The toy study


def kinds(scale: str, precision: str) -> list[list[ToySpec]]:
    """Returns the stacks of fewest and of most FLOPs without the cycle, and those with it."""
    found = []
    for cycle in (True, False):
        cut = [s for s in _cut(scale, precision) if (s[0].lam > 0) is cycle]
        cut.sort(key=_flops)
        found += [cut[0], cut[-1]] if len(cut) > 1 else cut
    return found


def _cut(scale: str, precision: str) -> list[list[ToySpec]]:
    return toy_job.stacks(STUDIES["toy_grid"].specs(scale, precision=precision), "cuda")


def _flops(stack: Sequence[ToySpec]) -> float:
    return sum(map(toy_job.flops, stack))


def toy(device: Device, stack: Sequence[ToySpec], record: bool = True) -> Iterator[Line]:
    """Yields how a stack trains: its second and third epoch."""
    one, precision = stack[0], stack[0].precision
    marks: list[float] = []

    def mark(epoch: int) -> None:
        device.synchronize()
        marks.append(time.perf_counter())

    with rounding(precision):
        trainer = toy_train.Trainer(
            [replace(each, epochs=3) for each in stack], device.name, record=record
        )
        trainer.train(mark)
        batches = next(trainer.epochs())
        moved = traffic(lambda: trainer.updates(batches[0])) * len(batches)
    epoch = (marks[3] - marks[1]) / 2
    if record:
        measured = Stack(one.lam > 0, _flops(stack), epoch * one.epochs)
        device.stacks.setdefault(precision, []).append(measured)
    what = f"toy_grid, {len(stack)} trainings, {one.critic_steps} : {one.model_steps} updates, "
    what += f"λ {'> 0' if one.lam > 0 else '= 0'}, {precision}"
    rate = _flops(stack) / one.epochs / epoch
    here = f"{1e3 * epoch:,.0f} ms an epoch, {rate / 1e12:.1f} TFLOP/s"
    if device.name == "cuda" and not record:
        what += ", without a graph"
    yield device.line(what, here, precision, rate, moved / epoch)


def toy_whole(device: Device, precision: str) -> Iterator[Line]:
    """Yields the time of the whole study: between two measured stacks it follows the FLOPs."""
    whole, cut = 0.0, _cut(device.sizes.scale, precision)
    for stack in cut:
        measured = device.stacks.get(precision, [])
        known = sorted(each[1:] for each in measured if each.cycle is (stack[0].lam > 0))
        if not known:
            raise RuntimeError("no such stack was measured")
        flops, seconds = zip(*known, strict=True)
        # From the nearest measured stack on, seconds are in proportion to FLOPs.
        within = min(max(_flops(stack), flops[0]), flops[-1])
        whole += float(np.interp(within, flops, seconds)) * _flops(stack) / within
    what = f"toy_grid at {device.sizes.scale} scale, {sum(map(len, cut)):,} trainings, {precision}"
    here = f"{duration(whole, 3)} of training, from these stacks by FLOPs"
    yield device.line(what, here, precision, sum(map(_flops, cut)) / whole, math.nan)


# Images


drawn = cache(data.load)


def trainer_of(
    device: Device, study: str, precision: str = "float32", layout: str = "", seed: int = 0
) -> Trainer:
    """Returns a training of sVAE-r on synthetic images, in the suite's own layout or as asked."""
    one = replace(photos.spec(device.sizes.scale, study), precision=precision, seed=seed)
    form = LAYOUTS[layout] if layout else None
    trainer = Trainer(one, drawn(one.data).train, device.name, laid_out=form)
    trainer.nets.train()
    return trainer


def step_of(trainer: Trainer) -> tuple[float, int]:
    """Returns FLOPs and bytes of a step, which it makes without a graph.

    No step may be recorded afterwards, because this step is on no trainer's stream.
    """
    one = trainer.spec
    flops = step_flops(one.method, one.lam > 0, one.width, one.data) * one.batch
    draws = [trainer.draws(trainer.batch(0), name) for name in trainer.update_names(0)]
    return flops, traffic(lambda: trainer.updates(draws))


def images(
    device: Device, study: str, precision: str, layout: str, benchmark: bool
) -> Iterator[Line]:
    """Yields how fast one training makes its steps."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = benchmark
    try:
        with rounding(precision):
            trainer = trainer_of(device, study, precision, layout)
            trainer.advance()  # is recorded
            rate = 1 / device.seconds(trainer.advance, device.sizes.steps)
            flops, moved = step_of(trainer)
    finally:
        torch.backends.cudnn.benchmark = before
    what = f"{study} at {device.sizes.scale} width, {precision}, {layout}, {choice(benchmark)}"
    yield device.line(what, f"{rate:,.0f} steps/s", precision, flops * rate, moved * rate)


def choice(benchmark: bool) -> str:
    return f"cudnn.benchmark {'on' if benchmark else 'off'}"


def together(device: Device, study: str, precision: str, n: int) -> Iterator[Line]:
    """Yields how fast n trainings make their steps beside each other."""
    with rounding(precision):
        trainers = [trainer_of(device, study, precision, seed=seed) for seed in range(n)]

        def step() -> None:
            for trainer in trainers:  # each on a stream of its own
                trainer.advance()

        step()
        rate = n / device.seconds(step, device.sizes.steps)
        flops, moved = step_of(trainers[0])
    what = f"{study} at {device.sizes.scale} width, {precision}, {n} at once"
    yield device.line(what, f"{rate:,.0f} steps/s in all", precision, flops * rate, moved * rate)


# Scores


def annealing(device: Device) -> Iterator[Line]:
    """Yields how many gradients annealing takes, for as many chains as MNIST has at this scale."""
    trainer = trainer_of(device, "mnist")
    trainer.nets.eval()
    one = trainer.spec
    x = test_bits(one, drawn(one.data), None)
    model = annealed_run(trainer, x).model
    u = torch.randn(len(x) * one.chains, trainer.nets.shape.d_z, device=device.name)
    many = x.to(device.name).repeat_interleave(one.chains, 0)
    moved = traffic(lambda: value_and_slope(model, u, many))
    settings = {"temperatures": photos.TEMPERATURES, "chains": one.chains, "leapfrog": one.leapfrog}
    a_chain = one.leapfrog * (photos.TEMPERATURES - 2) + 1
    took = device.seconds(lambda: log_likelihood(model, x, **settings, seed=0), 2)
    times = a_chain / took  # that all chains take a gradient, in a second
    flops = 2 * decoder_flops(one.method, one.width, one.data) * len(u)
    what = f"AIS of mnist, {len(x)} images x {one.chains} chains, float32"
    here = f"{times * len(u):,.0f} gradients/s"
    yield device.line(what, here, "float32", times * flops, times * moved)


def scoring(device: Device, study: str) -> Iterator[Line]:
    """Yields the seconds of a training's scores without AIS, of as many images as the study has."""
    trainer = trainer_of(device, study)
    images = _many(drawn(trainer.spec.data), device.sizes.images)
    freeze(trainer)
    took = []
    for _ in range(2):  # the first call also scores real images, once for all trainings
        start = time.perf_counter()
        scores(trainer, images, STUDIES[study].metrics())
        took.append(time.perf_counter() - start)
    what = f"scores of {study}, {trainer.spec.samples:,} samples"
    yield what, f"{took[1]:.1f} s; {took[0]:.1f} s for the first training", "", ""


def _many(images: Images, n: int) -> Images:
    """Returns the images, repeated until there are n of each kind."""
    train, test = (each[np.arange(n) % len(each)] for each in (images.train, images.test))
    return replace(images, train=train, test=test)


# The command

Measurement = tuple[str, Callable[[], Iterable[Line]]]


def measurements(device: Device) -> Iterator[Measurement]:
    """Yields the name of each measurement and its work, the most important first."""
    yield "rates of the device", lambda: peaks(device)
    for precision in ("float32", "tf32"):
        few = kinds(device.sizes.scale, precision)
        for stack in few:
            yield f"a stack of toy_grid in {precision}", lambda stack=stack: toy(device, stack)
        name = f"the time of toy_grid in {precision}"
        yield name, lambda precision=precision: toy_whole(device, precision)
        if precision == "float32":
            yield "a stack without a graph", lambda one=few[0]: toy(device, one, record=False)
    for benchmark in (False, True):
        for each in product(TOGETHER, PRECISIONS, LAYOUTS):
            name = ", ".join((*each, choice(benchmark)))
            yield name, lambda each=each, on=benchmark: images(device, *each, on)
        if benchmark:
            continue
        for (study, precision), n in product(TOGETHER.items(), device.sizes.together):
            each = study, precision, n
            yield f"{n} trainings of {study} at once", lambda each=each: together(device, *each)
        yield "AIS", lambda: annealing(device)
        for study in TOGETHER:
            yield f"scores of {study}", lambda study=study: scoring(device, study)


def measure(
    device: Device, limit: float = LIMIT, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Line], list[str]]:
    """Returns the lines of all measurements and the names of those left out; prints each line.

    A measurement is left out if the longest so far would not end by the limit. A measurement that
    fails has a line that says why.
    """
    start, longest, lines, left = clock(), 0.0, [], []
    for name, work in measurements(device):
        begin = clock()
        if begin - start + longest > limit:
            left.append(name)
            continue
        try:
            for line in work():
                lines.append(line)
                print(": ".join(line[:2]), *filter(None, line[2:]), flush=True)
        except (RuntimeError, Unrecorded) as error:
            why = "out of memory" if out_of_memory(error) else " ".join(str(error).split())[:200]
            lines.append((name, f"failed: {why}", "", ""))
            print(": ".join(lines[-1][:2]), flush=True)
        if device.name == "cuda":
            gc.collect()  # a trainer and its recording hold each other
            torch.cuda.empty_cache()
        longest = max(longest, clock() - begin)
    return lines, left


def report(device: Device) -> str:
    """Returns the table of all measurements as Markdown, with the device's name."""
    lines, left = measure(device)
    name = torch.cuda.get_device_name() if device.name == "cuda" else cpu_name()
    text = f"{markdown(HEADINGS, lines)}\n\nMeasured on one {name}, torch {torch.__version__}.\n"
    return text + (f"Left out for want of time: {'; '.join(left)}.\n" if left else "")
