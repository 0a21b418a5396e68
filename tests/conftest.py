"""What the tests share. One thread, no network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench import report, run
from bench.render import draw, explore
from tests import lives
from tests.lives import PATIENCE, Life
from tests.rows import SMOKE, stored

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

os.environ["PYTHONPATH"] = str(ROOT)  # of all processes that tests start
torch.set_num_threads(1)
# What a shell starts in the background is deaf to Ctrl-C, and its children would be as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Reads only files with tests of a GPU for `pytest -m gpu`: others need more than the core."""
    if config.option.markexpr == "gpu" and collection_path.name.startswith("test_"):
        return "mark.gpu" not in collection_path.read_text("utf-8") or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `gpu` where there is none; `pytest -m gpu` runs these tests alone."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that would leave the machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address):
        local = self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "::1")
        assert local, f"a test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """A command that is stopped in a test's process leaves it deaf, and all that it starts."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def start(*arguments: str, cwd: Path, **kw) -> subprocess.Popen[str]:
    """`python ARGUMENTS` in a folder of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kw,
    )


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs `python ARGUMENTS` to its end: status, standard output, standard error."""

    def run(*arguments: str, **kw) -> tuple[int, str, str]:
        process = start(*arguments, cwd=tmp_path, **kw)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    return run


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Starts lives in the test's folder: of the command with these arguments, or of a `call`."""
    begun: list[Life] = []

    def begin(*arguments: str, first: Any = (), call: Any = None) -> Life:
        command = partial(lives.command, arguments, [lives.no_report, *first])
        begun.append(Life(tmp_path, call or command))
        return begun[-1]

    yield begin
    for life in begun:
        with suppress(ProcessLookupError):
            os.killpg(life.pid, signal.SIGKILL)
        life.process.kill()


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds a run, and few tests look at it."""
    monkeypatch.setattr(report, "after_run", lambda *_: None)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are written without pictures and explorer, for tests that read words alone."""
    monkeypatch.setattr(draw, "write", lambda *_: {})
    monkeypatch.setattr(explore.Explorer, "html", lambda _: "")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of the smoke study, one job after another in this process: the baseline."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "after_run", lambda *_: None)
        assert run.main([*SMOKE, "--engine", "sequential", "--results", str(folder)]) == 0
    return stored(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data and an empty working folder."""
    monkeypatch.setenv("SVAE_BENCH_DATA", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"
