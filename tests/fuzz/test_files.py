"""No file that is read is trusted: what it says was stored, or is left out."""

from __future__ import annotations

import functools
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import strategies as st

from bench import report, results, run
from bench.cli import UsageError
from bench.data import __main__ as data
from bench.data.load import read
from bench.engine.job import run_job
from bench.engine.progress import Heartbeat, Monitor, clear_drafts
from bench.scores import classifiers
from bench.store import checkpoint
from bench.studies import STUDIES
from bench.studies.study import Beat, Job, Rows
from bench.studies.toy_grid.job import stacks
from bench.studies.toy_grid.study import ToyStudy
from tests.engine.test_weights import job
from tests.fuzz.cases import HOME, called, cases, changed, judged, place, tree
from tests.fuzz.strategies import damage, other_json
from tests.mini import FOLDER as PUBLISHED
from tests.rows import smoke

TOY = STUDIES["toy_grid"]
STUDY = ["toy_grid", "--scale=smoke"]
METRIC = "mse_z"
"""What stored rows lack, and kept weights give."""

Known = dict[str, dict[str, Any]]


@functools.cache
def trained() -> tuple[Path, Known]:
    """Returns results with a file of each kind, and the rows as they were trained."""
    folder = HOME / "trained"
    stack, other = stacks(smoke(), "cpu")[:2]
    for each in (stack[:2], other[:1]):
        assert run_job(job(each, folder, "all")).end == "done"
    store = TOY.store(folder, "smoke")
    store.prepare()
    whole = rows(folder)
    for row in whole.values():
        store.rows.change(row, {METRIC: None})
    store.redo([stack[0].id])
    store.note_failure(other[1].id, "it failed")
    Heartbeat(job(other[1:2], folder))(0.5)
    return folder, whole


def rows(folder: Path) -> Known:
    """Returns the rows that a report would show, by id; none if it would refuse."""
    try:
        table = TOY.load(folder, "smoke")[0]
    except UsageError:
        return {}
    return {row["id"]: row for row in table.to_pylist()}


def genuine(folder: Path, known: Known) -> None:
    """Asserts that the rows are those that were trained, perhaps without the metric."""
    for id, row in rows(folder).items():
        if id in known and row["finished"] == known[id]["finished"]:
            new = {name for name, value in row.items() if repr(value) != repr(known[id][name])}
            lacks = row[METRIC] is None and new <= {METRIC, "metric_digests"}
            assert not new or lacks, f"{new} of a row are not what was stored"


def hurt(path: Path, draw: st.DataObject) -> None:
    """Damages the file, or puts something else in its place."""
    content, others = path.read_bytes(), sorted(filter(Path.is_file, path.parent.iterdir()))
    how = draw.draw(st.sampled_from(["bytes"] * 7 + ["folder", "loop", "gone", "other"]))
    if how == "bytes":
        new = damage(content)
        if path.suffix == ".json":
            new |= other_json(content)
        path.write_bytes(draw.draw(new))
    else:
        path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "other" and others[0] != path:
        shutil.copy(others[0], path)


def beats(folder: Path) -> None:
    """Reads heartbeats as a run does."""
    progress = TOY.store(folder, "smoke").progress_of(None)
    clear_drafts(progress)
    Monitor(0, 0, 0, 8, progress)._state()


def trains(self: ToyStudy, job: Job, beat: Beat) -> tuple[Rows, Rows]:
    """Returns rows at once."""
    beat(0.5)
    return [{"id": spec.id, "status": "ok", "train_seconds": 0.0} for spec in job.specs], []


READ = ("status", "merge", "run", "score", "dry-run", "run", "merge", "report")
KINDS = {
    "smoke/*.parquet": READ,
    "smoke_samples/*.parquet": READ,
    "_smoke/weights/*": ("score", "score", "merge"),
    "_smoke/failed/*.json": ("status", "dry-run", "run"),
    "_smoke/redo.json": ("status", "dry-run", "report", "run"),
    "_smoke/rows/*.txt": READ,
    "_smoke/progress/*/*.json": ("beats", "run"),
}
"""What a folder of results holds, and which commands read it."""
OPTIONS = st.lists(st.sampled_from(["--redo", "--redo=all", "--retry-failed", "--stale"]))


@cases(18, kind=st.sampled_from([*KINDS]), options=OPTIONS, draw=st.data())
def test_results(kind: str, options: list[str], draw: st.DataObject) -> None:
    template, known = trained()
    then = draw.draw(st.sampled_from(KINDS[kind]))
    with place() as here, patch.object(ToyStudy, "train", trains):
        folder = here / "results"
        shutil.copytree(template, folder)
        files = sorted((folder / "toy_grid").glob(kind))
        path = files[draw.draw(st.integers(0, len(files) - 1))]
        hurt(path, draw)
        before, at = tree(folder), f"--results={folder}"
        ran = [*STUDY, "--set=epochs=2", at, "--engine=sequential", "--no-report", *options]
        if then == "report":
            judged(report.main, *STUDY, at, f"--out={here / 'out'}")
        elif then == "merge":
            judged(results.main, "merge", str(folder), f"--into={here / 'new'}", allowed=(0, 1, 2))
            genuine(here / "new", known)
        elif then == "score":
            judged(results.main, "score", *STUDY, at, allowed=(0, 1, 2))
        elif then == "run":
            judged(run.main, *ran, allowed=(0, 1, 2))
        elif then == "beats":
            beats(folder)
        else:
            judged(run.main, *ran, f"--{then}")
        genuine(folder, known)
        after = tree(folder)
        if then in ("run", "score"):  # they may set rows and samples aside
            hurt_rows = path.suffix == ".parquet" and before.get(str(path.relative_to(folder)))
            assert not hurt_rows or hurt_rows in after.values(), "a file of the user's is lost"
        else:
            assert not changed(before, after), f"{then} has changed {kind}"


