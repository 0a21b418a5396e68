"""Tells what this machine can do, and whether all that the studies need works here.

    python -m bench.check            takes a minute, and leaves nothing behind

It measures products, makes a training step of every method, trains toy stacks for a few batches,
looks for data, weights and room, and estimates how long every study takes. It downloads nothing.

Exit status: 0, 1 if something that a study needs is broken (a line each on standard error), 2 for
wrong usage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from joblib import cpu_count
from torch import Tensor

from bench import run
from bench.cli import Parser, UsageError, complain, duration
from bench.data import download, files, load
from bench.engine.executors import deaf
from bench.engine.plan import Plan, choose_device, together, worth
from bench.scores import classifiers
from bench.store import provenance
from bench.store.atomic import write_atomically
from bench.studies import STUDIES
from bench.studies.cuda import Unrecorded, own_stream
from bench.studies.images import evaluate
from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, Model
from bench.studies.images.train import Trainer as ImageTrainer
from bench.studies.study import SCALES, Study
from bench.studies.toy_grid.data import N_TRAIN
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.job import flops
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer as ToyTrainer
from models.precision import allow_tf32, exact
from models.products import forward, layer

TOLERANCE = {"float32": 1e-2, "tf32": 3e-2, "bf16": 0.15}
"""Largest gap of two steps that count as equal, see `_gap`. Rounding alone made gaps of up to 0.003
in float32 and 0.07 in bf16. A step with other noise for its model has a gap of 0.1 to 1."""
AGREE = 2e-3
"""A score a of a CPU and b of a GPU agree if |a - b| <= AGREE * (1 + |a|)."""
BATCH = 8  # images in a step
LIMIT = 60.0  # seconds that a single piece of work may take
CHILDREN = 4  # processes at work at a time, or fewer on fewer cores
NO_GRAPH = "a CPU has no graphs"
SPAWN = multiprocessing.get_context("spawn")

Found = dict[str, Any]


# Pieces of work in processes of their own


@dataclass(frozen=True)
class Task:
    """A piece of work for a child process: a function, its arguments, and what it is about.

    The function takes a last argument more: whether a GPU records updates.
    """

    call: Callable[..., Found]
    arguments: tuple[Any, ...]
    about: Found
    record: bool = True

    def __call__(self) -> Found:
        return self.call(*self.arguments, self.record)


@dataclass(frozen=True)
class Failure:
    """Says why a piece of work failed; `unrecorded` says that recording was what failed."""

    why: str
    unrecorded: bool = False


def _child(pipe: Connection) -> None:
    """Answers each task with what it gives, until the process is ended."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # as in a worker
    while True:
        try:
            task = pipe.recv()
        except EOFError:  # the process that asks is gone
            return
        try:
            found: Found | Failure = task()
        except Exception as error:
            recording = isinstance(error, Unrecorded)
            why = str(error) if recording else f"{type(error).__name__}: {error}"
            found = Failure(" ".join(why.split())[:300], recording)
        pipe.send(found)


