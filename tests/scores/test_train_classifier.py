"""The suite's own classifiers: committed weights are what they claim, training makes such files."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.cli import UsageError
from bench.data.load import Images
from bench.scores import classifiers, train_classifier
from bench.scores.classifiers import FURTHER, PINNED, ClassifierError, own, seeds
from bench.scores.train_classifier import CANDIDATES, Recipe, split
from bench.store import checkpoint, source
from bench.studies import STUDIES
from models.classifiers import Classifier, network

NAMES = ("mnist", "cifar10")
FLOORS = {"mnist": 0.993, "cifar10": 0.90}


def images(name: str, n: int = 7) -> Tensor:
    """Smooth blobs in [0, 1]."""
    shape = network(name).shape
    rng = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, shape[0], 5, 5, generator=rng)
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")


EVERY = [(name, seed) for name in NAMES for seed in range(seeds(name))]


@pytest.mark.parametrize(("name", "seed"), EVERY)
def test_the_committed_weights_are_the_pinned_ones_and_small(name: str, seed: int) -> None:
    content = (classifiers.WEIGHTS / f"{name}-{seed}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == [PINNED[name], *FURTHER[name]][seed]
    assert len(content) <= 2_000_000
    about = classifiers.parsed(content)[1]
    assert about["data"] == name and about["seed"] == str(seed)


@pytest.mark.parametrize(("name", "seed"), EVERY)
def test_the_committed_classifiers_are_accurate_and_measured(name: str, seed: int) -> None:
    """`own` takes the accuracy from the measurement of these very weights."""
    classifier = own(name, seed=seed)
    entries = [each for each in classifiers.real() if each["sha256"] == classifier.sha256]
    assert [(each["data"], each["seed"]) for each in entries] == [(name, seed)]
    assert classifier.accuracy == entries[0]["accuracy"] >= FLOORS[name]
    assert 9 < float(entries[0]["inception_score"]) < 10
    assert 0 < float(entries[0]["frechet_floor"]) < 1


def test_committed_numbers_are_of_no_other_weights() -> None:
    measured = [each["sha256"] for each in classifiers.real()]
    assert sorted(measured) == sorted(own(name, seed=seed).sha256 for name, seed in EVERY)


def test_the_committed_classifiers_have_the_chosen_recipe() -> None:
    """The weights say their recipe, and the table says which candidates it was chosen among."""
    lines = train_classifier._lines()
    for name in {line["data"] for line in lines}:
        mine = [line for line in lines if line["data"] == name]
        tried = [{key: line[key] for key in asdict(CANDIDATES[name][0])} for line in mine]
        assert tried == [
            {key: str(value) for key, value in asdict(each).items()} for each in CANDIDATES[name]
        ]
        (best,) = [line for line in mine if line["chosen"] == "yes"]
        for seed in range(seeds(name)):
            content = (classifiers.WEIGHTS / f"{name}-{seed}.safetensors").read_bytes()
            about = classifiers.parsed(content)[1]
            assert {key: about[key] for key in tried[0]} == tried[mine.index(best)]
            if seed == 0:  # the candidate itself
                assert about["held_out_accuracy"] == best["accuracy"]


@pytest.mark.parametrize("at", ["first byte", "header", "last byte"])
def test_one_changed_byte_is_refused_before_anything_is_parsed(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((classifiers.WEIGHTS / "mnist-0.safetensors").read_bytes())
    content[{"first byte": 0, "header": 40, "last byte": -1}[at]] ^= 1
    (tmp_path / "mnist-0.safetensors").write_bytes(content)
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    monkeypatch.setattr(classifiers, "parsed", lambda _: pytest.fail("parsed"))
    with pytest.raises(ClassifierError, match=r"mnist-0\.safetensors has SHA-256 \w+…, expect"):
        own("mnist")


def test_another_seeds_weights_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each seed has a pin of its own: files that change places are both refused."""
    contents = {seed: f"weights of seed {seed}".encode() for seed in (0, 1)}
    pins = {seed: hashlib.sha256(content).hexdigest() for seed, content in contents.items()}
    monkeypatch.setitem(PINNED, "mnist", pins[0])
    monkeypatch.setitem(FURTHER, "mnist", (pins[1],))
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    monkeypatch.setattr(classifiers, "parsed", lambda content: pytest.fail(content.decode()))
    for seed, other in ((0, 1), (1, 0)):
        path = tmp_path / f"mnist-{seed}.safetensors"
        path.write_bytes(contents[seed])
        with pytest.raises(pytest.fail.Exception, match=f"weights of seed {seed}"):
            own("mnist", seed=seed)
        path.write_bytes(contents[other])
        with pytest.raises(ClassifierError, match="another file"):
            own("mnist", seed=seed)
    for seed in (-1, 2):
        with pytest.raises(
            ValueError, match=f"no mnist classifier of seed {seed}; allowed: 0 to 1"
        ):
            own("mnist", seed=seed)


