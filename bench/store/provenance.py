"""Provenance says where a result came from, in columns beside it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.cli import UsageError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
"""The published rows lie in the checkout, wherever a command is called from."""


def need_checkout(what: str) -> None:
    """Raises UsageError where the suite is installed without its checkout; names what needs it."""
    if not (ROOT / "pyproject.toml").is_file():
        raise UsageError(
            f"{what} needs a checkout of the suite; the package in {ROOT} is installed without one"
        )


def _git(*arguments: str) -> str | None:
    # A hook of another repository sets GIT_DIR and its like.
    environment = {name: each for name, each in os.environ.items() if not name.startswith("GIT_")}
    options: dict[str, Any] = {
        "cwd": ROOT,
        "capture_output": True,
        "encoding": "utf-8",
        "errors": "replace",
        "timeout": 20,
    }
    # In a container the checkout may be another user's; this process runs its code already.
    # Without a lock: a run that is killed must not leave one in the user's repository.
    command = ["git", "--no-optional-locks", "-c", f"safe.directory={ROOT}", *arguments]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, check=True, env=environment, **options).stdout.strip()
    return None


def commit() -> dict[str, Any]:
    """Returns the suite's commit and whether tracked files differ.

    The process that starts a run asks once and passes the answer to its workers. So an edit during
    a long run doesn't change what the rows say. Outside a checkout, whoever has sent the files from
    a clean checkout names the commit in SVAE_BENCH_COMMIT; else both are null. Raises UsageError
    for a name that is no commit.
    """
    if _git("ls-files", "--error-unmatch", "bench/store/provenance.py") is None:
        if not (sent := os.environ.get("SVAE_BENCH_COMMIT")):
            return {"commit": None, "dirty": None}
        if not re.fullmatch("[0-9a-f]{40}", sent):
            raise UsageError(
                f"SVAE_BENCH_COMMIT is {sent}; allowed: 40 digits of git rev-parse HEAD"
            )
        return {"commit": sent, "dirty": False}
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(changes)}


@cache
def versions() -> dict[str, str | None]:
    """Returns the versions of the suite, Python, torch and numpy."""
    found: dict[str, str | None] = {"suite": None, "python": platform.python_version()}
    for column, package in (("suite", "svae-bench"), ("torch", "torch"), ("numpy", "numpy")):
        with suppress(metadata.PackageNotFoundError):
            found[column] = metadata.version(package)
    return found


@cache
def cpu_name() -> str:
    """Returns the processor's name, or its architecture where the system names none."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
