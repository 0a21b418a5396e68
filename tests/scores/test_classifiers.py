"""ImageNet's scores are torch-fidelity's and the formulas', and no strange weights are parsed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, FeatureExtractorInceptionV3
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from bench.cli import UsageError
from bench.data import download
from bench.data import load as data
from bench.data.load import DataError
from bench.scores import classifiers, metrics
from bench.scores.classifiers import Classifier, ClassifierError, imagenet
from bench.scores.metrics import IMAGES, Outputs, inception_score, kernel_distance, measure

SHAPE, D = (3, 4, 4), 16
WEIGHTS, OWN_CACHE = "SVAE_BENCH_INCEPTION_WEIGHTS", data.cache()


class StandIn(FeatureExtractorBase):
    """Logits (n, 10) and features (n, 16) linear in the pixels, in float64."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "2048", "logits_unbiased"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits_unbiased" if metric == "isc" else "2048"

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        assert input.dtype == torch.uint8
        x = torch.from_numpy(pixels(input.numpy()))
        out = {"logits_unbiased": 4 * x[:, :10], "2048": x[:, -D:]}
        return tuple(out[name] for name in self.features_list)


def pixels(images: np.ndarray) -> np.ndarray:
    """(n, 48), from -2 to 2."""
    return images.reshape(len(images), -1) / 255.0 * 4 - 2


def stand_in() -> Classifier:
    network = StandIn("stand-in", ["logits_unbiased", "2048"])
    return Classifier("any", "0" * 64, network, (3,), uint8=True, batch=64)


def images(n: int, seed: int, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (n, *SHAPE), dtype=np.uint8)


GENERATED, REAL = images(203, 0, low=60), images(150, 1)
"""More than one batch, and no whole number of them."""


pytestmark = pytest.mark.usefixtures("cache")


# What the scores are


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subsets of all images are all the same. Bińkowski et al. 2018: (x·y / d + 1)³."""
    n = len(REAL)
    x, y = pixels(GENERATED[:n])[:, -D:], pixels(REAL)[:, -D:]

    def mean(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> float:
        return float(((a @ b.T / D + 1) ** 3)[pairs].mean())

    others, every = ~np.eye(n, dtype=bool), np.ones((n, n), dtype=bool)
    expected = mean(x, x, others) + mean(y, y, others) - 2 * mean(x, y, every)
    monkeypatch.setattr(metrics, "SUBSETS", 3)
    kid, sd = kernel_distance(x, y)
    assert kid == pytest.approx(expected, abs=1e-9) and sd == pytest.approx(0, abs=1e-9)


def test_all_scores_are_those_of_calculate_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity's own command on the same extractor, whose defaults ours are."""
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "stand-in", StandIn)
    theirs: dict[str, Any] = {"kid_subset_size": len(REAL), "save_cpu_ram": True}
    theirs |= {"feature_extractor": "stand-in", "cuda": False, "cache": False, "verbose": False}
    theirs |= {"isc": True, "fid": True, "kid": True}
    assert theirs.keys() <= DEFAULTS.keys()
    inputs = {"input1": Pictures(GENERATED), "input2": Pictures(REAL)}
    expected = torch_fidelity.calculate_metrics(**inputs, **theirs)
    (logits, features), (_, real) = stand_in()(GENERATED), stand_in()(REAL)
    known = {"imagenet_logits": logits, "imagenet_features": features, "imagenet_real": real}
    found = measure(IMAGES, Outputs(**known))
    names = {
        "inception_score_imagenet": "inception_score_mean",
        "inception_sd_imagenet": "inception_score_std",
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "kid_sd": "kernel_inception_distance_std",
    }
    assert found.keys() == names.keys()
    for ours, name in names.items():
        assert found[ours] == pytest.approx(expected[name], rel=1e-6, abs=1e-12), ours


class Pictures(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_the_settings_are_torch_fidelitys() -> None:
    names = ("isc_splits", "rng_seed", "kid_subsets", "kid_subset_size")
    ours = (metrics.SPLITS, metrics.SEED, metrics.SUBSETS, metrics.SUBSET_SIZE)
    assert ours == tuple(DEFAULTS[name] for name in names)


def test_images_may_be_memory_mapped_and_scaled(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", REAL)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    kept = stand_in()(mapped)
    for images in (REAL, torch.from_numpy(REAL).float() / 255):
        for one, other in zip(kept, stand_in()(images), strict=True):
            assert (one == other).all()


def test_the_network_is_given_images_on_its_device_and_no_other() -> None:
    """Not on a GPU because there is one, as torch-fidelity by default."""
    seen = []

    def network(x: Tensor) -> tuple[Tensor, ...]:
        seen.append(x.device)
        return torch.ones(len(x), 5), torch.ones(len(x), 5)

    for device in ("meta", "cpu"):
        Classifier("any", "", network, (3,), device=device)(REAL[:5])
    assert seen == [torch.device("meta"), torch.device("cpu")]


# What is refused


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GENERATED / 25, r"image values reach from .*; allowed: 0 to 1"),
        (GENERATED[:, :1], r"images are \(203, 1, 4, 4\); the any classifier takes \(n, 3\)"),
        (GENERATED.transpose(0, 2, 3, 1), r"images are \(203, 4, 4, 3\)"),
        (GENERATED[:0], r"images are \(0, 3, 4, 4\)"),
    ],
)
def test_what_is_no_set_of_images_is_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stand_in()(bad)


