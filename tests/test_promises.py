"""What the suite promises of results: nothing lost, doubled, mixed or let out of its folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch

from bench import report, run, spec
from bench.engine import job as jobs
from bench.store import atomic, schema
from bench.store import rows as store
from bench.store.rows import StoreError, from_bytes, to_bytes
from bench.studies import STUDIES
from bench.studies.study import Job
from tests import chaos
from tests.conftest import POSIX, ROOT
from tests.engine.test_executors import SPECS, Fake, engine_on
from tests.lives import PATIENCE, Life
from tests.rows import SMOKE, TOY_ROWS, points, row, stored

DATA = Path(__file__).parent / "fixtures"
SEQUENTIAL = [*SMOKE, "--engine", "sequential"]


@POSIX
def test_a_study_under_kill_9_comes_out_the_same(live: Callable[..., Life]) -> None:
    """The short version of `python -m tests.chaos`."""
    said = live(call=partial(chaos.main, ["--kills", "10", "--command", "0"])).end()
    assert "nothing lost, doubled or changed" in said
    assert int(said.splitlines()[-1].split()[0]) >= 10


def test_chaos_notices_a_lost_row_and_lost_weights(tmp_path: Path) -> None:
    log = chaos.Log(tmp_path / "kills")
    one, other, bare = (chaos.Study(tmp_path / name, 1, log) for name in ("one", "other", "bare"))
    for study, count, weights in ((one, 8, 8), (other, 7, 8), (bare, 8, 7)):
        kept = STUDIES["toy_grid"].store(study.folder, "smoke")
        kept.prepare()
        for each in SPECS[:weights]:
            kept.keep_weights(each.id, {"w": torch.zeros(1)}, {})
        kept.write([row(s) for s in SPECS[:count]], [points(s) for s in SPECS[:count]])
    assert one.is_like(one)
    assert not other.is_like(one)
    assert not bare.is_like(one)


# Disk full, read-only, quota


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_folder_that_takes_nothing(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store, "write_atomically", refused)
    assert run.main([*SEQUENTIAL, "--results", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert f"can't be written ({os.strerror(code)})" in err and err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r").mkdir(mode=0o500)
    assert run.main([*SEQUENTIAL, "--results", str(tmp_path / "r")]) == 1
    assert "can't be written (Permission denied)" in capsys.readouterr().err


@POSIX
def test_a_quota_that_is_met_on_the_way(tmp_path: Path, live: Callable[..., Life]) -> None:
    import resource

    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    kept.prepare()
    kept.write([row(s) for s in SPECS[8:]], [points(s) for s in SPECS[8:]])
    before = {p: p.read_bytes() for p in kept.folder.rglob("*.parquet")}
    quota = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096))
    said = live(*SEQUENTIAL, "--results", "r", first=[quota]).end(1)
    assert "results can't be written: File too large; nothing stored is lost" in said
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in before} == before
    assert len(kept.done()) == len(SPECS) - 8
    assert list((kept.work / "tmp").iterdir()) == []


# Runners and generations


@POSIX
def test_two_runners_on_one_folder_equal_one(
    tmp_path: Path, live: Callable[..., Life], whole: pd.DataFrame
) -> None:
    for runner in [live(*SEQUENTIAL, "--results", "r") for _ in range(2)]:
        runner.end()
    pd.testing.assert_frame_equal(stored(tmp_path / "r"), whole)
    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    assert kept.prepare() == {} and len(kept.samples.read()[0]) == 8
    assert list((kept.work / "progress").iterdir()) == []


def test_another_protocol_is_another_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(count: int) -> set[str]:
        specs = STUDIES["toy_grid"].specs("smoke")[:count]
        kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
        kept.prepare()
        kept.write([row(s, protocol=spec.PROTOCOL) for s in specs], [points(s) for s in specs])
        return {s.id for s in specs}

    old = fill(8)
    with monkeypatch.context() as later:
        following = spec.PROTOCOL + 1
        later.setattr(spec, "PROTOCOL", following)
        everything = STUDIES["toy_grid"].specs("smoke")
        counts, left = run.count(everything, STUDIES["toy_grid"].store(tmp_path, "smoke"))
        assert (counts.done, len(left)) == (0, 8)  # all of it is trained anew
        new = fill(3)
        assert not new & old
        assert set(STUDIES["toy_grid"].load(tmp_path, "smoke")[0]["id"].to_pylist()) == new
    assert set(STUDIES["toy_grid"].load(tmp_path, "smoke")[0]["id"].to_pylist()) == old


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION + 1))
def test_a_file_of_every_schema_is_read(version: int) -> None:
    """Written once by the code of its time (`fixture` below) and never again."""
    content = (DATA / f"schema_{version}.parquet").read_bytes()
    table = from_bytes(content, TOY_ROWS)
    assert table.schema.equals(TOY_ROWS)
    ok, diverged = sorted(table.to_pylist(), key=lambda r: r["status"], reverse=True)
    assert (ok["status"], ok["method"], ok["lam"], ok["critic_width"]) == ("ok", "alice", 0.0, 32)
    assert (ok["inception_score"], ok["modes"], ok["train_seconds"]) == (4.7, 5, 1.0)
    assert dict(ok["decoder_gradient"])["svae_r"] == pytest.approx([0.2, 1.0])
    assert (diverged["status"], diverged["inception_score"]) == ("diverged", None)
    with pytest.raises(StoreError, match="update the suite"), pytest.MonkeyPatch.context() as older:
        older.setattr(schema, "SCHEMA_VERSION", version - 1)
        from_bytes(content, TOY_ROWS)


def fixture() -> None:
    """Makes the file of today's schema."""
    ok, diverged = sorted(SPECS[:2], key=lambda s: s.method)
    table = pa.Table.from_pylist([row(ok), row(diverged, None)], schema=TOY_ROWS)
    (DATA / f"schema_{schema.SCHEMA_VERSION}.parquet").write_bytes(to_bytes(table))


