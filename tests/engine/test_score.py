"""bench.results score: kept weights give the numbers of the training, and all else is counted."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench import report, results, run
from bench.engine import score
from bench.engine.job import run_job
from bench.scores.metrics import ANCHORS, IMAGES, TOY, Metric
from bench.store import checkpoint
from bench.store.rows import Buckets, Store
from bench.studies import STUDIES
from bench.studies.images import evaluate
from bench.studies.toy_grid.job import stacks
from tests.conftest import POSIX
from tests.engine.test_weights import job
from tests.lives import Life
from tests.rows import TOY_ROWS, row, smoke
from tests.scores.test_classifiers import stand_in

Rows = dict[str, dict[str, Any]]
SMALL = [f"--set={each}" for each in ("width=0.0625", "images=320", "samples=100")]
Scored = Callable[..., tuple[int, str]]


def rows(study: str, folder: Path) -> Rows:
    found = STUDIES[study].store(folder, "smoke").rows.read()[0].to_pylist()
    return {each["id"]: each for each in found}


def blank(study: str, folder: Path, metrics: Sequence[Metric], ids: Sequence[str]) -> None:
    """Takes metrics from stored rows, as if they had been stored before the metrics were added."""
    store, found = STUDIES[study].store(folder, "smoke"), rows(study, folder)
    for id in ids:
        assert store.rows.change(found[id], {c: None for m in metrics for c in m.columns})


def trained(study: str, folder: Path, *options: str) -> Rows:
    asked = [study, "--scale", "smoke", "--engine", "sequential", "--keep-weights", "all"]
    assert run.main([*asked, *options, "--results", str(folder)]) == 0
    return rows(study, folder)


@pytest.fixture
def scored(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_report: None) -> Scored:
    """Runs `bench.results score` on the test's folder: its status and what it prints."""

    def called(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = results.main(["score", *arguments, "--results", str(tmp_path)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return called


def test_scores_of_toy_weights_have_the_bits_of_the_training(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In stacks of other members than the training's, and in a stack of one."""
    never = property(lambda job: pytest.fail("a stack could not be scored as a whole"))
    monkeypatch.setattr(score.ScoreJob, "parts", never)
    before = trained("toy_grid", tmp_path, "--set", "epochs=2")
    every = sorted(before, key=lambda id: before[id]["config"])
    blank("toy_grid", tmp_path, TOY, every)
    assert scored("toy_grid", "--metric", "mse_z")[0] == 0
    blank("toy_grid", tmp_path, TOY[:2], every)
    assert scored("toy_grid")[0] == 0
    assert rows("toy_grid", tmp_path) == before
    blank("toy_grid", tmp_path, TOY, every[:4])  # two stacks of one shape
    blank("toy_grid", tmp_path, TOY[:1], every[4:5])
    assert rows("toy_grid", tmp_path) != before
    status, said = scored("toy_grid", "--metric", "modes")
    assert status == 0 and "scored: modes (4)" in said
    status, said = scored("toy_grid", "--workers", "2")
    assert status == 0 and "8 trainings, 5 scored now, 0 lack a metric" in said
    assert rows("toy_grid", tmp_path) == before
    assert "8 trainings, 0 scored now, 0 lack a metric" in scored()[1]


def test_scores_of_mnists_weights_have_the_bits_of_the_training(
    tmp_path: Path, scored: Scored
) -> None:
    before = trained("mnist", tmp_path, *SMALL, "--only", "method=svae_r,dcgan")
    assert {each["stand_in"] for each in before.values()} == {True}
    blank("mnist", tmp_path, IMAGES, list(before))
    status, said = scored("mnist")
    assert status == 0, said
    assert rows("mnist", tmp_path) == before
    (line,) = (each for each in said.splitlines() if "do not have: " in each)
    counts = "fid (3), inception_score_imagenet (3), kid (3), mse_x (1), mse_x_batch (1)"
    assert sorted(line.partition("do not have: ")[2].split(", ")) == counts.split(", ")
    nets = {each["method"]: each["mse_x"] is not None for each in before.values()}
    assert nets == {"svae_r": True, "dcgan": False}


def test_anchors_need_no_weights_but_the_classifier_of_the_scores(
    tmp_path: Path, scored: Scored
) -> None:
    before = trained("mnist", tmp_path, *SMALL, "--only", "method=dcgan", "--seeds", "3")
    bare, bad, other = before
    assert dict(before[bare]["anchors"])["phase-randomised: inception_score"] > 1
    store = STUDIES["mnist"].store(tmp_path, "smoke")
    store.weights_of(bare).unlink()
    store.weights_of(bad).write_bytes(b"")
    blank("mnist", tmp_path, [ANCHORS, IMAGES[1]], list(before))
    lacking = rows("mnist", tmp_path)
    assert store.rows.change(lacking[other], {"classifier_sha256": "0" * 64})
    status, said = scored("mnist", "--metric", "anchors")
    assert status == 1 and "scored: anchors (2)" in said
    assert "another classifier than today's made the scores: anchors (1)" in said
    found = rows("mnist", tmp_path)
    assert [found[id]["anchors"] == before[id]["anchors"] for id in before] == [True, True, False]
    assert found[other]["anchors"] is None and found[other]["frechet"] is None
    blank("mnist", tmp_path, [ANCHORS], [bare, bad])
    status, said = scored("mnist")  # the third row's scores are made again by today's classifier
    assert status == 1 and "scored: anchors (3), frechet (1)" in said
    assert "no weights are kept: frechet (1)" in said and "damaged: frechet (1)" in said
    assert rows("mnist", tmp_path)[other] == before[other]
    shutil.rmtree(store.weights)
    assert "3 trainings, 0 scored now" in scored("mnist")[1]


def test_a_metric_that_is_scored_later_has_anchors_too(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = trained("mnist", tmp_path, *SMALL, "--only", "method=dcgan").values()
    reach = Metric(("reach",), lambda o: o.samples.max(), "reach")
    monkeypatch.setattr("bench.scores.metrics.IMAGES", [*IMAGES, reach])
    assert scored("mnist", "--metric", "reach")[0] == 0
    (after,) = rows("mnist", tmp_path).values()
    kinds = ("noise", "phase-randomised", "real images")
    now, then = dict(after["anchors"]), dict(before["anchors"])
    assert now.items() > then.items() and now.keys() - then.keys() == {f"{k}: reach" for k in kinds}
    assert now["real images: reach"] == 1.0


def test_imagenets_scores_are_added_as_the_training_would_have_stored_them(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "imagenet", lambda weights, device: stand_in())
    asked = [*SMALL, "--only", "method=svae_r", "--lam", "0.1"]
    with_them = trained("cifar10", tmp_path / "with", *asked, "--inception-weights", "any")
    without = trained("cifar10", tmp_path, *asked)
    (id,) = without
    assert with_them[id]["fid"] is not None and without[id]["fid"] is None
    status, said = scored("cifar10")
    assert status == 0
    assert "needs --inception-weights: inception_score_imagenet (1), fid (1), kid (1)" in said
    assert scored("cifar10", "--metric", "fid")[0] == 1  # it was asked for by name
    assert rows("cifar10", tmp_path) == without
    blank("cifar10", tmp_path, IMAGES[:3], [id])
    status, said = scored("cifar10", "--inception-weights", "any")
    assert status == 0 and "1 scored now" in said
    found, timing = rows("cifar10", tmp_path)[id], {"train_seconds", "evaluation_seconds"}
    timing |= {"cpu_seconds", "finished", "commit", "dirty"}
    digests = [dict(each.pop("metric_digests")) for each in (found, with_them[id])]
    assert digests[0] == digests[1]  # in any order
    assert all(found[name] == with_them[id][name] for name in found.keys() - timing)
    assert all(found[name] == without[id][name] for name in timing)


def test_what_can_not_be_scored_is_counted(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = trained("toy_grid", tmp_path, "--set", "epochs=2")
    diverged = ["--only", "method=svae_r", "--lam", "0", "--lr", "1e30", "--set", "epochs=2"]
    before = trained("toy_grid", tmp_path, *diverged) | before
    good = [id for id, each in before.items() if each["status"] == "ok"]
    store = STUDIES["toy_grid"].store(tmp_path, "smoke")
    paths = [store.weights / f"{id}.safetensors" for id in good]
    paths[0].unlink()
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    paths[2].write_bytes(paths[3].read_bytes())
    tensors, about = checkpoint.read(paths[4])
    checkpoint.save(paths[4], tensors | {"decoder.0.weight": torch.zeros(3, 4)}, about)
    paths[5].write_bytes(b"")
    tensors, about = checkpoint.read(paths[6])
    checkpoint.save(
        paths[6],
        tensors | {"decoder.0.bias": torch.full_like(tensors["decoder.0.bias"], torch.nan)},
        about,
    )
    tensors, about = checkpoint.read(paths[3])
    checkpoint.save(paths[3], tensors, about | {"torch": "2.0"})
    blank("toy_grid", tmp_path, TOY[:2], good)
    files = {path: path.read_bytes() for path in store.weights.iterdir()}
    status, said = scored("toy_grid")
    assert status == 1
    assert "10 trainings, 1 scored now, 7 lack a metric" in said
    for line in (
        "2 of them diverged: they have no scores",
        "scored: inception_score (1), mse_x (1)",
        "no weights are kept: inception_score (1), mse_x (1)",
        "the file of weights is damaged: inception_score (2), mse_x (2)",
        "the weights are of another training: inception_score (2), mse_x (2)",
        "weights of other networks: inception_score (1), mse_x (1)",
        "outputs are not finite: inception_score (1), mse_x (1)",
    ):
        assert f"\n  {line}\n" in said
    assert {path: path.read_bytes() for path in store.weights.iterdir()} == files
    after = rows("toy_grid", tmp_path)
    assert [i for i, id in enumerate(good) if after[id] == before[id]] == [7]
    assert sum(after[id]["mse_x"] is None for id in good) == 7

    monkeypatch.setattr(
        "bench.scores.metrics.TOY", [*TOY, Metric(("bad",), lambda o: {}["x"], "bad")]
    )
    status, said = scored("toy_grid")
    assert status == 2 and "metric 'bad', tried on made-up samples" in said


def test_images_that_are_not_at_hand_are_counted(
    tmp_path: Path, scored: Scored, cache: Path
) -> None:
    draw = np.random.default_rng(0).integers
    np.savez("mine.npz", images=draw(256, size=(400, 64, 64, 3), dtype=np.uint8))
    np.savez("other.npz", images=draw(256, size=(400, 64, 64, 3), dtype=np.uint8))
    asked = ["--set=data=celeba", "--data=mine.npz", *SMALL, "--only=method=svae_r", "--lam=0.1"]
    before = trained("celeba", tmp_path, *asked)
    blank("celeba", tmp_path, IMAGES[:4], list(before))
    for place in ([], ["--data", "nowhere"], ["--data", "other.npz"]):
        status, said = scored("celeba", *place)
        assert status == 1 and "  the images are not at hand: " in said
        assert ": swd (1), mse_x (1)\n" in said and "1 lack a metric" in said
    status, said = scored("celeba", "--data", "mine.npz")
    assert status == 0, said
    assert rows("celeba", tmp_path) == before


def test_a_stop_loses_nothing_and_nothing_is_scored_again(
    tmp_path: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = trained("mnist", tmp_path, *SMALL, "--only", "method=svae_r", "--lam", "0,0.1,1")
    assert len(before) == 3
    blank("mnist", tmp_path, IMAGES[:1], list(before))
    change, scores, asked = Buckets.change, evaluate.scores, []

    def stops(self: Buckets, *arguments: Any) -> bool:
        assert change(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Buckets, "change", stops)
        assert scored("mnist") == (130, "stopped; the same command goes on from there\n")
    done = [id for id, each in rows("mnist", tmp_path).items() if each == before[id]]
    assert len(done) == 1

    def noted(model: Any, *rest: Any) -> Any:
        asked.append(model.spec.id)
        return scores(model, *rest)

    monkeypatch.setattr(evaluate, "scores", noted)
    assert scored("mnist")[0] == 0
    assert sorted([*asked, *done]) == sorted(before)
    assert rows("mnist", tmp_path) == before


def killed_amid_rows(arguments: Sequence[str]) -> int:
    """Runs `bench.results`, and kills it in the middle of writing its third row."""
    replace, seen = os.replace, []

    def deadly(old: Any, new: Any) -> None:
        if str(new).endswith(".parquet"):
            seen.append(new)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        replace(old, new)

    os.replace = deadly
    return results.main(arguments)


@POSIX
def test_kill_9_amid_scores(tmp_path: Path, scored: Scored, live: Callable[..., Life]) -> None:
    before = trained("toy_grid", tmp_path, "--set", "epochs=2")
    blank("toy_grid", tmp_path, TOY[:1], list(before))
    arguments = ["score", "toy_grid", "--results", str(tmp_path)]
    live(call=partial(killed_amid_rows, arguments)).end(-signal.SIGKILL)
    found = rows("toy_grid", tmp_path)
    assert found.keys() == before.keys()
    assert sum(found[id] == before[id] for id in before) == 2
    status, said = scored("toy_grid")
    assert status == 0 and "8 trainings, 6 scored now, 0 lack a metric" in said
    assert rows("toy_grid", tmp_path) == before


def test_a_row_that_was_replaced_meanwhile_stays(tmp_path: Path) -> None:
    (one, *_) = specs = smoke()[:2]
    store = STUDIES["toy_grid"].store(tmp_path, "smoke")
    store.prepare()
    store.write([row(spec) for spec in specs], [])
    old = rows("toy_grid", tmp_path)[one.id]
    again = row(one, finished=old["finished"].replace(year=2027))
    store.write([again], [])
    assert not store.rows.change(old, {"mse_x": 9.0})
    assert not store.rows.change(old | {"id": "f" * 16}, {"mse_x": 9.0})
    assert rows("toy_grid", tmp_path)[one.id]["mse_x"] == again["mse_x"]
    with pytest.raises(ValueError, match="'nonsense' is no column"):
        store.rows.change(old, {"nonsense": 1.0})


def test_a_column_that_nobody_declares_any_more_stays(tmp_path: Path) -> None:
    one = smoke()[0]
    wider = TOY_ROWS.append(pa.field("retired", pa.float64()))
    Store(tmp_path, "toy_grid", "smoke", wider, TOY_ROWS).write([row(one, retired=7.0)], [])
    store, (old,) = (
        STUDIES["toy_grid"].store(tmp_path, "smoke"),
        rows("toy_grid", tmp_path).values(),
    )
    assert "retired" not in old and store.rows.change(old, {"mse_x": 9.0})
    (found,) = Buckets(store.folder, wider, store.folder).read()[0].to_pylist()
    assert found["retired"] == 7.0
    assert {k: v for k, v in found.items() if k != "retired"} == {**old, "mse_x": 9.0}


def test_what_a_row_lacks() -> None:
    metric = Metric(("a", "b"), lambda outputs: (1.0, 2.0), "A")
    whole = {"a": 0.0, "b": float("nan")}
    assert not score.lacks(whole, metric, []) and not score.lacks(whole, metric, ["other"])
    assert score.lacks(whole | {"b": None}, metric, []) and score.lacks({"a": 0.0}, metric, [])
    assert score.lacks(whole, metric, ["a"])


def test_a_metric_of_other_source_is_scored_again_and_a_stale_training_is_not(
    tmp_path: Path, scored: Scored
) -> None:
    for stack in stacks(smoke(), "cpu"):
        assert run_job(job(stack, tmp_path)).end == "done"
    before = rows("toy_grid", tmp_path)
    old, stale = sorted(before)[:2]
    changed = dict(before[old]["metric_digests"]) | {"modes": "0" * 12}
    store = STUDIES["toy_grid"].store(tmp_path, "smoke")
    store.rows.change(before[old], {"metric_digests": changed, "modes": 77})
    store.rows.change(before[stale], {"method_digest": "0" * 12, "modes": None})
    assert store.stale().keys() == {old, stale}
    status, said = scored("toy_grid")
    assert (
        status == 1 and "scored: modes (1)" in said and "the training is stale: modes (1)" in said
    )
    assert store.stale().keys() == {stale}
    assert rows("toy_grid", tmp_path)[old] == before[old]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "unknown study 'nothing'; allowed: toy_grid, mnist"),
        (["mnist"], "no results of mnist in "),
        (["toy_grid", "--scale", "paper"], "no results of toy_grid at scale paper in "),
        (["--metric", "reach"], "unknown metric 'reach'; allowed: high_quality, inception_score"),
        (["--data", "x"], "--data and --inception-weights go with one STUDY"),
        (["toy_grid", "--data", "x"], "for studies of images; toy_grid draws its own data"),
        (["toy_grid", "--inception-weights", "x"], "for colour images; toy_grid has none"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str], said: str, tmp_path: Path, scored: Scored
) -> None:
    for stack in stacks(smoke()[:1], "cpu"):
        assert run_job(job(stack, tmp_path)).end == "done"
    status, found = scored(*arguments)
    assert status == 2 and said in found and found.count("\n") == 1


def test_results_without_a_study_is_an_error(tmp_path: Path, scored: Scored) -> None:
    status, found = scored()
    assert status == 2 and f"no results in {tmp_path}" in found and "--results" in found
    with pytest.raises(SystemExit, match="2"):
        results.main([])


def test_published_rows_lack_a_metric_that_is_younger_than_they(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those of scale smoke were made again. Published rows are never written."""
    before = sorted(report.REFERENCE.rglob("*"))
    status = results.main(["score", "toy_grid", "--results", str(report.REFERENCE)])
    said = capsys.readouterr().out
    assert status == 1 and "smoke: 80 trainings, 0 scored now, 0 lack a metric\n" in said
    quick = said.partition("toy_grid at scale quick: ")[2]
    (lacking,) = re.findall(
        r"^\d+ trainings, 0 scored now, (\d+) lack a metric$", quick, re.MULTILINE
    )
    reasons = dict(re.findall(r"^  (.+): mode_coverage \((\d+)\)$", quick, re.MULTILINE))
    assert {*reasons} == {"no weights are kept", "published rows are only read"}
    assert sum(map(int, reasons.values())) == int(lacking)
    assert sorted(report.REFERENCE.rglob("*")) == before
