"""Draws the pictures of a report, on several cores where the system can copy a process."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bench.render.figures import Picture, whole

PATIENCE = 60.0
"""Seconds after which this process draws what a copy of it has not drawn."""


def write(pictures: Sequence[Picture], folder: Path) -> dict[str, str]:
    """Writes all files of these pictures; returns the digest of what each plots, by name.

    Copies of this process draw as well, one for each further core. A copy that fails or ends early
    leaves its files to this process. Raises OSError.
    """
    files = [(picture, file) for picture in pictures for file in picture.files]
    # Each process takes the number of a file out of a pipe, until none is left.
    numbers, source = os.pipe()
    os.write(source, bytes(range(len(files))))
    os.close(source)

    def drawn(parent: int = 0) -> Iterator[tuple[int, str]]:
        """Draws until no file is left, or until the process that was copied is gone."""
        while parent in (0, os.getppid()) and (number := os.read(numbers, 1)):
            yield number[0], _write(folder, *files[number[0]])

    this = os.getpid()

    def copy() -> tuple[int, int]:
        """Returns the number of a copy of this process, and where the copy tells its digests."""
        told, tell = os.pipe()
        with warnings.catch_warnings():
            # Some versions of Python warn of locks that other threads hold. No thread is at work.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _draw(drawn(this), tell)
        os.close(tell)
        return pid, told

    copies = [copy() for _ in range(min(_cores(), len(files)) - 1)]
    digests: dict[int, str] = {}
    try:
        digests.update(drawn())
        for _, told in copies:
            digests |= _told(told)
    finally:
        os.close(numbers)
        for pid, told in copies:
            os.close(told)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for number, (picture, file) in enumerate(files):
        if number not in digests:
            digests[number] = _write(folder, picture, file)
    first = {picture.name: number for number, (picture, _) in reversed([*enumerate(files)])}
    return {picture.name: digests[first[picture.name]] for picture in pictures}


def _write(folder: Path, picture: Picture, file: str) -> str:
    with whole(folder / file) as draft:
        return picture.write(draft)


def _cores() -> int:
    """Returns how many processes draw: systems other than Linux can't copy a process safely."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _draw(drawn: Iterator[tuple[int, str]], tell: int) -> NoReturn:
    """Draws in a copy of the process, tells the digests and ends the copy."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that was copied reacts to it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os.write(tell, json.dumps(dict(drawn)).encode())
    finally:  # no line about an error: the same file fails once more where it is seen
        os._exit(0)


def _told(pipe: int) -> dict[int, str]:
    """Returns the digests that a copy has told, none if it has not told them all in time."""
    content = b""
    while select.select([pipe], [], [], PATIENCE)[0] and (part := os.read(pipe, 2**16)):
        content += part
    try:
        return {int(number): digest for number, digest in json.loads(content).items()}
    except ValueError:
        return {}
