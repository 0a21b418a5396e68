"""Plug-ins are files from outside the tree that add methods, metrics, data sets and studies.

    python -m bench.run toy_grid --plugin my.py

A plug-in is Python that adds to the suite's own tables, as bench/README.md shows, or a grid in TOML
(`bench.studies.grids`). Jobs carry the text of every plug-in that is loaded, so a worker needs no
file. Rows carry its digest.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.cli import UsageError, one_line, to_path

VARIABLE = "SVAE_BENCH_PLUGINS"
"""Names plug-ins of the commands that train, score or report; between them is a colon."""
ENDINGS = (".py", ".toml")

Text = tuple[str, str]
"""The path of a plug-in, as on the machine that has read it, and what the file says."""


@dataclass(frozen=True)
class Plugin:
    """Holds a plug-in and the names that it has added; a metric has that of its first column."""

    path: str
    text: str
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.path).name

    @property
    def digest(self) -> str:
        """Returns 12 hex digits that name what the file says."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def option(self) -> str:
        """Returns how a command names the file."""
        return f"{'--study' if self.path.endswith('.toml') else '--plugin'} {self.name}"

    def wrong(self, name: str, what: str) -> UsageError:
        """Returns the error of a name that the plug-in adds, with the line that has the name."""
        return UsageError(f"{self.option}{_line(self, name)}: {what}")

    @property
    def module(self) -> str:
        """Returns the name under which Python and `bench.store.source` know it."""
        return f"plugin_{self.digest}"


LOADED: dict[str, Plugin] = {}
"""Plug-ins of this process by their file's name."""
_ADDED: dict[str, list[tuple[Any, Any]]] = {}
"""What each has added: tables, and keys of dicts or entries of lists."""


ABOUT = f"""loads a file that adds methods, metrics, data sets or studies, see bench/README.md. The
    option may be repeated. ${VARIABLE} names further plug-ins."""


def add_option(parser: argparse.ArgumentParser, about: str = ABOUT) -> None:
    """Adds the option --plugin to a command."""
    options: dict[str, Any] = {"action": "append", "default": [], "type": to_path}
    parser.add_argument("--plugin", metavar="FILE", help=about, **options)


def load(paths: Iterable[Path | str] = ()) -> list[Plugin]:
    """Loads these files and those that $SVAE_BENCH_PLUGINS names; returns their plug-ins.

    Raises UsageError, with file and line, for a file that can't be read or that raises, and for a
    name that exists already. Then nothing of that file is left.
    """
    named = [Path(each) for each in os.environ.get(VARIABLE, "").split(os.pathsep) if each]
    return install([_read(Path(path)) for path in [*named, *paths]])


def _read(path: Path) -> Text:
    if path.suffix not in ENDINGS:
        raise UsageError(f"--plugin {path}; allowed: a file that ends in {' or '.join(ENDINGS)}")
    option = Plugin(str(path), "").option
    try:
        return str(path.absolute()), path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{option} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} can't be read: it is no text in UTF-8") from None


def carried() -> tuple[Text, ...]:
    """Returns what a job takes along, so that its worker can `install` it."""
    return tuple((each.path, each.text) for each in LOADED.values())


def digests() -> dict[str, str]:
    """Returns the digest of every plug-in of this process by its file's name."""
    return {name: each.digest for name, each in LOADED.items()}


def install(texts: Iterable[Text]) -> list[Plugin]:
    """Loads plug-ins by their texts; what is loaded already stays. Raises as `load` does."""
    found = []
    for path, text in texts:
        plugin = Plugin(path, text)
        known = LOADED.get(plugin.name)
        if known and known.text != text:
            if known.path != path:
                raise UsageError(f"--plugin {path}; {known.path} has the same name: rename a file")
            unload(known.name)  # somebody has edited it, in a notebook for example
            known = None
        found.append(known or _installed(plugin))
        LOADED[plugin.name] = found[-1]
    return found


def unload(name: str) -> None:
    """Takes back all that the plug-in of this file's name has added."""
    del LOADED[name]
    for table, entry in _ADDED.pop(name):
        if isinstance(table, list):
            table[:] = [each for each in table if each is not entry]
        else:
            table.pop(entry, None)


def home(kind: str, name: str) -> str:
    """Returns the module of the plug-in that has added this name, "" for the suite's own.

    The kind is a field of Plugin: methods, metrics, networks, data or studies.
    """
    return next((p.module for p in LOADED.values() if name in getattr(p, kind)), "")


def place(error: BaseException) -> str:
    """Returns "(FILE:LINE)" of the last line of a plug-in that an error came through, or ""."""
    names = {each.path: each.name for each in LOADED.values()}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in names]
    return f"({names[frames[-1].filename]}:{frames[-1].lineno})" if frames else ""


