"""The public interface: what Python and bench.model give of trained models."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import bench
from bench import load, model, results, run, runs, specs, train
from bench.cli import UsageError
from bench.engine import publish
from bench.engine.again import compare
from bench.frame import find
from bench.scores.metrics import TOY
from bench.store import checkpoint, weights
from bench.store.provenance import REFERENCE
from bench.store.rows import from_bytes, to_bytes
from bench.studies import STUDIES
from bench.studies.images.spec import ImageSpec
from bench.studies.images.study import TINY
from bench.studies.study import Job
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.train import Trainer
from bench.studies.trained import TrainedModel
from tests.conftest import ROOT
from tests.rows import SMOKE, TOY_ROWS

PAGE = ROOT / "results" / "PYTHON.md"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def toy(**fields: Any) -> Any:
    return specs("toy_grid", "smoke", method="svae_r", lam=0.1, **{"epochs": 2, **fields})[0]


def images(method: str, lam: float = 0.0) -> ImageSpec:
    small = {**TINY, "width": [0.0625], "images": [160], "samples": [100]}
    one = {name: values[0] for name, values in small.items()}
    fields = {"study": "mnist", "scale": "smoke", "data": "stand-in digits", "critic": ""}
    return ImageSpec(method=method, lam=lam, **fields, **one)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train(toy())


@pytest.fixture(scope="module")
def of_images() -> TrainedModel:
    return train(images("svae_r", 0.1))


def test_importing_loads_nothing_large() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'pyarrow'}"
    code = (
        f"import sys; from bench import load, runs, specs, train; print({heavy} & {{*sys.modules}})"
    )
    code += "; runs('toy_grid', 'smoke'); runs('theory', 'quick'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.splitlines() == ["set()", "False"], found.stderr
    assert {*bench.__all__} <= {*dir(bench)}
    both = specs("toy_grid", "smoke", lam=np.array([0.1, 0.2]))
    assert {one.lam for one in both} == {0.1, 0.2}


def test_runs_reads_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own rows come before published rows; nested columns are Python's own."""
    monkeypatch.chdir(tmp_path)
    published = runs("toy_grid", "smoke", samples=True)
    assert published.attrs["results"] == str(REFERENCE)
    first = published.iloc[0]
    assert type(first["trace_epoch"]) is list
    assert {type(each) for each in first["decoder_gradient"].values()} == {list}
    kept = published["kept"].dropna().iloc[0]
    assert {name: each.shape for name, each in kept.items()} == dict.fromkeys(
        ("x", "x_rec", "samples"), (256, 2)
    )
    assert run.main([*SMOKE, "--engine", "sequential", "--no-report"]) == 0
    own = runs("toy_grid", "smoke")
    assert own.attrs["results"] == "results" and len(own) == 8 < len(published)
    assert find(own["id"][0][:6]).row["id"] == own["id"][0]


