"""A small study under `kill -9`, started again until it is done, against one left in peace.

    python -m tests.chaos                      200 kills, about two minutes on one core
    python -m tests.chaos --kills 10 --command 0

Every life of the run ends by a kill: inside the replacement of a result file (before the write,
after the temporary file, after its fsync, before the rename, after it), or at a random moment; in
a worker or in the parent. So that a life doesn't begin with seconds of imports, lives are forked
from a process that has made them, and so are their workers; `--command` kills more are dealt to
the real command and joblib's workers from outside. A study that is done is compared with the
undisturbed one, row by row and bit by bit, and the next begins, until the kills are spent.

Exit status: 0 if nothing was lost, doubled or changed, 1 otherwise. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch

from bench import report, run
from bench.engine import engine
from bench.engine import executors as engines
from bench.engine.job import Verdict
from bench.store import checkpoint, provenance
from bench.store import rows as store
from bench.studies import STUDIES
from bench.studies.study import Job
from bench.studies.toy_grid import job as toy
from tests import lives
from tests.conftest import start
from tests.rows import TIMING, TOY_ROWS

SITES = (
    "before the write",
    "after the temporary file",
    "after fsync",
    "before the rename",
    "after the rename",
)
EPOCHS = 3
A_STUDY = 40
"""Kills that one study takes before it is left to end."""


def small() -> None:
    """A study of many short jobs: pairs of trainings, a few epochs each."""
    lives.small_stacks()
    STUDIES["toy_grid"].axes["smoke"]["epochs"] = [EPOCHS]


# Dying


class Log:
    """One line a kill, in a file that all processes append to."""

    folder: Path  # where results come in
    whole = 0  # result files there will be

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def note(self, where: str) -> None:
        files = len(self.files())
        when = "amid" if 0 < files < self.whole else "early" if not files else "late"
        with open(self.path, "ab", buffering=0) as file:
            file.write(f"{where}; {when}\n".encode())

    def die(self, where: str) -> NoReturn:
        """Notes the place and kills this process."""
        self.note(where)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def files(self) -> dict[str, int]:
        """Result files there are, and when they were written."""
        found = {}
        for path in self.folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_mtime_ns
        return found


def arm_site(site: str, hits: int, who: str, log: Log) -> None:
    """This process dies when it comes by the site of a result's write for the given time."""
    write, fsync, replace = store.write_atomically, os.fsync, os.replace
    left, passed = [hits], [False]  # passed: the first fsync of a write, which is the file's

    def here(name: str) -> None:
        if name == site:
            left[0] -= 1
            if left[0] == 0:
                log.die(f"{who}, {site}")

    def deadly_fsync(fd: int) -> None:
        if not passed[0]:
            here("after the temporary file")
        fsync(fd)
        if not passed[0]:
            passed[0] = True
            here("after fsync")

    def deadly_replace(old: Any, new: Any) -> None:
        here("before the rename")
        replace(old, new)
        here("after the rename")

    def deadly_write(path: Path, content: bytes, tmp: Path) -> None:
        if path.suffix not in (".parquet", ".safetensors"):
            return write(path, content, tmp)
        here("before the write")
        passed[0] = False
        os.fsync, os.replace = deadly_fsync, deadly_replace
        try:
            write(path, content, tmp)
        finally:
            os.fsync, os.replace = fsync, replace

    store.write_atomically = checkpoint.write_atomically = deadly_write


def arm_timer(seconds: float, who: str, log: Log) -> None:
    """This process dies after so many seconds, whatever it is about."""
    timer = threading.Timer(seconds, log.die, [f"{who}, at a random moment"])
    timer.daemon = True
    timer.start()


# Living


