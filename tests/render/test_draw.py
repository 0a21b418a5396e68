"""The pictures of a report come out the same, whoever draws them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bench.render import draw
from bench.render.figures import Picture, panels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no copies of a process")
HERE = os.getpid()


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
