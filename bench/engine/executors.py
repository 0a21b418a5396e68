"""Where jobs run: in this process, in others of this machine, or on a Dask or Ray cluster.

A pool calls a function on jobs and yields the verdicts as they end; what becomes of jobs whose
worker died is decided by `bench.engine.engine` alone. Clusters are joined or started when named.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

from joblib import delayed
from joblib.externals.loky.process_executor import BrokenProcessPool

from bench.cli import UsageError
from bench.engine.workers import deaf, pool, stop_workers, warm_up

if TYPE_CHECKING:
    from bench.engine.job import Verdict
    from bench.studies.study import Job

LOCAL = "local"
ADDRESSES = {
    "dask": "tcp://HOST:PORT of its scheduler",
    "ray": "HOST:PORT, ray://HOST:PORT or auto",
}
FIRST_ANSWER, RECONNECT, LOOK = 10, 60, 10
"""Seconds that a cluster has for its first answer, for coming back after it was lost, and between
two looks whether it still has workers."""


class EngineError(Exception):
    """Jobs can't be run any more; the message says why and what to do."""


class Broken(Exception):
    """A worker died and all jobs under way with it; those that had begun are under suspicion."""


class Gone(Exception):
    """The cluster is gone, by no job's fault; the message says which."""


class Pool(Protocol):
    """Runs jobs somewhere. A pool that learns which job's worker died yields it as "killed"."""

    size: int
    """Workers there are, for estimates."""

    def ready(self) -> None:
        """Waits until workers that were started early have begun."""

    def run(
        self, call: Callable[[Job], Verdict], jobs: Sequence[Job], alone: bool
    ) -> Iterator[Verdict]:
        """Verdicts as they end; `alone`: never in this very process, which the job may kill.

        Raises Broken or Gone; EngineError if workers can't run jobs at all.
        """
        ...

    def stop(self) -> None:
        """Ends what was started here, at once; more than once does no harm."""


class Sequential:
    """One job after another in this very process."""

    size = 1

    def ready(self) -> None:
        pass

    def run(
        self, call: Callable[[Job], Verdict], jobs: Sequence[Job], alone: bool
    ) -> Iterator[Verdict]:
        return map(call, jobs)

    def stop(self) -> None:
        pass


class Loky:
    """joblib's worker processes on this machine; one worker is this very process."""

    def __init__(self, workers: int) -> None:
        self.size = workers
        self.warm = warm_up(workers)
        self.stopped = False

    def ready(self) -> None:
        for _ in self.warm:
            pass

    def run(
        self, call: Callable[[Job], Verdict], jobs: Sequence[Job], alone: bool
    ) -> Iterator[Verdict]:
        try:
            verdicts = pool(2 if alone else self.size)(delayed(call)(job) for job in jobs)
            yield from cast("Iterator[Verdict]", verdicts)
        except BrokenProcessPool as error:
            raise Broken from error

    def stop(self) -> None:
        if not self.stopped:
            stop_workers()
        self.stopped = True


