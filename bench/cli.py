"""What the commands share: bad input gets one line and exit status 2; times have one format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn


class UsageError(Exception):
    """The user asked for something impossible; one line says what is wrong and what is allowed."""


class Parser(argparse.ArgumentParser):
    """Answers bad arguments in one line; descriptions keep their lines."""

    def __init__(self, prog: str, description: str | None) -> None:
        plain = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=plain)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def complain(module: str, error: Exception | str, status: int = 2) -> int:
    """Prints the line and returns the exit status."""
    print(f"python -m {module}: {error}", file=sys.stderr)
    return status


def positive(text: str) -> int:
    """Returns a whole number >= 1, as argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number >= 1")
    return int(text)


def to_path(text: str) -> Path:
    """Returns a path, with `~` for the home folder, as argparse's `type`."""
    why = ""
    try:
        if text:
            return Path(text).expanduser()
    except RuntimeError:
        why = ", but there is no such home folder"
    raise argparse.ArgumentTypeError(f"{text!r}{why}; allowed: a path")


def duration(seconds: float, digits: int = 2) -> str:
    """A time in the unit that suits it, to at least so many digits."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    value, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{value:,.0f} {unit}" if value >= 10**digits else f"{value:.{digits}g} {unit}"
