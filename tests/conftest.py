"""What the tests share. One thread, no network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 900
"""Seconds until a process counts as hung, on a machine that others are using as well."""

torch.set_num_threads(1)
# What a shell starts in the background is deaf to Ctrl-C, and its children would be as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that would leave the machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address):
        local = self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "::1")
        assert local, f"a test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def start(*arguments: str, cwd: Path, **kw) -> subprocess.Popen[str]:
    """`python ARGUMENTS` in a folder of its own, with this checkout importable."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
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
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data and an empty working folder."""
    monkeypatch.setenv("SVAE_BENCH_DATA", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"
