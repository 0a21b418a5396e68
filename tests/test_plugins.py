"""A plug-in reaches every worker, stands in the rows, and is told in one line if it is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench import plugins, report, results, run
from bench.cli import UsageError
from bench.engine.job import run_job
from bench.show.__main__ import main as show
from bench.spec import PROTOCOLS
from bench.store import source
from bench.studies import STUDIES, grids
from bench.studies.study import Job
from models.methods import METHODS
from models.objectives import OBJECTIVES
from tests.conftest import ROOT
from tests.test_extending import REGISTRIES, restored  # noqa: F401  (a fixture)

EXAMPLE = ROOT / "tests" / "example.py"
HEAD = "from models.objectives import OBJECTIVES, Objective, density_ratio, swapped_labels\n"
METHOD = (
    HEAD
    + """

def mine(f_q, f_p):
    {doc}
    return {loss}


OBJECTIVES["mine"] = Objective(density_ratio, mine, "A", "B")
"""
)
SMOKE = ["toy_grid", "--scale", "smoke", "--set", "epochs=1", "--lam", "0.1", "--only"]
GRID = 'name = "own"\nbase = "toy_grid"\n'


def unload() -> None:
    """Makes this process one that knows no plug-in."""
    for name in [*plugins.LOADED]:
        plugins.unload(name)


def write(text: str, name: str = "my.py") -> Path:
    path = Path(name)
    path.write_text(text, "utf-8")
    return path


def test_worker_processes_have_it_and_the_report_does_without(
    tmp_path: Path, python: Callable[..., tuple[int, str, str]]
) -> None:
    """Two workers train the study, method and metric of the example; rows have its digest."""
    command = ["-m", "bench.run", "blobs", "--scale", "smoke", "--set", "epochs=1"]
    status, _, err = python(*command, "--plugin", str(EXAMPLE), "--workers", "2", "--no-report")
    assert status == 0, err
    frame = pd.read_parquet(tmp_path / "results" / "blobs" / "smoke")
    digest = plugins.Plugin("", EXAMPLE.read_text("utf-8")).digest
    assert {*frame["method"]} == {"svae_r", "hinge"} and frame["reach"].notna().all()
    assert all(dict(each) == {"example.py": digest} for each in frame["plugins"])
    status, out, err = python("-m", "bench.report")
    assert status == 0, err
    assert "ALICE-hinge" in out and "reach" in out


@pytest.mark.parametrize("keep", ["all", "none"])
def test_what_show_says_to_paste_into_python_works(
    keep: str,
    python: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    path = write(METHOD.format(doc="", loss="f_p.mean(-1) - f_q.mean(-1)"), "own/my.py")
    named = ["--plugin", str(path)]
    selected = [*SMOKE, "method=mine"]
    command = [*selected, "--keep-weights", keep, "--no-report", *named]
    assert run.main([*command, "--engine", "sequential"]) == 0
    row = STUDIES["toy_grid"].load(Path("results"), "smoke")[0].to_pylist()[0]
    capsys.readouterr()
    assert show([row["id"], *named]) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if "model = " in each)
    assert ("import load" in line) == (keep == "all")
    status, out, err = python("-c", line.strip() + "; print(model.spec.id)")
    assert (status, out.split()) == (0, [row["id"]]), err


def test_a_job_alone_brings_it(tmp_path: Path) -> None:
    """The worker's machine has no such file."""
    path = write(METHOD.format(doc="", loss="f_p.mean(-1) - f_q.mean(-1)"))
    plugins.load([path])
    specs = STUDIES["toy_grid"].specs("smoke", ["mine"], [0.1], given={"epochs": [1]})
    job = pickle.dumps(Job((specs[0],), str(tmp_path), "cpu", {}))
    unload()
    path.unlink()
    assert "mine" not in OBJECTIVES and run_job(pickle.loads(job)).end == "done"
    (row,) = STUDIES["toy_grid"].load(tmp_path, "smoke")[0].to_pylist()
    assert row["method"] == "mine" and dict(row["plugins"]).keys() == {"my.py"}


