"""Weights of trainings: which are kept, that no kill loses them, and what a file holds."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench import report, run
from bench.engine.job import run_job
from bench.engine.plan import Plan, count
from bench.spec import generator
from bench.store import checkpoint
from bench.store.rows import Store
from bench.studies import STUDIES
from bench.studies.images.train import Trainer
from bench.studies.study import Job
from bench.studies.toy_grid.data import toy_data
from bench.studies.toy_grid.job import stacks
from bench.studies.toy_grid.spec import ToySpec
from tests.conftest import POSIX
from tests.lives import Life
from tests.rows import SMOKE, row, smoke, stored
from tests.studies.images.test_train import spec as image_spec

SEQUENTIAL = [*SMOKE, "--engine", "sequential"]
TOY = STUDIES["toy_grid"]


def kept(results: Path) -> dict[str, bytes]:
    """The files of weights of the smoke study, by id."""
    folder = TOY.store(results, "smoke").weights
    return {path.stem: path.read_bytes() for path in folder.glob("*")}


def job(specs: list[Any], results: Path, weights: str = "all") -> Job:
    origin = {"commit": None, "dirty": None}
    return Job(tuple(specs), str(results), "cpu", origin, weights=weights)


def test_what_a_run_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the report shows, and what `all` has kept."""
    monkeypatch.setattr(report, "write", lambda *_: None)  # drawing takes seconds

    def ran(*options: str) -> set[str]:
        assert run.main([*SEQUENTIAL, "--results", str(tmp_path), *options]) == 0
        return {*kept(tmp_path)}

    two, three = ({spec.id for spec in smoke(seeds)} for seeds in (2, 3))
    shown = ran("--seeds", "2")
    assert shown == {*report.build("toy_grid", "smoke", tmp_path).shown} < two
    assert len(shown) == 12
    assert ran("--seeds", "3", "--keep-weights", "all") == shown | (three - two)
    assert three - two < ran("--seeds", "3") < three
    before = kept(tmp_path)
    assert ran("--seeds", "4", "--keep-weights", "none") == {*before}
    assert kept(tmp_path) == before


def test_nothing_is_pruned_while_trainings_are_left(tmp_path: Path) -> None:
    """Of what the options select without --shard; another shard may still train them."""
    asked = [*SMOKE, "--results", str(tmp_path), "--shard", "1/2"]
    plan, store = Plan(run.parser().parse_args(asked)), TOY.store(tmp_path, "smoke")
    store.prepare()
    store.write([row(spec) for spec in plan.specs if isinstance(spec, ToySpec)], [])
    assert not count(plan.specs, store)[0].pending and count(plan.whole(), store)[0].pending
    store.write([row(spec) for spec in smoke()], [])
    assert not count(plan.whole(), store)[0].pending


def test_a_report_that_names_no_training_prunes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CelebA's, whose images are private."""
    monkeypatch.setattr(report, "write", lambda *_: None)
    small = ["--set=width=0.0625", "--set=images=64", "--set=samples=20"]
    small += ["--only=lam=0", "--only=method=svae_r"]
    asked = ["celeba", "--scale", "smoke", "--engine", "sequential", *small]
    assert run.main([*asked, "--results", str(tmp_path)]) == 0
    store = STUDIES["celeba"].store(tmp_path, "smoke")
    assert {path.stem for path in store.weights.iterdir()} == {*store.done()} != set()


def test_pruning_spares_what_is_not_stored(tmp_path: Path) -> None:
    """Other runners may still train it."""
    (stack,) = stacks(smoke()[:2], "cpu")
    run_job(job(stack, tmp_path, "shown"))
    store = TOY.store(tmp_path, "smoke")
    (a, b), other = (spec.id for spec in stack), "f" * 16
    store.keep_weights(other, {"w": torch.zeros(1)}, {"keep": "shown"})
    (store.weights / "damaged.safetensors").write_bytes(b"?")
    store.prune_weights([a], ["nothing of these"])
    assert {*kept(tmp_path)} == {b, other, "damaged"}  # b is of another selection
    store.prune_weights([a, b, other, "damaged"], [b])
    assert {*kept(tmp_path)} == {b, other, "damaged"}
    assert {a, b} == {*store.done()}