class Forked(engines.Sequential):
    """An executor whose workers are forked from this process: a job each, two at a time."""

    size = ahead = 2

    def __init__(self, log: Log, dice: random.Random, chance: float) -> None:
        self.log, self.dice, self.chance = log, dice, chance

    def submit(self, call: Callable[[Job], Any], job: Job, alone: bool = False) -> Future[Any]:
        future: Future[Any] = Future()
        pid, answer = self._fork(call, job)

        def follow() -> None:
            with os.fdopen(answer, "rb") as file:
                content = file.read()
            _, status = os.waitpid(pid, 0)
            died = os.WIFSIGNALED(status) or not content
            verdict = Verdict(job, "killed") if died else pickle.loads(content)  # our own child's
            future.set_result(verdict)

        threading.Thread(target=follow, daemon=True).start()
        return future

    def _fork(self, call: Callable[[Job], Verdict], job: Job) -> tuple[int, int]:
        doomed, timed = self.dice.random() < self.chance, self.dice.random() < 0.2
        site, hits = self.dice.choice(SITES), self.dice.randint(1, 4)
        seconds = self.dice.uniform(0.0, 0.4)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, reading
        with exiting():
            if doomed and timed:
                arm_timer(seconds, "worker", self.log)
            elif doomed:
                arm_site(site, hits, "worker", self.log)
            with os.fdopen(writing, "wb") as file:
                file.write(pickle.dumps(call(job)))
        raise AssertionError("still alive")


@contextlib.contextmanager
def exiting() -> Iterator[None]:
    """A forked process never returns into the code of its parent."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def forked(function: Callable[[], int]) -> int:
    """Exit status of the function in a process of its own; minus the signal if it was killed."""
    pid = os.fork()
    if pid == 0:
        with exiting():
            os._exit(function())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Study:
    """The trainings of some seeds, in a folder of their own, and how they were killed."""

    def __init__(self, folder: Path, seeds: int, log: Log) -> None:
        self.folder, self.log, self.trainings = folder, log, 8 * seeds
        self.arguments = ["toy_grid", "--scale", "smoke", "--seeds", str(seeds), "--retry-failed"]
        self.arguments += ["--results", str(folder)]
        self.again = folder / "again"  # jobs that were run although they were stored
        folder.mkdir()
        self.again.touch()

    def life(self, dice: random.Random, kills: bool) -> int:
        """One life of the run, in this process; its exit status if it comes to its end."""
        sys.stdout = sys.stderr = open(self.folder / "said.txt", "a")  # noqa: SIM115
        self.log.folder = self.folder / "toy_grid" / "smoke"
        done = set(STUDIES["toy_grid"].store(self.folder, "smoke").done())
        run_job = engine.run_job

        def checked(job: Job) -> Verdict:
            if any(spec.id in done for spec in job.specs):
                self.again.write_text(job.key)
            return run_job(job)

        engine.run_job = checked
        kind = "sequential" if not kills else dice.choice(["sequential", "loky", "loky"])
        if kind == "loky":
            executor = Forked(self.log, dice, chance=0.6)
            engines.start = lambda *_: executor
            if dice.random() < 0.5:
                arm_timer(dice.uniform(0.5, 6), "parent", self.log)
        elif kills:
            arm_site(dice.choice(SITES), dice.randint(1, 6), "parent", self.log)
        return run.main([*self.arguments, "--engine", kind])

    def killed_from_within(self, kills: int, dice: random.Random) -> None:
        """Lives forked from this process, until so many kills; the last is left in peace."""
        first, status = len(self.log.lines()), -1
        while status != 0:
            peace = len(self.log.lines()) - first >= kills
            fate = random.Random(dice.random())
            status = forked(lambda fate=fate, peace=peace: self.life(fate, not peace))
            if status not in (0, 1, -signal.SIGKILL):
                raise SystemExit(f"exit status {status}:\n{(self.folder / 'said.txt').read_text()}")

    def killed_from_outside(self, kills: int, dice: random.Random) -> None:
        """The real command with joblib's workers; they or it are killed once rows come in."""
        driver = self.folder / "small.py"
        driver.write_text(COMMAND)
        first, status = len(self.log.lines()), -1
        self.log.folder = self.folder / "toy_grid" / "smoke"
        while status != 0:
            process = start(str(driver), *self.arguments, "--workers", "2", cwd=self.folder)
            before = self.log.files()
            while process.poll() is None and len(self.log.lines()) - first < kills:
                if (now := self.log.files()) == before:
                    time.sleep(0.02)
                    continue
                time.sleep(dice.uniform(0, 0.5))
                before = now
                victims = [("parent", process.pid), *[("worker", c) for c in children(process.pid)]]
                who, pid = dice.choice(victims)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.log.note(f"{who} of the real command, at a random moment")
            _, said = process.communicate(timeout=600)
            status = process.returncode
            if status not in (0, 1, -signal.SIGKILL):
                raise SystemExit(f"exit status {status}:\n{said}")

    def rows(self) -> dict[str, pd.DataFrame]:
        """All that is kept and not about time, by id; read as a user does."""
        folder = self.folder / "toy_grid" / "smoke"
        names = [name for name in TOY_ROWS.names if name not in TIMING]
        frames = {
            "rows": pd.read_parquet(folder)[names],
            "samples": pd.read_parquet(folder.with_name("smoke_samples")),
            "weights": pd.DataFrame(
                {"id": path.stem, "digest": _of_weights(path)}
                for path in STUDIES["toy_grid"].store(self.folder, "smoke").weights.iterdir()
            ),
        }
        return {
            name: frame.sort_values("id", ignore_index=True).map(_plain)
            for name, frame in frames.items()
        }

    def is_like(self, other: Study) -> bool:
        """Whether both are whole and equal, and nothing had to be set aside or was run twice."""

        def differ() -> int:
            ours, theirs = self.rows(), other.rows()
            whole = all(len(f) == f["id"].nunique() == self.trainings for f in ours.values())
            clean = not (self.folder / "toy_grid" / "_smoke" / "aside").exists()
            once = not self.again.read_text()
            equal = all(ours[name].equals(theirs[name]) for name in ours)
            print(f"whole {whole}, nothing set aside {clean}, nothing again {once}, equal {equal}")
            return int(not (whole and clean and once and equal))

        return forked(differ) == 0


