"""What surrounds a command never ends it in a traceback, and costs it no result."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from bench import report, run
from bench.process import begin
from bench.render.figures import Picture, panels
from bench.store import provenance
from bench.store.rows import StoreError
from bench.studies import STUDIES
from tests.conftest import POSIX, ROOT
from tests.lives import PATIENCE

pytestmark = POSIX


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of sh, in which $PY is Python, with these variables; none is one that is gone."""
    given = {**os.environ, "PY": sys.executable, "NO_COLOR": "1", **environment}
    given = {name: text for name, text in given.items() if text != "none"}
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(["sh", "-c", line], cwd=cwd, env=given, **options)


def command(folder: Path, body: str) -> str:
    """Returns a shell's words that run a command with this body, which has all imports at hand."""
    path = folder / "body.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = "import sys\nfrom pathlib import Path\nfrom bench import process\n"
    path.write_text(f"{head}def main():\n{lines}    return 0\nprocess.command(main)\n", "utf-8")
    return f'"$PY" {path}'


PRINTS_AND_KEEPS = "for i in range(9999): print('λ ≥ 1', flush=True)\nPath('kept').write_text('')"


@pytest.mark.parametrize(
    ("where", "status"),
    [(">&-", 0), ("2>&- >&-", 0), ("| true", 0), ("| head -n 1", 0), ("> /dev/full", 1)],
)
def test_a_command_goes_on_without_its_output(where: str, status: int, tmp_path: Path):
    line = f"({command(tmp_path, PRINTS_AND_KEEPS)}; echo $? > status) {where}"
    found = shell(line, tmp_path)
    assert (tmp_path / "kept").exists()
    assert int((tmp_path / "status").read_text()) == status, found.stderr
    assert len(found.stderr.splitlines()) == status


def test_processes_that_a_command_starts_have_streams_too(tmp_path: Path):
    child = "import sys; sys.stdout.flush(); sys.stderr.flush()"
    body = f"import subprocess\nreturn subprocess.run([sys.executable, '-c', {child!r}]).returncode"
    assert shell(f"{command(tmp_path, body)} <&- >&- 2>&-", tmp_path).returncode == 0


def test_a_closed_stream_is_not_written_into_a_file(tmp_path: Path):
    body = "file = open('kept', 'w')\nprint('lost')\nprint('lost', file=sys.stderr)\nfile.close()"
    shell(f"{command(tmp_path, body)} <&- >&- 2>&-", tmp_path)
    assert (tmp_path / "kept").read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_text_that_an_encoding_lacks_is_replaced(encoding: str, tmp_path: Path):
    body = "print('λ', 1)\nprint('λ', 2, file=sys.stderr)"
    found = shell(command(tmp_path, body), tmp_path, PYTHONIOENCODING=encoding)
    assert (found.returncode, found.stdout, found.stderr) == (0, "? 1\n", "? 2\n")


def test_a_full_pipe_that_does_not_block_gets_everything(tmp_path: Path):
    body = "import os\nos.set_blocking(1, False)\nprint('x' * 300_000)"
    found = shell(f"{command(tmp_path, body)} | (sleep 0.3; wc -c)", tmp_path)
    assert found.stdout.strip() == "300001"


def test_an_unexpected_error_is_one_line_and_its_trace_a_file(tmp_path: Path):
    body = "raise KeyError('what nobody\\n foresaw')"
    found = shell(command(tmp_path, body), tmp_path, TMPDIR=str(tmp_path))
    (line,) = found.stderr.splitlines()
    (trace,) = tmp_path.glob("svae-bench-*.txt")
    assert found.returncode == 1
    assert str(trace) in line
    assert "Traceback" in trace.read_text() and "in main" in trace.read_text()


def test_an_unexpected_error_of_a_thread_is_one_line(tmp_path: Path):
    body = "import threading\nthread = threading.Thread(target=int, args=['x'])\nthread.start()"
    found = shell(command(tmp_path, f"{body}\nthread.join()"), tmp_path, TMPDIR=str(tmp_path))
    assert (found.returncode, len(found.stderr.splitlines())) == (0, 1)
    assert len([*tmp_path.glob("svae-bench-*.txt")]) == 1


