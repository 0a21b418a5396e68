"""The worker processes of a run: joblib's, one thread each. Light to import."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, cast

from joblib import Parallel, delayed


def pool(workers: int) -> Parallel:
    """Calls as they end, each in one of so many processes; one worker is this very process."""
    # joblib warns when some results are never looked at; that is what being stopped means.
    warnings.filterwarnings("ignore", r"\d+ tasks ", UserWarning)
    # loky replaces a worker whose memory has grown, and says so as if something were wrong.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    return Parallel(
        n_jobs=workers,
        backend="loky",
        return_as="generator_unordered",
        batch_size=cast(Any, 1),  # typed as str by joblib
    )


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes started here never hear Ctrl-C: it reaches the whole group, and the parent alone
    decides what it means."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)


def warm_up(workers: int) -> Iterable[Any]:
    """Starts the processes and their imports, which take seconds, and doesn't wait for them.

    Whoever runs through the result has waited.
    """
    if workers == 1:
        return ()
    with deaf():
        return cast(Iterable[Any], pool(workers)(delayed(_import)() for _ in range(workers)))


def _import() -> None:
    import_module("bench.engine.job")


def stop_workers() -> None:
    """Ends all worker processes of this run at once."""
    if "joblib.externals.loky" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def keep_freed_memory() -> None:
    """Lets glibc keep the memory that tensors free, for the next step to use.

    By default it hands large blocks back to the system, which then clears every page anew: a
    tenth of a CPU training's time. Elsewhere than under glibc nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
