"""What is trained on a rented machine comes home whole, wherever the script there is stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.lives import PATIENCE
from tests.rows import SMOKE, TOY, points, row, stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar, split and timeout")

SPEED = ROOT / "bench" / "speed"
MISSING = {"torch_fidelity", "pooch", "polars", "duckdb", "ray", "distributed", "dask", "gdown"}
BARE = f"""
import sys

for name in {MISSING}:
    sys.modules[name] = None
"""
"""A rented machine has only what the core needs."""
ON_CPU = ["--device", "cpu"]
STUB = f"""#!/bin/bash
case "$*" in
*--dry-run*) exit "${{DRY:-0}}" ;;
*bench.run*)
    echo "$*" >>calls
    results=$(sed 's/.*--results \\([^ ]*\\).*/\\1/' <<<"$*")
    mkdir -p "$results" && cp -r stored/. "$results"
    exec bash -c "$THEN"
    ;;
*bench.check*) echo '{{"checked": true}}' && sleep 1.5 ;;
*bench.speed* | *pytest*) ;;
*) exec {sys.executable} "$@" ;;
esac
"""
"""Stands for Python: bench.run stores the folder `stored`, and then does as $THEN says."""


def bare(folder: Path) -> str:
    """The path of a folder by which Python finds only what the core needs."""
    (folder / "bare").mkdir()
    (folder / "bare" / "sitecustomize.py").write_text(BARE)
    return str(folder / "bare")


def begin(tmp_path: Path, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """Starts a script in a folder, with results in `there`."""
    given = {"RESULTS": "there", "CHECK": "0", "EVERY": "1", "PYTHON": sys.executable}
    given["TMPDIR"] = str(tmp_path)
    return subprocess.Popen(
        ["bash", str(SPEED / script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1", **given, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def call(tmp_path: Path, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Returns the exit status of a script, and all that it prints."""
    process = begin(tmp_path, script, *arguments, **environment)
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


@pytest.fixture
def stub(tmp_path: Path) -> str:
    """The path of `STUB`; the folder has two studies' worth of files for it."""
    path = tmp_path / "python"
    path.write_text(STUB)
    path.chmod(0o755)
    for name, size in {
        "toy_grid/paper/0a.parquet": 100_000,
        "toy_grid/paper_samples/0a.parquet": 150_000,
        "toy_grid/_paper/failed/x.json": 10,
        "toy_grid/_paper/weights/x.safetensors": 700_000,
        "toy_grid/_paper/checkpoints/x.safetensors": 10,
        "toy_grid/_paper/rows/0a.ids": 10,
        "mnist/smoke/0b.parquet": 10,
    }.items():
        file = tmp_path / "stored" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
    return str(path)


def parts(out: Path) -> list[Path]:
    """The parts of the only pack, in order."""
    found = sorted(out.glob("rows-*"), key=lambda path: int(path.name.split(".")[2].split("-")[0]))
    assert len({path.name.split(".")[0] for path in found}) == 1, "packs of two moments"
    assert [path.name.split(".")[2] for path in found] == [
        f"{i}-of-{len(found)}" for i in range(1, len(found) + 1)
    ]
    return found


def packed(out: Path) -> dict[str, bytes]:
    """The files of a pack by name."""
    whole = out.parent / "whole.tgz"
    whole.write_bytes(b"".join(path.read_bytes() for path in parts(out)))
    with tarfile.open(whole) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