def test_a_trace_that_no_file_takes_is_printed(tmp_path: Path):
    body = "import tempfile\ntempfile.tempdir = '/proc/none'\nraise KeyError('unforeseen')"
    found = shell(command(tmp_path, body), tmp_path)
    assert found.returncode == 1
    assert "unforeseen" in found.stderr


@pytest.mark.parametrize("module", ["report", "show", "results", "data", "check", "speed"])
def test_ctrl_c_while_a_command_is_imported_is_one_line(module: str, tmp_path: Path):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")  # the current folder comes first
    found = shell(f'"$PY" -m bench.{module} --help', tmp_path)
    assert (found.returncode, len(found.stderr.splitlines())) == (130, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_amid_work_is_one_line(number: int, status: int, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(256, size=(1200, 1200, 3), dtype=np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "0.jpg")
    for i in range(200):
        (tmp_path / "x" / f"{i}.jpg").hardlink_to(tmp_path / "0.jpg")
    arguments = ["prepare", "cifar10", "--from", "x", "--cache", "c"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.data", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "c/prepared/cifar10/.draft").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(err.splitlines())) == (status, 1)
    assert "unexpected" not in err
    assert not (tmp_path / "c/prepared/cifar10/.draft").exists()


@pytest.mark.parametrize("where", ["models.py", "models/__init__.py"])
def test_a_folder_with_models_of_its_own_is_not_in_the_way(where: str, tmp_path: Path):
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("raise SystemExit('the wrong models')")
    found = shell('"$PY" -m bench.run toy_grid --scale smoke --dry-run', tmp_path)
    assert found.returncode == 0, found.stderr
    assert "8 to go" in found.stdout


def test_another_package_models_that_is_loaded_already_is_named(tmp_path: Path):
    (tmp_path / "models.py").write_text("")
    found = shell('"$PY" -c "import models, bench"', tmp_path)
    assert str(tmp_path / "models.py") in found.stderr.splitlines()[-1]


def test_the_console_command_runs_beside_a_folder_named_bench(tmp_path: Path):
    console = Path(sys.executable).with_name("svae-bench")
    if not console.exists():
        pytest.skip("the suite is not installed")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/__init__.py").write_text("raise SystemExit('the wrong bench')")
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    line = f"{console} run toy_grid --scale smoke --workers 2 --no-report"
    found = shell(line, tmp_path, PYTHONPATH="none")
    assert found.returncode == 0, found.stderr
    assert "8 to go" in found.stdout


@pytest.mark.parametrize(("words", "status"), [("", 2), ("train", 2), ("--help", 0)])
def test_the_console_command_names_its_commands(words: str, status: int, tmp_path: Path):
    found = shell(f'"$PY" -m bench {words}', tmp_path)
    assert found.returncode == status
    for name in ("run", "report", "show", "results", "data", "check", "speed"):
        assert name in (found.stderr or found.stdout)


def test_without_a_checkout_nothing_is_written_beside_the_package(tmp_path: Path):
    for name in ("bench", "models"):
        shutil.copytree(ROOT / name, tmp_path / "site" / name)
    rows = STUDIES["toy_grid"].load(ROOT / "results/reference", "smoke")[0].to_pylist()
    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    kept.prepare()
    kept.rows.write(rows)
    for words in ("--check", "toy_grid --scale smoke --publish --results r"):
        found = shell(f'"$PY" -m bench.report {words}', tmp_path, PYTHONPATH=str(tmp_path / "site"))
        assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"bench", "models"}


def test_a_folder_that_is_gone_is_named(tmp_path: Path):
    (tmp_path / "gone").mkdir()
    found = shell('rmdir "$PWD"; "$PY" -m bench.run toy_grid --dry-run', tmp_path / "gone")
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)


def test_a_commit_is_that_of_the_suite_whatever_git_is_told(monkeypatch: pytest.MonkeyPatch):
    known = provenance.commit()
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert provenance.commit() == known


def test_who_asks_for_the_commit_writes_nothing_into_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run that is killed meanwhile would leave a lock, and the user could not commit."""
    file = tmp_path / "bench" / "store" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.touch()
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    os.utime(file, (1, 1))  # git would note the new time
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    index = (tmp_path / ".git" / "index").read_bytes()
    assert provenance.commit()["dirty"] is False
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_a_command_may_run_beside_the_main_thread(tmp_path: Path):
    words = ["toy_grid", "--scale", "smoke", "--status", "--results", str(tmp_path)]
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(run.main, words).result() == 0


def test_a_folder_that_is_moved_amid_a_run_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None
):
    end = run._report
    monkeypatch.setattr(run, "_report", lambda *given: (shutil.rmtree(tmp_path), end(*given))[1])
    words = ["--only", "method=alice", "--lam", "0", "--workers", "1", "--results", str(tmp_path)]
    assert run.main(["toy_grid", "--scale", "smoke", *words]) == 1


def test_bad_files_are_named_by_a_run_that_only_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "toy_grid/smoke").mkdir(parents=True)
    (tmp_path / "toy_grid/smoke/00.parquet").write_text("")
    words = ["toy_grid", "--scale", "smoke", "--status", "--results", str(tmp_path)]
    assert run.main(words) == 0
    assert "00.parquet" in capsys.readouterr().err


def test_a_report_whose_files_are_all_bad_names_one(tmp_path: Path):
    (tmp_path / "toy_grid/smoke").mkdir(parents=True)
    pointer = "version https://git-lfs.github.com/spec/v1"
    (tmp_path / "toy_grid/smoke/00.parquet").write_text(pointer)
    with pytest.raises(StoreError, match=r"00\.parquet"):
        report.build("toy_grid", "smoke", tmp_path)


def test_a_foreign_backend_of_matplotlib_does_not_matter(tmp_path: Path):
    body = "import matplotlib\nprint(matplotlib.get_backend())"
    backend = "module://matplotlib_inline.backend_inline"
    found = shell(command(tmp_path, body), tmp_path, MPLBACKEND=backend)
    assert found.stdout == "agg\n", found.stderr


def test_a_configuration_of_matplotlib_that_is_no_text_does_not_matter(tmp_path: Path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: caf\xe9")
    (tmp_path / "here").mkdir()
    body = "import matplotlib"
    found = shell(command(tmp_path, body), tmp_path / "here", MPLCONFIGDIR=str(tmp_path))
    assert found.returncode == 0, found.stderr


def test_a_ctrl_c_that_a_library_swallows_ends_the_imports(tmp_path: Path):
    (tmp_path / "numpy.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException:\n    pass\nraise SystemExit('the command goes on')"
    )
    found = shell('"$PY" -m bench.report --help', tmp_path)
    assert (found.returncode, found.stderr) == (130, "stopped\n")


def test_a_ctrl_c_that_python_ignores_is_repeated(tmp_path: Path):
    body = """import time
class Dies:
    def __del__(self):
        raise KeyboardInterrupt
dies = Dies()
del dies
time.sleep(60)"""
    found = shell(command(tmp_path, body), tmp_path)
    assert (found.returncode, found.stderr) == (130, "stopped\n")


def test_a_foreign_configuration_of_matplotlib_changes_no_figure(tmp_path: Path):
    def draw():
        figure, (axes,) = panels(1, 1, 2, 2)
        axes.plot([0, 1], label="λ")
        axes.legend()
        return figure

    picture = Picture("lines", draw, "", "")
    picture.write(tmp_path / "own.svg")
    foreign: Any = {"lines.linewidth": 9, "figure.facecolor": "red", "savefig.bbox": "tight"}
    with mpl.rc_context(foreign):
        picture.write(tmp_path / "foreign.svg")
        assert mpl.rcParams["lines.linewidth"] == 9
    assert (tmp_path / "own.svg").read_bytes() == (tmp_path / "foreign.svg").read_bytes()


def test_a_library_keeps_the_streams_of_the_process_that_imports_it():
    assert sys.excepthook.__module__ != begin.__module__