class Child:
    """Is a process that works on one task at a time."""

    def __init__(self) -> None:
        self.pipe, end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_child, args=(end,), daemon=True)
        with deaf():
            self.process.start()
        end.close()

    def begin(self, task: Task) -> None:
        with suppress(BrokenPipeError):  # the answer will say that the process is gone
            self.pipe.send(task)
        self.since = time.monotonic()

    def answer(self) -> Found | Failure:
        """Returns what the task has given, or why it gives nothing."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Failure(f"its process has ended, with status {self.process.exitcode}")
        return Failure(f"it took more than {LIMIT:.0f} s")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def outcomes(groups: Sequence[Sequence[Task]], children: int) -> list[list[Found | Failure]]:
    """Returns what the tasks of each group give, in their order.

    So many child processes work at a time. A process takes the tasks of a group one after the
    other. After a failure a fresh process goes on, because up to torch 2.11 a recording that fails
    makes later recordings of its process fail.
    """
    found: list[list[Found | Failure]] = [[] for _ in groups]
    waiting, idle = deque(i for i, group in enumerate(groups) if group), list[Child]()
    running: dict[Any, tuple[Child, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < children:
                child, i = idle.pop() if idle else Child(), waiting.popleft()
                child.begin(groups[i][len(found[i])])
                running[child.pipe] = child, i
            ready = wait([*running], 1)
            for pipe, (child, i) in [*running.items()]:
                if pipe not in ready and time.monotonic() - child.since < LIMIT:
                    continue
                found[i].append(child.answer())
                del running[pipe]
                if len(found[i]) < len(groups[i]):
                    waiting.appendleft(i)
                if isinstance(found[i][-1], Failure):
                    child.end()
                else:
                    idle.append(child)
    finally:
        for child in [*idle, *(child for child, _ in running.values())]:
            child.end()
    return found


def results_of(groups: Sequence[Sequence[Task]], children: int) -> list[Found]:
    """Returns what the tasks are about and what they give, with a `failure` or None.

    Tasks that can't be recorded are made again without a recording; `no_graph` says why.
    """
    tasks = [task for group in groups for task in group]
    found = [one for each in outcomes(groups, children) for one in each]
    why = {i: one.why for i, one in enumerate(found) if isinstance(one, Failure) and one.unrecorded}
    again = outcomes([[replace(tasks[i], record=False) for i in why]], 1)[0]
    for i, one in zip(why, again, strict=True):
        found[i] = one if isinstance(one, Failure) else one | {"no_graph": why[i]}
    return [
        {"failure": None} | task.about | ({"failure": one.why} if isinstance(one, Failure) else one)
        for task, one in zip(tasks, found, strict=True)
    ]


# A step of every method


def steps(device: str) -> list[list[Task]]:
    """Returns the tasks that make a step of every method of every study, a group a method."""
    groups: list[list[Task]] = []
    for study in STUDIES.values():
        if not issubclass(study.kind, ToySpec | ImageSpec):
            continue  # its own kind of training is unknown here
        for method in study.every_method():
            lam = max(study.own_lams.get(method, study.lams["smoke"]))
            group = []
            for precision in precisions(study, device):
                about: Found = {"study": study.name, "method": method, "lam": lam}
                about |= {"precision": precision}
                arguments = *about.values(), device
                about |= dict.fromkeys(("gap", "tolerance", "graph", "no_graph"))
                group.append(Task(step, arguments, about))
            groups.append(group)
    return groups


def precisions(study: Study[Any], device: str) -> list[str]:
    """Returns the precisions of a study that this device has."""
    found = [name for name in study.kind.PRECISIONS if device == "cuda" or name != "tf32"]
    old = device == "cuda" and torch.cuda.get_device_capability() < (8, 0)
    return ["float32"] if old else found


def step(
    study: str, method: str, lam: float, precision: str, device: str, record: bool = True
) -> Found:
    """Returns the gap between a step of this method and the step that it should equal.

    On a GPU the step is recorded, and equals a step without a recording. Without a recording the
    step equals the step of the same networks and noise in float64.
    """
    allow_tf32(precision == "tf32")
    found = STUDIES[study]
    recorded = record and device == "cuda"
    of_images = issubclass(found.kind, ImageSpec)
    given = {"batch": [BATCH]} if of_images else {"batch": [N_TRAIN // 2], "epochs": [1]}
    specs = found.specs("smoke", [method], [lam], precision=precision, given=given)
    gap = _images(specs[0], device, recorded) if of_images else _toys(specs, device, recorded)
    limit, other = TOLERANCE[precision], "without a graph" if recorded else "in float64"
    wrong = f"differs from the same step {other} by {gap:.2g}, allowed: {limit:g}"
    return {
        "gap": gap if math.isfinite(gap) else None,
        "tolerance": limit,
        "graph": recorded,
        "no_graph": None if recorded else NO_GRAPH,
        "failure": None if gap <= limit else wrong,
    }


def _toys(specs: Sequence[ToySpec], device: str, recorded: bool) -> float:
    """Returns the largest gap of these trainings after two batches, the second recorded."""
    one = ToyTrainer(specs, device, record=recorded)
    other = ToyTrainer(specs, device, torch.float32 if recorded else torch.float64, record=False)
    start = [other.parameters(i).clone() for i in range(len(specs))]
    for trainer in (one, other):
        trainer.train()
    assert one.graph is recorded
    return max(_gap(one.parameters(i), other.parameters(i), start[i]) for i in range(len(specs)))


def _images(spec: ImageSpec, device: str, recorded: bool) -> float:
    """Returns the larger gap of critic and model after a step on images of noise."""
    images = _noise(spec)
    with own_stream(torch.device(device)):
        one = ImageTrainer(spec, images, device, record=recorded)
        one.nets.train()
        one.advance()  # on a GPU this step is recorded
        if not recorded:
            return _largest(one, *_in_float64(replace(spec, precision="float32"), device))
        other = ImageTrainer(spec, images, device, record=False)
        other.nets.train()
        other.advance()
        other.load(one.state())
        start = _parameters(other)
        one.advance()
        other.advance()
        assert one.graph
        return _largest(one, other, start)


def _noise(spec: ImageSpec) -> np.ndarray:
    found = domain(spec.data)
    size = spec.batch, found.channels, found.size, found.size
    return np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)


class Moved:
    """Holds a batch and its noise on another device or in another type, see `models.batch.Batch`.

    So two devices, or two types, see the same noise.
    """

    def __init__(self, draws: Draws, device: torch.device | str, dtype: torch.dtype) -> None:
        self.draws, self.to = draws, (device, dtype)
        self.x = draws.x.to(*self.to)

    def noise(self, name: str, *shape: int) -> Tensor:
        return self.draws.noise(name, *shape).to(*self.to)

    def normal(self, name: str, *shape: int) -> Tensor:
        return self.draws.normal(name, *shape).to(*self.to)

    def uniform(self, name: str, *shape: int) -> Tensor:
        return self.draws.uniform(name, *shape).to(*self.to)


@lru_cache(1)
def _in_float64(spec: ImageSpec, device: str) -> tuple[ImageTrainer, list[Tensor]]:
    """Returns a trainer after a step in float64, and its parameters before the step."""
    trainer = ImageTrainer(spec, _noise(spec), device, torch.float64, record=False)
    trainer.nets.train()
    start, x = _parameters(trainer), trainer.batch(0)
    draws = [trainer.draws(x.float(), name) for name in trainer.update_names(0)]
    moved: list[Any] = [Moved(each, x.device, x.dtype) for each in draws]
    trainer.updates(moved)
    return trainer, start


def _parameters(trainer: ImageTrainer) -> list[Tensor]:
    """Returns copies of the parameters of critic and model, each in a row."""
    return [_row(players) for players in (trainer.critics, trainer.models)]


def _row(tensors: Iterable[Tensor]) -> Tensor:
    rows = [tensor.detach().double().flatten() for tensor in tensors]
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.float64)


def _largest(one: ImageTrainer, other: ImageTrainer, start: Sequence[Tensor]) -> float:
    gaps, ends = [], zip(_parameters(one), _parameters(other), strict=True)
    adams = other.critic_adam, other.model_adam
    for (found, wanted), before, adam in zip(ends, start, adams, strict=True):
        if adam is not None:
            sizes = _row(state["exp_avg_sq"] for state in adam.state.values()).sqrt()
            gaps.append(_gap(found, wanted, before, sizes))
    return max(gaps)


def _gap(found: Tensor, wanted: Tensor, start: Tensor, weights: Tensor | float = 1.0) -> float:
    """Returns how far parameters are from where they should be, relative to how far they moved.

    Each parameter counts by the size of its gradient. Adam moves by the learning rate whatever the
    gradient's size is, so rounding decides where a parameter goes that has no gradient, such as a
    bias before batch norm. The gap of parameters that are not finite is infinite.
    """
    apart = (weights * (found - wanted).abs()).sum()
    gap = float(apart / (weights * (wanted - start).abs()).sum())
    return float("inf") if math.isnan(gap) else gap


# Toy stacks and scores


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
    trainer = ToyTrainer(specs, device, record=record)
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
        seconds, memory = (time.perf_counter() - start) / 2, _kib("/proc/self/status", "VmHWM")
    widths = sorted({width for spec in specs for width in spec.widths})
    found = {"members": len(specs), "widths": widths, "seconds_a_batch": seconds, "memory": memory}
    wrong = None if all(trainer.finite()) else "parameters are not finite"
    no_graph = None if trainer.graph else NO_GRAPH
    return found | {"graph": trainer.graph, "no_graph": no_graph, "failure": wrong}


def scores(device: str) -> list[list[Task]]:
    """Returns the tasks that score the same weights on the CPU and on this device."""
    if device == "cpu":
        return []
    kinds = {"toy_grid": toy_scores}
    found = [name for name, study in STUDIES.items() if study.kind is ImageSpec]
    kinds |= dict.fromkeys(found, image_scores)
    unknown = {"difference": None, "tolerance": AGREE}
    return [[Task(call, (name, device), {"study": name} | unknown)] for name, call in kinds.items()]


def toy_scores(name: str, device: str, record: bool = True) -> Found:
    """Returns by how much a GPU's scores of untrained toy models differ from a CPU's."""
    found = []
    for each in ("cpu", device):
        trainer = ToyTrainer(STUDIES[name].specs("smoke"), each, record=False)
        with exact():
            found.append([columns or {} for columns, _ in Evaluation(trainer).outcomes()])
    return _differences(*found)


def image_scores(name: str, device: str, record: bool = True) -> Found:
    """Returns by how much a GPU's scores of an untrained model differ from a CPU's."""
    study = STUDIES[name]
    spec = study.specs("smoke", ["svae_r"])[0]
    images = load.load(spec.data)
    trainer = ImageTrainer(spec, images.train)
    evaluate.freeze(trainer)
    found = []
    for each in ("cpu", device):
        model = _SameNoise(spec, each)
        model.nets.load_state_dict(trainer.nets.state_dict())
        model.nets.eval()
        with exact():
            found.append([evaluate.scores(model, images, study.metrics())[0]])
    return _differences(*found)


class _SameNoise(Model):
    """Draws noise on the CPU, whichever device the model is on."""

    def draws(self, x: Tensor, update: str) -> Any:
        return Moved(super().draws(x.cpu(), update), self.device, self.dtype)


def _differences(one: Sequence[Found], other: Sequence[Found]) -> Found:
    worst, of = 0.0, ""
    for a, b in zip(one, other, strict=True):
        for name in a.keys() & b.keys():
            apart = abs(a[name] - b[name]) / (1 + abs(a[name]))
            if not apart <= worst:
                worst, of = apart, name
    missing = not all(map(bool, one)) or [a.keys() for a in one] != [b.keys() for b in other]
    wrong = "a device could not score" if missing else None
    if not worst <= AGREE:
        wrong = f"{of} of the CPU and of the GPU differ by {worst:.2g}, allowed: {AGREE:g}"
    return {"difference": worst if math.isfinite(worst) else None, "failure": wrong}


# The machine


def versions() -> Found:
    """Returns the versions of all that computes; null for what is not there."""
    commit = provenance.commit()
    found: Found = {**provenance.versions(), **commit, "torchvision": None}
    with suppress(metadata.PackageNotFoundError):
        found["torchvision"] = metadata.version("torchvision")
    cuda = torch.cuda.is_available()
    found |= {"cuda": torch.version.cuda if cuda else None, "driver": None}
    found["cudnn"] = torch.backends.cudnn.version() if cuda else None
    if cuda:
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with suppress(OSError, subprocess.SubprocessError, IndexError):
            done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True)
            found["driver"] = done.stdout.split()[0]
    return found


def machine() -> Found:
    """Returns what this machine is: processor, cores, bytes of memory, GPU."""
    found: Found = {"cpu": provenance.cpu_name(), "cores": cpu_count(), "memory": None}
    with suppress(ValueError, OSError, AttributeError):
        found["memory"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found["gpu"] = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        capability = f"{gpu.major}.{gpu.minor}"
        found["gpu"] = {"name": gpu.name, "memory": gpu.total_memory, "capability": capability}
    return found


def rates(device: str) -> list[Found]:
    """Returns rates of products in FLOP/s, on one thread of the CPU and on the GPU."""
    torch.set_num_threads(1)
    found = [
        ("cpu", "float32", "torch", _square("cpu", torch.float32, 512)),
        ("cpu", "float32", "compiled", _compiled()),
        ("cpu", "bf16", "torch", _square("cpu", torch.bfloat16, 512)),
    ]
    if device == "cuda":
        for precision in precisions(STUDIES["mnist"], device):
            allow_tf32(precision == "tf32")
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            found.append(("cuda", precision, "torch", _square("cuda", dtype, 8192)))
        allow_tf32(False)
    names = "device", "precision", "products", "flops"
    return [dict(zip(names, each, strict=True)) for each in found]


def _square(device: str, dtype: torch.dtype, size: int) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 * _rate(lambda: a @ b, device)


def _compiled(width: int = 256, layers: int = 8) -> float:
    """Returns the rate of the compiled products of the toy study's layers."""
    n, batch = 8, 128
    w, b, x = torch.randn(n, width, width), torch.zeros(n, width, 1), torch.ones(n, width, batch)
    w /= width**0.5
    every = [layer(w, b)] * layers
    return 2 * layers * n * width**2 * batch * _rate(lambda: forward(every, x, keep=False), "cpu")


