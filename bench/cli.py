"""What the commands share: bad input gets one line and exit status 2; times have one format."""

from __future__ import annotations

import argparse
import errno
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

BASELINE = """compares every other method with this one, in a table of pairs and at equal
    reconstruction. METHOD is the name or a label of a method with results. Without the option a
    report compares what the paper compares. Verdicts on claims are the same either way"""
"""What the option --baseline of bench.run and bench.report does."""


class UsageError(Exception):
    """The user asked for something impossible; one line says what is wrong and what is allowed."""


class Parser(argparse.ArgumentParser):
    """Answers bad arguments in one line; descriptions keep their lines."""

    def __init__(self, prog: str, description: str | None) -> None:
        plain = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=plain)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (see --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses `--option=--`, of which some versions of Python make an empty list."""
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: -- is no value")
        return super().parse_known_args(args, namespace)


def given_beside(
    parser: argparse.ArgumentParser, args: argparse.Namespace, taken: Collection[str]
) -> str:
    """Returns the first option that the user gave and that is not `taken`, "" for none."""
    for name, value in vars(args).items():
        if name not in taken and value not in ([], parser.get_default(name)):
            return "STUDY" if name in ("study", "studies") else f"--{name.replace('_', '-')}"
    return ""


def one_line(text: object) -> str:
    """Returns the text in one line: line ends, and whatever else can't be printed, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def complain(module: str, error: Exception | str, status: int = 2) -> int:
    """Prints the line and returns the exit status."""
    print(f"python -m {module}: {one_line(error)}", file=sys.stderr)
    return status


def positive(text: str) -> int:
    """Returns a whole number >= 1, as argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number >= 1")
    return int(text)


def to_path(text: str) -> Path:
    """Returns a path, with `~` for the home folder, as argparse's `type`."""
    path, why = Path(text), ""
    try:
        path = path.expanduser()
        path.lstat()
    except RuntimeError:
        why = ", but there is no such home folder"
    except ValueError:
        why = ", but no file here can have that name"
    except OSError as error:  # the command itself says what it misses there
        if error.errno == errno.ENAMETOOLONG:
            why = ", but no file here can have so long a name"
    if why or not text:
        raise argparse.ArgumentTypeError(f"{text!r}{why}; allowed: a path")
    return path


def to_file(text: str) -> Path:
    """Returns the path of a file to be written, as argparse's `type`."""
    path = to_path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a file in a folder that is there")
    return path


def options(
    scale: str | None = None,
    results: object = None,
    plugins: Iterable[object] = (),
    data: object = None,
) -> str:
    """Returns these options as one types them in a shell, each after a blank; None is left out."""
    words = ["--scale", scale] if scale else []
    words += ["--results", str(results)] if results else []
    words += [word for file in plugins for word in ("--plugin", str(file))]
    words += ["--data", str(data)] if data else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def duration(seconds: float, digits: int = 2) -> str:
    """A time in the unit that suits it, to at least so many digits."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    value, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{value:,.0f} {unit}" if value >= 10**digits else f"{value:.{digits}g} {unit}"
