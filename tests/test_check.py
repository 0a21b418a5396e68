"""The check of a machine: what is broken is named, and nothing that works is called broken."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.check import __main__ as command
from bench.check import children, machine, scores, steps
from bench.check.children import Failure, Task, outcomes, results_of
from bench.check.steps import step
from bench.data import load, sources
from bench.scores import classifiers
from bench.studies import STUDIES, cuda
from bench.studies.cuda import Unrecorded
from tests import lives
from tests.conftest import POSIX, ROOT

# Work that child processes find here


def fine(name: str, record: bool) -> dict[str, Any]:
    return {"gap": 0.0, "graph": record, "pid": os.getpid()}


def differs(name: str, record: bool) -> dict[str, Any]:
    return {"gap": 0.5, "graph": record, "failure": "differs by 0.5"}


def unrecordable(name: str, record: bool) -> dict[str, Any]:
    if record:
        raise Unrecorded("operation not permitted when stream is capturing", (name,))
    return fine(name, record)


def raises(name: str, record: bool) -> dict[str, Any]:
    raise ArithmeticError("two\nlines")


def dies(name: str, record: bool) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hangs(name: str, record: bool) -> dict[str, Any]:
    time.sleep(600)
    raise AssertionError


def tasks(*calls: Callable[..., dict[str, Any]]) -> list[Task]:
    found = []
    for call in calls:
        about = {"study": "mnist", "method": call.__name__, "precision": "float32"}
        about |= dict.fromkeys(("gap", "tolerance", "graph", "no_graph"))
        found.append(Task(call, (call.__name__,), about))
    return found


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children begin with all imports made, which take a spawned child seconds."""
    if os.name == "posix":
        monkeypatch.setattr(children, "SPAWN", lives.server())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves out of the check what takes long, and gives it other steps."""
    monkeypatch.setattr(machine, "products", fine)
    for name in ("stacks", "times", "scores"):
        monkeypatch.setattr(command, name, lambda device: [])

    def only(*calls: Callable[..., dict[str, Any]]) -> None:
        monkeypatch.setattr(command, "steps", lambda device: [tasks(*calls)])

    only(fine)
    return only


class TestChildren:
    def test_a_process_goes_on_after_success_and_never_after_a_failure(self) -> None:
        ((one, two, bad, three),) = outcomes([tasks(fine, fine, raises, fine)], 1)
        assert isinstance(one, dict) and isinstance(two, dict) and isinstance(three, dict)
        assert one["pid"] == two["pid"] != three["pid"]
        assert bad == Failure("ArithmeticError: two lines")

    def test_groups_run_side_by_side_and_keep_their_order(self) -> None:
        found = outcomes([tasks(fine, raises), [], tasks(raises, fine), tasks(fine)], 2)
        kinds = [[isinstance(one, Failure) for one in group] for group in found]
        assert kinds == [[False, True], [], [True, False], [False]]

    def test_a_process_that_dies_is_named_and_the_next_goes_on(self) -> None:
        dead, good = results_of([tasks(dies, fine)], 1)
        assert dead["failure"] == "its process has ended, with status -9"
        assert good["failure"] is None and good["gap"] == 0.0

    def test_a_process_that_hangs_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(children, "LIMIT", 3.0)
        (late,) = results_of([tasks(hangs)], 1)
        assert late["failure"] == "it took more than 3 s"

    @POSIX
    def test_a_process_ends_with_the_process_that_asks(
        self, monkeypatch: pytest.MonkeyPatch, capfd: Any
    ) -> None:
        """A terminal that closes kills it, and its children must not go on or complain."""
        told, tell = os.pipe()
        monkeypatch.setattr(children, "SPAWN", multiprocessing.get_context("fork"))
        if not (pid := os.fork()):
            try:
                child = children.Child()
                child.begin(tasks(hangs)[0])
                os.write(tell, str(child.process.pid).encode())
                time.sleep(600)
            finally:
                os._exit(1)
        started = int(os.read(told, 20))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for _ in range(3000):
            try:
                os.kill(started, 0)
            except ProcessLookupError:
                break
            time.sleep(0.01)
        else:
            raise AssertionError("the child is still there")
        assert "Traceback" not in capfd.readouterr().err

    def test_what_cannot_be_recorded_is_made_again_without_a_recording(self) -> None:
        first, bad, last = results_of([tasks(fine, unrecordable, fine)], 1)
        assert bad["no_graph"] == "operation not permitted when stream is capturing"
        assert bad["failure"] is None and bad["graph"] is False
        assert last["graph"] is True and last["pid"] != first["pid"]


class Recorded:
    """Has a trainer on the CPU record as on a GPU; `replay` makes what a recording replays."""

    def __init__(self, patch: pytest.MonkeyPatch, replay: Callable[[Any], Any]) -> None:
        def on_cpu(kind: type) -> Callable[..., Any]:
            def made(what: Any, *given: Any, record: bool = True) -> Any:
                given = tuple("cpu" if isinstance(each, str) else each for each in given)
                trainer = kind(what, *given, record=record)
                trainer.record = record
                return trainer

            return made

        patch.setattr(cuda, "_graph", lambda work, device: replay(work))
        patch.setattr(steps, "own_stream", lambda device: cuda.own_stream(torch.device("cpu")))
        for name in ("ImageTrainer", "ToyTrainer"):
            patch.setattr(steps, name, on_cpu(getattr(steps, name)))


def stands_still(work: Callable[[], Any]) -> Callable[[], Any]:
    last = work()
    return lambda: last


def twice(work: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: (work(), work())[1]


EACH = pytest.mark.parametrize(
    ("study", "method"), [("toy_grid", "svae_r"), ("mnist", "svae_r"), ("celeba", "wgan_gp")]
)


class TestStep:
    @EACH
    def test_a_recorded_step_equals_an_eager_one(
        self, study: str, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Recorded(monkeypatch, lambda work: work)
        found = step(study, method, 0.0, "float32", "cuda")
        assert found["failure"] is None and found["graph"] and found["gap"] < 1e-6

    @EACH
    @pytest.mark.parametrize("replay", [stands_still, twice])
    def test_a_recording_that_does_something_else_is_noticed(
        self, study: str, method: str, replay: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Recorded(monkeypatch, replay)
        found = step(study, method, 0.0, "float32", "cuda")
        assert found["failure"].startswith("differs from the same step without a graph by ")

    @EACH
    def test_a_cpu_compares_with_float64(self, study: str, method: str) -> None:
        found = step(study, method, 0.0, "float32", "cpu")
        assert found["failure"] is None and 0 < found["gap"] < 1e-3
        assert not found["graph"] and found["no_graph"] == "a CPU has no graphs"

    @pytest.mark.parametrize("precision", ["float32", "bf16"])
    def test_other_noise_in_the_models_update_is_noticed(
        self, precision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an example of a step that is not this method's."""

        class Other(steps.ImageTrainer):
            def update_names(self, step: int) -> list[str]:
                *critic, model = super().update_names(step)
                return [*critic, f"{model} {self.dtype}"]

        monkeypatch.setattr(steps, "ImageTrainer", Other)
        steps._in_float64.cache_clear()
        found = step("mnist", "svae_r", 0.1, precision, "cpu")
        steps._in_float64.cache_clear()
        assert found["failure"].startswith("differs from the same step in float64 by ")

    def test_parameters_without_a_gradient_do_not_count_and_nan_does(self) -> None:
        start, wanted = torch.zeros(2), torch.ones(2)
        found, sizes = torch.tensor([1.0, -1.0]), torch.tensor([1.0, 0.0])
        assert steps._gap(found, wanted, start, sizes) == 0.0
        assert steps._gap(found, wanted, start) == 1.0
        assert steps._gap(found * float("nan"), wanted, start) == float("inf")