WRONG = {
    "import nowhere": "my.py:1: ModuleNotFoundError",
    "x = 1\nif x": "my.py:2: SyntaxError",
    "x = 1\n\ny = 1 / 0\n": "my.py:3: ZeroDivisionError",
    "def f():\n    return 1 / 0\n\n\nf()": "my.py:2: ZeroDivisionError",
    "raise SystemExit(3)": "my.py:1: SystemExit",
    HEAD + 'OBJECTIVES["alice"] = OBJECTIVES["svae_r"]': "my.py:2: method alice exists already",
    HEAD + 'OBJECTIVES["vae"] = OBJECTIVES["svae_r"]': "my.py:2: method vae exists already",
    HEAD + 'del OBJECTIVES["svae_r"]': "my.py:2: method svae_r exists already",
    "from bench.studies import STUDIES\nSTUDIES['mnist'] = STUDIES['toy_grid']": "study mnist",
    "from bench.scores.metrics import *\nTOY.append(Metric(('mse_x',), len, 'x'))": "column mse_x",
    "from models.mnist import PARTS\nPARTS['f(x)'] = 0": "my.py:2: network f(x) exists already",
    "from bench.studies import STUDIES\nSTUDIES['toy_grid'].derive('Wide')": "my.py:2: ValueError",
    HEAD + 'OBJECTIVES["mine"] = Objective(density_ratio, density_ratio, "A", "sVAE-r")': (
        "my.py:2: method mine has the label sVAE-r of svae_r; allowed: a label of its own"
    ),
    "from bench.scores.metrics import *\nTOY.append(Metric('mine', len, 'x'))": "columns is 'mine'",
}


