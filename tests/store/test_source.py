"""Digests change with what computes, and with nothing else; stale rows are named and left out."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.scores.metrics import IMAGES, TOY, Metric
from bench.store import source
from bench.store.provenance import ROOT
from bench.studies import STUDIES

OBJECTIVES = "models/objectives.py"
METHODS = "models/methods.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the models and scores, to be edited."""
    for part in ("models", "bench/scores"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("weights"))
    return tmp_path


def forget() -> None:
    """Reads files anew, as another process would."""
    source._text.cache_clear()
    source._of_file.cache_clear()
    source.digest.cache_clear()


def edit(root: Path, file: str, *changes: tuple[str, str]) -> None:
    forget()
    path = root / file
    text = path.read_text("utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    ast.parse(text)
    path.write_text(text, "utf-8")


def digests(root: Path) -> dict[str, str]:
    """The digest of every method: of the toy study, and of images."""
    found = {}
    for study in ("toy_grid", "mnist"):
        for method in STUDIES[study].every_method():
            places = STUDIES[study].method_source(method)
            found[f"{study} {method}"] = source.digest(*places, root=root)
    return found


def changed(root: Path, file: str, *changes: tuple[str, str]) -> set[str]:
    """The methods whose digest these changes change."""
    before = digests(root)
    edit(root, file, *changes)
    after = digests(root)
    return {name for name in before if before[name] != after[name]}


def test_a_digest_does_not_change_with_words_layout_or_place(tree: Path) -> None:
    assert not changed(
        tree,
        OBJECTIVES,
        (
            "    return f_p.mean(-1) - f_q.mean(-1)",
            "    # why\n    return (\n f_p.mean(-1)\n - f_q.mean(-1,)\n)",
        ),
        ('"""Returns E_p f - E_q f (14) of sVAE', '"""Another text of sVAE'),
        ("def squared_error(x: Tensor, x_rec: Tensor", "def squared_error(x, x_rec: Tensor | None"),
        ('"sVAE", "sVAE-r"', '"SVAE", "SVAE-R"'),  # names in tables
        (
            "OBJECTIVES: dict[str, Objective] = {",
            "OBJECTIVES = {\n    'more': Objective(minimax, minimax, '', ''),",
        ),
    )
    definition = (
        (tree / OBJECTIVES).read_text("utf-8").split("def symmetric_kl")[1].split("\ndef ")[0]
    )
    moved = f"def symmetric_kl{definition}"
    (tree / "models/elsewhere.py").write_text(f"from torch import Tensor\n\n{moved}", "utf-8")
    assert not changed(
        tree,
        OBJECTIVES,
        (moved, ""),
        (
            "from torch import Tensor",
            "from models.elsewhere import symmetric_kl\nfrom torch import Tensor",
        ),
    )


def test_a_digest_changes_with_the_function_and_with_what_it_calls(tree: Path) -> None:
    svae = {"toy_grid svae_r", "mnist svae_r", "mnist svae_r_density"}
    assert (
        changed(
            tree,
            OBJECTIVES,
            ("return f_p.mean(-1) - f_q.mean(-1)", "return f_q.mean(-1) - f_p.mean(-1)"),
        )
        == svae
    )
    toy = {name for name in digests(tree) if name.startswith("toy_grid")}
    joint = {name.replace("toy_grid", "mnist") for name in toy} | {"mnist svae_r_density"}
    assert (
        changed(
            tree, OBJECTIVES, ("return matching + lam * error", "return matching + 2 * lam * error")
        )
        == toy | joint
    )
    assert changed(tree, OBJECTIVES, ("(x - x_rec).square()", "(x - x_rec).abs()")) == toy
    assert changed(tree, METHODS, ("clip=0.01", "clip=0.1")) == {"mnist wgan"}
    assert changed(tree, METHODS, ("PENALTY = MARGIN = 10.0", "PENALTY = MARGIN = 1.0")) == {
        "mnist wgan_gp",
        "mnist ebgan",
    }
    assert changed(tree, METHODS, ("betas=(0.0, 0.9)", "betas=(0.5, 0.9)")) == {
        "mnist wgan_gp",
    }
    # A function of another file that the method calls.
    assert "mnist gan" in changed(
        tree, "models/batch.py", ('batch.noise("z", ', 'batch.noise("code", ')
    )
    assert "mnist vae" in changed(
        tree,
        "models/mnist.py",
        ('reduction="none").flatten(1).sum(1)', 'reduction="none").flatten(1).mean(1)'),
    )


EDITS = {
    "a default": ("def f(x, K=K):\n    return x", "K = 1", "K = 2"),
    "a name that an argument hides": ("def f(x):\n    return sum(g for g in x)", "K = 1", "K = 1"),
    "a loop that fills a table": ("def f():\n    return T", "T[each] = 1", "T[each] = 2"),
    "an update": ("def f():\n    return T", "T.update(b=1)", "T.update(b=2)"),
    "a branch": ("def f():\n    return B", "B = 1", "B = 2"),
    "a star": ("def f():\n    return far()", "FAR = 1", "FAR = 2"),
    "a module's attribute": ("def f():\n    return models.h.FAR", "FAR = 1", "FAR = 2"),
    "another module's attribute": ("def f():\n    return h2.FAR", "FAR = 1", "FAR = 2"),
    "the last definition": ("def f():\n    return L", "L = 2", "L = 3"),
    "a text that computes": ("def f():\n    return make(mode='a')", "mode='a'", "mode='b'"),
    "a table's entry": ("def f():\n    return M['c']", "'c': M0(3)", "'c': M0(30)"),
    "a method on self": ("def f():\n    return C().train()", "return 5", "return 6"),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_a_function_computes_with_counts(what: str, tmp_path: Path) -> None:
    body, old, new = EDITS[what]
    star = "from models.h import *\n" if what == "a star" else ""
    text = f"""{star}import models.h
import models.h as h2
K = 1
T = {{}}
for each in "xy":
    T[each] = 1
T.update(b=1)
if K:
    B = 1
L = 1
L = 2
def make(mode): return mode
def M0(n): return n
M = {{'a': M0(1), 'b': M0(2), 'c': M0(3), 'd': {{'c': M0(4)}}}}
class C:
    def train(self): return self.helper()
    def helper(self): return 5
{body}
"""
    far = "FAR = 1\ndef far(): return FAR\n"
    found = []
    for own, other in ((text, far), (text.replace(old, new), far.replace(old, new))):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "g.py").write_text(own)
        (tmp_path / "models" / "h.py").write_text(other)
        forget()
        found.append(source.digest("models.g:f", root=tmp_path))
    assert (found[0] == found[1]) == (old == new)
    if what == "a method on self":
        methods = source.digest("models.g:C.train", root=tmp_path)
        (tmp_path / "models" / "g.py").write_text(text)
        forget()
        assert source.digest("models.g:C.train", root=tmp_path) != methods


def test_an_edit_amid_a_run_is_no_source_of_it(tmp_path: Path) -> None:
    """A worker has imported the methods; it reads their digest later."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    code = """
import pathlib, bench.engine.job
from bench.studies import STUDIES
path = pathlib.Path("models/objectives.py")
path.write_text(path.read_text().replace("f_p.mean(-1) - f_q", "f_p.mean(-1) + f_q"))
print(STUDIES["toy_grid"].today().method("svae_r"))
"""
    options: dict[str, Any] = {"cwd": tmp_path, "text": True, "check": True}
    options["env"] = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, **options).stdout
    assert shown.strip() == STUDIES["toy_grid"].today().method("svae_r")


def test_an_entry_outside_the_table_counts(tree: Path) -> None:
    """As the recipe in bench/README.md adds a method."""
    edit(
        tree,
        OBJECTIVES,
        (
            "OBJECTIVES: dict",
            "def hinge(f_q, f_p):\n    return (1 + f_p).relu().mean(-1)\n\n\nOBJECTIVES: dict",
        ),
    )
    with (tree / OBJECTIVES).open("a", encoding="utf-8") as file:
        file.write('\nOBJECTIVES["hinge"] = Objective(density_ratio, hinge, "a", "b")\n')
    place = "models.objectives:OBJECTIVES[hinge]"
    forget()
    before = source.digest(place, root=tree)
    edit(tree, OBJECTIVES, ("(1 + f_p).relu()", "(2 + f_p).relu()"))
    assert source.digest(place, root=tree) != before


def test_a_digest_is_of_the_text_and_not_of_this_python() -> None:
    """The digest of this text was written down once; no version of Python may change it."""
    text = '''
import math
TABLE = {"a": f(1, key=[2.0, None]), "b": 0}
def f(x, *more, key=()):
    """Text."""
    total: float = sum(i * i for i in more if i) + math.pi
    match x:
        case [1, *rest]:
            return lambda y: y[1:2] or f"{total!r:>{x}} and {{}}"
    with open(b"x") as (p, q), p: ...
    return {**key, **{"k": not -x}}
'''
    tree = source._Bare().visit(ast.parse(text))
    assert (
        source.hashlib.sha256(json.dumps(source._plain(tree)).encode()).hexdigest()[:12]
        == "d4a403f91439"
    )


def test_an_empty_text_that_some_pythons_add_to_a_format_is_no_source() -> None:
    one, other = ast.parse('y = f"{x:>{n}}"'), ast.parse('y = f"{x:>{n}}"')
    _, layout = (node for node in ast.walk(other) if isinstance(node, ast.JoinedStr))
    layout.values.append(ast.Constant(""))  # Python 3.12.1 does so itself
    assert source._plain(source._Bare().visit(one)) == source._plain(source._Bare().visit(other))


def scaled(outputs: Any, by: float) -> float:
    return by * float(outputs.samples.max())


def applied(function: Any, outputs: Any) -> float:
    return function(outputs, 1)


def factory(by: float) -> Any:
    return lambda outputs: scaled(outputs, by)


@dataclass
class Scale:
    by: float

    def __call__(self, outputs: Any) -> float:
        return scaled(outputs, self.by)


def test_a_metric_has_the_digest_of_its_own_function() -> None:
    found = [source.digest_of(metric.function) for metric in (*TOY, *IMAGES)]
    assert len({*found}) == len(found)
    largest = Metric(("a",), lambda o: o.samples.max(), "a")
    smallest = Metric(("a",), lambda o: o.samples.min(), "a")
    assert source.digest_of(largest.function) != source.digest_of(smallest.function)
    assert source.digest_of(largest.function) == source.digest_of(lambda o: o.samples.max())
    twice, thrice = (partial(scaled, by=n) for n in (2, 3))
    assert source.digest_of(twice) != source.digest_of(thrice)
    assert source.digest_of(factory(2)) != source.digest_of(factory(3))
    assert source.digest_of(Scale(2)) != source.digest_of(Scale(3))
    assert source.digest_of(Scale(2)) == source.digest_of(Scale(2))
    assert source.digest_of(eval("lambda o: 1")) != source.digest_of(eval("lambda o: 2"))
    assert source.digest_of(partial(applied, scaled)) == source.digest_of(partial(applied, scaled))
    assert " at 0x" not in source._held([scaled, {"a": twice}])


def test_a_digest_needs_no_torch() -> None:
    code = "import sys; from bench.studies import STUDIES; t = STUDIES['mnist'].today(); "
    code += "assert t.method('svae_r') and t.metrics['swd']; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_classifier_of_points_and_annealing_have_digests(tmp_path: Path) -> None:
    """Neither is a metric's function; claims 1 and 2 rest on them."""
    for study, column, file, old in (
        ("toy_grid", "inception_score", "bench/studies/toy_grid/data.py", "2 * VARIANCE"),
        ("mnist", "log_likelihood", "bench/scores/ais.py", "def mean_and_se"),
    ):
        places = STUDIES[study].score_source()[column]
        (tmp_path / file).parent.mkdir(parents=True)
        shutil.copy(ROOT / file, tmp_path / file)
        before = source.digest(*places, root=tmp_path)
        assert STUDIES[study].today().metrics[column]
        edit(tmp_path, file, (old, old.replace("2", "3").replace("mean_and_se", "mean_and_s")))
        assert source.digest(*places, root=tmp_path) != before
        assert STUDIES[study].today().filled({column: 1.0}).keys() == {column}
