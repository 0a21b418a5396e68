"""Writes a file whole or not at all, and finds what ended processes have left."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

OLD = 3600
"""Seconds after which a run removes what an ended process left in `tmp/` or `progress/`."""


def work_of(folder: Path) -> Path:
    """Returns the folder beside a folder of rows that holds all that is neither row nor sample.

    Readers of parquet refuse or misread a folder that holds anything but rows.
    """
    return folder.with_name(f"_{folder.name}")


def process() -> str:
    """Returns a name of this process, by host and number, that is unique in a shared folder."""
    host = re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())[:64]
    return f"{host}-{os.getpid()}"


def left_behind(path: Path) -> bool:
    """Says whether a process of this host that has ended left this old file.

    The file's name begins with the process's. What processes of other hosts left goes when a run
    starts there.
    """
    host, pid, *_ = [*path.name.removeprefix("probe-").split("-"), ""]
    if host != process().partition("-")[0] or not pid.isdecimal() or os.name != "posix":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > OLD
    except (OSError, OverflowError):
        pass  # it is another user's
    return False


def at_once(write: Callable[[T], object], each: Iterable[T]) -> None:
    """Makes these writes side by side, because each waits for the disk; raises what one raised."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(write, each):
            pass


def write_atomically(path: Path, content: bytes, tmp: Path, sync: bool = True) -> None:
    """Replaces `path` by `content` in one step, through a draft in `tmp` on its file system.

    Without `sync` a power cut may lose the file or empty it; the call does not wait for the disk.
    """
    tmp.mkdir(parents=True, exist_ok=True)
    draft = tmp / f"{process()}-{uuid.uuid4().hex}"
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if sync and os.name == "posix":  # the new name must survive a power cut as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems sync no folders
                os.fsync(folder)
        finally:
            os.close(folder)
