"""Any command line ends in what was asked for, or in one line that says why not."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from hypothesis import strategies as st

from bench import report, results, run
from bench.cli import Parser
from bench.data import __main__ as data
from bench.engine import score
from bench.spec import columns
from bench.studies import STUDIES
from tests.fuzz.cases import HOME, Main, cases, judged, place, tree
from tests.fuzz.strategies import SILLY, good, lay, lines, mostly
from tests.mini import FOLDER as PUBLISHED
from tests.rows import points, row, smoke

FIELDS = sorted({name for study in STUDIES.values() for name in columns(study.kind)})
FEW = st.sampled_from(["0", "1", "2", "3", "8", "20", "64", "0.1", "1e-3", "2.5", "-1", "70000"])
WORDS = st.one_of(
    st.sampled_from(["sVAE", "sVAE-r", "ALI", "svae_r", "alice", "dcgan", "vae", "nf", "smoke"]),
    st.sampled_from(["mnist", "grey", "colour", "stand-in digits", "stand-in photos"]),
    st.sampled_from(["paper", "joint", "additive", "dynamic", "bf16"]),
)
NUMBERS = st.lists(mostly(FEW), min_size=1, max_size=3).map(",".join)
VALUES = st.lists(mostly(FEW | WORDS), min_size=1, max_size=2).map(",".join)
FIELD = st.tuples(mostly(st.sampled_from([*FIELDS, "label"])), VALUES).map("=".join)
GOOD = ["filled", "published", "new", "odd", "images", "../checkout/results/reference"]
ODD = ["file", "loop", "fifo", "images.npz", "file/under", "new\nline", "é\udce9", "a\0b"]
PLACES = mostly(
    st.sampled_from(GOOD), st.sampled_from([*ODD, "x" * 300, "~", "", ".", "/dev/null"])
)
GIVEN = {
    "study": st.sampled_from([*STUDIES]),
    "studies": st.sampled_from([*STUDIES]),
    "scale": st.sampled_from(["smoke", "smoke", "quick", "paper"]),
    "only": FIELD,
    "set": FIELD,
    "lam": NUMBERS,
    "lr": NUMBERS,
    "seeds": st.sampled_from(["1", "2", "3", "10"] * 4 + ["1000", "99999999"]),
    "shard": st.sampled_from(["1/1", "1/2", "2/2", "3/64"]),
    "workers": st.sampled_from(["1", "2", "500"]),
    "address": st.sampled_from(["local", "auto", "tcp://127.0.0.1:1"]),
    "max_time": st.sampled_from(["1", "0.5"]),
    "inception_weights": st.sampled_from(["file", "missing", "download", "images"]),
    "metric": st.sampled_from(["inception_score", "mse_x", "modes", "fid"]),
    "name": st.sampled_from(["mnist", "cifar10", "celeba", "grey", "colour"]),
    **dict.fromkeys(("results", "data", "out", "against", "into", "folders", "cache"), PLACES),
}
START = st.tuples(
    st.sampled_from([*STUDIES]), st.sampled_from(["smoke", "smoke", "quick", "paper"])
)


@functools.cache
def home() -> Path:
    """Returns a folder as a user's, which cases copy."""
    folder = HOME / "user"
    lay(folder / "images", good())
    store = STUDIES["toy_grid"].store(folder / "filled", "smoke")
    store.prepare()
    store.write([row(spec) for spec in smoke()[1:]], [points(spec) for spec in smoke()[1:]])
    store.note_failure(smoke()[0].id, "it failed")
    shutil.copytree(PUBLISHED, folder / "published")
    lay(folder, {"file": b"text\n", "images.npz": b"PK", "loop": Path("self")})
    odd = {"00.parquet": {}, "01.parquet": b"?", "notes.txt": b"mine", "ab.parquet": Path("self")}
    lay(folder / "odd" / "toy_grid" / "smoke", odd)
    return folder


def tried(main: Main, words: list[str], *spared: str, allowed: tuple[int, ...] = (0, 2)) -> None:
    """Runs the command among a user's files. All stay but those that it may write: `spared`."""
    with place() as folder:
        shutil.copytree(home(), folder / "here", symlinks=True, dirs_exist_ok=True)
        os.mkfifo(folder / "here" / "fifo")
        shutil.copytree(PUBLISHED, folder / "checkout" / "results" / "reference")
        before = tree(folder)
        judged(main, *words, allowed=allowed)
        after = tree(folder)
        lost = {name for name in before if after.get(name) != before[name]}
        lost -= {name for name in lost if name.startswith(spared)}
        assert not lost, "files of the user's are lost"


@cases(22, start=START, words=lines(run.parser(), GIVEN))
def test_run(start: tuple[str, str], words: list[str]) -> None:
    study, scale = start
    tried(run.main, [study, f"--scale={scale}", *words, "--dry-run"])


@cases(6, words=lines(report.parser(), GIVEN))
def test_report(words: list[str]) -> None:
    published = ["checkout/results/reference"] if "--publish" in words else []
    tried(report.main, words, *published, allowed=(0, 1, 2))


@cases(
    6,
    folders=st.lists(PLACES, min_size=1, max_size=3),
    into=PLACES,
    more=mostly(st.just([]), st.lists(SILLY, max_size=1)),
)
def test_merge(folders: list[str], into: str, more: list[str]) -> None:
    words = ["merge", *folders, f"--into={into}", *more]
    tried(results.main, words, f"here/{into}/toy_grid", allowed=(0, 1, 2))


SCORE = Parser("score", None)
score.add_arguments(SCORE)


@cases(4, words=lines(SCORE, GIVEN))
def test_score(words: list[str]) -> None:
    tried(results.main, ["score", *words], allowed=(0, 1, 2))


OPTIONS = [
    st.just(["--check"]),
    *(PLACES.map(lambda p, o=o: [o, p]) for o in ("--from", "--cache")),
]


@cases(
    3,
    name=mostly(GIVEN["name"]),
    words=st.lists(mostly(st.one_of(OPTIONS), SILLY.map(lambda t: [t])), max_size=3),
)
def test_data(name: str, words: list[list[str]]) -> None:
    tried(data.main, ["prepare", name, *(word for each in words for word in each)])
