"""Runs a command on random input, and says what no input may lead to.

    SVAE_BENCH_FUZZ=20 pytest tests/fuzz -s

The tests try 100 cases, always the same. The command above tries 20 times as many, counts the
cases that fail, and sorts them by the error and its place.
"""

from __future__ import annotations

import atexit
import functools
import io
import os
import re
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings

from bench import frame, report
from bench.data import download
from bench.data.files import DataError
from bench.data.sources import DATASETS, images_in
from bench.engine.plan import Plan
from bench.render import draw, intervals
from bench.studies import cost
from tests.conftest import POSIX, ROOT

TIMES = int(os.environ.get("SVAE_BENCH_FUZZ", "1"))
"""How many times as many cases as usual are tried; from 2 on failures are counted."""
PATIENCE = 60
"""Seconds after which a counted case hangs; most take a tenth of a second."""
MEMORY = 6 << 30
"""Bytes that a counted case may ask for."""
KNOWN = re.compile(
    "python -m bench|(set aside|skipped|stale|again|bad|not read): |[a-z0-9_]+ at scale "
    "|[0-9]+ images? taken from "
)
"""How a line on standard error may begin."""

HOME = Path(tempfile.mkdtemp(prefix="fuzz-"))
"""Where cases have their folders, and the files that they copy."""
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
OWN = {"grey": images_in("~/grey", channels=1, size=16)}
OWN["colour"] = images_in("colour", channels=3, size=16)
ends: Counter[str] = Counter()
"""How often each command has ended by each status."""

Main = Callable[[list[str]], int]
Tree = Mapping[str, bytes | str]


class Outcome(NamedTuple):
    """What a command ends with: its status and what it prints."""

    status: int
    out: str
    err: str


class Hangs(BaseException):
    """A case takes longer than PATIENCE."""


def called(main: Main, *arguments: str) -> Outcome:
    """Runs a command in this process, with streams as `bench.process` makes them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([*arguments])
        except SystemExit as end:
            assert isinstance(end.code, int), f"exit by {end.code!r}"
            status = end.code
    ends[f"{main.__module__} {status}"] += 1
    for stream in (out, err):
        stream.seek(0)
    return Outcome(status, out.read(), err.read())


def judged(main: Main, *arguments: str, allowed: tuple[int, ...] = (0, 2)) -> Outcome:
    """Runs a command. Asserts that it succeeds, or says in one line why it does not."""
    found = called(main, *arguments)
    assert found.status in allowed, f"status {found.status}"
    if found.status == 2:
        lines = found.err.splitlines()
        assert any(line.startswith("python -m bench") for line in lines), "a refusal without a line"
        assert all(map(KNOWN.match, lines)), "a refusal of several lines"
    return found


def _no_download(url: str, path: Path, **_: Any) -> NoReturn:
    raise DataError(f"{url} can't be downloaded: download it by hand to {path}")


@contextmanager
def place() -> Iterator[Path]:
    """Yields a folder for one case: cache, home, checkout and current folder lie in it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(dir=HOME) as name:
        folder, root = Path(name), Path(name) / "checkout"
        (folder / "here").mkdir()
        os.chdir(folder / "here")
        with (
            patch.dict(os.environ, {"SVAE_BENCH_DATA": str(folder / "cache"), "HOME": name}),
            patch.dict(DATASETS, OWN),
            patch.object(download, "fetch", _no_download),
            # What costs seconds: to time trainings and products, to resample, to draw figures.
            patch.object(Plan, "estimate", Plan._by_products),
            patch.object(cost, "matmul_rate", lambda _: 1e10),
            patch.multiple(intervals, RESAMPLES=200, CHUNK=200),
            patch.object(draw, "write", lambda *_: {}),
            patch.object(report, "ROOT", root),
            patch.object(report, "REFERENCE", root / "results" / "reference"),
            patch.object(report, "REFERENCE_REPORTS", root / "reports" / "reference"),
            patch.object(frame, "REFERENCE", root / "results" / "reference"),
        ):
            try:
                yield folder
            finally:
                os.chdir(before)


def tree(folder: Path) -> Tree:
    """Returns what lies below a folder: bytes of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "no file"
    return found


def changed(before: Tree, after: Tree) -> list[str]:
    """Returns the names of files that were added, removed or written."""
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


@functools.cache
def _used() -> int:
    """Returns the bytes of address space that the process has when its first case begins."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[0])


@contextmanager
def _limited() -> Iterator[None]:
    """Ends a case that takes too long or too much memory; fails one that warns."""
    import resource

    def stop(*_: object) -> NoReturn:
        raise Hangs

    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_used() + MEMORY, limits[1]))
    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
        assert not warned, f"a warning: {warned[0].message}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _kind(error: BaseException) -> str:
    """Returns the error without what differs from case to case, and its place in the suite."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "bench")]
    where = [f" at {Path(f.filename).relative_to(ROOT)}:{f.lineno} {f.name}" for f in ours[-1:]]
    text = re.sub("[0-9]+|'[^']*'|/[^ ]*", "…", " ".join(str(error).split()))
    return f"{type(error).__name__}{''.join(where)}: {text[:100]}"


def cases(n: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Makes a test of a property of `n` random cases, see the head of this module."""

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        failed: Counter[str] = Counter()
        tried = [0]

        def one(**drawn: Any) -> None:
            tried[0] += 1
            try:
                with nullcontext() if TIMES == 1 else _limited():
                    test(**drawn)
            except (Exception, Hangs) as error:
                if TIMES == 1:
                    raise
                name = _kind(error)
                if name not in failed:
                    traceback.print_exc()
                    print(f"{name}, first by {drawn!r:.1500}", flush=True)
                failed[name] += 1

        options = {"database": None, "deadline": None, "derandomize": True}
        options |= {"max_examples": n * TIMES, "suppress_health_check": [*HealthCheck]}
        every = settings(**options)(given(**strategies)(one))

        @POSIX
        def run() -> None:
            ends.clear()
            every()
            lines = [f"{test.__name__}: {failed.total()} of {tried[0]} cases failed; {dict(ends)}"]
            lines += [f"  {count} x {name}" for name, count in failed.most_common()]
            print("\n".join(lines), flush=True)
            assert not failed, "\n".join(lines)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate
