"""What a command is to the system around it: its streams, its errors and its end.

`begin` comes before all other imports of a command, see `bench.__init__`. From then on standard
streams never fail. Ctrl-C ends the command with a line and status 130. An error that nobody
foresaw ends it with a line and status 1, and its trace goes into a file.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

_lost: list[OSError] = []
"""Why text for a standard stream was lost, unless its reader had gone early."""


class Terminated(KeyboardInterrupt):
    """SIGTERM stops a command as Ctrl-C does, with another status."""


class _Stream(io.FileIO):
    """A standard stream that loses what can't be written: no report fails for lack of a reader."""

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno != errno.EPIPE:
                _lost.append(error)
            return len(content)


def _stream(number: int, old: Any) -> io.TextIOWrapper:
    """Returns a stream that replaces what its encoding lacks, and writes each line at once."""
    raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
    encoding = getattr(old, "encoding", None)
    return io.TextIOWrapper(raw, encoding, errors="replace", line_buffering=True)


def begin() -> None:
    """Makes this process a command; a second call does nothing."""
    if sys.excepthook is _end_by:
        return
    # A closed stream's number would go to the next file that is opened, and text into that file.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    sys.excepthook, threading.excepthook, sys.unraisablehook = _end_by, _tell_of, _once_more
    # A notebook's backend may not be installed here, and a user's own style is for other figures.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    # `bench.engine.executors.start` says so in the suite's own words.
    warnings.filterwarnings("ignore", ".*joblib will operate in serial mode", UserWarning)
    try:
        os.getcwd()
    except OSError:
        print("the current folder is gone; change to another folder", file=sys.stderr)
        end(2)


def command(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and ends the process with the status that it returns."""
    begin()
    if signal.getsignal(signal.SIGINT) is _stop:  # from here on there is something to tidy up
        signal.signal(signal.SIGINT, signal.default_int_handler)
    end(main())


def end(status: int) -> NoReturn:
    """Ends the process; a full disk under standard output makes a status of 0 a 1."""
    # The interpreter's own end sometimes aborts on threads of libraries ("terminate called without
    # an active exception"), so the process skips it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if _lost:
        print(f"output was lost: {_lost[0].strerror}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(status or int(bool(_lost)))


def _stop(number: int, frame: object) -> NoReturn:
    """Ends the process by Ctrl-C while it imports: an exception is lost in some libraries."""
    _end_by(KeyboardInterrupt, KeyboardInterrupt(), None)


def terminate(number: int, frame: object) -> NoReturn:
    """Raises Terminated: what a command does at SIGTERM."""
    raise Terminated


def stopped(stop: KeyboardInterrupt) -> int:
    """Returns the exit status of a command that Ctrl-C or SIGTERM has stopped."""
    return 143 if isinstance(stop, Terminated) else 130


def _once_more(ignored: sys.UnraisableHookArgs) -> None:
    """Repeats a Ctrl-C that Python ignores, because it came while an object was cleared away."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        main: Any = threading.main_thread().ident
        threading.Timer(0.01, signal.pthread_kill, [main, signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(ignored)


def _end_by(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> NoReturn:
    """Ends the process by an error that nobody has caught."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if isinstance(error, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        end(stopped(error))
    _tell(error, trace)
    end(1)


def _tell(error: BaseException, trace: TracebackType | None) -> None:
    """Prints an unforeseen error in one line, which says where the trace is; else the trace."""
    lines = "".join(traceback.format_exception(type(error), error, trace))
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    with suppress(OSError):
        number, path = tempfile.mkstemp(".txt", "svae-bench-")
        with open(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"{sys.orig_argv}\n{lines}")
        lines = f"unexpected {what}; the full trace is in {path}\n"
    sys.stderr.write(lines)


def _tell_of(thread: threading.ExceptHookArgs) -> None:
    if thread.exc_value is not None and thread.exc_type is not SystemExit:
        _tell(thread.exc_value, thread.exc_traceback)