def _of_weights(path: Path) -> str:
    """The digest of a file of weights but for the commit, as of rows."""
    tensors, about = checkpoint.read(path)
    return checkpoint._digest(tensors, {**about, "commit": ""})


def _plain(value: Any) -> str:
    return repr(value.tolist() if hasattr(value, "tolist") else value)


COMMAND = """
from bench import process, report, run
from tests import chaos

if __name__ == "__main__":
    chaos.small()
    report.after_run = lambda *_: None
    process.command(run.main)
"""


def children(pid: int) -> list[int]:
    """joblib's workers of a process; none where there is no /proc."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(child)
            for child in found
            if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text()
        ]
    except OSError:
        return []


def chaos(folder: Path, kills: int, command: int, seed: int) -> tuple[bool, list[str]]:
    """Whether all studies came out like the undisturbed ones, and what was killed where."""
    small()
    torch.set_num_threads(1)
    # What a life would do again each time and what isn't at stake.
    toy._epoch_seconds = lambda _: 1.0
    provenance.commit = lambda: {"commit": None, "dirty": None}
    report.after_run = lambda *_: None
    dice, log = random.Random(seed), Log(folder / "kills.txt")

    def undisturbed(seeds: int) -> Study:
        study = Study(folder / f"peace-{seeds}", seeds, log)
        if forked(lambda: study.life(dice, kills=False)) != 0:
            raise SystemExit((study.folder / "said.txt").read_text())
        return study

    good, ways = True, []
    if command:
        ways.append((12, command, Study.killed_from_outside))
    ways.append((3, kills - command, Study.killed_from_within))
    for seeds, wanted, way in ways:
        peace = undisturbed(seeds)
        log.whole = len(list((peace.folder / "toy_grid" / "smoke").glob("*.parquet")))
        first = len(log.lines())
        while (dealt := len(log.lines()) - first) < wanted:
            study = Study(folder / f"study-{seeds}-{dealt}", seeds, log)
            way(study, min(A_STUDY, wanted - dealt), dice)
            print(f"{len(log.lines())} kills: ", end="", flush=True)
            good &= study.is_like(peace)
    return good, log.lines()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="at least (200)")
    parser.add_argument(
        "--command", type=int, default=20, metavar="N", help="of them on the real command (20)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what happens when")
    args = parser.parse_args(arguments)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        good, lines = chaos(Path(folder), args.kills, args.command, args.seed)
    places = Counter(line.partition("; ")[0] for line in lines)
    for place, times in sorted(places.items()):
        print(f"{times:5d}  {place}")
    amid = sum(line.endswith("; amid") for line in lines)
    print(
        f"{len(lines)} kills in {time.monotonic() - begin:.0f} s, {amid} of them between the first "
        f"and the last result: {'nothing lost, doubled or changed' if good else 'RESULTS DIFFER'}"
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