def test_every_method_of_every_study_is_tried_in_every_precision() -> None:
    tried = {
        (task.arguments[:2], task.arguments[3]) for each in steps.steps("cpu") for task in each
    }
    assert tried == {
        ((study.name, method), precision)
        for study in STUDIES.values()
        if study.name != "theory"  # its steps are not tried
        for method in study.every_method()
        for precision in study.kind.PRECISIONS
        if precision != "tf32"
    }


class TestScores:
    @pytest.mark.parametrize("study", ["toy_grid", "mnist"])
    def test_one_device_agrees_with_itself(self, study: str) -> None:
        call = scores.toy_scores if study == "toy_grid" else scores.image_scores
        assert call(study, "cpu") == {"difference": 0.0, "failure": None}

    @pytest.mark.parametrize(
        ("other", "told"),
        [
            ({"is": 2.1, "mse": 0.0}, "is of the CPU and of the GPU differ by 0.033"),
            ({"is": float("nan"), "mse": 0.0}, "is of the CPU and of the GPU differ by inf"),
            ({"is": 2.0}, "a device could not score"),
            ({}, "a device could not score"),
        ],
    )
    def test_what_does_not_agree_is_named(self, other: dict[str, float], told: str) -> None:
        found = scores._differences([{"is": 2.0, "mse": 0.0}], [other])
        assert found["failure"].startswith(told)