class Dask:
    """A Dask cluster: an existing one by its scheduler's address, or one of this machine.

    Each worker process is a slot: one thread, and on a GPU one unit of the resource GPU.
    """

    def __init__(self, address: str, workers: int, device: str) -> None:
        self.dask = _extra("dask", "distributed")
        self.address = address
        self.resources = {"GPU": 1.0} if device == "cuda" else None
        self.cluster: Any = None
        self.folder: str | None = None
        if address == LOCAL:
            self.folder = tempfile.mkdtemp(prefix="dask-")
            self.cluster = self._local(workers)
        self.client = self._connect(FIRST_ANSWER)
        if self.client is None:
            raise UsageError(f"--address {address}: no Dask scheduler answers there")
        try:
            self._check()
        except UsageError:
            self.stop()
            raise

    def _local(self, workers: int) -> Any:
        # Who dies is known at once; the counting is done by bench.engine.engine.
        own = {"distributed.scheduler.allowed-failures": 0, "temporary-directory": self.folder}
        with import_module("dask").config.set(own), deaf():
            return self.dask.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=50,
                local_directory=self.folder,
                resources=self.resources,
            )

    def _connect(self, seconds: float) -> Any:
        target = self.address if self.cluster is None else self.cluster.scheduler_address
        try:
            return self.dask.Client(target, timeout=seconds, set_as_default=False)
        except (OSError, ValueError):
            return None

    def _check(self) -> None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        self.size = max(1, len(workers))
        if any(worker["nthreads"] != 1 for worker in workers):
            raise UsageError("Dask workers must have one thread each: start them with --nthreads 1")
        if self.resources and workers and not any(w["resources"].get("GPU") for w in workers):
            raise UsageError('no Dask worker offers a GPU: start them with --resources "GPU=1"')

    def ready(self) -> None:
        pass

    def run(
        self, call: Callable[[Job], Verdict], jobs: Sequence[Job], alone: bool
    ) -> Iterator[Verdict]:
        if self.client.status != "running":
            client = self._connect(RECONNECT)
            if client is None:
                raise EngineError(f"no Dask scheduler at {self.address} any more")
            gone, self.client = self.client, client
            with contextlib.suppress(TimeoutError):
                gone.close(timeout=5)
        # All at once: a cluster may grow with its queue. The first are the longest.
        futures: dict[Any, Job] = {
            self.client.submit(
                call,
                job,
                pure=False,
                priority=-i,
                resources=self.resources,
                key=f"{job.key}-{uuid4().hex}",  # a key that is known gets its old future back
            ): job
            for i, job in enumerate(jobs)
        }
        try:
            ended = self.dask.as_completed(list(futures), loop=self.client.loop)
            for future in ended:
                yield self._verdict(future, futures.pop(future))
                del future  # or it would keep its result
        finally:
            if self.client.status == "running":
                self.client.cancel(list(futures))

    def _verdict(self, future: Any, job: Job) -> Verdict:
        # What has ended may yet be lost: a result stays with its worker until it is fetched.
        try:
            return future.result()
        except self.dask.KilledWorker:
            return killed(job)
        except Exception as error:
            if future.status == "error":
                reason = f"{type(error).__name__}: {error}"
                raise EngineError(f"workers can't run jobs: {reason}") from None
            if not isinstance(error, CancelledError | OSError):
                raise
            raise Gone(f"the Dask scheduler at {self.address} is gone") from None

    def stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.client.close(timeout=5)
        if self.cluster is None or self.folder is None:
            return
        workers = [nanny.pid for nanny in self.cluster.workers.values()]
        with contextlib.suppress(TimeoutError):  # a nanny alone waits 4 s for a busy worker
            self.cluster.close(timeout=15)
        _end([pid for pid in workers if pid])  # some may be finishing a job
        shutil.rmtree(self.folder, ignore_errors=True)


