"""Executors run jobs: in this process, in processes of this machine, or on a Dask or Ray cluster.

`submit` starts a job and returns a future; `outcome` turns a future that has ended into a verdict.
A killed worker is a verdict like any other: `bench.engine.engine` decides what becomes of the job.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from bench.cli import UsageError
from bench.engine.job import Verdict
from bench.engine.plan import LOCAL
from bench.studies.study import Job
from bench.studies.turns import TURNS


class EngineError(Exception):
    """No worker can run jobs any more; the message says why and what to do."""


class Gone(Exception):
    """The cluster is gone by no job's fault; the message names the cluster."""


class Sequential:
    """Runs one job after another in this process. The other executors have the same methods."""

    size = 1  # number of workers, for estimates
    ahead: float = 1  # jobs that may be submitted at a time
    shared_fate = False  # whether all workers end when one of them is replaced

    def begin(self, workers: int) -> None:
        """Starts so many worker processes early, where the engine starts them itself."""

    def ready(self) -> None:
        """Waits until the workers have begun that were started early."""

    def submit(self, call: Callable[[Job], Any], job: Job, alone: bool = False) -> Future[Any]:
        """Returns a future of `call(job)`; a job that is `alone` never runs in this process."""
        future: Future[Any] = Future()
        future.set_result(call(job))
        return future

    def outcome(self, future: Future[Any], job: Job) -> Verdict:
        """Returns the verdict of a future that has ended. Raises Gone or EngineError."""
        return future.result()

    def look(self) -> None:
        """Checks that there still are workers; the engine calls it while no job ends."""

    def renew(self, future: Future[Any]) -> bool:
        """Replaces the worker whose job has ended with this future; returns whether it could.

        No job is under way any more where all workers are replaced, see `shared_fate`.
        """
        return False

    def stop(self) -> None:
        """Ends at once what was started here; a second call does no harm."""