def bandwidth(device: str) -> float | None:
    """Returns the bytes that a GPU's memory reads and writes a second; None on a CPU."""
    if device == "cpu":
        return None
    size = min(2**30, torch.cuda.mem_get_info()[0] // 8)
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size * _rate(lambda: b.copy_(a), device)


def _rate(work: Callable[[], object], device: str, budget: float = 0.3) -> float:
    """Returns how often a second the work is done, at best, measured for `budget` seconds."""
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    work()
    sync()
    best, stop = 0.0, time.perf_counter() + budget
    while (start := time.perf_counter()) < stop:
        for _ in range(4):
            work()
        sync()
        best = max(best, 4 / (time.perf_counter() - start))
    return best


def room(results: Path, device: str) -> Found:
    """Returns the free bytes of memory, of the GPU, of /dev/shm and where results go."""
    shm, there = Path("/dev/shm"), _existing(results)
    return {
        "memory": _kib("/proc/meminfo", "MemAvailable"),
        "gpu": torch.cuda.mem_get_info()[0] if device == "cuda" else None,
        "shm": shutil.disk_usage(shm).free if shm.is_dir() else None,
        "disk": shutil.disk_usage(there).free,
    }


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not os.path.exists(folder):
        folder = folder.parent
    return folder


def _kib(path: str, name: str) -> int | None:
    """Returns the bytes of a line "NAME: N kB" of a file of Linux; None on other systems."""
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def results_folder(results: Path) -> Found:
    """Returns whether files in the folder of results can be written, locked and synced."""
    why = None
    try:
        with TemporaryDirectory(prefix=".check-", dir=_existing(results)) as place:
            write_atomically(Path(place) / "probe", b"probe", Path(place) / "tmp")
            with FileLock(Path(place) / "lock", timeout=10):
                pass
    except (OSError, NotImplementedError) as error:  # a file system without locks has the second
        why = f"can't be written, locked and synced: {getattr(error, 'strerror', None) or error}"
    return {"folder": str(results), "failure": why}


def data() -> list[Found]:
    """Returns where each data set is: at hand, to download, missing or damaged."""
    found = [_dataset(name) for name, entry in load.DATASETS.items() if not entry.draw]
    bits = [load.cache() / f"binarized_mnist{end}" for end in (".npz", "_test.amat")]
    there = next((path for path in bits if path.is_file()), None)
    return [*found, _looked("static bits of mnist", there, files.bits)]


def _looked(name: str, path: Path | None, check: Callable[[Path], object]) -> Found:
    """Returns where a file is that can be downloaded; `check` raises UsageError if it is wrong."""
    if path is None or not path.is_file():
        return {"name": name, "state": "download", "where": None, "failure": None}
    try:
        check(path)
    except UsageError as error:
        return {"name": name, "state": "damaged", "where": str(path), "failure": str(error)}
    return {"name": name, "state": "at hand", "where": str(path), "failure": None}


def _dataset(name: str) -> Found:
    entry, state, where, why = load.DATASETS[name], "missing", None, None
    if entry.download and (name != "celeba" or util.find_spec("gdown")):
        state = "download"
    try:
        if entry.path:
            place = Path(entry.path).expanduser()
            where = str(place) if place.exists() else None
        elif prepared := load.read(load.cache() / "prepared" / name):
            where = prepared.origin
        elif source := entry.locate(load.cache()):
            where = str(source.place)
    except files.Lacking:
        pass
    except UsageError as error:
        state, why = "damaged", str(error)
    return {"name": name, "state": "at hand" if where else state, "where": where, "failure": why}


def weights() -> list[Found]:
    """Returns whether the weights of the classifiers are whole, by their hash."""
    found = [
        _looked(name, classifiers.WEIGHTS / f"{name}.safetensors", lambda path: _own(path.stem))
        for name in classifiers.PINNED
    ]
    for each in found:
        if each["state"] == "download":
            each |= {"state": "damaged", "failure": "missing: restore it from the repository"}
    return [*found, _looked("ImageNet", load.cache() / download.INCEPTION, _hashed)]


def _own(name: str) -> object:
    return classifiers.own(name)


def _hashed(path: Path) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != download.INCEPTION_SHA256:
        raise UsageError(f"{path} is damaged or another file (another SHA-256): delete it")


# How long every study takes


def times(device: str) -> list[list[Task]]:
    """Returns the tasks that estimate every study at every scale."""
    unknown = dict.fromkeys(("trainings", "jobs", "workers", "minutes", "by"))
    return [
        [Task(minutes, (name, scale, device), {"study": name, "scale": scale} | unknown)]
        for name in STUDIES
        for scale in SCALES
    ]


def minutes(name: str, scale: str, device: str, record: bool = True) -> Found:
    """Returns what `bench.run` would need for a whole study, on an idle machine.

    Steps are timed at quick scale on a CPU. Other estimates come from rates of products.
    """
    with TemporaryDirectory() as empty:
        options = [name, "--scale", scale, "--device", device, "--results", empty]
        plan = Plan(run.parser().parse_args([*options, "--status", "--json"]))
    stacks = plan.study.stacks(plan.specs, device)
    products = Study.estimate(plan.study, stacks, device)
    timed = scale == "quick" and device == "cpu"
    workers = worth(plan.workers, products)
    seconds = together(plan.estimate(stacks) if timed else products, workers)
    found: Found = {"trainings": len(plan.specs), "jobs": len(stacks), "workers": workers}
    return found | {"minutes": seconds / 60, "by": "timing" if timed else "products"}


# What is told


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.check", __doc__)
    about = "prints one object with all that was found, see bench/README.md"
    p.add_argument("--json", action="store_true", help=about)
    about = "checks this device (default: cuda where torch finds a GPU)"
    p.add_argument("--device", choices=("cpu", "cuda"), help=about)
    about = "looks whether results can be kept in this folder (default: results)"
    p.add_argument("--results", type=Path, default=run.RESULTS, metavar="DIR", help=about)
    return p


def look(device: str, results: Path) -> Iterator[Found]:
    """Yields parts of what is found, each as soon as it is known."""
    children = min(CHILDREN, cpu_count())
    yield {"device": device, "versions": versions(), "machine": machine()}
    yield {"rates": rates(device), "bandwidth": bandwidth(device)}
    if device == "cuda":
        torch.cuda.empty_cache()
    estimates = times(device)
    found = results_of([*estimates, *steps(device)], children)
    yield {"steps": found[len(estimates) :]}
    one = 1 if device == "cuda" else children  # trainings share no GPU by default
    yield {"stacks": results_of(stacks(device), one)}
    yield {"scores": results_of(scores(device), children)}
    yield {"free": room(results, device), "results": results_folder(results)}
    yield {"data": data(), "weights": weights()}
    yield {"times": found[: len(estimates)]}


def broken(found: Found) -> list[str]:
    """Returns a line for everything that is broken of what a study needs."""
    lines = []
    for each in found.get("steps", ()):
        lines.append((f"{each['study']} {each['method']} in {each['precision']}", each))
    for each in found.get("stacks", ()):
        lines.append((f"toy_grid's stack at scale {each['scale']}, {_kind(each)}", each))
    lines += [(f"scores of {each['study']}", each) for each in found.get("scores", ())]
    if "results" in found:
        lines.append((f"results folder {found['results']['folder']}", found["results"]))
    lines += [(f"data set {each['name']}", each) for each in found.get("data", ())]
    lines += [(f"classifier {each['name']}", each) for each in found.get("weights", ())]
    for each in found.get("times", ()):
        lines.append((f"estimate of {each['study']} at scale {each['scale']}", each))
    return [f"{name}: {each['failure']}" for name, each in lines if each["failure"]]


def _kind(stack: Found) -> str:
    return "λ > 0" if stack["cycle"] else "λ = 0"


def text(found: Found) -> Iterator[str]:
    """Yields the lines that tell a part of what was found."""
    if "versions" in found:
        yield from _machine_lines(found)
    if "rates" in found:
        yield from _rate_lines(found)
    if "steps" in found:
        yield from _step_lines(found["steps"])
    if found.get("stacks"):
        yield from _stack_lines(found["stacks"])
    if found.get("scores"):
        yield ""
        yield f"scores on CPU and GPU, equal within {AGREE:g}"
        yield from _table([[each["study"], _or_why(each, "ok")] for each in found["scores"]])
    if "free" in found:
        yield ""
        free = [f"{name} {_gib(size)}" for name, size in found["free"].items() if size is not None]
        yield f"free: {', '.join(free)}"
        yield f"results in {found['results']['folder']}: {_or_why(found['results'], 'ok')}"
    if "data" in found:
        rows = [[e["name"], e["state"], e["where"] or ""] for e in found["data"]]
        rows += [[f"classifier {e['name']}", e["state"], ""] for e in found["weights"]]
        yield from ("", "data and weights", *_table(rows))
    if "times" in found:
        yield from _time_lines(found["times"])


def _machine_lines(found: Found) -> Iterator[str]:
    known, here = found["versions"], found["machine"]
    commit = (known["commit"] or "unknown")[:12] + (", changed" if known["dirty"] else "")
    named = ("python", "torch", "torchvision", "numpy", "cuda", "cudnn", "driver")
    yield f"suite {known['suite']} (commit {commit}) on {found['device']}"
    yield ", ".join(f"{name} {known[name]}" for name in named if known[name] is not None)
    yield f"{here['cpu']}, {here['cores']} cores, {_gib(here['memory'])}"
    if gpu := here["gpu"]:
        yield f"{gpu['name']}, {_gib(gpu['memory'])}, capability {gpu['capability']}"


def _rate_lines(found: Found) -> Iterator[str]:
    rows = [
        [f"{e['device']}, {e['products']}", e["precision"], f"{e['flops'] / 1e9:,.0f} GFLOP/s"]
        for e in found["rates"]
    ]
    if found["bandwidth"]:
        rows.append(["cuda, memory", "", f"{found['bandwidth'] / 1e9:,.0f} GB/s"])
    yield from ("", "products (a CPU's on one thread)", *_table(rows))


def _step_lines(found: Sequence[Found]) -> Iterator[str]:
    names = [name for name in TOLERANCE if any(each["precision"] == name for each in found)]
    rows = [["study", *names]]
    for study in dict.fromkeys(each["study"] for each in found):
        cells = []
        for name in names:
            mine = [e for e in found if (e["study"], e["precision"]) == (study, name)]
            bad = ", ".join(each["method"] for each in mine if each["failure"])
            good = sum(not each["failure"] for each in mine)
            cells.append(f"{good} ok{f', not {bad}' if bad else ''}" if mine else "-")
        rows.append([study, *cells])
    graphs = sum(bool(each.get("graph")) for each in found)
    without: dict[str, list[str]] = {}
    for each in found:
        if why := each.get("no_graph"):
            without.setdefault(why, []).append(
                f"{each['study']} {each['method']} in {each['precision']}"
            )
    limits = ", ".join(f"{TOLERANCE[name]:g} in {name}" for name in names)
    other = "without a graph" if graphs else "in float64"
    yield ""
    yield f"a step of every method, beside the same step {other} (equal within {limits})"
    yield from _table(rows)
    if graphs:
        yield f"  graph used by {graphs} of {len(found)}"
    for why, which in without.items():
        all_of = len(which) == len(found)
        yield f"  no graph: {why}" if all_of else f"  no graph: {', '.join(which)}: {why}"


def _stack_lines(found: Sequence[Found]) -> Iterator[str]:
    rows = [["scale", "kind", "members", "widths", "a batch", "memory", "graph"]]
    for each in sorted(found, key=lambda each: SCALES.index(each["scale"])):
        row = [each["scale"], _kind(each)]
        if each["failure"]:
            rows.append([*row, each["failure"]])
            continue
        widths = " ".join(map(str, each["widths"]))
        took, graph = f"{1000 * each['seconds_a_batch']:.1f} ms", "yes" if each["graph"] else "no"
        rows.append([*row, str(each["members"]), widths, took, _gib(each["memory"]), graph])
    yield from ("", "dearest stacks of toy_grid, a few batches", *_table(rows))


def _time_lines(found: Sequence[Found]) -> Iterator[str]:
    rows = [["study", *SCALES]]
    for study in dict.fromkeys(each["study"] for each in found):
        mine = [each for each in found if each["study"] == study]
        rows.append([study, *(_or_why(each, _time(each)) for each in mine)])
    timed = dict.fromkeys(each["scale"] for each in found if each["by"] == "timing")
    how = f"steps timed at {', '.join(timed)}, else by products" if timed else "by products"
    yield from ("", f"a whole study, on so many workers of an idle machine ({how})", *_table(rows))


def _time(each: Found) -> str:
    return f"{duration(60 * (each['minutes'] or 0))} on {each['workers']}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the rows as aligned lines."""
    widths: dict[int, int] = {}
    for row in rows:
        for i, cell in enumerate(row):
            widths[i] = max(widths.get(i, 0), len(cell))
    for row in rows:
        cells = "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row))
        yield f"  {cells}".rstrip()


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GiB"


def _or_why(each: Found, fine: str) -> str:
    return each["failure"] or fine


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    start, found = time.monotonic(), {}
    try:
        for part in look(choose_device(args.device), args.results):
            found |= part
            for line in () if args.json else text(part):
                print(line, flush=True)
    except UsageError as error:
        return complain("bench.check", error)
    except KeyboardInterrupt:
        return 130
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
    raise SystemExit(main())