class Ray:
    """A Ray cluster: an existing one by its address, or one of this machine.

    On a GPU `workers` is the number of jobs that share one.
    """

    def __init__(self, address: str, workers: int, device: str) -> None:
        # Nothing leaves the machine, and a CPU job keeps the environment it was given.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self.ray = _extra("ray", "ray")
        self.address = address
        self.gpus = 1 / workers if device == "cuda" else 0
        self.empty = False
        self.folder: str | None = None
        options: dict[str, Any] = {"address": address}
        if address == LOCAL:
            # Ray's own 15 would starve its workers beside anything else on this machine.
            os.environ.setdefault("RAY_worker_niceness", "0")
            self.folder = tempfile.mkdtemp(prefix="ray-")
            options |= {"include_dashboard": False, "_temp_dir": self.folder}
            options["object_store_memory"] = 100 * 2**20  # verdicts are small
            if device == "cpu":
                options["num_cpus"] = workers
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(**options, log_to_driver=False, logging_level="critical")
        except Exception as error:  # a node that is slow to start raises just this
            self.stop()
            reason = " ".join(str(error).split())[:200]
            what = "no Ray cluster answers there"
            if address == LOCAL:
                what = "no Ray could be started here"
            raise UsageError(f"--address {address}: {what} ({reason})") from None
        finally:
            signal.signal(signal.SIGTERM, terminate)  # Ray puts its own in place
        have = self.ray.cluster_resources()
        self.size = max(1, int(have.get("GPU", 0) / self.gpus if self.gpus else have.get("CPU", 1)))
        if self.gpus and not have.get("GPU"):
            self.stop()
            raise UsageError("no node of this Ray cluster has a GPU; allowed here: --device cpu")

    def ready(self) -> None:
        pass

    def run(
        self, call: Callable[[Job], Verdict], jobs: Sequence[Job], alone: bool
    ) -> Iterator[Verdict]:
        errors = self.ray.exceptions
        remote = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0)(call)
        left = iter(jobs)
        pending: dict[Any, Job] = {}
        while True:
            # Some more than there are workers for: a cluster may grow with its queue.
            while len(pending) < max(64, 2 * self.size) and (job := next(left, None)) is not None:
                pending[remote.remote(job)] = job
            if not pending:
                return
            found, _ = self.ray.wait(list(pending), num_returns=1, timeout=LOOK)
            if not found:
                self._look()
                continue
            (ended,) = found
            job = pending.pop(ended)
            try:
                verdict = self.ray.get(ended)
            except errors.OutOfMemoryError:
                verdict = killed(job, "memory", "out of memory")
            except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError):
                verdict = killed(job)
            except errors.RayError as error:
                reason = " ".join(str(error).split())[-300:]
                raise EngineError(f"workers can't run jobs: {reason}") from None
            yield verdict

    def _look(self) -> None:
        """Says once that nobody is left to run jobs: Ray itself waits in silence for a node."""
        need = "GPU" if self.gpus else "CPU"
        empty = not self.ray.cluster_resources().get(need)
        if empty and not self.empty:
            print(
                f"no node of the Ray cluster at {self.address} has a {need}; waiting for one",
                file=sys.stderr,
                flush=True,
            )
        self.empty = empty

    def stop(self) -> None:
        self.ray.shutdown()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _end(processes: Sequence[int]) -> None:
    """Returns when the processes are gone; after some seconds they are killed."""
    stop = time.monotonic() + 5
    for pid in processes:
        with contextlib.suppress(OSError):  # gone
            while time.monotonic() < stop:
                os.kill(pid, 0)
                time.sleep(0.05)
            os.kill(pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


def killed(job: Job, end: str = "killed", reason: str = "its worker was killed") -> Verdict:
    from bench.engine.job import Verdict

    return Verdict(job, end, {}, reason)


def _extra(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(
            f'--engine {name} needs what is not installed: pip install -e ".[{name}]"'
        ) from None


def check(engine: str, address: str | None, workers: int | None, device: str | None) -> None:
    """Raises UsageError for options that don't go together."""
    if engine in ("loky", "sequential"):
        if address is not None:
            raise UsageError(f"--address goes with --engine dask or ray, not {engine}")
        if engine == "sequential" and (workers or 1) > 1:
            raise UsageError(f"--workers {workers}; --engine sequential is this one process")
    elif address is None:
        raise UsageError(
            f"--engine {engine} needs --address: {ADDRESSES[engine]}, or local to start one here"
        )
    elif address != LOCAL and workers is not None and (engine, device) != ("ray", "cuda"):
        raise UsageError(f"--workers {workers}; a running cluster has its own (see --address)")


def open_pool(engine: str, address: str | None, workers: int, device: str) -> Pool:
    """The pool asked for; `workers` of this machine, or of a GPU. Raises UsageError."""
    if engine == "sequential":
        return Sequential()
    if engine == "loky":
        return Loky(workers)
    assert address is not None
    return {"dask": Dask, "ray": Ray}[engine](address, workers, device)