class Loky(Sequential):
    """Runs jobs in joblib's worker processes; on a CPU a single worker is this very process.

    On a GPU one more process than `workers` takes jobs. So one draws weights, scores, stores, or
    waits for its turn, while `workers` train.
    """

    shared_fate = True

    def __init__(self, workers: int, device: str = "cpu") -> None:
        self.here = device == "cpu"  # a GPU's worker may have to be replaced
        self.turns = "" if self.here else tempfile.mkdtemp(prefix="turns-")
        self._resize(workers)
        self.pool: Any = None
        self.warm: list[Future[Any]] = []
        # loky warns when it replaces a worker whose memory has grown, which is no fault.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)

    def _resize(self, workers: int) -> None:
        self.size, self.processes = workers, workers if self.here else workers + 1
        self.ahead = self.processes

    def begin(self, workers: int) -> None:
        self._resize(workers)
        # Imports take seconds, and so does a GPU's start: workers begin before there is a job.
        call = os.getpid if self.here else _start_gpu
        with contextlib.suppress(EngineError):  # the first job says why no worker can start
            self.warm = [self._send(call) for _ in range(self.processes) if self.processes > 1]

    def ready(self) -> None:
        wait(self.warm)

    def _send(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self.pool is not None and len(self.pool._processes) == self.processes:
            # No process starts now, so Ctrl-C is heard.
            with contextlib.suppress(BrokenProcessPool):
                return self.pool.submit(call, *arguments)
        with deaf():
            given = os.getpid(), self.turns, self.size
            try:
                self.pool = get_reusable_executor(
                    self.processes, timeout=300, initializer=_begin, initargs=given
                )
                return self.pool.submit(call, *arguments)
            except BrokenProcessPool:
                raise
            except (OSError, RuntimeError) as error:  # a limit of processes, threads or open files
                raise EngineError(f"no worker process can start ({error}): see --workers") from None

    def submit(self, call: Callable[[Job], Any], job: Job, alone: bool = False) -> Future[Any]:
        if self.processes == 1 and not alone:
            return super().submit(call, job)
        try:
            return self._send(call, job)
        except BrokenProcessPool:  # a worker was killed just now
            return super().submit(lambda job: Verdict(job, "killed"), job)

    def outcome(self, future: Future[Any], job: Job) -> Verdict:
        """Returns the verdict. loky ends all workers with one: every job under way is killed."""
        try:
            return future.result()
        except BrokenProcessPool:
            return Verdict(job, "killed")

    def renew(self, future: Future[Any]) -> bool:
        if self.here:
            return False
        self._end()
        return True

    def _end(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, kill_workers=True)
            self.pool = None

    def stop(self) -> None:
        self._end()
        if self.turns:
            shutil.rmtree(self.turns, ignore_errors=True)


class Dask(Sequential):
    """Runs jobs on the Dask cluster at an address, or on a cluster that it starts here.

    Each worker process runs one job at a time, on one thread. On a GPU it takes one unit of the
    resource GPU.
    """

    ahead = float("inf")  # a cluster may grow with its queue

    def __init__(self, address: str, workers: int, device: str) -> None:
        import distributed
        from dask import config

        self.dask: Any = distributed
        self.address, self.order = address, count()
        self.resources = {"GPU": 1.0} if device == "cuda" else None
        self.cluster: Any = None
        if address == LOCAL:
            self.folder = tempfile.mkdtemp(prefix="dask-")
            # Dask reports a killed worker at once: the engine counts losses, not Dask.
            own = {"distributed.scheduler.allowed-failures": 0, "temporary-directory": self.folder}
            try:
                with config.set(own), deaf():
                    self.cluster = self.dask.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        dashboard_address=None,
                        silence_logs=50,
                        resources=self.resources,
                    )
            except (OSError, RuntimeError) as error:
                shutil.rmtree(self.folder, ignore_errors=True)
                first: BaseException = error  # Dask's own exceptions say nothing
                while cause := first.__cause__ or first.__context__:
                    first = cause
                reason = " ".join(str(first).split())[:200]
                what = f"--address {LOCAL}: no Dask cluster could be started here ({reason})"
                raise UsageError(what) from None
            self.address = self.cluster.scheduler_address
        self.client = self._connect(10)
        if self.client is None:
            raise UsageError(f"--address {address}: no Dask scheduler answers there")
        try:
            self._check()
        except UsageError:
            self.stop()
            raise

    def _connect(self, seconds: float) -> Any:
        try:
            return self.dask.Client(self.address, timeout=seconds, set_as_default=False)
        except (OSError, ValueError):
            return None

    def _check(self) -> None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        self.size = max(1, len(workers))
        if any(worker["nthreads"] != 1 for worker in workers):
            raise UsageError("Dask workers must have one thread each: start them with --nthreads 1")
        if self.resources and workers and not any(w["resources"].get("GPU") for w in workers):
            raise UsageError('no Dask worker offers a GPU: start them with --resources "GPU=1"')

    def submit(self, call: Callable[[Job], Any], job: Job, alone: bool = False) -> Future[Any]:
        if self.client.status != "running":
            gone, self.client = self.client, self._connect(60) or self.client
            if self.client is gone:
                raise EngineError(f"no Dask scheduler at {self.address} any more")
            with contextlib.suppress(Exception):  # it may be reconnecting, which raises anything
                gone.close(timeout=5)
        found = self.client.submit(
            call,
            job,
            priority=-next(self.order),  # the longest jobs come first
            resources=self.resources,
            key=f"{job.key}-{uuid4().hex}",  # for a key that it knows Dask returns the old future
        )
        ended: Future[Any] = Future()
        found.add_done_callback(ended.set_result)
        return ended

    def renew(self, future: Future[Any]) -> bool:
        """Restarts the worker that holds the result, if a nanny watches over it."""
        found = future.result()
        try:
            workers = list(self.client.who_has([found])[found.key])
            self.client.restart_workers(workers, raise_for_error=False)
        except (KeyError, ValueError, OSError, TimeoutError):
            return False
        return bool(workers)

    def outcome(self, future: Future[Any], job: Job) -> Verdict:
        # A result stays with its worker until it is fetched, and may be lost until then.
        found = future.result()
        try:
            return found.result()
        except self.dask.KilledWorker:
            return Verdict(job, "killed")
        except Exception as error:
            if found.status == "error":
                reason = f"{type(error).__name__}: {error}"
                raise EngineError(f"workers can't run jobs: {reason}") from None
            if not isinstance(error, CancelledError | OSError):
                raise
            raise Gone(f"the Dask scheduler at {self.address} is gone") from None

    def look(self) -> None:
        if self.client.status != "running":
            raise Gone(f"the Dask scheduler at {self.address} is gone")

    def stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.client.close(timeout=5)
        if self.cluster is None:
            return
        import psutil  # distributed needs it

        pids = [nanny.pid for nanny in self.cluster.workers.values()]
        workers = [each for each in psutil.Process().children() if each.pid in pids]
        with contextlib.suppress(TimeoutError):  # a nanny waits 4 s for a busy worker
            self.cluster.close(timeout=15)
        for busy in psutil.wait_procs(workers, timeout=5)[1]:  # a worker amid a job
            with contextlib.suppress(psutil.NoSuchProcess):
                busy.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Ray(Sequential):
    """Runs jobs on the Ray cluster at an address, or on a cluster that it starts here.

    On GPUs, `workers` jobs share each GPU.
    """

    def __init__(self, address: str, workers: int, device: str) -> None:
        import ray

        # Ray sends no statistics, and a CPU job keeps the environment it was given.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self.ray: Any = ray
        self.address, self.empty, self.folder = address, False, None
        self.gpus = 1 / workers if device == "cuda" else 0
        options: dict[str, Any] = {"address": address}
        if address == LOCAL:
            # Ray's own niceness, 15, would starve its workers beside other programs.
            os.environ.setdefault("RAY_worker_niceness", "0")
            self.folder = tempfile.mkdtemp(prefix="ray-")
            options |= {"include_dashboard": False, "_temp_dir": self.folder}
            options["object_store_memory"] = 100 * 2**20  # bytes; verdicts are small
            if device == "cpu":
                options["num_cpus"] = workers
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(**options, log_to_driver=False, logging_level="critical")
        except Exception as error:  # a node that starts slowly raises a plain Exception
            self.stop()
            reason = " ".join(str(error).split())[:200]
            local = address == LOCAL
            what = "no Ray could be started here" if local else "no Ray cluster answers there"
            raise UsageError(f"--address {address}: {what} ({reason})") from None
        finally:
            signal.signal(signal.SIGTERM, terminate)  # Ray sets a handler of its own
        have = self.ray.cluster_resources()
        self.size = max(1, int(have.get("GPU", 0) / self.gpus if self.gpus else have.get("CPU", 1)))
        self.ahead = max(64, 2 * self.size)  # a cluster may grow with its queue
        if self.gpus and not have.get("GPU"):
            self.stop()
            raise UsageError("no node of this Ray cluster has a GPU; allowed here: --device cpu")

    def submit(self, call: Callable[[Job], Any], job: Job, alone: bool = False) -> Future[Any]:
        # A process that has used a GPU ends with its job, so that another can have the GPU.
        options = {"max_calls": 1} if self.gpus else {}
        remote = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0, **options)(call)
        return remote.remote(job).future()

    def renew(self, future: Future[Any]) -> bool:
        return bool(self.gpus)

    def outcome(self, future: Future[Any], job: Job) -> Verdict:
        errors = self.ray.exceptions
        try:
            return future.result()
        except errors.OutOfMemoryError:
            return Verdict(job, "memory", reason="out of memory")
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError):
            return Verdict(job, "killed")
        except errors.RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise EngineError(f"workers can't run jobs: {reason}") from None

    def look(self) -> None:
        """Prints once that no node can run jobs: Ray itself waits for a node in silence."""
        need = "GPU" if self.gpus else "CPU"
        empty = not self.ray.cluster_resources().get(need)
        if empty and not self.empty:
            line = f"no node of the Ray cluster at {self.address} has a {need}; waiting for one"
            print(line, file=sys.stderr, flush=True)
        self.empty = empty

    def stop(self) -> None:
        self.ray.shutdown()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Makes processes that start meanwhile ignore Ctrl-C: their parent alone reacts to it.

    Does nothing in a thread: only the main thread may change what a signal does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _start_gpu() -> None:
    """Starts the use of the GPU in this process. The first job says what is wrong with a GPU."""
    with contextlib.suppress(RuntimeError, AssertionError):
        (torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")).sum().item()


def _begin(parent: int, turns: str, n: int) -> None:
    """Makes a worker ignore Ctrl-C and end itself once its parent is gone.

    Jobs take turns if there is a folder for that: n train at a time.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if turns:
        TURNS[:] = [Path(turns) / str(i) for i in range(n)]

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _no_semaphore() -> str:
    """Returns why this system makes no semaphore, which worker processes need; "" if it does."""
    try:
        multiprocessing.Lock()
    except (ImportError, OSError) as error:  # a read-only or full /dev/shm, or none
        return getattr(error, "strerror", None) or " ".join(str(error).split())
    return ""


def start(engine: str, address: str | None, workers: int, device: str) -> Sequential:
    """Returns the executor of this name. Raises UsageError for a cluster that can't run jobs.

    Where no worker process can be, jobs run in this process, and a line says so.
    """
    if engine == "sequential":
        return Sequential()
    if engine == "loky":
        if why := _no_semaphore():
            line = f"no semaphores on this system ({why}): trainings run one by one in this process"
            print(line, file=sys.stderr, flush=True)
            return Sequential()
        return Loky(workers, device)
    try:
        return {"dask": Dask, "ray": Ray}[engine](str(address), workers, device)
    except ImportError:
        reason = f'needs a package that is not installed: pip install -e ".[{engine}]"'
        raise UsageError(f"--engine {engine} {reason}") from None