def test_a_file_is_enough_to_generate(tmp_path: Path) -> None:
    """As torch's own layers, by names and metadata alone; the points are those that are stored."""
    for stack in stacks(smoke(), "cpu"):
        assert run_job(job(stack, tmp_path)).end == "done"
    store = TOY.store(tmp_path, "smoke")
    points = {row["id"]: row["samples"] for row in store.load_samples().to_pylist()}
    assert len(points) == 8
    for path in store.weights.iterdir():
        tensors, about = checkpoint.read(path)
        spec = ToySpec(**json.loads(about["spec"]))
        assert spec.id == about["id"] == path.stem and about["digest"] == STUDIES[
            "toy_grid"
        ].today().method(spec.method)
        assert {t.dtype for t in tensors.values()} == {torch.float32}
        sizes = [4, *[spec.decoder_width] * spec.decoder_depth, 2]
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        decoder = nn.Sequential(*[each for layer in layers for each in (layer, nn.ReLU())][:-1])
        mine = {n.removeprefix("decoder."): t for n, t in tensors.items() if "decoder" in n}
        decoder.load_state_dict(mine)
        z = toy_data(spec.stream).z_test
        eps = generator(spec.stream, "evaluation").standard_normal((4, 2, len(z)), np.float32)[1]
        with torch.no_grad():
            x = decoder(torch.from_numpy(np.concatenate([z, eps.T], 1).astype(np.float32)))
        np.testing.assert_allclose(x[:256].flatten(), points[spec.id], atol=1e-5)


def test_a_diverged_training_keeps_none(tmp_path: Path) -> None:
    specs = TOY.specs("smoke", ["svae_r"], [0.0], [1e30, 1e-3], given={"epochs": [2]})
    (stack,) = stacks(specs, "cpu")
    assert {*run_job(job(stack, tmp_path)).statuses.values()} == {"ok", "diverged"}
    store = TOY.store(tmp_path, "smoke")
    assert {*kept(tmp_path)} == {id for id, status in store.done().items() if status == "ok"}
    one = image_spec(lr=1e30)
    assert run_job(job([one], tmp_path)).statuses == {one.id: "diverged"}
    assert not STUDIES["mnist"].store(tmp_path, "smoke").weights.exists()


def test_a_disk_that_is_full_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = [*SEQUENTIAL, "--keep-weights", "all", "--results", str(tmp_path)]
    monkeypatch.setattr(report, "after_run", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        assert run.main(arguments) == 1
    assert "No space left on device; nothing stored is lost" in capsys.readouterr().err
    assert not TOY.store(tmp_path, "smoke").done()  # no row says that it is done
    assert run.main(arguments) == 0
    assert kept(tmp_path).keys() == TOY.store(tmp_path, "smoke").done().keys()


def test_a_checkpoint_at_its_end_still_gives_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image_spec()

    def file(results: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        (path,) = STUDIES["mnist"].store(tmp_path / results, "smoke").weights.iterdir()
        return checkpoint.read(path)

    assert run_job(job([one], tmp_path / "peace")).end == "done"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep_weights", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert run_job(job([one], tmp_path / "again")).end == "storage"
    monkeypatch.setattr(Trainer, "advance", lambda self: pytest.fail("it was trained again"))
    assert run_job(job([one], tmp_path / "again")).end == "done"
    (ours, about), (theirs, same) = file("again"), file("peace")
    assert about == same and about["id"] == one.id
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def dies_before_the_rows() -> None:
    """Kills the process that has kept a stack's weights and comes to write its rows."""

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Store.write = killed  # type: ignore[method-assign]


def dies_amid_the_weights() -> None:
    """Kills the process that has written half of a stack's weights, before the rename."""
    replace, seen = os.replace, []

    def deadly(old: Any, new: Any) -> None:
        if Path(new).parent.name == "weights":  # a slow machine also saves checkpoints
            seen.append(new)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        replace(old, new)

    os.replace = deadly


@POSIX
@pytest.mark.parametrize("death", [dies_before_the_rows, dies_amid_the_weights])
def test_kill_9_between_weights_and_rows(
    death: Callable[[], None], tmp_path: Path, live: Callable[..., Life], whole: pd.DataFrame
) -> None:
    for stack in stacks(smoke(), "cpu"):
        run_job(job(stack, tmp_path / "peace"))
    arguments = [*SEQUENTIAL, "--results", "r", "--keep-weights", "all"]
    live(*arguments, first=[death]).end(-signal.SIGKILL)
    store, undisturbed = TOY.store(tmp_path / "r", "smoke"), kept(tmp_path / "peace")
    begun = kept(tmp_path / "r")
    assert store.done() == {} and begun.keys() < undisturbed.keys() and begun
    live(*arguments).end()
    pd.testing.assert_frame_equal(stored(tmp_path / "r"), whole)
    again = kept(tmp_path / "r")
    assert again.keys() == undisturbed.keys() == {spec.id for spec in smoke()}
    for id in again:
        ours, theirs = (TOY.store(tmp_path / f, "smoke").weights for f in ("r", "peace"))
        (a, _), (b, _) = (checkpoint.read(each / f"{id}.safetensors") for each in (ours, theirs))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