AGAINST = f"--against={PUBLISHED}"


@cases(
    5,
    kind=st.sampled_from(["smoke", "smoke_samples"]),
    then=st.sampled_from(["report", "against", "merge", "score", "status", "run"]),
    draw=st.data(),
)
def test_published_results(kind: str, then: str, draw: st.DataObject) -> None:
    known = rows(PUBLISHED)
    with place() as here, patch.object(ToyStudy, "train", trains):
        folder = here / "published"
        shutil.copytree(PUBLISHED, folder)
        rows_file, path = (folder / "toy_grid" / f"{name}.parquet" for name in ("smoke", kind))
        hurt(path, draw)
        before, at, out = tree(folder), f"--results={folder}", f"--out={here / 'out'}"
        if then == "report":
            judged(report.main, *STUDY, at, out, AGAINST, allowed=(0, 1, 2))
        elif then == "against":
            mine = f"--results={PUBLISHED}"
            judged(report.main, *STUDY, mine, out, f"--against={folder}", allowed=(0, 1, 2))
        elif then == "merge":
            judged(results.main, "merge", str(folder), f"--into={here / 'new'}", allowed=(0, 1, 2))
            genuine(here / "new", known)
        elif then == "score":
            judged(results.main, "score", *STUDY, at, allowed=(0, 1, 2))
        elif then == "run":
            judged(run.main, *STUDY, at, "--redo=all", "--engine=sequential", "--no-report")
        else:
            judged(run.main, *STUDY, "--status", at)
        if then != "run" or rows_file.is_file():  # or else it is a folder of the user's own
            assert not changed(before, tree(folder)), f"{then} has changed what is published"
        genuine(folder, known)


@functools.cache
def arrays() -> Path:
    """Returns a folder with a data set of twelve images and their labels, and the cache of it."""
    folder = HOME / "arrays"
    folder.mkdir()
    draw = np.random.default_rng(0).integers
    files = {}
    for part, n in (("train", 8), ("test", 4)):
        files[f"{part}_images"] = draw(256, size=(n, 32, 32, 3), dtype=np.uint8)
        files[f"{part}_labels"] = draw(10, size=n)
    np.savez(folder / "cifar10.npz", **files)
    with patch.dict(os.environ, {"SVAE_BENCH_DATA": str(folder / "cache")}):
        prepared = called(data.main, "prepare", "cifar10", "--from", str(folder / "cifar10.npz"))
    assert prepared.status == 0
    return folder


@cases(4, kind=st.sampled_from(["about.json", "images-*.npy", "labels-*.npy"]), draw=st.data())
def test_prepared_arrays(kind: str, draw: st.DataObject) -> None:
    template = arrays()
    known = read(template / "cache" / "prepared" / "cifar10", check=True)
    assert known
    with place() as here:
        shutil.copytree(template / "cache", here / "cache")
        folder = here / "cache" / "prepared" / "cifar10"
        hurt(next(folder.glob(kind)), draw)
        if judged(data.main, "prepare", "cifar10", "--check").status == 0:
            found = read(folder, check=True)
            assert found
            for part in ("train", "test", "train_labels", "test_labels"):
                assert np.array_equal(getattr(found, part), getattr(known, part))
        judged(data.main, "prepare", "cifar10")
        again = judged(data.main, "prepare", "cifar10", "--from", str(template / "cifar10.npz"))
        assert again.status or known.sha256 in again.out


@functools.cache
def state() -> Path:
    """Returns a file of a long training under way."""
    path = HOME / "state.safetensors"
    checkpoint.save(path, {"w": torch.arange(6.0), "step": torch.tensor(3)}, {"keep": "all"})
    return path


@cases(3, draw=st.data())
def test_a_checkpoint(draw: st.DataObject) -> None:
    with place() as here:
        path = here / "c.safetensors"
        shutil.copy(state(), path)
        hurt(path, draw)
        found = checkpoint.load(path)
        assert found is None or (found["w"].equal(torch.arange(6.0)) and found["step"] == 3)


@cases(3, which=st.sampled_from(["mnist", "imagenet"]), draw=st.data())
def test_weights_of_a_classifier(which: str, draw: st.DataObject) -> None:
    whole = classifiers.WEIGHTS / "mnist-0.safetensors"
    with place() as here, patch.object(classifiers, "WEIGHTS", here):
        path = here / whole.name
        shutil.copy(whole, path)
        hurt(path, draw)
        with suppress(UsageError):
            classifiers.imagenet(path) if which == "imagenet" else classifiers.own(which)
            assert path.read_bytes() == whole.read_bytes(), "damaged weights are used"