# What becomes of trainings that go wrong


def test_diverged_is_a_result_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "after_run", lambda *_: None)
    some = ["--only", "lam=0", "--only", "method=svae_r", "--lr", "1e30,1e-3"]
    assert run.main([*SEQUENTIAL, *some, "--results", str(tmp_path)]) == 0
    found = pd.read_parquet(tmp_path / "toy_grid" / "smoke").groupby("lr")["status"].unique()
    assert found[1e30].tolist() == ["diverged"]
    assert found[1e-3].tolist() == ["ok"]
    capsys.readouterr()
    assert run.main([*SEQUENTIAL, *some, "--results", str(tmp_path), "--status"]) == 0
    assert "4 trainings, 4 done (2 diverged), 0 failed, 0 to go" in capsys.readouterr().out


def test_fail_fast_stops_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fate(job: Job, alone: bool) -> jobs.Verdict:
        return jobs.Verdict(job, "raised", {}, "no such thing")

    runner, plan, kept = engine_on(Fake(fate), tmp_path, monkeypatch)
    runner.fail_fast = True
    with pytest.raises(StoreError, match="--fail-fast"):
        runner.run(plan)
    assert [note["times"] for note in kept.failures().values()].count(store.FAILURES) == 1


# Names stay in the folder


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    results, out = tmp_path / "in" / "results", tmp_path / "in" / "out"
    kept = STUDIES["toy_grid"].store(results, "smoke")
    kept.prepare()
    for id in ("../../../../up", "/absolute/path..", "zero\0byte.......", "f" * 5000, ""):
        with pytest.raises(ValueError, match="is not an id"):
            kept.write([row(SPECS[0], id=id)], [])
    names = ["../../up", "/absolute", "x" * 60, "<script>alert(1)</script>"]
    for name, each in zip(names, SPECS, strict=False):
        kept.write([row(each, label=name, method=name)], [points(each)])
    before = set(tmp_path.rglob("*"))
    arguments = ["toy_grid", "--scale", "smoke", "--results", str(results), "--out", str(out)]
    arguments += ["--stale"]  # nobody knows the source of such methods
    assert report.main(arguments) == 0
    made = set(tmp_path.rglob("*")) - before
    assert made and all(path.is_relative_to(out) for path in made)
    page = (out / "toy_grid" / "smoke" / "report.html").read_text("utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@POSIX
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    kept = STUDIES["toy_grid"].store(tmp_path / "r", "smoke")
    kept.prepare()
    outside = tmp_path / "outside.parquet"
    outside.write_bytes(b"somebody's")
    bucket = kept.folder / f"{SPECS[0].id[:2]}.parquet"
    bucket.symlink_to(outside)
    kept.write([row(SPECS[0])], [points(SPECS[0])])
    assert outside.read_bytes() == b"somebody's"
    assert not bucket.is_symlink()
    assert list(kept.done()) == [SPECS[0].id]


# Leftovers, network


@POSIX
def test_what_the_dead_left_goes_once_it_is_old(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    here, _, own = atomic.process().rpartition("-")
    old, long_ago = {}, time.time() - 2 * atomic.OLD
    for age in ("old", "young"):
        for process in (f"{here}-{dead.pid}", f"{here}-{own}", f"elsewhere-{dead.pid}"):
            draft = kept.work / "tmp" / f"{process}-{age}"
            folder = kept.work / "progress" / f"{process}-{age}"
            folder.mkdir(parents=True)
            for path in (draft, folder / "a.json"):
                path.touch()
            if age == "old":
                for path in (draft, folder):
                    os.utime(path, (long_ago, long_ago))
                    old[path] = process == f"{here}-{dead.pid}"
    kept.prepare()
    assert {path: not path.exists() for path in old} == old
    assert sorted(p.name for p in (kept.work / "tmp").glob("*-young")) == sorted(
        f"{p}-young" for p in (f"{here}-{dead.pid}", f"{here}-{own}", f"elsewhere-{dead.pid}")
    )


NO_NETWORK = """
import socket

def refuse(self, *_):
    if self.family != getattr(socket, "AF_UNIX", None):
        raise SystemExit("a socket was used")

socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = refuse
"""


def test_no_network_and_no_gpu(
    tmp_path: Path, python: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every process, joblib's workers too."""
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    blocked = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    blocked |= {"CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "bench.run", *SMOKE, "--workers", "2"]
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    done, used = (
        subprocess.run(
            each, cwd=tmp_path, env=blocked, capture_output=True, text=True, timeout=PATIENCE
        )
        for each in (command, probe)
    )
    assert "a socket was used" in used.stderr
    assert done.returncode == 0, done.stderr
    assert len(stored(tmp_path / "results")) == 8
    assert (tmp_path / "reports/toy_grid/smoke/report.html").is_file()