def test_missing_weights_and_unknown_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    with pytest.raises(ClassifierError, match="can't be read"):
        own("mnist")
    with pytest.raises(ValueError, match="allowed: mnist, cifar10"):
        own("../mnist")


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_head_applied_to_the_features(name: str) -> None:
    classifier = own(name)
    logits, features = classifier(images(name))
    head = classifier.network.head
    assert logits.dtype == features.dtype == np.float32
    assert logits.shape == (7, 10) and features.shape == (7, head.in_features)
    expected = features.astype(float) @ head.weight.double().numpy().T + head.bias.double().numpy()
    assert logits == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_gets_the_same_answer_in_any_company(name: str) -> None:
    """Frozen batch norm: more than one internal batch, one image alone, arrays or tensors."""
    classifier, x = own(name), images(name, 501)
    logits, features = classifier(x)
    again = classifier(x.numpy())
    assert (again[0] == logits).all() and (again[1] == features).all()
    for i in (0, 499, 500):
        alone = classifier(x[i : i + 1].double())
        assert alone[0] == pytest.approx(logits[i : i + 1], abs=1e-4)
        assert alone[1] == pytest.approx(features[i : i + 1], abs=1e-4)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 28, 28), r"takes \(n, 1, 28, 28\)"),
        (torch.zeros(0, 1, 28, 28), r"images are \(0, 1, 28, 28\)"),
        (torch.full((2, 1, 28, 28), -1.0), "from -1 to -1; allowed: 0 to 1"),
        (np.full((2, 1, 28, 28), 255.0), "from 255 to 255; allowed: 0 to 1"),
        (torch.full((2, 1, 28, 28), torch.nan), "from nan to nan; allowed: 0 to 1"),
    ],
)
def test_images_that_are_not_such_images_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own("mnist")(x)


def drawn_digits() -> np.ndarray:
    """0 to 9 in a printed typeface, placed as MNIST's are: (10, 1, 28, 28) in [0, 1]."""
    drawn = []
    for digit in range(10):
        image = Image.new("L", (28, 28))
        font = ImageFont.load_default(22)
        ImageDraw.Draw(image).text((14, 14), str(digit), 255, font, anchor="mm")
        drawn.append(np.asarray(image))
    return np.stack(drawn)[:, None] / 255


def test_the_mnist_classifier_reads_printed_digits() -> None:
    """A typeface it has never seen, so not all of them."""
    logits = own("mnist")(drawn_digits())[0]
    assert (logits.argmax(1) == np.arange(10)).sum() >= 8


def test_stored_images_are_as_good_as_scaled_ones() -> None:
    classifier = own("mnist")
    x = (images("mnist") * 255).round().to(torch.uint8)
    for one, other in zip(classifier(x), classifier(x.float() / 255), strict=True):
        assert (one == other).all()


