"""Tells what a machine is made of, and what lies on its disks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock
from joblib import cpu_count

from bench.check.children import Found
from bench.check.steps import precisions
from bench.cli import UsageError
from bench.data import download, files, load
from bench.engine.plan import existing
from bench.scores import classifiers
from bench.store import provenance
from bench.store.atomic import write_atomically
from bench.studies import STUDIES
from bench.studies.cost import times_a_second
from models.precision import allow_tf32
from models.products import forward, layer

BUDGET = 0.3  # seconds for each rate


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


def parts() -> Found:
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


def products(device: str, record: bool = True) -> Found:
    """Returns rates of products on one thread of the CPU and on the GPU, in FLOP/s.

    For a GPU it also returns its free memory, in bytes, and its memory's bandwidth, in bytes read
    and written a second.
    """
    rates = [
        _rated("cpu", "float32", "torch", _square("cpu", "float32", 512)),
        _rated("cpu", "float32", "compiled", _compiled()),
        _rated("cpu", "bf16", "torch", _square("cpu", "bf16", 512)),
    ]
    if device == "cpu":
        return {"rates": rates}
    free = torch.cuda.mem_get_info()[0]
    for precision in precisions(STUDIES["mnist"], device):
        rates.append(_rated(device, precision, "torch", _square(device, precision, 8192)))
    a = torch.zeros(min(2**30, free // 8), dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    bandwidth = 2 * len(a) * times_a_second(lambda: b.copy_(a), device, BUDGET)
    return {"rates": rates, "free": free, "bandwidth": bandwidth}


def _rated(device: str, precision: str, by: str, flops: float) -> Found:
    return {"device": device, "precision": precision, "by": by, "flops": flops}


def _square(device: str, precision: str, size: int) -> float:
    """Returns the rate of products of square matrices."""
    allow_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 * times_a_second(lambda: a @ b, device, BUDGET)


def _compiled(width: int = 256, layers: int = 8) -> float:
    """Returns the rate of the compiled products of the toy study's layers."""
    n, batch = 8, 128
    w, b, x = torch.randn(n, width, width), torch.zeros(n, width, 1), torch.ones(n, width, batch)
    w /= width**0.5
    every = [layer(w, b)] * layers
    flops = 2 * layers * n * width**2 * batch
    return flops * times_a_second(lambda: forward(every, x, keep=False), "cpu", BUDGET)


def room(results: Path) -> Found:
    """Returns the free bytes of memory, of /dev/shm and where results go."""
    shm, there = Path("/dev/shm"), existing(results)
    return {
        "memory": kib("/proc/meminfo", "MemAvailable"),
        "shm": shutil.disk_usage(shm).free if shm.is_dir() else None,
        "disk": shutil.disk_usage(there).free,
    }


def kib(path: str, name: str) -> int | None:
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
        with TemporaryDirectory(prefix=".check-", dir=existing(results)) as place:
            write_atomically(Path(place) / "probe", b"probe", Path(place) / "tmp")
            with FileLock(Path(place) / "lock", timeout=10):
                pass
    except (OSError, NotImplementedError) as error:  # a file system without locks has the second
        why = f"can't be written, locked and synced: {getattr(error, 'strerror', None) or error}"
    return {"folder": str(results), "failure": why}


def data() -> list[Found]:
    """Returns where each data set is: at hand, to download, missing or damaged."""
    found = [_dataset(name) for name, entry in load.DATASETS.items() if not entry.draw]
    bits = [_cached(f"binarized_mnist{end}") for end in (".npz", "_test.amat")]
    there = next((path for path in bits if path and path.is_file()), None)
    return [*found, _looked("static bits of mnist", there, files.bits)]


def _cached(name: str) -> Path | None:
    """Returns the place of a file in the cache, None where the data sets say that there is none."""
    with suppress(UsageError):
        return load.cache() / name
    return None


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
            place = load.at_home(entry.path)
            where = str(place) if place.exists() else None
        elif prepared := load.read(load.cache() / "prepared" / name, check=True):
            where = prepared.origin
        elif source := entry.locate(load.cache()):
            where = str(source.place)
            if name != "celeba":  # decoding its images takes minutes
                source.read()
    except files.Lacking:
        pass
    except UsageError as error:
        state, where, why = "damaged", None, str(error)
    return {"name": name, "state": "at hand" if where else state, "where": where, "failure": why}


def weights() -> list[Found]:
    """Returns whether the weights of the classifiers are whole, by their hash."""

    def own(path: Path) -> None:
        name, _, seed = path.stem.rpartition("-")
        classifiers.own(name, seed=int(seed))

    every = [f"{name}-{i}" for name in classifiers.PINNED for i in range(classifiers.seeds(name))]
    found = [_looked(each, classifiers.WEIGHTS / f"{each}.safetensors", own) for each in every]
    for each in found:
        if each["state"] == "download":
            each |= {"state": "damaged", "failure": "missing: restore it from the repository"}
    return [*found, _looked("ImageNet", _cached(download.INCEPTION), _hashed)]


def _hashed(path: Path) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != download.INCEPTION_SHA256:
        raise UsageError(f"{path} is damaged or another file (another SHA-256): move it away")
