"""Digests of source code say which code made a number, so that no report shows it as another's.

A digest covers functions, and all that they call in their own file or in other files of the suite.
It is made of the syntax trees of these definitions. So comments, docstrings, annotations, layout,
the place of a definition and the version of Python do not change a digest. The files are read, not
imported, so a digest needs no torch.

The trainers and the networks are not covered: `bench.spec.PROTOCOL` and the tests of stored numbers
are about them.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.store.provenance import ROOT

LENGTH = 12
"""Hex digits of a digest."""
DATED = ROOT / "results" / "reference" / "dated.csv"
"""What is known of rows that were made by other source: see `Today`."""


@cache
def digest(*places: str, root: Path = ROOT, without: tuple[str, ...] = ()) -> str:
    """Returns a digest of the source at these places and of all that it calls in the suite.

    A place is `package.module:name`, `…:Class.method` or `…:TABLE[key]`, an entry of a dict. Texts
    that the call of an entry takes directly are names for tables and do not count. `without` are
    names that do not count. A place that is not found counts as its whole file.
    """
    return _Tracer(root, without).digest(map(partial(_found, root), places))


def there(place: str, root: Path = ROOT) -> bool:
    """Says whether there is a definition or an entry at this place, see `digest`."""
    module, tree = _found(root, place)
    return tree is not module.tree


@cache
def digest_of(function: Callable[..., Any]) -> str:
    """Returns the digest of a function, a lambda or a partial, and of what it calls."""
    bound = ""
    while isinstance(function, partial):
        bound += repr((function.args, sorted(function.keywords.items())))
        function = function.func
    code = getattr(function, "__code__", None) or type(function).__call__.__code__
    module = _module(Path(code.co_filename))
    nodes = [node for node in ast.walk(module.tree) if code.co_firstlineno in _starts(node)]
    return _Tracer(ROOT, (), bound).digest((module, node) for node in nodes or [module.tree])


def _starts(node: ast.AST) -> set[int]:
    """Returns the lines on which a function may begin: its decorator's or its own."""
    if isinstance(node, ast.FunctionDef):
        return {node.lineno, *(each.lineno for each in node.decorator_list)}
    return {node.lineno} if isinstance(node, ast.Lambda) else set()


@dataclass(frozen=True, eq=False)
class _Module:
    """Holds what one file defines, and what it imports: a module, and perhaps a name in it."""

    tree: ast.Module
    defined: dict[str, list[ast.AST]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


@cache
def _module(path: Path) -> _Module:
    module = _Module(_Bare().visit(ast.parse(path.read_text("utf-8"))))
    module.imported.update(_imports(module.tree))
    for statement in module.tree.body:
        for name in _bound(statement):
            module.defined.setdefault(name, []).append(statement)
    return module


class _Bare(ast.NodeTransformer):
    """Takes from a tree all that does not compute: docstrings, annotations, `pass`."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        value = node.value or ast.Constant(...)
        return self.generic_visit(ast.Assign([node.target], value, lineno=node.lineno))


def _bound(statement: ast.AST) -> Iterator[str]:
    """Yields the names that a statement of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AugAssign):
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields each name that a tree imports, with its module and its name there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for each in node.names:
                yield each.asname or each.name, (node.module or "", each.name)
        elif isinstance(node, ast.Import):
            for each in node.names:
                name = each.name if each.asname else each.name.partition(".")[0]
                yield each.asname or name, (name, "")


def _file(root: Path, module: str) -> Path | None:
    """Returns the file of a module of the suite, None for a module of others."""
    path = root.joinpath(*module.split("."))
    there = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in there if each.is_file()), None)


def _found(root: Path, place: str) -> tuple[_Module, ast.AST]:
    """Returns the tree at a place, and its module. Raises ValueError if there is no such file."""
    name, _, what = place.partition(":")
    path = _file(root, name)
    if path is None:
        raise ValueError(f"there is no source of {name}")
    module = _module(path)
    table, entry, key = what.partition("[")
    if entry:
        return module, _entry(module, table, key.removesuffix("]")) or module.tree
    name, _, method = what.partition(".")
    node = next(reversed(module.defined.get(name, [])), None)
    if node is not None and method:
        inside = [n for n in getattr(node, "body", []) if getattr(n, "name", "") == method]
        node = next(iter(inside), None)
    return module, node or module.tree


def _entry(module: _Module, table: str, key: str) -> ast.AST | None:
    """Returns the value of a key in a module's dict, without the texts that its call takes."""
    found = None
    for statement in module.tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        target = statement.targets[0]
        if isinstance(target, ast.Subscript) and _constant(target.slice) == key:
            found = statement.value if _name(target.value) == table else found
        if _name(target) != table:
            continue
        for node in ast.walk(statement.value):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                found = next((value for k, value in pairs if _constant(k) == key), found)
    if not isinstance(found, ast.Call):
        return found
    texts = [arg for arg in found.args if not isinstance(_constant(arg), str)]
    named = [word for word in found.keywords if not isinstance(_constant(word.value), str)]
    return ast.Call(found.func, texts, named)