def test_whitening_whitens() -> None:
    net, x = network("cifar10"), images("cifar10", 200)
    x = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    net.whiten(x, floor=0)
    y = net.stem(x).transpose(0, 1).flatten(1)
    half = len(y) // 2
    assert torch.allclose(y[:half], -y[half:], atol=1e-4)
    assert torch.allclose(torch.cov(y[:half]), torch.eye(half), atol=1e-3)
    assert torch.allclose(y.mean(1), torch.zeros(2 * half), atol=1e-3)


def test_variations_move_flip_and_turn_images_and_nothing_else() -> None:
    x = images("cifar10", 40)
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(train_classifier.varied(x, Recipe("any", 1, 0.1, 0, 0, 0, False), rng), x)
    flipped = train_classifier.varied(x, Recipe("any", 1, 0.1, 0, 0, 0, True), rng)
    kinds = [
        (torch.equal(new, old), torch.allclose(new, old.flip(-1), atol=1e-5))
        for new, old in zip(flipped, x, strict=True)
    ]
    assert {(True, False), (False, True)} == set(kinds)
    moved = train_classifier.varied(x, Recipe("any", 1, 0.1, 2, 0, 0, False), rng)
    offsets = set()
    for new, old in zip(moved, x, strict=True):
        found = [
            (i, j)
            for i in range(-2, 3)
            for j in range(-2, 3)
            if torch.allclose(new[:, 2:-2, 2:-2], old[:, 2 + j : 30 + j, 2 + i : 30 + i], atol=1e-5)
        ]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 12  # of 25
    turned = train_classifier.varied(torch.ones(5, 1, 28, 28), CANDIDATES["mnist"][0], rng)
    assert torch.allclose(turned, torch.ones(()), atol=1e-5)


def stand_in(name: str, n: int) -> Images:
    """Ten easy classes: a bright bar at the height of the label, on noise."""
    rng = np.random.default_rng(0)
    sets: list[np.ndarray] = []
    for size in (n, 50):
        labels = np.arange(size, dtype=np.uint8) % 10
        x = rng.integers(0, 90, (size, *network(name).shape), dtype=np.uint8)
        for image, label in zip(x, labels, strict=True):
            image[:, 3 + 2 * label : 5 + 2 * label] = 255
        sets += [x, labels]
    return Images(name, "", False, sets[0], sets[2], sets[1], sets[3])


class Sealed(Images):
    """Images whose test part makes a test fail that touches it."""

    def __getattribute__(self, name: str) -> Any:
        assert name not in ("test", "test_labels"), "the test set is read"
        return super().__getattribute__(name)


