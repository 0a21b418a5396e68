"""The suite's own classifiers: committed weights are what they claim, training makes such files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.cli import UsageError
from bench.scores import classifiers, train_classifier
from bench.scores.classifiers import PINNED, ClassifierError, own
from bench.scores.train_classifier import RECIPES, Recipe
from bench.store import checkpoint
from models.classifiers import Classifier, network

NAMES = ("mnist", "cifar10")
FLOORS = {"mnist": 0.993, "cifar10": 0.90}


def images(name: str, n: int = 7) -> Tensor:
    """Smooth blobs in [0, 1]."""
    shape = network(name).shape
    rng = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, shape[0], 5, 5, generator=rng)
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_weights_are_the_pinned_ones_and_small(name: str) -> None:
    content = (classifiers.WEIGHTS / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == PINNED[name]
    assert len(content) <= 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_classifiers_are_accurate_and_measured(name: str) -> None:
    classifier = own(name)
    real = json.loads((classifiers.WEIGHTS / "real.json").read_text("utf-8"))[name]
    assert classifier.accuracy >= FLOORS[name]
    assert real["sha256"] == classifier.sha256 == PINNED[name]
    assert real["accuracy"] == pytest.approx(classifier.accuracy, abs=2e-4)
    assert 9 < float(real["inception_score"]) < 10
    assert 0 < float(real["frechet_distance"]) < 1


@pytest.mark.parametrize("at", ["first byte", "header", "last byte"])
def test_one_changed_byte_is_refused_before_anything_is_parsed(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((classifiers.WEIGHTS / "mnist.safetensors").read_bytes())
    content[{"first byte": 0, "header": 40, "last byte": -1}[at]] ^= 1
    (tmp_path / "mnist.safetensors").write_bytes(content)
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    monkeypatch.setattr(classifiers, "parsed", lambda _: pytest.fail("parsed"))
    with pytest.raises(ClassifierError, match=r"mnist\.safetensors has SHA-256 \w+…, expect"):
        own("mnist")


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
    assert torch.equal(train_classifier.varied(x, Recipe(1, 0, 0, 0, False), rng), x)
    flipped = train_classifier.varied(x, Recipe(1, 0, 0, 0, True), rng)
    kinds = [
        (torch.equal(new, old), torch.allclose(new, old.flip(-1), atol=1e-5))
        for new, old in zip(flipped, x, strict=True)
    ]
    assert {(True, False), (False, True)} == set(kinds)
    moved = train_classifier.varied(x, Recipe(1, 2, 0, 0, False), rng)
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
    turned = train_classifier.varied(torch.ones(5, 1, 28, 28), RECIPES["mnist"], rng)
    assert torch.allclose(turned, torch.ones(()), atol=1e-5)


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def stand_in(name: str, n: int) -> Arrays:
    """Ten easy classes: a bright bar at the height of the label, on noise."""
    rng = np.random.default_rng(0)
    sets: list[np.ndarray] = []
    for size in (n, 50):
        labels = np.arange(size, dtype=np.uint8) % 10
        x = rng.integers(0, 90, (size, *network(name).shape), dtype=np.uint8)
        for image, label in zip(x, labels, strict=True):
            image[:, 3 + 2 * label : 5 + 2 * label] = 255
        sets += [x, labels]
    return sets[0], sets[1], sets[2], sets[3]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data, batches and steps, and nothing that moves the bars."""
    monkeypatch.setattr(train_classifier, "_read", lambda name, _: stand_in(name, 100))
    monkeypatch.setattr(train_classifier, "BATCH", 20)
    monkeypatch.setattr(train_classifier, "PEAK", 0.05)
    for name, recipe in RECIPES.items():
        still = dataclasses.replace(recipe, shift=0, flip=False)
        monkeypatch.setitem(RECIPES, name, still)


def run(name: str, out: Path, *more: str) -> int:
    return train_classifier.main(["train", name, "--data", "none", "--out", str(out), *more])


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_a_file_that_loads(
    name: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "new" / f"{name}.safetensors"
    assert run(name, out, "--epochs", "1", "--seed", "3") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch 1/1: loss ") and printed[1].startswith("test accuracy ")
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # no checkpoint, no draft
    assert out.stat().st_size <= 2_000_000
    content = out.read_bytes()
    monkeypatch.setattr(classifiers, "WEIGHTS", out.parent)
    monkeypatch.setitem(PINNED, name, hashlib.sha256(content).hexdigest())
    classifier = own(name)
    x, labels = stand_in(name, 100)[2:]
    logits = classifier(x / 255)[0]
    assert classifier.accuracy == (logits.argmax(1) == labels).mean()
    about = classifiers.parsed(content)[1]
    assert about["data"] == name and about["epochs"] == "1" and about["seed"] == "3"


def test_training_learns(tiny: None, tmp_path: Path) -> None:
    accuracy = train_classifier.train("mnist", Path(), tmp_path / "m.safetensors", epochs=12)
    assert accuracy > 0.9


def test_a_stopped_training_goes_on_and_ends_the_same(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert run("mnist", whole, "--epochs", "3") == 0
    save = checkpoint.save

    def stop_after_two(path: Path, tensors: dict[str, Tensor]) -> None:
        save(path, tensors)
        if int(tensors["epoch"]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop_after_two)
        assert run("mnist", parts, "--epochs", "3") == 130
    assert not parts.exists()
    capsys.readouterr()
    assert run("mnist", parts, "--epochs", "3") == 0
    assert capsys.readouterr().out.startswith("epoch 3/3")
    once, twice = (classifiers.parsed(path.read_bytes())[0] for path in (whole, parts))
    assert once.keys() == twice.keys()
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
        assert run("mnist", tmp_path / seed, "--epochs", "1", "--seed", seed) == 0
    first, second = (classifiers.parsed((tmp_path / seed).read_bytes())[0] for seed in "01")
    assert not torch.equal(first["head.weight"], second["head.weight"])


def test_a_damaged_or_foreign_checkpoint_is_dropped(tiny: None, tmp_path: Path, capsys) -> None:
    weights = classifiers.WEIGHTS / "mnist.safetensors"
    for write in (
        lambda path: path.write_bytes(b"torn"),
        lambda path: shutil.copy(weights, path),
        lambda path: checkpoint.save(path, {"epoch": torch.tensor(1)}),
    ):
        write(tmp_path / ".m.mnist-1-0.checkpoint")
        assert run("mnist", tmp_path / "m", "--epochs", "1") == 0
        assert capsys.readouterr().out.startswith("epoch 1/1")


def test_bad_arguments_get_one_line(tmp_path: Path, capsys) -> None:
    for arguments in (
        ["svhn", "--data", "x"],
        ["mnist"],
        ["mnist", "--data", "x", "--epochs", "0"],
    ):
        with pytest.raises(SystemExit, match="2"):
            train_classifier.main(["train", *arguments])
        assert len(capsys.readouterr().err.splitlines()) == 1
    for name in NAMES:
        with pytest.raises(UsageError, match=r"no .* in "):
            train_classifier.train(name, tmp_path, tmp_path / "out")