class TestData:
    def test_an_empty_cache_is_not_broken_and_nothing_is_downloaded(self, cache: Path) -> None:
        found = {each["name"]: each for each in machine.data()}
        assert {*found} == {"mnist", "cifar10", "celeba", "static bits of mnist"}
        assert found["mnist"]["state"] == found["static bits of mnist"]["state"] == "download"
        assert not any(each["failure"] for each in found.values())
        assert not cache.exists()

    def test_what_is_at_hand_or_damaged_is_told(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (cache / "prepared" / "mnist").mkdir(parents=True)
        (cache / "prepared" / "mnist" / "about.json").write_text("{}")
        (cache / "cifar-10-python.tar.gz").write_bytes(b"")
        (cache / "binarized_mnist_test.amat").write_text("0 1")
        own = {
            name: sources.images_in(f"{cache}/{name}", channels=1, size=28) for name in ("a", "b")
        }
        (cache / "a").mkdir()
        monkeypatch.setattr(load, "DATASETS", load.DATASETS | own)
        found = {each["name"]: each for each in machine.data()}
        states = {name: each["state"] for name, each in found.items()}
        assert states["mnist"] == states["static bits of mnist"] == states["cifar10"] == "damaged"
        assert states["a"] == "at hand" and states["b"] == "missing"
        assert "bench.data prepare mnist" in found["mnist"]["failure"]
        assert "cifar-10-python.tar.gz" in found["cifar10"]["failure"]

    @pytest.mark.parametrize("content", [b"", None])
    def test_a_damaged_classifier_is_broken(
        self,
        content: bytes | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        quick: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        shutil.copytree(classifiers.WEIGHTS, tmp_path, dirs_exist_ok=True)
        (tmp_path / "cifar10-0.safetensors").unlink()
        if content is not None:
            (tmp_path / "cifar10-0.safetensors").write_bytes(content)
        monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
        assert command.main(["--results", str(tmp_path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("broken: classifier cifar10-0: ")
        assert line.endswith("restore it from the repository")

    def test_imagenets_weights_are_hashed(self, cache: Path) -> None:
        assert machine.weights()[-1]["state"] == "download"
        cache.mkdir()
        (cache / machine.download.INCEPTION).write_bytes(b"0")
        assert "another SHA-256" in machine.weights()[-1]["failure"]


class TestResults:
    def test_the_probe_leaves_nothing_and_makes_no_folder(self, tmp_path: Path) -> None:
        found = machine.results_folder(tmp_path / "new" / "results")
        assert found["failure"] is None and not [*tmp_path.iterdir()]

    def test_a_file_in_the_way_is_told(
        self, tmp_path: Path, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        assert command.main(["--results", str(tmp_path / "file" / "results")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("broken: results folder ") and "Not a directory" in line

    def test_a_file_system_without_locks_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: Any, **__: Any) -> Any:
            raise NotImplementedError("no flock here")

        monkeypatch.setattr(machine, "FileLock", refused)
        assert "no flock here" in machine.results_folder(tmp_path)["failure"]

    def test_a_disk_that_does_not_sync_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(file: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", refused)
        assert "Input/output error" in machine.results_folder(tmp_path)["failure"]


class TestCommand:
    def test_a_method_that_differs_is_named_and_the_others_are_not(
        self, tmp_path: Path, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick(fine, differs, unrecordable)
        assert command.main(["--results", str(tmp_path)]) == 1
        out, err = capsys.readouterr()
        assert err == "broken: mnist differs in float32: differs by 0.5\n"
        assert "2 ok, not differs" in out
        assert "no graph: mnist unrecordable in float32: operation not permitted" in out

    def test_wrong_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        if not torch.cuda.is_available():
            assert command.main(["--device", "cuda"]) == 2
            assert "allowed here: cpu" in capsys.readouterr().err
        with pytest.raises(SystemExit) as ended:
            command.main(["--device", "tpu"])
        assert ended.value.code == 2

    def test_the_whole_check_of_two_studies_as_json(
        self,
        tmp_path: Path,
        cache: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """It is one object, whose keys the README names, and it finds nothing broken."""
        for name in STUDIES.keys() - {"toy_grid", "mnist"}:
            monkeypatch.delitem(STUDIES, name)
        few = {"svae_r": True, "wgan_gp": False}
        monkeypatch.setattr(type(STUDIES["mnist"]), "every_method", lambda study: few)
        assert command.main(["--json", "--device", "cpu", "--results", str(tmp_path)]) == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert not err and found["broken"] == []
        assert keys(found) == documented()
        assert {each["study"] for each in found["steps"]} == {"toy_grid", "mnist"}
        assert all(each["gap"] <= each["tolerance"] for each in found["steps"])
        assert {each["scale"] for each in found["stacks"]} == {"smoke", "quick", "paper"}
        assert all(each["minutes"] > 0 for each in found["times"])
        assert {(e["scale"], e["by"]) for e in found["times"]} == {
            ("smoke", "products"),
            ("quick", "timing"),
            ("paper", "products"),
        }
        assert not [*tmp_path.rglob("*.parquet")] and not cache.exists()

    @pytest.mark.gpu
    def test_a_gpu_is_not_broken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status = command.main(["--json", "--device", "cuda", "--results", str(tmp_path)])
        out, err = capsys.readouterr()
        assert status == 0, err
        assert all(each["graph"] for each in json.loads(out)["steps"])


def keys(found: dict[str, Any]) -> dict[str, set[str]]:
    """The keys of each part, and of its objects."""

    def inside(part: Any) -> Iterable[str]:
        objects = part if isinstance(part, list) else [part]
        return {key for each in objects if isinstance(each, dict) for key in each}

    return {name: {*inside(part)} for name, part in found.items()}


def documented() -> dict[str, set[str]]:
    """The same by the README; it tells of the scores, which need a GPU, as well."""
    text = (ROOT / "bench" / "README.md").read_text("utf-8")
    section = text.split("\n## What a machine can do\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    found = {name: {*re.findall(r"`(\w+)`", cell)} for name, cell in rows}
    return found | {"scores": set()}


def test_a_cache_below_no_home_is_told_with_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVAE_BENCH_DATA", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises KeyError
    found = {each["name"]: each["failure"] for each in machine.data()}
    assert "SVAE_BENCH_DATA" in found["mnist"]
    assert machine.weights()
