"""Jobs that share a GPU take turns in training. Others draw weights, score or store meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

TURNS: list[Path] = []
"""Files of which a process locks one while it trains; with none, processes take no turns."""

_waited = 0.0


def waited() -> float:
    """Returns the seconds that this process has waited for its turns."""
    return _waited


@contextmanager
def turn() -> Iterator[None]:
    """Waits until this process may train. Whoever kills the process gives its turn to another."""
    global _waited
    start, lock = time.monotonic(), _taken()
    while TURNS and lock is None:
        time.sleep(0.01)
        lock = _taken()
    _waited += time.monotonic() - start
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _taken() -> FileLock | None:
    for path in TURNS:
        lock = FileLock(path)
        with suppress(Timeout):
            lock.acquire(blocking=False)
            return lock
    return None
