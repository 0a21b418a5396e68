"""Trainings that write logs can be watched, whatever the files are like at the moment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from bench import run as bench_run
from bench.show import follow
from bench.show.__main__ import main
from bench.store.atomic import process
from tests.conftest import POSIX
from tests.rows import TOY, row, smoke

HEAD = "epoch,share,seconds,critic_loss,model_loss,n_samples,inception_score\n"
ONE, TWO = "0123456789abcdef", "fedcba9876543210"


def log(results: Path, id: str, text: str, **spec: Any) -> Path:
    """Writes a log of the toy study; returns its folder."""
    folder = results / "toy_grid" / "_smoke" / "logs" / id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text(text)
    known = {"id": id, "label": "sVAE-r", "lam": 0.1, "seed": 3, **spec}
    (folder / "spec.json").write_text(json.dumps(known))
    return folder


def beat(results: Path, number: int) -> Path:
    """Leaves a heartbeat of a run of this process number; returns its folder."""
    host = process().rpartition("-")[0]
    folder = results / "toy_grid" / "_smoke" / "progress" / f"{host}-{number}"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    return folder


def dead() -> int:
    """Returns the number of a process that has ended."""
    if (number := os.fork()) == 0:
        os._exit(0)
    os.waitpid(number, 0)
    return number


def test_records_are_whole_lines() -> None:
    text = HEAD + "0.0,0.0,0.0,1.5,nan,,\n1.0,0.5,2.0,1.0,inf,1024,4.5\n2.0,0.9,3.0,1.0,1.0,1024,4"
    columns, records = follow._records(text.encode())
    assert columns[-1] == "inception_score" and len(records) == 2
    assert records[0]["inception_score"] is None and records[0]["critic_loss"] == 1.5
    assert records[0]["model_loss"] != records[0]["model_loss"]
    assert records[1]["model_loss"] == float("inf") and records[1]["inception_score"] == 4.5


@pytest.mark.parametrize(
    "content", [b"", b"epoch", b"a,b\n1,2\n", HEAD.encode()[:20], b"\xff\xfe\x00\n", HEAD.encode()]
)
def test_what_is_no_log_has_no_records(content: bytes) -> None:
    assert follow._records(content)[1] == []


def test_lines_that_were_cut_or_joined_are_no_records() -> None:
    text = HEAD + "1.0,0.5,2.0\n1.0,0.5,2.0,1.0,1.0,,2.0,0.9,3.0\n3.0,1.0,3.0,1.0,1.0,,4.0\n"
    assert [each["epoch"] for each in follow._records(text.encode())[1]] == [3.0]


def test_the_newest_picture_that_can_be_read(tmp_path: Path) -> None:
    folder = log(tmp_path, ONE, HEAD)
    for number, grey in ((2, 10), (10, 20)):
        Image.new("L", (4, 4), grey).save(folder / f"samples-{number:06}.png")
    training = follow.Training(folder, "toy_grid")
    picture = training.picture()
    assert picture is not None and picture.shape == (4, 4, 3) and picture[0, 0, 0] == 20
    (folder / "samples-000011.png").write_bytes(b"\x89PNG\r\n")  # begun
    assert (picture := training.picture()) is not None and picture[0, 0, 0] == 20


def test_a_log_that_begins_anew_is_read_anew(tmp_path: Path) -> None:
    folder = log(tmp_path, ONE, HEAD + "5.0,1.0,9.0,1.0,1.0,,\n")
    training = follow.Training(folder, "toy_grid")
    assert training.look() and training.share == 1.0
    (folder / "log.csv").write_text(HEAD + "0.0,0.0,0.0,2.0,2.0,,\n")
    os.utime(folder / "log.csv", (1, 1))
    assert training.look() and training.share == 0.0 and len(training.records) == 1


def test_a_torn_spec_leaves_the_id(tmp_path: Path) -> None:
    folder = log(tmp_path, ONE, HEAD + "5.0,1.0,9.0,1.0,1.0,,\n")
    (folder / "spec.json").write_text('{"label": "sVA')
    training = follow.Training(folder, "toy_grid")
    assert training.look() and training.name == "toy_grid (01234567)"


@POSIX
def test_a_run_is_under_way_while_its_process_lives(tmp_path: Path) -> None:
    watch = follow.Watch(tmp_path, ["toy_grid"], ["smoke"], "")
    assert not watch.under_way()
    folder = beat(tmp_path, dead())
    assert not watch.under_way()
    other = folder.rename(folder.with_name("elsewhere-1"))
    assert watch.under_way()  # on another host, by its heartbeat
    os.utime(other / "job.json", (1, 1))
    assert not watch.under_way()
    beat(tmp_path, os.getpid())
    assert watch.under_way()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Follows; between two looks the next of `steps` is made."""
    monkeypatch.setattr(follow, "PATIENCE", 2)

    def run(*steps: Callable[[], Any], more: tuple[str, ...] = ()) -> tuple[int, str, str]:
        left = iter(steps)
        monkeypatch.setattr(time, "sleep", lambda seconds: next(left, lambda: None)())
        arguments = ["toy_grid", "--results", str(tmp_path), "--follow", *more]
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_line_for_each_new_record_until_the_run_ends(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    first = HEAD + "0.0,0.0,0.0,1.5,1.0,,\n1.0,0.5,2.0,1.25,1.0,,\n"
    folder, run = log(tmp_path, ONE, first), beat(tmp_path, os.getpid())

    def more(text: str) -> None:
        with (folder / "log.csv").open("a") as file:
            file.write(text)
        later = time.time() + 10
        os.utime(folder / "log.csv", (later, later))

    def end() -> None:
        (run / "job.json").unlink()
        run.rmdir()

    line = "2.0,1.0,4.0,1.0,0.5,1024,4.75\n"
    steps = (lambda: more(line[:9]), lambda: more(line[9:]), end)
    status, out, err = command(*steps)
    assert (status, err) == (0, "")
    name = "sVAE-r, λ = 0.1, seed 3 (01234567)"
    assert out.splitlines() == [
        f"{name}: epoch 1, 50%, critic_loss 1.25, model_loss 1",
        f"{name}: epoch 2, 100%, critic_loss 1, model_loss 0.5, inception_score 4.75",
        "no run is under way",
    ]


def test_the_training_asked_for_ends_before_the_run(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    log(tmp_path, ONE, HEAD + "2.0,1.0,4.0,1.0,0.5,,\n")
    log(tmp_path, TWO, HEAD + "1.0,0.5,4.0,1.0,0.5,,\n", label="ALICE")
    beat(tmp_path, os.getpid())
    status, out, _ = command(more=(ONE[:5],))
    assert status == 0 and out.endswith("this training has ended\n") and "ALICE" not in out


@pytest.mark.parametrize("scale", [(), ("--scale", "smoke")])
def test_nothing_logged_is_one_line_with_the_command_that_logs(
    scale: tuple[str, ...], tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, err = command(more=scale)
    assert status == 2 and out == ""
    waiting, last = err.splitlines()
    assert waiting == "waiting up to 2 s for a run"
    at = f" at scale {scale[1]}" if scale else ""
    typed = " ".join(["python -m bench.run toy_grid", *scale, f"--results {tmp_path} --log"])
    assert last == (
        f"python -m bench.show: nothing of toy_grid is logged{at} in {tmp_path}, "
        f"and no run is under way: {typed}"
    )
    bench_run.parser().parse_args(typed.split()[3:])


def test_logs_at_another_scale_are_told(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    log(tmp_path, ONE, HEAD + "2.0,1.0,4.0,1.0,0.5,,\n")
    status, _, err = command(more=("--scale", "quick"))
    assert status == 2 and err.endswith("there are logs at scale smoke\n")


def test_a_training_that_is_stored_is_not_waited_for(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """Neither without a log, nor with one that ends early, while another run is under way."""
    spec = smoke()[0]
    TOY.store(tmp_path, "smoke").write([row(spec)], [])
    beat(tmp_path, os.getpid())
    status, _, err = command(more=(spec.id,))
    assert status == 2 and err.count("\n") == 1
    assert f"{spec.id} is stored, and nothing of it is logged" in err
    table = log(tmp_path, spec.id, HEAD + "1.0,0.5,4.0,nan,0.5,,\n") / "log.csv"
    os.utime(table, (1, 1))
    status, out, _ = command(more=(spec.id,))
    assert status == 0 and out.endswith("this training has ended\n")


def test_a_run_without_a_log_is_said_to_be_waited_for(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    run = beat(tmp_path, os.getpid())
    status, out, err = command(lambda: (run / "job.json").unlink(), run.rmdir)
    assert status == 0 and err == "waiting until the run under way logs\n"
    assert out == "no run is under way\n"


def test_a_run_that_begins_late_is_followed(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    text = HEAD + "2.0,1.0,4.0,1.0,0.5,,\n"
    status, out, err = command(lambda: log(tmp_path, ONE, text))
    assert status == 0 and "epoch 2" in out and "waiting" in err


@pytest.mark.parametrize("option", ["--worst=2", "--json"])
def test_following_goes_alone(
    option: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, _, err = command(more=(option,))
    assert status == 2 and err.endswith(
        f"{option[:7].strip('=')} and --follow exclude each other\n"
    )


def test_ctrl_c_is_status_130(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    log(tmp_path, ONE, HEAD + "1.0,0.5,4.0,1.0,0.5,,\n")
    beat(tmp_path, os.getpid())

    def stop() -> None:
        raise KeyboardInterrupt

    status, _, err = command(stop)
    assert status == 130 and err == "stopped\n"


@pytest.mark.parametrize("size", [(40, 24), (80, 24), (120, 50), (200, 60)])
def test_the_view_fits_into_the_terminal(size: tuple[int, int], tmp_path: Path) -> None:
    lines = [f"{i}.0,{i / 20},{i}.0,{2 - i / 20},{i},1024,{1 + i / 6}\n" for i in range(20)]
    folder = log(tmp_path, ONE, HEAD + "".join(lines))
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, :64] = 255
    Image.fromarray(wide).save(folder / "samples-000019.png")
    for i in range(30):
        log(tmp_path, f"{i:016}", HEAD + "1.0,0.5,4.0,1.0,0.5,,\n", label=f"method{i}")
        os.utime(tmp_path / "toy_grid/_smoke/logs" / f"{i:016}" / "log.csv", (i, i))
    trainings = follow.Watch(tmp_path, ["toy_grid"], ["smoke"], "").look()
    assert trainings[0].id == ONE
    on = Console(width=size[0], height=size[1], color_system="truecolor", force_terminal=True)
    with on.capture() as caught:
        on.print(follow.view(trainings, on))
    text = Text.from_ansi(caught.get()).plain
    assert "sVAE-r, λ = 0.1, seed 3 (01234567)" in text and "critic_loss" in text
    assert "95%" in text and "method29" in text
    assert " left" not in text  # seconds are a share of a stack, from which no time left is known
    assert max(map(len, text.splitlines())) <= size[0]
    assert len(text.splitlines()) <= size[1]


def test_diverged_losses_are_shown(tmp_path: Path) -> None:
    log(tmp_path, ONE, HEAD + "0.0,0.0,0.0,nan,inf,,\n")
    trainings = follow.Watch(tmp_path, ["toy_grid"], ["smoke"], ONE[:4]).look()
    on = Console(width=80, height=40)
    with on.capture() as caught:
        on.print(follow.view(trainings, on))
    assert "no finite value" in caught.get()