TINY = Recipe("tiny", epochs=1, peak=0.05, shift=0, degrees=0, zoom=0, flip=False)
HELD_OUT = 30


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small data, batches and steps, nothing that moves the bars, and a sealed test set."""

    def load(name: str, _: Path) -> Images:
        found = stand_in(name, 130)
        return Sealed(**{field: getattr(found, field) for field in vars(found)})

    monkeypatch.setattr(train_classifier, "load_images", load)
    monkeypatch.setattr(train_classifier, "BATCH", 20)
    monkeypatch.setattr(train_classifier, "HELD_OUT", HELD_OUT)
    for name in NAMES:
        monkeypatch.setitem(CANDIDATES, name, (TINY,))
    table = tmp_path / "recipes.csv"
    monkeypatch.setattr(train_classifier, "RECIPES", table)
    table.write_text("data,recipe,chosen\nmnist,tiny,yes\ncifar10,tiny,yes\n")


def run(name: str, out: Path, *more: str) -> int:
    return train_classifier.main(["train", name, "--data", "none", "--out", str(out), *more])


def lasting(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CANDIDATES, "mnist", (dataclasses.replace(TINY, epochs=epochs),))


def trained(out: Path, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, str]]:
    return classifiers.parsed((out / f"mnist-tiny-{seed}.safetensors").read_bytes())


@pytest.mark.parametrize(("n", "held_out"), [(60_000, 5000), (997, 83)])
def test_the_split_is_disjoint_stratified_and_always_the_same(
    n: int, held_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes of unequal sizes, as MNIST's are."""
    monkeypatch.setattr(train_classifier, "HELD_OUT", held_out)
    labels = np.random.default_rng(1).choice(10, n, p=np.arange(1, 11) / 55)
    kept, held = split(labels)
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(n))
    expected = np.bincount(labels) * held_out / n
    assert (abs(np.bincount(labels[held]) - expected) < 1 + 1e-9).all()
    assert not (np.diff(held) == 1).all()  # a random cut, not one block
    torch.manual_seed(5)
    np.random.seed(5)
    for one, other in zip((kept, held), split(labels.copy()), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_a_file_that_loads(
    name: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """And whose accuracy is that on the held-out images; the test set's is not known yet."""
    out = tmp_path / "new"
    assert run(name, out, "--seed", "3") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch 1/1: loss ") and printed[1].startswith("held-out accuracy ")
    path = out / f"{name}-tiny-3.safetensors"
    assert [*out.iterdir()] == [path]  # no checkpoint, no draft
    assert path.stat().st_size <= 2_000_000
    content = path.read_bytes()
    path.rename(out / f"{name}-0.safetensors")
    monkeypatch.setattr(classifiers, "WEIGHTS", out)
    monkeypatch.setitem(PINNED, name, hashlib.sha256(content).hexdigest())
    classifier = own(name)
    assert np.isnan(classifier.accuracy)
    images = stand_in(name, 130)
    assert images.train_labels is not None
    rows = split(images.train_labels)[1]
    assert len(rows) == HELD_OUT
    logits = torch.from_numpy(classifier(images.train[rows])[0]).double()
    labels = torch.from_numpy(images.train_labels[rows]).long()
    about = classifiers.parsed(content)[1]
    assert float(about["held_out_accuracy"]) == (logits.argmax(1) == labels).double().mean()
    nll = torch.nn.functional.cross_entropy(logits, labels).item()
    assert float(about["held_out_nll"]) == pytest.approx(nll, rel=1e-6)
    assert about["data"] == name and about["epochs"] == "1" and about["seed"] == "3"


def test_training_learns(tiny: None, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, epochs=12)
    accuracy, nll = train_classifier.train("mnist", Path(), tmp_path, recipe)
    assert accuracy > 0.9 and nll < 1


def test_held_out_images_fit_the_temperature_and_nothing_else(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other held-out images: the same weights, up to one scale of the last layer."""
    lasting(12, monkeypatch)
    load = train_classifier.load_images
    assert run("mnist", tmp_path / "a") == 0

    def changed(name: str, folder: Path) -> Images:
        found = load(name, folder)
        assert found.train_labels is not None
        rows = split(found.train_labels)[1]
        found.train[rows[::3]] = found.train[np.roll(rows[::3], 1)]  # wrong labels: less sure
        return found

    monkeypatch.setattr(train_classifier, "load_images", changed)
    assert run("mnist", tmp_path / "b") == 0
    (one, about), (other, about_other) = (trained(tmp_path / folder) for folder in "ab")
    assert about["held_out_nll"] != about_other["held_out_nll"]
    heads = {key for key in one if key.startswith("head.")}
    assert all(torch.equal(one[key], other[key]) for key in one.keys() - heads)
    scales = other["head.bias"].double() / one["head.bias"].double()
    assert scales.mean() < 0.9 and scales.std() < 1e-4 * scales.mean()


def test_a_recipe_is_chosen_by_accuracy_and_then_by_likelihood(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracies within a standard error, .0078 here, are alike; other data sets' lines stay."""
    held_out = {"best": (0.990, 0.05), "alike": (0.985, 0.03), "worse": (0.980, 0.01)}
    recipes = tuple(dataclasses.replace(TINY, recipe=name) for name in held_out)
    monkeypatch.setitem(CANDIDATES, "mnist", recipes)
    monkeypatch.setattr(train_classifier, "HELD_OUT", 164)
    monkeypatch.setattr(train_classifier, "train", lambda *given: held_out[given[3].recipe])
    assert train_classifier.main(["choose", "mnist", "--data", "x", "--out", str(tmp_path)]) == 0
    assert train_classifier.chosen("mnist").recipe == "alike"
    assert train_classifier.chosen("cifar10").recipe == "tiny"
    lines = [line for line in train_classifier._lines() if line["data"] == "mnist"]
    assert [line["chosen"] for line in lines] == ["no", "yes", "no"]
    assert [(float(line["accuracy"]), float(line["nll"])) for line in lines] == [*held_out.values()]


def test_choosing_trains_every_candidate_once_with_seed_0(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """And the chosen recipe's training is that of seed 0, which is not done again."""
    recipes = (TINY, dataclasses.replace(TINY, recipe="other", peak=0.01))
    monkeypatch.setitem(CANDIDATES, "mnist", recipes)
    arguments = ["choose", "mnist", "--data", "none", "--out", str(tmp_path / "out")]
    assert train_classifier.main(arguments) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {"mnist-tiny-0.safetensors", "mnist-other-0.safetensors"}
    table = train_classifier.RECIPES.read_text()
    capsys.readouterr()
    assert train_classifier.main(arguments) == 0 and run("mnist", tmp_path / "out") == 0
    assert "epoch" not in capsys.readouterr().out
    assert train_classifier.RECIPES.read_text() == table
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_nothing_is_trained_before_a_recipe_is_chosen(tiny: None, tmp_path: Path, capsys) -> None:
    train_classifier.RECIPES.write_text("data,recipe,chosen\nmnist,tiny,no\n")
    assert run("mnist", tmp_path / "out") == 2
    assert "choose mnist first" in capsys.readouterr().err


def test_a_file_in_the_place_of_another_training_stays(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert run("mnist", tmp_path) == 0
    path = tmp_path / "mnist-tiny-0.safetensors"
    lasting(2, monkeypatch)
    for content in (path.read_bytes(), b"mine"):
        path.write_bytes(content)
        assert run("mnist", tmp_path) == 2
        assert "is another file" in capsys.readouterr().err
        assert path.read_bytes() == content


def test_measuring_reads_the_test_set_and_keeps_what_it_finds(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every seed's numbers, by the weights' SHA-256; other data sets' numbers stay."""
    images = stand_in("mnist", 130)
    monkeypatch.setattr(train_classifier, "load_images", lambda *_: images)
    real = tmp_path / "real.json"
    real.write_text(classifiers.REAL.read_text("utf-8"))
    kept = [each for each in classifiers.real() if each["data"] != "mnist"]
    for module in (classifiers, train_classifier):
        monkeypatch.setattr(module, "REAL", real)
    contents = {}
    for seed in (0, 1):
        assert run("mnist", tmp_path, "--seed", str(seed)) == 0
        path = tmp_path / f"mnist-tiny-{seed}.safetensors"
        contents[seed] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(tmp_path / f"mnist-{seed}.safetensors")
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    monkeypatch.setitem(PINNED, "mnist", contents[0])
    monkeypatch.setitem(FURTHER, "mnist", (contents[1],))
    assert np.isnan(own("mnist", seed=1).accuracy)
    assert train_classifier.main(["measure", "mnist", "--data", "none"]) == 0
    found = [each for each in classifiers.real() if each["data"] == "mnist"]
    assert [(each["seed"], each["sha256"]) for each in found] == [*contents.items()]
    assert [each for each in classifiers.real() if each["data"] != "mnist"] == kept
    classifier = own("mnist", seed=1)
    logits = classifier(images.test)[0]
    assert classifier.accuracy == (logits.argmax(1) == images.test_labels).mean()
    assert all(each["frechet_floor"] > 0 for each in found)


def test_a_stopped_training_goes_on_and_ends_the_same(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    lasting(3, monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("mnist", whole) == 0
    save = checkpoint.save

    def stop_after_two(path: Path, tensors: dict[str, Tensor]) -> None:
        save(path, tensors)
        if int(tensors["epoch"]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop_after_two)
        assert run("mnist", parts) == 130
    assert not [*parts.glob("*.safetensors")]
    capsys.readouterr()
    assert run("mnist", parts) == 0
    assert capsys.readouterr().out.startswith("epoch 3/3")
    (once, about), (twice, about_twice) = trained(whole), trained(parts)
    assert once.keys() == twice.keys() and about == about_twice
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_sharpening_makes_confidence_equal_accuracy_and_changes_no_decision() -> None:
    """Known answer: labels drawn from softmax(2 logits) are best explained by a scale of 2."""
    torch.manual_seed(0)
    net = Classifier((1, 12, 12), (4, 4, 4)).eval()
    with torch.no_grad():
        net.head.weight *= 20  # an untrained head hardly prefers anything
        x = torch.rand(4000, 1, 12, 12)
        before = net(x)[0]
        labels = torch.multinomial((2 * before).softmax(1), 1)[:, 0]
    train_classifier.sharpen(net, x, labels)
    with torch.no_grad():
        after = net(x)[0]
    assert torch.allclose(after, 2 * before, rtol=0.1)


def test_another_seed_is_another_classifier(tiny: None, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert run("mnist", tmp_path, "--seed", seed) == 0
    first, second = (trained(tmp_path, seed)[0] for seed in (0, 1))
    assert not torch.equal(first["head.weight"], second["head.weight"])


def test_a_damaged_or_foreign_checkpoint_is_dropped(tiny: None, tmp_path: Path, capsys) -> None:
    weights = classifiers.WEIGHTS / "mnist-0.safetensors"
    for write in (
        lambda path: path.write_bytes(b"torn"),
        lambda path: shutil.copy(weights, path),
        lambda path: checkpoint.save(path, {"epoch": torch.tensor(1)}),
    ):
        out = tmp_path / "out"
        out.mkdir()
        write(out / ".mnist-tiny-0.safetensors.1.checkpoint")
        assert run("mnist", out) == 0
        assert capsys.readouterr().out.startswith("epoch 1/1")
        shutil.rmtree(out)


def test_bad_arguments_get_one_line(tmp_path: Path, capsys) -> None:
    for arguments in (["svhn", "--data", "x"], ["mnist"], ["mnist", "--data", "x", "--seed", "a"]):
        with pytest.raises(SystemExit, match="2"):
            train_classifier.main(["train", *arguments])
        assert len(capsys.readouterr().err.splitlines()) == 1
    for name in NAMES:
        with pytest.raises(UsageError, match=r"no .* in "):
            train_classifier.train(name, tmp_path, tmp_path / "out", TINY)


def test_another_pin_is_another_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the data set itself, by seed 0: other data sets' and further seeds' pins do not count."""
    file = "bench/scores/classifiers.py"
    (tmp_path / file).parent.mkdir(parents=True)
    text = (source.ROOT / file).read_text("utf-8")

    def digests(text: str, root: Path) -> list[str]:
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text(text)
        found = []
        for study in NAMES:
            places = STUDIES[study].score_source()
            assert places["inception_score"] == places["frechet"]
            found.append(source.digest(*places["frechet"], root=root))
        return found

    mnist, cifar10 = digests(text, tmp_path / "now")
    assert mnist != cifar10
    assert digests(text.replace(PINNED["mnist"], "0"), tmp_path / "0")[0] != mnist
    assert digests(text.replace(PINNED["mnist"], "0"), tmp_path / "1")[1] == cifar10
    more = text.replace("FURTHER: dict[str, tuple[str, ...]] = {", 'FURTHER = {"svhn": ("0",), ')
    assert more != text and digests(more, tmp_path / "2") == [mnist, cifar10]
    assert "frechet" not in STUDIES["celeba"].score_source()