def _constant(node: ast.AST | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


class _Tracer:
    """Collects definitions that a tree needs, through all files of the suite."""

    def __init__(self, root: Path, without: tuple[str, ...], bound: str = "") -> None:
        self.root, self.without = root, without
        self.seen: set[int] = set()
        self.parts = {bound} - {""}

    def digest(self, trees: Iterator[tuple[_Module, ast.AST]]) -> str:
        for module, tree in trees:
            self.add(module, "", tree)
        text = "\n".join(sorted(self.parts))
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def add(self, module: _Module, name: str, tree: ast.AST) -> None:
        """Adds a tree under its name, and then all that it needs."""
        if id(tree) in self.seen:
            return
        self.seen.add(id(tree))
        self.parts.add(json.dumps([name, _plain(tree)]))
        imported = module.imported | dict(_imports(tree))
        own = _own_names(tree)
        keyed: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and isinstance(_constant(node.slice), str):
                table = self._table(module, imported, _name(node.value))
                entry = table and _entry(*table, _constant(node.slice))
                if table and entry:  # one entry of a table, not all of them
                    keyed.add(id(node.value))
                    self.add(table[0], _constant(node.slice), entry)
            elif isinstance(node, ast.Attribute) and _name(node.value) in imported:
                self._follow(*imported[_name(node.value)], node.attr)
            elif isinstance(node, ast.Name) and id(node) not in keyed and node.id not in own:
                self._need(module, imported, node.id)

    def _table(
        self, module: _Module, imported: Mapping[str, tuple[str, str]], name: str
    ) -> tuple[_Module, str] | None:
        if name in module.defined:
            return module, name
        origin, there = imported.get(name, ("", ""))
        path = _file(self.root, origin) if there else None
        return (_module(path), there) if path else None

    def _need(self, module: _Module, imported: Mapping[str, tuple[str, str]], name: str) -> None:
        if name in self.without:
            return
        if name in module.defined:
            for tree in module.defined[name]:
                self.add(module, name, tree)
        elif name in imported:
            self._follow(*imported[name], "")

    def _follow(self, origin: str, name: str, attribute: str) -> None:
        """Adds what a name means that was imported from a module, or an attribute of a module."""
        inside = _file(self.root, f"{origin}.{name}" if name else origin)
        if inside and attribute:
            self._need(_module(inside), _module(inside).imported, attribute)
        elif name and (path := _file(self.root, origin)):
            self._need(_module(path), _module(path).imported, name)
        elif not inside:
            self.parts.add(json.dumps(["import", origin, name]))


def _own_names(tree: ast.AST) -> set[str]:
    """Returns the names that a function binds itself: its arguments and its variables."""
    if not isinstance(tree, ast.FunctionDef | ast.Lambda):
        return set()
    nodes = list(ast.walk(tree))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.arg for n in nodes if isinstance(n, ast.arg)}


_SKIPPED = {"ctx", "kind", "type_comment"}


def _plain(node: Any) -> Any:
    """Returns a tree as lists and texts, without empty fields, which versions of Python add."""
    if isinstance(node, ast.Constant):
        return [type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _SKIPPED)
        filled = ((name, value) for name, value in fields if value is not None and value != [])
        return [type(node).__name__, *([name, _plain(value)] for name, value in filled)]
    return [_plain(each) for each in node] if isinstance(node, list) else node


# Rows and today's source


@dataclass(frozen=True)
class Today:
    """Knows the digests of today's source, and says of which rows they are not.

    Rows that were made by other source count as today's if `DATED` says so. In this table `made_by`
    is a digest, or the commit of rows without digests. `name` is that of a method or metric. The
    source at `made_by` makes the numbers of the source with this `digest`; `checked` says how that
    is known.
    """

    study: str
    method: Callable[[str], str]
    metrics: Mapping[str, str]  # by first column

    def filled(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Returns the digests of those metrics that have a value in this row."""
        return {n: each for n, each in self.metrics.items() if row.get(n) is not None}

    def of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a row's columns `method_digest` and `metric_digests`, dated where they lack."""
        metrics = dict(row["metric_digests"] or ())
        if row["method_digest"] or row["dirty"] is not False:
            return {"method_digest": row["method_digest"], "metric_digests": metrics}
        found = {name: _dated().get((self.study, row["commit"], name)) for name in self.metrics}
        known = {name: each for name, each in found.items() if each and row[name] is not None}
        method = _dated().get((self.study, row["commit"], row["method"]))
        return {"method_digest": method, "metric_digests": known}

    def changed(self, row: Mapping[str, Any]) -> list[str]:
        """Returns the method and the metrics of this row whose source is not today's, by name."""
        made = self.of(row)
        pairs = [(row["method"], made["method_digest"], self.method(row["method"]))]
        for name, then in made["metric_digests"].items():
            pairs.append((name, then, self.metrics.get(name, then)))
        dated = _dated()
        return [
            name
            for name, then, now in pairs
            if then != now and dated.get((self.study, then, name)) != now
        ]

    def stale(self, row: Mapping[str, Any]) -> str:
        """Returns what made this row otherwise than today's source would, "" for nothing."""
        if self.of(row)["method_digest"] is None:
            return "unknown source"
        return " and ".join(f"another {name}" for name in self.changed(row))


@cache
def _dated() -> dict[tuple[str, str, str], str]:
    """Returns digests by study, commit or digest, and name."""
    if not DATED.is_file():
        return {}
    with DATED.open(encoding="utf-8") as file:
        lines = csv.DictReader(file)
        return {(line["study"], line["made_by"], line["name"]): line["digest"] for line in lines}