def _installed(plugin: Plugin) -> Plugin:
    """Returns the plug-in with what it has added; takes that back if anything is wrong."""
    from bench.store import source

    python = plugin.path.endswith(".py")
    tables = [*_tables(python)]
    before = [table.copy() for _, table, _ in tables]
    try:
        if python:
            source.add(plugin.module, Path(plugin.path), plugin.text)
            _run(plugin)
        else:
            from bench.studies.grids import add

            add(plugin.text)
        added: dict[str, list[str]] = {}
        # Methods lie in two tables, and a name means one method.
        methods = {
            name
            for (k, *_), old in zip(tables, before, strict=True)
            if k == "methods"
            for name in old
        }
        for (kind, table, type_), old in zip(tables, before, strict=True):
            now, then = _by_name(table), _by_name(old)
            new = [name for name in now if name not in then]
            lost = [name for name in then if now.get(name) is not then[name]]
            lost += [name for name in new if kind == "methods" and name in methods]
            for name in lost:
                raise plugin.wrong(
                    name, f"{KINDS[kind]} {name} exists already; allowed: another name"
                )
            for name in new:
                _check(plugin, kind, name, now[name], type_)
                if kind == "methods":
                    _check_method(plugin, name)
            added.setdefault(kind, []).extend(new)
    except BaseException as error:
        for (_, table, _), old in zip(tables, before, strict=True):
            table.clear()
            table.extend(old) if isinstance(table, list) else table.update(old)
        sys.modules.pop(plugin.module, None)
        if isinstance(error, UsageError | KeyboardInterrupt):
            raise
        raise UsageError(_told(plugin, error)) from None
    _ADDED[plugin.name] = [
        (table, each)
        for (_, table, _), old in zip(tables, before, strict=True)
        for each in table
        if each not in old
    ]
    return replace(plugin, **{kind: tuple(dict.fromkeys(each)) for kind, each in added.items()})


KINDS = {
    "methods": "method",
    "metrics": "column",
    "networks": "network",
    "data": "data set",
    "studies": "study",
}
"""What a message calls a name of each kind."""


def _tables(python: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yields the suite's tables to which a plug-in may add, and the type of their entries.

    A grid adds a study alone.
    """
    from bench.studies import STUDIES
    from bench.studies.study import Study

    yield "studies", STUDIES, Study
    if python:
        from bench.data.sources import DATASETS, Dataset
        from bench.scores.metrics import IMAGES, TOY, Metric
        from models import colour, mnist
        from models.methods import METHODS, Method
        from models.objectives import OBJECTIVES, Objective

        own: Any = METHODS
        yield from (("methods", OBJECTIVES, Objective), ("methods", own.maps[0], Method))
        yield from (("metrics", TOY, Metric), ("metrics", IMAGES, Metric))
        yield from (("networks", mnist.PARTS, Callable), ("networks", colour.PARTS, Callable))
        yield "data", DATASETS, Dataset


def _by_name(table: Any) -> dict[str, Any]:
    """Returns the entries of a table by name; a metric stands under each of its columns."""
    if isinstance(table, list):
        return {name: each for each in table for name in getattr(each, "columns", [str(each)])}
    return table


def _check(plugin: Plugin, kind: str, name: str, entry: Any, wanted: Any) -> None:
    """Raises UsageError for an entry that no command or no worker could use."""
    if not isinstance(entry, wanted):
        of = "a function" if wanted is Callable else wanted.__name__
        what = f"{KINDS[kind]} {name} is of type {type(entry).__name__}; allowed: {of}"
        raise plugin.wrong(name, what)
    if kind == "studies" and entry.name != name:
        raise plugin.wrong(name, f"study {name} is named {entry.name}; allowed: one name")
    if kind == "studies" and entry.kind.__module__ == plugin.module:
        what = f"study {name} has specs of its own kind, which no worker could read"
        raise plugin.wrong(name, f"{what}; allowed: ToySpec, ImageSpec or Spec of the suite")


def _check_method(plugin: Plugin, name: str) -> None:
    """Raises UsageError for networks that are no dict, and for a label that another method has."""
    from models.methods import METHODS

    own = METHODS[name]
    if not isinstance(own.parts, Mapping):
        kind = type(own.parts).__name__
        raise plugin.wrong(name, f"method {name} has parts of type {kind}; allowed: a dict")
    for other, method in METHODS.items():
        same = {own.label, own.label_cycle} & {method.label, method.label_cycle} - {""}
        if other != name and same:
            what = f"method {name} has the label {min(same)} of {other}"
            raise plugin.wrong(name, f"{what}; allowed: a label of its own")


def _run(plugin: Plugin) -> None:
    """Runs a plug-in as a module."""
    module = sys.modules[plugin.module] = ModuleType(plugin.module)
    module.__file__ = plugin.path
    beside, paths = {os.getcwd(), "", str(Path(plugin.path).parent)}, sys.path[:]
    sys.path[:] = [path for path in paths if path not in beside]  # workers have no file beside it
    try:
        exec(compile(plugin.text, plugin.path, "exec"), vars(module))
    finally:
        sys.path[:] = paths


def _told(plugin: Plugin, error: BaseException) -> str:
    """Returns where a plug-in has raised, and what."""
    if plugin.path.endswith(".toml"):
        return one_line(f"{plugin.option}{_key(plugin, str(error))}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == plugin.path]
    if isinstance(error, SyntaxError):
        lines, error = [error.lineno], SyntaxError(error.msg)
    where = f"{plugin.option}:{lines[-1]}" if lines and lines[-1] else plugin.option
    return one_line(f"{where}: {type(error).__name__}: {error}")


def _key(plugin: Plugin, message: str) -> str:
    """Returns ":LINE" of the first key of a grid that a message names, "" for none."""
    words = {word.strip("'\"") for word in message.partition(";")[0].split()}
    for number, line in enumerate(plugin.text.splitlines(), 1):
        key, equals, _ = line.partition("=")
        if equals and key.strip(" '\"") in words:
            return f":{number}"
    return ""


def _line(plugin: Plugin, name: str) -> str:
    """Returns ":LINE" of the first place where a plug-in writes a name, "" for none."""
    with suppress(SyntaxError):
        for node in ast.walk(ast.parse(plugin.text)):
            if isinstance(node, ast.Constant) and node.value == name:
                return f":{node.lineno}"
    return ""