STORED = {"toy_grid/paper/0a.parquet", "mnist/smoke/0b.parquet", "toy_grid/_paper/failed/x.json"}
SAMPLES = "toy_grid/paper_samples/0a.parquet"
WEIGHTS = "toy_grid/_paper/weights/x.safetensors"
LOGS = {"logs/on_gpu.log", "logs/check.json"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of the real commands has left on a bare machine."""
    folder = tmp_path_factory.mktemp("trip")
    (folder / "temporary").mkdir()
    given = {"PYTHONPATH": bare(folder), "TMPDIR": str(folder / "temporary")}
    status, said = call(folder, "on_gpu.sh", "1", "out", "--", *SMOKE, *ON_CPU, **given)
    assert status == 0, said
    assert "s] no time is left for:" in said and "\n8/8 done" in said
    assert (folder / "out" / "on_gpu.log").read_text() == said
    assert not list((folder / "temporary").glob("tmp.*"))
    return folder / "out"


def test_rows_come_home_and_are_rendered(out: Path, tmp_path: Path, whole: pd.DataFrame) -> None:
    status, said = call(tmp_path, "trip.sh", "receive", str(out), "mine")
    assert status == 0, said
    assert stored(tmp_path / "mine").equals(whole)
    samples = pd.read_parquet(tmp_path / "mine" / "toy_grid" / "smoke_samples")
    assert set(samples["id"]) == set(whole["id"])
    assert (tmp_path / "mine" / "reports" / "toy_grid" / "smoke" / "report.html").is_file()


def test_the_next_run_does_not_train_what_is_stored(out: Path, tmp_path: Path) -> None:
    arguments = ["--from", str(out), "1", "out", "--", *SMOKE, *ON_CPU]
    status, said = call(tmp_path, "on_gpu.sh", *arguments)
    assert status == 0, said
    assert "8 rows taken" in said and "8 trainings, 8 done (0 diverged), 0 failed, 0 to go" in said
    assert len([name for name in packed(tmp_path / "out") if "/smoke/" in name]) > 1


def test_a_thousand_rows_come_home(tmp_path: Path, stub: str) -> None:
    specs = [spec for spec in TOY.specs("paper") if spec.id < "5"][:1000]  # of few files
    kept = TOY.store(tmp_path / "thousand", "paper")
    kept.prepare()
    kept.rows.write(row(spec, score=i / 1000, device="cuda") for i, spec in enumerate(specs))
    kept.samples.write(points(spec) for spec in specs)
    shutil.rmtree(tmp_path / "stored")
    (tmp_path / "thousand").rename(tmp_path / "stored")
    room = {"PART": "200000", "PARTS": "50"}
    status, said = call(tmp_path, "on_gpu.sh", "1", "out", PYTHON=stub, THEN="exit 0", **room)
    assert status == 0, said
    assert len(parts(tmp_path / "out")) > 1
    status, said = call(tmp_path, "trip.sh", "merge", "out", "mine")
    assert status == 0 and "1000 rows taken" in said, said
    for kind in ("paper", "paper_samples"):
        here, there = (
            pd.read_parquet(tmp_path / folder / "toy_grid" / kind).sort_values("id")
            for folder in ("stored", "mine")
        )
        assert len(here) == 1000 and list(here) == list(there)
        assert list(map(repr, here.to_dict("records"))) == list(map(repr, there.to_dict("records")))


@pytest.mark.parametrize(
    ("room", "names"),
    [
        (3, STORED | {SAMPLES, WEIGHTS}),
        (2, STORED | {SAMPLES}),
        (1, STORED),
    ],
)
def test_the_most_important_files_are_packed_first(
    room: int, names: set[str], tmp_path: Path, stub: str
) -> None:
    """Room is left for logs: a million bytes."""
    sizes = {3: ("400000", "5"), 2: ("400000", "4"), 1: ("300000", "4")}[room]
    given = {"PART": sizes[0], "PARTS": sizes[1], "CHECK": "9"}
    status, said = call(tmp_path, "on_gpu.sh", "1", "out", PYTHON=stub, THEN="exit 3", **given)
    assert status == 3, said  # trainings are left
    found = packed(tmp_path / "out")
    assert found.keys() == names | LOGS
    assert found["logs/check.json"] == b'{"checked": true}\n'
    assert (tmp_path / "out" / "check.json").read_bytes() == found["logs/check.json"]
    for name in names:
        assert found[name] == (tmp_path / "stored" / name).read_bytes()
    there = list((tmp_path / "out").iterdir())
    assert all(re.fullmatch("[A-Za-z0-9._-]+", path.name) for path in there)
    assert len(parts(tmp_path / "out")) == len(there) - 2 <= int(sizes[1])
    assert all(path.stat().st_size <= int(sizes[0]) for path in parts(tmp_path / "out"))
    left = {3: [], 2: ["weights"], 1: ["samples weights"]}[room]
    assert re.findall(r"no room in .* bytes for: ([a-z ]+)\.", said) == left


def test_the_study_gets_the_time_that_is_left(tmp_path: Path, stub: str) -> None:
    call(tmp_path, "on_gpu.sh", "9.75", "out", PYTHON=stub, THEN="exit 0")
    (line,) = (tmp_path / "calls").read_text().splitlines()
    match = re.fullmatch(
        "-m bench.run --keep-weights none toy_grid --scale paper --lam 0.1 --device cuda "
        "--max-time (.*) --results .*/there --no-report",
        line,
    )
    assert match and 8.75 <= float(match[1]) <= 9.0
    arguments = ["--tests", "--speed", "10", "later", "--", "mnist", "--lam", "0"]
    status, said = call(tmp_path, "on_gpu.sh", *arguments, PYTHON=stub, THEN="exit 1")
    assert status == 1
    line = (tmp_path / "calls").read_text().splitlines()[-1]
    assert "none mnist --lam 0 --device cuda --max-time 3.4" in line
    assert "bench.speed --device cuda" in said and "pytest -q -m gpu" in said


def test_arguments_are_looked_at_before_anything_runs(tmp_path: Path, stub: str) -> None:
    status, said = call(tmp_path, "on_gpu.sh", "9", "out", PYTHON=stub, DRY="2")
    assert status == 2 and "bench.check" not in said
    assert not (tmp_path / "calls").exists()


def wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stop_packs_what_is_stored(tmp_path: Path, stub: str) -> None:
    process = begin(tmp_path, "on_gpu.sh", "9", "out", EVERY="99", PYTHON=stub, THEN="sleep 99")
    wait_for((tmp_path / "there" / "mnist" / "smoke" / "0b.parquet").exists)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, said
    assert packed(tmp_path / "out").keys() >= STORED | {SAMPLES}


def names(out: Path) -> set[str]:
    return {path.name for path in out.glob("rows-*")}


def test_a_kill_leaves_the_last_pack(tmp_path: Path, stub: str) -> None:
    process = begin(tmp_path, "on_gpu.sh", "9", "out", PYTHON=stub, THEN="echo $$ >pid; sleep 99")
    wait_for((tmp_path / "pid").exists)
    before = names(tmp_path / "out")
    try:
        wait_for(lambda: len(now := names(tmp_path / "out")) == 1 and now != before)
    finally:
        process.kill()
        os.killpg(os.getpgid(int((tmp_path / "pid").read_text())), signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert packed(tmp_path / "out").keys() >= STORED


def test_a_run_that_is_killed_goes_on(tmp_path: Path, stub: str) -> None:
    status, said = call(tmp_path, "on_gpu.sh", "9", "out", PYTHON=stub, THEN="kill -9 $$")
    assert status == 137, said
    assert len((tmp_path / "calls").read_text().splitlines()) == 3
    assert packed(tmp_path / "out").keys() >= STORED
    then = "[ $(wc -l <calls) -eq 5 ] || kill -9 $$"
    status, said = call(tmp_path, "on_gpu.sh", "9", "later", PYTHON=stub, THEN=then)
    assert status == 0 and len((tmp_path / "calls").read_text().splitlines()) == 5, said


def test_a_pack_that_fails_leaves_the_pack_before(tmp_path: Path, stub: str) -> None:
    """The disk is full from the second pack on."""
    (tmp_path / "bin").mkdir()
    split = tmp_path / "bin" / "split"
    split.write_text(
        "#!/bin/bash\n"
        "echo >>splits\n"
        '[ $(wc -l <splits) -gt 1 ] || exec /usr/bin/split "$@"\n'
        'head -c 10 >"${@: -1}000" && exit 1\n'
    )
    split.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    status, said = call(
        tmp_path, "on_gpu.sh", "9", "out", PATH=path, PYTHON=stub, THEN="sleep 2.5; exit 0"
    )
    assert status == 0 and "this pack could not be made; the pack before it stays" in said
    assert names(tmp_path / "out") == {"rows-001.tgz.1-of-1"}
    assert packed(tmp_path / "out").keys() >= STORED


def pack(folder: Path, number: int, content: str, n: int = 2) -> list[Path]:
    """Makes a pack of one file, as on_gpu.sh does."""
    folder.mkdir(exist_ok=True)
    (folder.parent / "file").write_text(content)
    with tarfile.open(folder.parent / "tgz", "w:gz") as tar:
        tar.add(folder.parent / "file", "toy_grid/smoke/0a.parquet")
    whole, found = (folder.parent / "tgz").read_bytes(), []
    for i in range(n):
        found.append(folder / f"rows-{number:03d}.tgz.{i + 1}-of-{n}")
        found[-1].write_bytes(whole[len(whole) * i // n : len(whole) * (i + 1) // n])
    return found


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_the_newest_whole_pack_is_taken(damage: Callable[[Path], object], tmp_path: Path) -> None:
    """The stub prints what would be merged."""
    (tmp_path / "python").write_text('#!/bin/bash\ncat "$4"/*/*/*\n')
    (tmp_path / "python").chmod(0o755)
    given = {"PYTHON": str(tmp_path / "python")}
    pack(tmp_path / "out", 9, "older", 1)
    newer = pack(tmp_path / "out", 10, "newer")
    assert call(tmp_path, "trip.sh", "merge", "out", "mine", **given) == (0, "newer")
    damage(newer[1])
    status, said = call(tmp_path, "trip.sh", "merge", "out", "mine", **given)
    assert (status, said) == (0, "trip.sh: pack 010 of out is not whole\nolder")
    (tmp_path / "out" / "rows-009.tgz.1-of-1").unlink()
    status, said = call(tmp_path, "trip.sh", "merge", "out", "mine", **given)
    assert status == 1 and said.endswith("trip.sh: no pack of out is whole\n")


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_files_are_sent_of_a_commit_only(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    script = repository / "bench" / "speed" / "trip.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(SPEED / "trip.sh", script)
    git(tmp_path, "init", "-q", str(repository))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    (repository / "untracked").write_text("stays")
    status, said = call(tmp_path, str(script), "send", "suite.tgz")
    assert status == 0, said
    assert f"SVAE_BENCH_COMMIT={git(repository, 'rev-parse', 'HEAD')} bash bench/speed/on_g" in said
    with tarfile.open(tmp_path / "suite.tgz") as tar:
        assert [m.name for m in tar if m.isfile()] == ["bench/speed/trip.sh"]
    script.write_text(script.read_text() + "\n")
    status, said = call(tmp_path, str(script), "send", "other.tgz")
    assert status == 2 and "files differ from the commit" in said and said.count("\n") == 1
    assert not (tmp_path / "other.tgz").exists()


def test_tests_of_a_gpu_need_only_the_core(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": bare(tmp_path)}
    done = subprocess.run(
        [*command, "--collect-only", str(ROOT / "tests")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "test_train.py::" in done.stdout, done.stdout


def test_the_suite_is_small_enough_to_travel() -> None:
    """Tracked files of a checkout; elsewhere there is nothing to send."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    size = len(subprocess.check_output(["git", "-C", str(ROOT), "archive", "HEAD"]))
    (most,) = re.findall("^most=([0-9]+)", (SPEED / "trip.sh").read_text(), re.MULTILINE)
    assert size <= int(most) == 50_000_000


@pytest.mark.parametrize(
    ("script", "arguments", "wrong"),
    [
        ("on_gpu.sh", ["0", "out"], "MINUTES is 0; allowed: a number >= 1"),
        ("on_gpu.sh", ["ten", "out"], "MINUTES is ten; allowed: a number >= 1"),
        ("on_gpu.sh", ["1"], "allowed: [--from FOLDER]"),
        ("on_gpu.sh", ["1", "out", "toy_grid"], "allowed: [--from FOLDER]"),
        ("on_gpu.sh", ["--fast", "1", "out"], "--fast is unknown; allowed: --from FOLDER"),
        ("on_gpu.sh", ["--from", "nowhere", "1", "out"], "--from nowhere; allowed: a folder"),
        ("on_gpu.sh", ["1", "used"], "OUT used has rows of an earlier run; allowed: another"),
        ("trip.sh", [], "allowed: send FILE, merge FOLDER RESULTS, receive FOLDER RESULTS"),
        ("trip.sh", ["merge", "nowhere", "mine"], "nowhere is no folder"),
    ],
)
def test_wrong_usage_is_one_line(
    script: str, arguments: list[str], wrong: str, tmp_path: Path
) -> None:
    pack(tmp_path / "used", 1, "rows")
    before = sorted(tmp_path.rglob("*"))
    status, said = call(tmp_path, script, *arguments)
    assert status == 2 and said.startswith(f"{script}: {wrong}") and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