def test_a_training_is_that_of_a_run(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has the same numbers, `results` gets it as a run would, and else nothing is kept."""
    monkeypatch.chdir(tmp_path)
    assert run.main([*SMOKE, "--engine", "sequential", "--no-report"]) == 0
    stored = find(trained.spec.id)
    assert trained.row is not None
    compared, differing = compare(stored.study, stored.row, trained.row)
    assert "inception_score" in compared and not differing
    before = sorted(Path().rglob("*"))
    other = train(toy(seed=1))
    assert sorted(Path().rglob("*")) == before
    kept = train(toy(seed=1), results="more")
    assert np.array_equal(kept.sample(9), other.sample(9))
    again = load(toy(seed=1), results="more")
    assert np.array_equal(again.sample(9), other.sample(9))
    assert not np.array_equal(trained.sample(9), other.sample(9))
    assert np.array_equal(train(trained.spec.id).sample(9), trained.sample(9))


def test_networks_are_those_that_were_scored(trained: TrainedModel) -> None:
    """Codes, samples and logits are the trainer's, so that they belong to the row's scores."""
    trainer = Trainer([trained.spec])  # type: ignore[list-item]
    trainer.nets.load(0, trained.networks.state_dict())
    at = Evaluation(trainer)
    with torch.no_grad():
        z_x, x_z = trainer.nets.code(at.x, at.z, at.eps)
        f_q, f_p = trainer.nets.logits(at.x, z_x, x_z, at.z)
        z_eps = torch.cat([at.z[0].T, at.eps[1].T], 1)
        assert torch.allclose(trained.networks["decoder"](z_eps), x_z[0].T, atol=1e-4)
        x_eps = torch.cat([at.x[0].T, at.eps[0].T], 1)
        assert torch.allclose(trained.networks["encoder"](x_eps), z_x[0].T, atol=1e-4)
    for role, through in (("encoder", trained.encode), ("decoder", trained.decode)):
        first = trained.networks.get_parameter(f"{role}.0.weight")  # its last two inputs are noise
        kept = first.detach().clone()
        with torch.no_grad():
            first[:, 2:] = 0
        assert np.array_equal(through(at.z[0].T, 1), through(at.z[0].T, 2))
        with torch.no_grad():
            first.copy_(kept)
    assert np.allclose(trained.critic(at.x[0].T, z_x[0].T), f_q[0], atol=1e-4)
    assert np.allclose(trained.critic(x_z[0].T, at.z[0].T), f_p[0], atol=1e-4)
    x, centre = trained.test_data()
    assert np.array_equal(x, at.x[0].T.numpy()) and {*centre} == {*range(5)}  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["trained", "of_images"])
def test_noise_belongs_to_the_seed(kind: str, request: pytest.FixtureRequest) -> None:
    one: TrainedModel = request.getfixturevalue(kind)
    x = one.test_data()[0][:600]
    z = one.encode(x)
    assert z.shape == (len(x), one.d_z) and z.dtype == np.float32
    for draw in (
        lambda seed: one.sample(600, seed),
        lambda seed: one.prior(600, seed),
        lambda seed: one.encode(x, seed),
        lambda seed: one.reconstruct(x, seed),
    ):
        assert np.array_equal(draw(1), draw(1))
        assert not np.array_equal(draw(1), draw(2))
        first, second = draw(1)[:90], draw(1)[500:590]  # of two passes
        assert not np.array_equal(first, second)
    assert np.array_equal(one.sample(600, 3), one.decode(one.prior(600, 3), 3))
    assert np.array_equal(one.reconstruct(x, 3), one.decode(one.encode(x, 3), 3))


def test_images_are_in_unit_range(of_images: TrainedModel) -> None:
    x = of_images.test_data()[0][:20]
    assert x.dtype == np.uint8
    z = of_images.encode(x)
    assert np.allclose(of_images.encode(x / 255), z, atol=1e-5)
    assert np.allclose(of_images.encode(x[:, 0]), z, atol=1e-5)  # grey without its axis
    made = of_images.decode(z)
    assert made.shape == x.shape and made.min() >= 0 and made.max() <= 1
    # Batch norm is frozen: an image's neighbours don't matter.
    assert np.allclose(of_images.decode(z[:1]), of_images.decode(z)[:1], atol=1e-5)
    assert of_images.critic(x, z).shape == (20,)


def test_changed_weights_are_said(of_images: TrainedModel, tmp_path: Path) -> None:
    """Batch norm stays frozen while networks are trained on; then the file tells of it."""
    path = tmp_path / "model.safetensors"
    of_images.save(path)
    model = load(path)
    before = model.sample(8)
    model.networks.train()
    assert np.array_equal(model.sample(8), before) and model.networks["decoder"].training
    assert not model.changed and "changed" not in repr(model)
    with torch.no_grad():
        next(model.networks["decoder"].parameters()).mul_(1.1)
    assert model.changed and "changed after training" in repr(model)
    model.save(path)
    assert load(path).changed and "changed after training" in repr(load(path))


def test_images_of_a_place_make_another_spec(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "own.npy", rng.integers(0, 255, (90, 28, 28), dtype=np.uint8))
    asked = images("svae_r", 0.1)
    one = train(replace(asked, images=0), data=tmp_path / "own.npy", results=tmp_path / "own")
    assert " folder " in vars(one.spec)["data"]
    with pytest.raises(UsageError, match="make another spec"):
        load(asked, results=tmp_path / "own")
    assert np.array_equal(load(one.spec, results=tmp_path / "own").sample(3), one.sample(3))
    x, labels = one.test_data(str(tmp_path / "own.npy"))
    assert x.shape[1:] == (1, 28, 28) and labels is None
    assert np.array_equal(one.test_data()[0], x)  # it knows where its training had them
    with pytest.raises(UsageError, match=r"here: test_data\(PLACE\)"):
        load(one.spec, results=tmp_path / "own").test_data()
    with pytest.raises(UsageError, match="has other images"):
        np.save(tmp_path / "other.npy", rng.integers(0, 255, (90, 28, 28), dtype=np.uint8))
        one.test_data(tmp_path / "other.npy")


def test_training_a_stored_run_again_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who trains an id expects the numbers of its row."""
    monkeypatch.chdir(tmp_path)
    id = train(toy(), results="results").spec.id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = train(id).row
    (path,) = (tmp_path / "results" / "toy_grid" / "smoke").iterdir()
    rows = from_bytes(path.read_bytes(), TOY_ROWS).to_pylist()
    assert first and rows[0]["mse_x"] == first["mse_x"]
    rows[0]["mse_x"] += 1.0
    path.write_bytes(to_bytes(pa.Table.from_pylist(rows, schema=TOY_ROWS)))
    with pytest.warns(UserWarning, match=f"1 of .* differ from the stored row {id}: mse_x"):
        train(id)


def test_methods_have_what_they_have() -> None:
    """A generator has no encoder; critics take x, or z, or both; two critics have their names."""
    gan = train(images("gan"))
    x = gan.test_data()[0][:5]
    assert gan.critic(x).shape == (5,)
    for call, words in (
        (lambda: gan.encode(x), "gan has no encoder; its networks are: decoder, critic"),
        (lambda: gan.critic(x, gan.prior(5)), "the critic of gan takes x"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            call()
    aae = train(images("aae"))
    assert aae.critic(z=aae.prior(5)).shape == (5,)
    with pytest.raises(UsageError, match="takes z"):
        aae.critic(x)
    with pytest.raises(UsageError, match="critic_x, critic_z"):
        train(images("as_vae")).critic(x, aae.prior(5))


def test_save_and_load(trained: TrainedModel, of_images: TrainedModel, tmp_path: Path) -> None:
    for one in (trained, of_images):
        path = tmp_path / f"{one.spec.id}.safetensors"
        one.save(path)
        again = load(path)
        assert again.spec == one.spec and np.array_equal(again.sample(7, 1), one.sample(7, 1))
        assert again.row is None and again.about["spec"] == one.about["spec"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (tmp_path / "text.safetensors").write_text("no weights")
    about = {**trained.about, "id": "0" * 16}
    checkpoint.save(tmp_path / "other.safetensors", trained.networks.state_dict(), about)
    for name, words in (
        (path.name, "damaged"),
        ("text.safetensors", "damaged"),
        ("none.safetensors", "is no file"),
        ("none.txt", "is no file"),
        ("other.safetensors", "another id"),
    ):
        with pytest.raises(UsageError, match=words):
            load(tmp_path / name)


WRONG: list[Callable[[TrainedModel], Any]] = [
    lambda one: one.sample(0),
    lambda one: one.sample(2.5),  # type: ignore[arg-type]
    lambda one: one.sample(3, seed=-1),
    lambda one: one.encode([[1.0, 2.0, 3.0]]),
    lambda one: one.encode([1.0, 2.0]),
    lambda one: one.encode("x"),
    lambda one: one.decode([[float("nan"), 1.0]]),
    lambda one: one.decode(np.zeros((0, 2))),
    lambda one: one.critic(),
    lambda one: one.critic([[1.0, 2.0]]),
    lambda one: one.critic([[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]]),
    lambda one: one.save("model.txt"),
    lambda one: one.save("nowhere/model.safetensors"),
    lambda one: one.test_data(Path()),
    lambda one: load("0"),
    lambda one: load("ffffffffffffffff"),
    lambda one: train("ffffffffffffffff"),
    lambda one: train(specs("theory", "smoke")[0]),
    lambda one: train(replace(one.spec, method="unheard-of")),
    lambda one: runs("toy", "quick"),
    lambda one: runs("toy_grid", "huge"),
    lambda one: runs("celeba", "paper"),
    lambda one: runs("toy_grid", "quick", results="nowhere"),
    lambda one: specs("toy_grid", "quick", width=3),
    lambda one: specs("toy_grid", "quick", method="vae"),
    lambda one: specs("toy_grid", "quick", encoder_width=0),
    lambda one: specs("toy_grid", "quick", lam="much"),
    lambda one: specs("toy_grid", "quick", lam=[]),
    lambda one: train([one.spec]),  # type: ignore[arg-type]
    lambda one: load(one.spec, device="tpu"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_wrong_calls_are_one_line(
    wrong: Callable[[TrainedModel], Any],
    trained: TrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as told:
        wrong(trained)
    assert len(str(told.value)) > 10 and "\n" not in str(told.value)
    assert not [*tmp_path.iterdir()]


def test_weights_that_are_not_kept(tmp_path: Path) -> None:
    """`load` says how to train them again; a diverged training has none."""
    trained = train(toy(), results=tmp_path)
    store = STUDIES["toy_grid"].store(tmp_path, "smoke")
    store.weights_of(trained.spec.id).unlink()
    with pytest.raises(UsageError, match="no weights are kept"):
        load(trained.spec, results=tmp_path)
    with pytest.raises(UsageError, match="diverged"):
        train(toy(lr=1e30))


def test_the_command_writes_what_python_gives(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained.save("model.safetensors")

    def ran(*words: str) -> int:
        return model.main([*words[:1], "model.safetensors", *words[1:]])

    assert ran("sample", "--out", "a.npz", "--n", "50", "--seed", "4") == 0
    assert np.array_equal(np.load("a.npz")["samples"], trained.sample(50, 4))
    assert ran("encode", "--out", "b.csv", "--n", "30") == 0
    with open("b.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    x, centre = trained.test_data()
    assert [*rows[0]] == ["x_0", "x_1", "z_0", "z_1", "label"]
    z = np.array([[float(row["z_0"]), float(row["z_1"])] for row in rows])
    assert np.allclose(z, trained.encode(x[:30])) and int(rows[7]["label"]) == centre[7]  # type: ignore[index]
    assert ran("sample", "--out", "own.csv", "--n", "9") == 0  # with a header
    assert ran("encode", "--out", "d.npz", "--input", "own.csv") == 0
    assert np.allclose(np.load("d.npz")["z"], trained.encode(trained.sample(9)), atol=1e-4)
    Path("d.npz").unlink()
    Path("empty.csv").touch()
    np.savetxt("own.csv", x[:9], delimiter=",")
    assert ran("reconstruct", "--out", "c.npz", "--input", "own.csv") == 0
    assert np.allclose(np.load("c.npz")["x_rec"], trained.reconstruct(x[:9]), atol=1e-5)
    for name in ("sample", "encode", "reconstruct"):
        assert ran(name, "--out", f"{name}.png") == 0
        with Image.open(f"{name}.png") as picture:
            assert picture.width > 400 and len(np.unique(np.asarray(picture))) > 20
    before = {*Path().iterdir()}
    for wrong in (
        ["sample", "--out", "d.txt"],
        ["sample", "--out", "d.npz", "--seed", "-1"],
        ["reconstruct", "--out", "d.npz", "--input", "none.csv"],
        ["reconstruct", "--out", "d.npz", "--input", "empty.csv"],
        ["reconstruct", "--out", "d.npz", "--input", "model.safetensors"],
        ["reconstruct", "--out", "d.npz", "--input", "own.csv", "--data", "."],
    ):
        assert ran(*wrong) == 2, wrong
    assert model.main(["sample", "ffffffff", "--out", "d.npz"]) == 2
    assert {*Path().iterdir()} == before


def test_pictures_of_images(of_images: TrainedModel, tmp_path: Path) -> None:
    """A picture has each image, x above its reconstruction; codes of 64 numbers have none."""
    path = str(tmp_path / "model.safetensors")
    of_images.save(path)
    out = str(tmp_path / "pairs.png")
    assert model.main(["reconstruct", path, "--out", out, "--n", "4"]) == 0
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("L"))[::2, ::2]  # each is drawn twice as large
    x, made = of_images.test_data()[0][:4, 0], of_images.reconstruct(of_images.test_data()[0][:4])
    rows = [np.concatenate([*each], 1) for each in (x[:2], x[2:])]
    assert pixels.shape == (4 * 28, 2 * 28)
    assert np.array_equal(pixels[:28], rows[0]) and np.array_equal(pixels[56:84], rows[1])
    assert np.abs(pixels[28:56, :28] - made[0, 0] * 255).max() <= 1
    assert model.main(["encode", path, "--out", out]) == 2


def test_the_page_runs_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = BLOCK.findall(PAGE.read_text("utf-8"))
    with mpl.rc_context({"backend": "agg"}):
        exec("\n".join(text for kind, text in found if kind == "python"), {})
    for line in "".join(text for kind, text in found if kind == "bash").splitlines():
        _, _, module, *words = line.split()
        assert module == "bench.model" and model.main(words) == 0
    made = {"scores.png", "gradient.png", "points.png", "codes.png", "model.safetensors"}
    made |= {"samples.png", "codes.csv", "pairs.npz"}
    assert made == {path.name for path in tmp_path.iterdir()}
    assert "codes (1024, 2) error" in capsys.readouterr().out


# Published weights


def published() -> list[Path]:
    return sorted(REFERENCE.glob("*/*_weights/*.safetensors"))


def test_published_weights_belong_to_published_rows() -> None:
    """They are of rows that are shown, none is of CelebA, and all take 10 MB at most."""
    assert sum(path.stat().st_size for path in published()) <= publish.MOST
    there = {(path.parents[1].name, path.parent.name.split("_")[0]) for path in published()}
    assert not {study for study, _ in there} & {*publish.PRIVATE}
    for path in published():
        found = find(path.stem, REFERENCE)
        spec = found.study.spec_of(found.row)
        assert spec is not None
        weights.read(found.study.store(REFERENCE, spec.scale), spec, found.row)


@pytest.mark.parametrize("place", [path for path in published() if "toy_grid" in str(path)][::12])
def test_published_weights_have_their_rows_scores(place: Path) -> None:
    study, row, _ = find(place.stem, REFERENCE)
    spec = study.spec_of(row)
    assert spec is not None
    kept = weights.read(study.store(REFERENCE, spec.scale), spec, row)
    stored = [metric for metric in TOY if row.get(metric.columns[0]) is not None]
    (found,) = study.score(Job((spec,), "", "cpu", {}), [(row, kept)], stored)
    assert {name: pytest.approx(row[name], rel=2e-3, abs=2e-4) for name in found} == found


def test_weights_are_published_with_their_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that came out otherwise is refused, and so is one that is not there."""
    monkeypatch.setattr(publish, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(publish, "need_checkout", lambda what: None)
    study, own = STUDIES["toy_grid"], tmp_path / "own"
    made = [train(toy(seed=seed), results=own) for seed in (0, 1, 2)]
    rows = study.store(own, "smoke").every()
    changed = rows.to_pylist()
    for row in changed:
        row["mse_x"] *= 1 + 1e-12 if row["id"] == made[1].spec.id else 1

    target = tmp_path / "reference" / "toy_grid"
    target.mkdir(parents=True)
    table = pa.Table.from_pylist(changed, schema=rows.schema)
    (target / "smoke.parquet").write_bytes(to_bytes(table))
    study.store(own, "smoke").weights_of(made[2].spec.id).unlink()
    words = ["weights", "toy_grid", *(one.spec.id for one in made), "--scale", "smoke"]
    assert results.main([*words, "--results", str(own)]) == 1
    told = capsys.readouterr().out
    assert f"{made[1].spec.id}: not published, mse_x differ" in told
    assert f"{made[2].spec.id}: not published, no weights are kept" in told
    kept = load(made[0].spec, results=tmp_path / "reference")
    assert np.allclose(kept.sample(50), made[0].sample(50), atol=0.05)
    assert {path.stem for path in (target / "smoke_weights").iterdir()} == {made[0].spec.id}