@pytest.mark.parametrize(("text", "told"), WRONG.items())
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [each for each in REGISTRIES if each is not PROTOCOLS]
    before = [each.copy() for each in tables]
    assert run.main([*SMOKE, "method=svae_r", "--plugin", str(write(text))]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert tables == before
    assert not list(Path().rglob("*.parquet"))


def test_an_error_in_a_training_names_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    path = write(METHOD.format(doc="", loss="f_q.nothing()"))
    assert run.main([*SMOKE, "method=mine", "--plugin", str(path)]) != 0
    assert "'nothing' (my.py:6)" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_rows_are_stale_where_the_method_changed_and_not_without_the_plug_in() -> None:
    study, results = STUDIES["toy_grid"], Path("results")

    def left_out(doc: str, loss: str) -> list[str]:
        unload()
        plugins.load([write(METHOD.format(doc=doc, loss=loss))])
        return study.store(results, "smoke").left_out()

    left_out("", "f_p.mean(-1) - f_q.mean(-1)")
    assert run.main([*SMOKE, "method=mine", "--engine", "sequential"]) == 0
    assert not left_out('"""Other words."""', "f_p.mean(-1) - f_q.mean(-1)")
    (line,) = left_out("", "f_p.mean(-1) - 2 * f_q.mean(-1)")
    assert line.startswith("2 made by another mine")
    unload()
    assert not study.store(results, "smoke").left_out()
    assert report.main([]) == 0


def test_a_plug_in_that_calls_the_suite_changes_with_it(tmp_path: Path) -> None:
    """Its digest covers what it imports, and not where the file lies."""
    text = METHOD.format(doc="", loss="swapped_labels(f_q, f_p)")
    other = text.replace("swapped_labels", "density_ratio")
    found = []
    for path, content in ((tmp_path / "a.py", text), (tmp_path / "b.py", text), ("c.py", other)):
        unload()
        (plugin,) = plugins.load([write(content, str(path))])
        found.append(source.digest(f"{plugin.module}:OBJECTIVES[mine]"))
    assert found[0] == found[1] != found[2]


def test_the_variable_names_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(METHOD.format(doc="", loss="f_p.mean(-1)"), "one.py")
    monkeypatch.setenv(plugins.VARIABLE, str(one))
    other = write(GRID, "two.toml")
    assert [each.name for each in plugins.load([other, one])] == ["one.py", "two.toml", "one.py"]
    assert METHODS["mine"].label == "A" and "own" in STUDIES


def test_rows_of_plug_ins_are_not_published(tmp_path: Path) -> None:
    plugins.load([EXAMPLE])
    with pytest.raises(UsageError, match="only the suite's own"):
        report.publish("blobs", "smoke", tmp_path)


def test_an_edited_file_takes_the_place_of_what_it_was(tmp_path: Path) -> None:
    """In a notebook a file is loaded many times. Another file of its name is refused."""
    before = [each.copy() for each in REGISTRIES]
    plugins.load([write(METHOD.format(doc="", loss="f_p.mean(-1)"))])
    first = OBJECTIVES["mine"]
    plugins.load([write(METHOD.format(doc="", loss="f_q.mean(-1)"))])
    assert OBJECTIVES["mine"] is not first and "mine" in METHODS
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="has the same name"):
        plugins.load([write("", str(tmp_path / "other" / "my.py"))])
    unload()
    plugins.load([EXAMPLE])
    unload()
    assert [each for each in REGISTRIES if each is not PROTOCOLS] == [
        then for each, then in zip(REGISTRIES, before, strict=True) if each is not PROTOCOLS
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    {
        "outputs.nothing": "asks for nothing, which this study never has",
        "np.nan": "mine is nan",
    }.items(),
)
def test_a_metric_is_tried_before_any_training(
    body: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(METRIC.replace("1 / (len(outputs.samples) < 100)", body))
    assert run.main([*SMOKE, "method=svae_r", "--plugin", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"metric 'mine', tried on made-up samples: {told}" in err and err.count("\n") == 1


def test_no_file_beside_a_plug_in_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """No worker would have it, and no digest covers it."""
    write("x = 1\n", "helper.py")
    assert run.main([*SMOKE, "method=svae_r", "--plugin", str(write("import helper\n"))]) == 2
    assert "my.py:1: ModuleNotFoundError: No module named 'helper'" in capsys.readouterr().err


@pytest.mark.usefixtures("no_report")
def test_a_method_that_raises_costs_no_training_of_another() -> None:
    path = write(METHOD.format(doc="", loss="f_q.nothing()"))
    assert run.main([*SMOKE, "method=svae_r", "--plugin", str(path)]) == 0
    rows = STUDIES["toy_grid"].load(Path("results"), "smoke")[0].to_pylist()
    assert rows and all("mine" not in dict(row["decoder_gradient"]) for row in rows)


@pytest.mark.usefixtures("no_report")
def test_a_metric_that_raises_leaves_its_column_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """It passes on made-up points, of which there are few, and fails on a model's."""
    path = write(METRIC)
    options = [*SMOKE, "method=svae_r", "--plugin", str(path), "--keep-weights", "all"]
    assert run.main([*options, "--engine", "sequential"]) == 0
    assert "no mine: ZeroDivisionError: division by zero (my.py:5)" in capsys.readouterr().err
    rows = STUDIES["toy_grid"].load(Path("results"), "smoke")[0].to_pylist()
    assert len(rows) == 2 and all(row["mine"] is None and row["mse_x"] for row in rows)
    assert results.main(["score", "--metric", "mine"]) == 1
    assert "raises, as told above" in capsys.readouterr().out


METRIC = """from bench.scores.metrics import *


def mine(outputs):
    return 1 / (len(outputs.samples) < 100)


TOY.append(Metric(("mine",), mine, "mine"))
"""


@pytest.mark.usefixtures("no_report")
def test_a_mended_plug_in_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """What failed with another text counts for nothing; else the command says what to do."""
    options = [*SMOKE, "method=mine", "--engine", "sequential", "--plugin"]
    path = str(write(METHOD.format(doc="", loss="f_q.nothing()")))
    assert run.main([*options, path]) == 1
    capsys.readouterr()
    assert run.main([*options, path]) == 1
    err = capsys.readouterr().err
    assert "failed before: AttributeError" in err and "--retry-failed tries again" in err
    write(METHOD.format(doc="", loss="f_p.mean(-1)"))
    assert run.main([*options, path]) == 0


def test_a_network_that_raises_is_told_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = """from models import mnist
from models.methods import METHODS, gan, gan_critic, Method

mnist.PARTS["own"] = lambda shape: shape.nothing
METHODS["mine"] = Method(gan_critic, gan, {"decoder": "conv", "critic": "own"}, "Mine")
"""
    options = ["mnist", "--scale", "smoke", "--only", "method=mine", "--plugin", str(write(text))]
    assert run.main(options) == 2
    err = capsys.readouterr().err
    assert "AttributeError" in err and "(my.py:4)" in err and err.count("\n") == 1


# Grids

WRONG_GRIDS = {
    GRID + "[axes]\nheight = [1]": "--study own.toml:4: axis 'height'; allowed: critic_steps, lr",
    GRID + "[axes]\nencoder_width = [1.5]": "own.toml:4: axis encoder_width has 1.5",
    GRID + "[axes]\nencoder_width = []": "own.toml:4: axis encoder_width is []",
    GRID + '[axes]\nlr = [0.1]\n"lr,batch" = [[0.1, 2]]': "axis 'lr' stands twice",
    GRID + '[axes]\n"critic_steps,model_steps" = [[1]]': "own.toml:4: axis critic_steps,model_",
    GRID + "[axes]\nlr = [-1.0]": "lr is -1.0; allowed: a number from",
    GRID + 'methods = ["nobody"]': "own.toml:3: methods has 'nobody'; allowed: svae_r, alice",
    GRID + 'methods = "alice"': "own.toml:3: methods is 'alice'; allowed: a list",
    GRID + "seeds = -1": "own.toml:3: seeds is -1",
    GRID + 'kind = "images"': "own.toml:3: kind is 'images'; toy_grid has kind toy",
    GRID + "size = 3": "own.toml:3: unknown key size; allowed: name, base",
    'base = "toy_grid"': "own.toml: name is missing",
    'name = "own"\nbase = "theory"': "own.toml:2: base is 'theory'; allowed: toy_grid, mnist",
    'name = "mnist"\nbase = "toy_grid"': "study mnist exists already",
    "seeds = = 3": "own.toml: Invalid value (at line 1, column 9)",
}


@pytest.mark.parametrize(("text", "told"), WRONG_GRIDS.items())
def test_a_grid_that_is_wrong(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--study", str(write(text, "own.toml")), "--scale", "smoke"]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not list(Path().rglob("*.parquet"))


def test_a_grid_crosses_its_axes_with_those_of_its_base() -> None:
    """A joined axis keeps its other fields, each combination of their values once."""
    quick = STUDIES["toy_grid"].specs("quick")
    own = STUDIES["toy_grid"].derive("own", axes={"encoder_width": [16, 24]}, lams=[0.1], seeds=2)
    specs = own.specs("quick")
    rest = ("encoder_depth", "decoder_depth", "critic_depth", "decoder_width", "critic_width")
    rest += ("critic_steps", "model_steps", "method")
    base = {tuple(getattr(spec, name) for name in rest) for spec in quick}
    found = [(spec.encoder_width, spec.seed, *(getattr(spec, n) for n in rest)) for spec in specs]
    assert len({*found}) == len(found) == len(base) * 4
    assert {each[2:] for each in found} == base and {each[0] for each in found} == {16, 24}


def test_set_takes_any_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields that an axis joins with others, and fields with an option of their own."""
    set_ = ["encoder_width=16,24", "seed=3", "lam=0.5", "method=alice_sigmoid", "lr=0.01"]
    options = [word for each in set_ for word in ("--set", each)]
    assert run.main(["toy_grid", "--scale", "smoke", *options, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-3:] == ["methods", "lam", "seeds"]
    assert len(lines) == 7 and all("alice_sigmoid" in line for line in lines[1:5])
    assert all(line.split()[-2:] == ["0.5", "3"] for line in lines[1:5])
    assert "lr 0.01" in lines[5] and ": 4 trainings" in lines[6]
    assert run.main(["toy_grid", "--set", "lam=1", "--lam", "2", "--dry-run"]) == 2
    assert "--set lam and --lam mean the same" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_a_grid_of_images_shows_every_configuration() -> None:
    """Axes that are joined, and nothing of the paper."""
    text = """
name = "own"
base = "mnist"
title = "Does a larger batch help?"
methods = ["svae_r", "dcgan"]
lams = [0.0, 1.0]

[axes]
"batch,lr" = [[16, 1e-3], [32, 2e-3]]
width = [0.0625]
images = [160]
samples = [100]
ais_images = [0]
"""
    assert run.main(["--study", str(write(text, "own.toml")), "--scale", "smoke"]) == 0
    page = Path("reports/own/smoke/report.md").read_text("utf-8")
    table = pd.read_csv("reports/own/smoke/grid.csv")
    for settings in ("lr 0.001, batch 16", "lr 0.002, batch 32"):
        rows = table[table["settings"] == settings]
        assert [*rows["method"]] == ["DCGAN", "sVAE", "sVAE-r"] and rows["SWD × 1000"].notna().all()
    assert page.startswith("# Does a larger batch help? (smoke)")
    assert "of the study are not run" not in page and "*paper" not in page and "Table 1" not in page


@pytest.mark.usefixtures("no_pictures")
def test_rows_say_what_their_grid_is(tmp_path: Path) -> None:
    """A process that never saw the file has the study again, with what is missing of it."""
    path = write(GRID + "lams = [0.1]\n[axes]\nepochs = [1]\nencoder_width = [16]\n", "own.toml")
    assert run.main(["--study", str(path), "--scale", "smoke", "--only", "method=alice"]) == 0
    rows = STUDIES["own"].load(Path("results"), "smoke")[0]
    known = STUDIES["own"].specs("smoke")
    unload()
    assert "own" not in STUDIES
    grids.adopt(Path("results"))
    assert STUDIES["own"].specs("smoke") == known
    assert report.build("own", "smoke", Path("results")).missing == len(known) - len(rows) == 2


def test_a_script_brings_its_grid_to_workers_and_is_told_of_its_methods(
    tmp_path: Path, python: Callable[..., tuple[int, str, str]]
) -> None:
    script = """
from bench import run
from bench.studies import STUDIES
from models.objectives import OBJECTIVES

STUDIES["hand"] = STUDIES["toy_grid"].derive("hand", axes={"epochs": [1]}, lams=[0.1])
if __name__ == "__main__":
    options = ["hand", "--scale", "smoke", "--workers", "2", "--no-report"]
    assert run.main(options) == 0
    OBJECTIVES["mine"] = OBJECTIVES["alice"]
    assert run.main([*options, "--only", "method=mine"]) == 1
"""
    (tmp_path / "script.py").write_text(script)
    status, _, err = python("script.py")
    assert status == 0 and "the worker knows no mine; give its file with --plugin (3 times)" in err