@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_not_finite_is_refused(layer: int) -> None:
    def broken(x: Tensor) -> tuple[Tensor, ...]:
        out = [torch.ones(len(x), 5), torch.ones(len(x), 5)]
        out[layer][-1] = torch.nan
        return tuple(out)

    with pytest.raises(ValueError, match="not finite: no scores"):
        Classifier("any", "", broken, (3,))(REAL)


# The weights


class Evil:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("unpickled",)


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def trust(monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(download, "INCEPTION_SHA256", sha256)
    return sha256


EVIL = {"pickle": pickle.dumps(Evil(), 2), "torch's": saved({"fc.weight": Evil()})}


@pytest.mark.parametrize("kind", EVIL)
def test_no_file_is_parsed_whose_hash_is_not_known(
    kind: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("parsed"))
    cache.mkdir()
    for path, given in ((tmp_path / "w.pth", True), (cache / download.INCEPTION, False)):
        path.write_bytes(EVIL[kind])
        with pytest.raises(ClassifierError, match=r"has SHA-256 \w+…, expected 6726825d\w+…: dam"):
            imagenet(path if given else None)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("kind", EVIL)
def test_what_runs_something_is_refused_whatever_its_hash(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pth").write_bytes(EVIL[kind])
    trust(monkeypatch, EVIL[kind])
    with pytest.raises(ClassifierError, match="holds more than tensors"):
        imagenet(tmp_path / "w.pth")
    assert not Path("unpickled").exists()
    with pytest.raises(Exception, match=r".*"):  # the fixture does what it says
        torch.load(tmp_path / "w.pth", weights_only=False)["no such key"]
    assert Path("unpickled").exists()


@pytest.fixture(scope="module")
def random_weights() -> dict[str, Tensor]:
    """Of the real network, untrained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        none: Any = io.BytesIO(saved({}))
        return FeatureExtractorInceptionV3("x", ["2048"], none).state_dict()


def test_the_networks_weights_are_those_of_the_file(
    tmp_path: Path, random_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its answers are the network's own, layer by layer, on the device that was named."""
    path, content = tmp_path / "w.pth", saved(random_weights)
    path.write_bytes(content)
    sha256 = trust(monkeypatch, content)
    loaded = imagenet(path)
    assert loaded.sha256 == sha256
    network: Any = loaded.network
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, random_weights[name])
    logits, pool = loaded(images(3, 0))
    assert logits.shape == (3, 1008) and pool.shape == (3, 2048)
    expected = pool @ random_weights["fc.weight"].numpy().T
    assert np.allclose(logits, expected, atol=1e-5)


def test_the_weights_are_downloaded_once_from_where_torch_fidelity_has_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def fetch(url: str, path: Path, *, sha256: str, option: str) -> None:
        asked.append((url, sha256, option))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")

    sha256 = trust(monkeypatch, b"weights")
    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setattr(classifiers, "_inception", lambda *_: torch.nn.Identity())
    for _ in range(2):
        imagenet()
    assert asked == [(URL_INCEPTION_V3, sha256, "--inception-weights")]


def test_a_download_that_fails_names_the_option(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "INCEPTION_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="give files you have with --inception-weights"):
        imagenet()
    assert list(cache.iterdir()) == []


def test_what_is_missing_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ClassifierError, match=r"can't be read \("):
            imagenet(path)


@pytest.mark.parametrize("name", ["kid_subset_size", "rng_seed"])
def test_a_torch_fidelity_with_other_names_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take its default and say nothing."""
    monkeypatch.delitem(DEFAULTS, name)
    with pytest.raises(UsageError, match=f"has no {name}; allowed: 0.4"):
        kernel_distance(pixels(GENERATED), pixels(REAL))


@pytest.mark.skipif(WEIGHTS not in os.environ, reason=f"needs weights: {WEIGHTS}")
def test_the_published_score_of_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    """11.23678 ± 0.09514 for the training images, as torch-fidelity publishes it."""
    monkeypatch.setenv("SVAE_BENCH_DATA", str(OWN_CACHE))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        cifar10 = data.load("cifar10")
    except (DataError, AssertionError):  # the network, which tests don't have
        pytest.skip(f"needs CIFAR-10 in {OWN_CACHE}")
    assert cifar10.name == "cifar10"
    logits, _ = imagenet(Path(os.environ[WEIGHTS]), device)(cifar10.train)
    mean, sd = inception_score(logits, metrics.SPLITS, seed=metrics.SEED)
    assert mean == pytest.approx(11.23678, abs=0.005)
    assert sd == pytest.approx(0.09514, abs=0.005)
