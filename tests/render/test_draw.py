"""The pictures of a report come out the same, whoever draws them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.render import draw
from bench.render.figures import Picture, panels, whole
from bench.render.page import Page

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no copies of a process")
HERE = os.getpid()
RUN = dict.fromkeys(("commit", "torch", "numpy", "python", "device", "device_name"), "x")
RUN |= {"precision": "float32", "threads": 1, "stack_size": 1, "graph": False, "dirty": False}
RUN |= {"seed": 0, "config": "x", "train_seconds": 1.0, "cpu_seconds": 0.9}


def line(y: float) -> Figure:
    figure, (axes,) = panels(1, 1, 2, 2)
    axes.plot([0, y])
    return figure


def pictures(fault: str = "") -> list[Picture]:
    def drawn(y: float) -> Figure:
        if fault and os.getpid() != HERE:
            if fault == "killed":
                os._exit(1)
            raise OSError
        return line(y)

    return [Picture(f"p{i}", lambda i=i: drawn(i), "", "") for i in range(6)]


@pytest.mark.parametrize("fault", ["", "raises", "killed"])
def test_copies_of_the_process_change_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when they draw nor when they fail."""
    digests, files = [], []
    for cores in (1, 3):
        monkeypatch.setattr(draw, "_cores", lambda cores=cores: cores)
        (folder := tmp_path / str(cores)).mkdir()
        digests.append(draw.write(pictures(fault), folder))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert digests[0] == digests[1] and len(set(digests[0].values())) == 6
    assert files[0] == files[1] and len(files[0]) == 12


def test_copies_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes waits until the other draws as well."""
    monkeypatch.setattr(draw, "_cores", lambda: 2)

    def meeting(i: int) -> Figure:
        (tmp_path / f"{os.getpid()}.here").touch()
        for _ in range(1000):
            if len([*tmp_path.glob("*.here")]) == 2:
                break
            time.sleep(0.01)
        return line(i)

    draw.write([Picture(f"p{i}", lambda i=i: meeting(i), "", "") for i in range(2)], tmp_path)
    assert len([*tmp_path.glob("*.here")]) == 2


def test_an_error_of_the_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_cores", lambda: 2)
    with pytest.raises(OSError):
        draw.write(pictures(), tmp_path / "nowhere")


def test_a_link_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    """What a link leads to may be another report, or anything of the user's."""
    mine, folder = tmp_path / "mine", tmp_path / "report"
    folder.mkdir()
    mine.write_text("mine")
    (folder / "notes.txt").write_text("mine")
    for name in ("p0.svg", "figures.json", "report.html", "report.md"):
        (folder / name).symlink_to(mine)
    frame = pd.DataFrame(RUN, index=[0])
    Page(frame, pictures()[:1], title="a report").write(folder)
    assert mine.read_text() == (folder / "notes.txt").read_text() == "mine"
    assert "a report" in (folder / "report.html").read_text()
    assert not any(path.is_symlink() or path.name[0] == "." for path in folder.iterdir())


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "p.svg").write_text("before")
    with pytest.raises(OSError), whole(tmp_path / "p.svg") as draft:
        draft.write_text("half")
        raise OSError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_copies_end_with_the_process(tmp_path: Path) -> None:
    """A terminal that closes kills it: nobody waits for its report any more."""
    begun = os.pipe()

    def slow() -> Figure:
        os.write(begun[1], b"x")
        time.sleep(0.5)
        return line(1)

    if not (pid := os.fork()):
        draw._cores = lambda: 2
        draw.write([Picture(f"p{i}", slow, "", "") for i in range(20)], tmp_path)
        os._exit(0)
    os.close(begun[1])
    assert len(os.read(begun[0], 1)) == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while os.read(begun[0], 1):  # until no process has the pipe any more
        pass
    assert len([*tmp_path.iterdir()]) < 10
