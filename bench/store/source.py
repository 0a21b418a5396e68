"""Digests of source code say which code made a number, so that no report shows it as another's.

A digest covers functions, and all that they call in their own file or in other files of the suite.
It is made of the syntax trees of these definitions. So comments, docstrings, annotations, layout,
the place of a definition and the version of Python do not change a digest. The files are read, not
imported, so a digest needs no torch.

Trainers, networks, classifiers and the code that runs a model for its scores are not covered:
`bench.spec.PROTOCOL` and the tests of stored numbers are about them.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

from bench.store.provenance import REFERENCE, ROOT

LENGTH = 12
"""Hex digits of a digest."""
DATED = REFERENCE / "dated.csv"
"""What is known of rows that were made by other source: see `Today`."""


@cache
def digest(*places: str, root: Path = ROOT) -> str:
    """Returns a digest of the source at these places and of all that it calls in the suite.

    A place is `package.module:name`, `...:Class.method` or `...:TABLE[key]`, an entry of a dict. A
    method brings the methods that it calls on `self`. An entry's names for tables do not count. A
    place that is not found counts as its whole file.
    """
    tracer = _Tracer(root)
    for place in places:
        module, trees = _found(root, place)
        for tree in trees:
            tracer.add(module, "", tree)
    return tracer.digest()


@cache
def there(place: str, root: Path = ROOT) -> bool:
    """Says whether there is a definition or an entry at this place, see `digest`."""
    module, trees = _found(root, place)
    return trees != [module.tree]


def digest_of(function: Callable[..., Any]) -> str:
    """Returns the digest of a function or of an object that can be called, and of what it calls.

    What a function holds counts as well: arguments of a partial, variables of a closure, attributes
    of an object. A function without a file has the digest of its byte code, which other versions of
    Python change.
    """
    try:
        return _digest_of(function)
    except TypeError:  # an object without a hash
        return _digest_of.__wrapped__(function)


@cache
def _digest_of(function: Callable[..., Any]) -> str:
    held: list[str] = []
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        held += [_held(function.args), _held(sorted(function.keywords.items()))]
        function = inspect.unwrap(function.func)
    code = getattr(function, "__code__", None)
    if code is None:  # an object with a method __call__
        held.append(_held(getattr(function, "__dict__", None)))
        code = inspect.unwrap(type(function).__call__).__code__
    held += [_held(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    path = ROOT / code.co_filename
    known = path in _PLUGINS or path.is_file()
    module = _module(path) if known else _Module(ast.Module([], []))
    tracer = _Tracer(ROOT)
    nodes = [node for node in ast.walk(module.tree) if _is(node, code)]
    classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    for node in nodes:  # a method counts with its class, whose other methods it may call
        tracer.add(module, "", next((each for each in classes if node in each.body), node))
    tracer.parts |= {*held, "" if nodes else repr(_byte_code(code))}
    return tracer.digest()


def _held(value: Any) -> str:
    """Returns what a function holds as a text that is the same in every process."""
    if isinstance(value, dict):
        return repr({name: _held(each) for name, each in value.items()})
    if isinstance(value, list | tuple):
        return repr([_held(each) for each in value])
    return digest_of(value) if callable(value) else repr(value)


def _is(node: ast.AST, code: CodeType) -> bool:
    """Says whether this code may be that of this function: by its name and where it begins."""
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, ast.FunctionDef) or node.name != code.co_name:
        return False
    return code.co_firstlineno in (node.lineno, *(each.lineno for each in node.decorator_list))


def _byte_code(code: CodeType) -> tuple[Any, ...]:
    inner = (_byte_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, *inner


def read_all() -> None:
    """Reads the files of methods, metrics and studies, as Python does when it imports them.

    So an edit while this process runs is not taken for the source that it runs. They are parsed
    when a digest needs them: all at once would take half a second of every command.
    """
    for pattern in ("models/*.py", "bench/scores/*.py", "bench/studies/**/*.py"):
        for path in ROOT.glob(pattern):
            _text(path)


@dataclass(frozen=True, eq=False)
class _Module:
    """Holds what one file defines, by name, and what it imports: a module and a name in it."""

    tree: ast.Module
    defined: dict[str, list[ast.AST]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


_PLUGINS: dict[Path, _Module] = {}
_FILES: dict[str, Path] = {}


def add(name: str, path: Path, text: str) -> None:
    """Makes the text of a plug-in the source of the module of this name.

    `path` is what code of the plug-in calls its file, which need not be on this machine. Raises
    SyntaxError.
    """
    _PLUGINS[path], _FILES[name] = _parsed(text), path


def _module(path: Path) -> _Module:
    return _PLUGINS.get(path) or _of_file(path)


@cache
def _text(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def _of_file(path: Path) -> _Module:
    package = ".".join(path.relative_to(ROOT).parent.parts) if path.is_relative_to(ROOT) else ""
    return _parsed(_text(path), package)


def _parsed(text: str, package: str = "") -> _Module:
    module = _Module(_Bare().visit(ast.parse(text)))
    for statement in module.tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            module.imported.update(_imports(statement, package))
        for name, what in _bound(statement):
            module.defined.setdefault(name, []).append(what)
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

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        # Some versions of Python 3.12 end the format of f"{x:>{n}}" with an empty text.
        node.values = [each for each in node.values if _constant(each) != ""]
        return self.generic_visit(node)


def _bound(statement: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yields each name that a statement of a module defines or changes, with what defines it."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name, statement
        return
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
        names, values = statement.targets[0].elts, getattr(statement.value, "elts", ())
        if len(names) == len(values):  # a, b = 1, 2: each name has its own value
            yield from zip(map(_name, names), values, strict=True)
            return
    # An `if`, a loop or a call such as TABLE.update(...) may define or change any name in it.
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, statement
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, statement
        elif isinstance(node, ast.Subscript | ast.Attribute) and (
            isinstance(node.ctx, ast.Store) or isinstance(statement, ast.Expr)
        ):
            yield _name(node.value), statement


def _imports(tree: ast.AST, package: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields each name that a tree imports, with its module and its name there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*filter(None, parents), *filter(None, [node.module])])
            for each in node.names:
                name = f"* of {origin}" if each.name == "*" else each.asname or each.name
                yield name, (origin, each.name)
        elif isinstance(node, ast.Import):
            for each in node.names:
                yield each.asname or each.name, (each.name, "")


def _file(root: Path, module: str) -> Path | None:
    """Returns the file of a module of the suite or of a plug-in, None for a module of others."""
    if module in _FILES:
        return _FILES[module]
    path = root.joinpath(*module.split("."))
    there = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in there if each.is_file()), None)


def _found(root: Path, place: str) -> tuple[_Module, list[ast.AST]]:
    """Returns the trees at a place, and its module. Raises ValueError if there is no such file."""
    name, _, what = place.partition(":")
    path = _file(root, name)
    if path is None:
        raise ValueError(f"there is no source of {name}")
    module = _module(path)
    table, entry, key = what.partition("[")
    if entry:
        return module, [_entry(module, table, key.removesuffix("]")) or module.tree]
    name, _, method = what.partition(".")
    trees = module.defined.get(name, [])
    if method:
        trees = [tree for each in trees for tree in _methods(each, method)]
    return module, trees or [module.tree]


def _methods(tree: ast.AST, name: str) -> list[ast.AST]:
    """Returns a method of a class, and the methods that it calls on `self`."""
    own = {n.name: n for n in getattr(tree, "body", []) if isinstance(n, ast.FunctionDef)}
    found, asked = {}, [name]
    while asked:
        if (each := asked.pop()) in own and each not in found:
            found[each] = own[each]
            nodes = (n for n in ast.walk(own[each]) if isinstance(n, ast.Attribute))
            asked += [node.attr for node in nodes if _name(node.value) == "self"]
    return [*found.values()]


def _entry(module: _Module, table: str, key: str) -> ast.AST | None:
    """Returns the value of a key in a module's dict, without a method's names for tables."""
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
            pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
            value = next((value for k, value in pairs if _constant(k) == key), None)
            if value is not None:
                found = value
                break
    if not isinstance(found, ast.Call):
        return found
    names = _name(found.func) in ("Objective", "Method")
    texts = [arg for arg in found.args if not (names and isinstance(_constant(arg), str))]
    named = [word for word in found.keywords if word.arg not in ("label", "label_cycle")]
    return ast.Call(found.func, texts, named)


def _constant(node: ast.AST | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def _read(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


class _Tracer:
    """Collects definitions that a tree needs, through all files of the suite."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: dict[int, ast.AST] = {}
        self.parts: set[str] = set()

    def digest(self) -> str:
        text = "\n".join(sorted(self.parts))
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def add(self, module: _Module, name: str, tree: ast.AST) -> None:
        """Adds a tree under its name, and then all that it needs."""
        if id(tree) in self.seen:
            return
        self.seen[id(tree)] = tree
        self.parts.add(json.dumps([name, _plain(tree)]))
        imported = module.imported | dict(_imports(tree))
        keyed: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and isinstance(_constant(node.slice), str):
                for table in self._tables(module, imported, _name(node.value)):
                    if entry := _entry(*table, _constant(node.slice)):
                        keyed.add(id(node.value))  # one entry of a table, not all of them
                        self.add(table[0], _constant(node.slice), entry)
                        break
            elif isinstance(node, ast.Attribute):
                self._attribute(imported, node)
            elif isinstance(node, ast.Name) and id(node) not in keyed and _read(node):
                self._need(module, imported, node.id)
        for star, (origin, _) in imported.items():
            if star.startswith("* of ") and (path := _file(self.root, origin)):
                self.add(_module(path), origin, _module(path).tree)

    def _tables(
        self, module: _Module, imported: Mapping[str, tuple[str, str]], name: str
    ) -> Iterator[tuple[_Module, str]]:
        """Yields where a table may have entries: its own file, and the file of an import."""
        if name in module.defined:
            yield module, name
        origin, there = imported.get(name, ("", ""))
        if there and (path := _file(self.root, origin)):
            yield _module(path), there

    def _attribute(self, imported: Mapping[str, tuple[str, str]], node: ast.Attribute) -> None:
        """Adds what `module.name` means, where the module may have a name with dots."""
        chain = ast.unparse(node.value)
        if chain in imported:
            self._follow(*imported[chain], node.attr)
        elif (first := chain.partition(".")[0]) in imported and imported[first][1] == "":
            self._follow(imported[first][0] + chain.removeprefix(first), "", node.attr)

    def _need(self, module: _Module, imported: Mapping[str, tuple[str, str]], name: str) -> None:
        if name in module.defined:
            trees = module.defined[name]
            plain = ast.FunctionDef | ast.ClassDef | ast.Assign
            last = max((i for i, tree in enumerate(trees) if isinstance(tree, plain)), default=0)
            for tree in trees[last:]:  # a later definition replaces an earlier one
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
    there: Callable[[str], bool] = lambda method: True
    """Says whether there is source of a method here. A plug-in's rows do without."""

    def filled(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Returns the digests of those metrics that have a value in this row."""
        return {n: each for n, each in self.metrics.items() if row.get(n) is not None}

    def of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a row's columns `method_digest` and `metric_digests`, dated where they lack."""
        metrics = dict(row["metric_digests"] or ())
        if row["method_digest"] or row["dirty"] is not False:
            return {"method_digest": row["method_digest"], "metric_digests": metrics}
        dated = _dated()
        filled = [name for name in self.metrics if row[name] is not None]
        metrics = {name: dated.get((self.study, row["commit"], name), "unknown") for name in filled}
        method = dated.get((self.study, row["commit"], row["method"]))
        return {"method_digest": method, "metric_digests": metrics}

    def changed(self, row: Mapping[str, Any]) -> list[str]:
        """Returns the method and the metrics of this row whose source is not today's, by name."""
        made = self.of(row)
        pairs = []
        if not row["plugins"] or self.there(row["method"]):
            pairs.append((row["method"], made["method_digest"], self.method(row["method"])))
        for name, then in made["metric_digests"].items():
            pairs.append((name, then, self.metrics.get(name, then)))
        return [name for name, then, now in pairs if self._newest(name, then, now) != now]

    def _newest(self, name: str, then: str | None, now: str) -> str | None:
        """Returns the digest that the table leads to from another, `now` if it leads there."""
        seen: set[str | None] = set()
        while then != now and then not in seen:
            seen.add(then)
            then = _dated().get((self.study, then or "", name), then)
        return then

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
