"""ImageNet's scores are torch-fidelity's and the formulas', and no strange weights are parsed."""

from __future__ import annotations

import hashlib
import inspect
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

from bench.data import download
from bench.data import load as data
from bench.data.load import DataError
from bench.scores import inception
from bench.scores.inception import Features, Inception, InceptionError
from bench.scores.metrics import frechet_distance, inception_score

SHAPE, D = (3, 4, 4), 16
NAMES = {"splits": "isc_splits", "shuffle": "samples_shuffle", "seed": "rng_seed"}
"""What torch-fidelity calls the settings that have another name there."""
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


def stand_in() -> Inception:
    return Inception(StandIn("stand-in", inception.LAYERS), torch.device("cpu"), "0" * 64)


def images(n: int, seed: int, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (n, *SHAPE), dtype=np.uint8)


GENERATED, REAL = images(203, 0, low=60), images(150, 1)
"""More than one batch, and no whole number of them."""


pytestmark = pytest.mark.usefixtures("cache")


def scored(**settings: Any) -> dict[str, Any]:
    small: dict[str, Any] = {"kid_subsets": 5, "kid_subset_size": 40}
    return stand_in().scores(GENERATED, REAL, **(small | settings))


# What the scores are


@pytest.mark.parametrize(
    ("splits", "shuffle", "seed"), [(1, True, 0), (10, True, 3), (7, False, 0), (203, True, 1)]
)
def test_the_inception_score_is_the_suites_own(splits: int, shuffle: bool, seed: int) -> None:
    found = scored(splits=splits, shuffle=shuffle, seed=seed)
    mean, sd = inception_score(4 * pixels(GENERATED)[:, :10], splits, shuffle, seed)
    assert found["inception_score_imagenet"] == pytest.approx(mean, abs=1e-6)
    assert found["inception_sd_imagenet"] == pytest.approx(sd, abs=1e-6)


def test_fid_is_the_suites_frechet_distance() -> None:
    """Also of fewer images than features, whose covariance has no inverse."""
    for n in (len(GENERATED), D // 2):
        expected = frechet_distance(pixels(GENERATED[:n])[:, -D:], pixels(REAL)[:, -D:])
        found = stand_in().scores(GENERATED[:n], REAL, splits=1, kid_subset_size=2)
        assert expected > 1 and found["fid"] == pytest.approx(expected, abs=1e-4)
    assert stand_in().scores(REAL, REAL, kid_subset_size=2)["fid"] == pytest.approx(0, abs=1e-4)


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel() -> None:
    """Subsets of all images are all the same. Bińkowski et al. 2018: (x·y / d + 1)³."""
    n = len(REAL)
    x, y = pixels(GENERATED[:n])[:, -D:], pixels(REAL)[:, -D:]

    def mean(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> float:
        return float(((a @ b.T / D + 1) ** 3)[pairs].mean())

    others, every = ~np.eye(n, dtype=bool), np.ones((n, n), dtype=bool)
    expected = mean(x, x, others) + mean(y, y, others) - 2 * mean(x, y, every)
    found = stand_in().scores(GENERATED[:n], REAL, kid_subsets=3, kid_subset_size=n)
    assert found["kid"] == pytest.approx(expected, abs=1e-9)
    assert found["kid_sd"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"splits": 3, "shuffle": False},
        {"seed": 7, "kid_subsets": 4, "kid_subset_size": 100},
    ],
)
def test_all_scores_are_those_of_calculate_metrics(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "stand-in", StandIn)
    small: dict[str, Any] = {"kid_subsets": 5, "kid_subset_size": 40} | settings
    theirs = {NAMES.get(name, name): value for name, value in small.items()}
    theirs |= {"feature_extractor": "stand-in", "cuda": False, "cache": False, "verbose": False}
    theirs |= {"isc": True, "fid": True, "kid": True, "save_cpu_ram": True}
    assert theirs.keys() <= DEFAULTS.keys()
    inputs = {"input1": Pictures(GENERATED), "input2": Pictures(REAL)}
    expected = torch_fidelity.calculate_metrics(**inputs, **theirs)
    found = stand_in().scores(GENERATED, REAL, **small)
    assert [found[name] for name in ("inception_score_imagenet", "inception_sd_imagenet")] == [
        expected[f"inception_score_{name}"] for name in ("mean", "std")
    ]
    assert found["fid"] == expected["frechet_inception_distance"]
    assert [found["kid"], found["kid_sd"]] == [
        expected[f"kernel_inception_distance_{name}"] for name in ("mean", "std")
    ]


class Pictures(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_the_defaults_are_torch_fidelitys() -> None:
    """But for the device, the cache and what is printed."""
    parameters = inspect.signature(Inception.scores).parameters.values()
    ours = {each.name: each.default for each in parameters if each.kind == each.KEYWORD_ONLY}
    assert ours == {name: DEFAULTS[NAMES.get(name, name)] for name in ours}


def test_the_scores_tell_what_they_depend_on() -> None:
    settings = {"splits": 9, "shuffle": False, "seed": 8, "kid_subsets": 6, "kid_subset_size": 7}
    about = {"n_samples": 203, "n_real": 150, "weights_sha256": "0" * 64}
    assert scored(**settings).items() >= (settings | about).items()


def test_features_may_be_kept_and_images_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", REAL)
    mapped = np.load(tmp_path / "real.npy", mmap_mode="r")
    kept = stand_in().features(mapped)
    assert isinstance(kept, Features) and len(kept) == len(REAL)
    again = stand_in().scores(GENERATED, kept, kid_subsets=5, kid_subset_size=40)
    assert again == scored()


def test_the_network_is_given_images_on_its_device_and_no_other() -> None:
    """Not on a GPU because there is one, as torch-fidelity by default."""
    seen = []

    def network(x: Tensor) -> tuple[Tensor, ...]:
        seen.append(x.device)
        return torch.ones(len(x), 5), torch.ones(len(x), 5)

    for device in ("meta", "cpu"):
        Inception(network, torch.device(device), "").features(REAL[:5])
    assert seen == [torch.device("meta"), torch.device("cpu")]


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": 0}, "splits is 0; allowed: 1 to 203"),
        ({"splits": 204}, "splits is 204; allowed: 1 to 203"),
        ({"kid_subsets": 0}, "kid_subsets is 0; allowed: 1 or more"),
        ({"kid_subset_size": 1}, "kid_subset_size is 1; allowed: 2 to 150"),
        ({"kid_subset_size": 151}, "kid_subset_size is 151; allowed: 2 to 150"),
        ({"seed": -1}, "seed is -1; allowed: 0 to 4294967295"),
    ],
)
def test_settings_without_a_score_are_refused(settings: dict[str, Any], message: str) -> None:
    unused = Inception(lambda _: pytest.fail("the network ran"), torch.device("cpu"), "")
    with pytest.raises(ValueError, match=message):
        unused.scores(GENERATED, REAL, **{"kid_subset_size": 40, **settings})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GENERATED / 255, r"images are float64 \(203, 3, 4, 4\); allowed: uint8 \(n, 3, h, w\)"),
        (GENERATED[:, :1], r"images are uint8 \(203, 1, 4, 4\)"),
        (GENERATED.transpose(0, 2, 3, 1), r"images are uint8 \(203, 4, 4, 3\)"),
        (GENERATED[0], r"images are uint8 \(3, 4, 4\)"),
        (GENERATED[:0], r"images are uint8 \(0, 3, 4, 4\)"),
        (GENERATED[:1], "images is 1; allowed: 2 or more"),
    ],
)
def test_what_is_no_set_of_images_is_refused(bad: np.ndarray, message: str) -> None:
    for arrays in ((bad, REAL), (GENERATED, bad)):
        with pytest.raises(ValueError, match=message):
            stand_in().scores(*arrays, kid_subset_size=2, splits=1)


@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_not_finite_is_refused(layer: int) -> None:
    def broken(x: Tensor) -> tuple[Tensor, ...]:
        out = [torch.ones(len(x), 5), torch.ones(len(x), 5)]
        out[layer][-1] = torch.nan
        return tuple(out)

    with pytest.raises(ValueError, match="not finite: no scores"):
        Inception(broken, torch.device("cpu"), "").scores(GENERATED, REAL, kid_subset_size=40)
    good = stand_in().features(REAL)
    huge = Features(good.logits, good.pool * 1e120)
    message = r"(fid|kid|kid_sd) is (nan|inf); allowed: a finite number"
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        stand_in().scores(huge, good, kid_subset_size=40)


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
        with pytest.raises(InceptionError, match=r"has SHA-256 \w+…, expected 6726825d\w+…: dam"):
            inception.load(path if given else None)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("kind", EVIL)
def test_what_runs_something_is_refused_whatever_its_hash(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pth").write_bytes(EVIL[kind])
    trust(monkeypatch, EVIL[kind])
    with pytest.raises(InceptionError, match="holds more than tensors"):
        inception.load(tmp_path / "w.pth")
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
    loaded = inception.load(path)
    assert loaded.weights_sha256 == sha256 and loaded.device == torch.device("cpu")
    network: Any = loaded.network
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, random_weights[name])
    found = loaded.features(images(3, 0))
    assert found.logits.shape == (3, 1008) and found.pool.shape == (3, 2048)
    expected = found.pool @ random_weights["fc.weight"].T
    assert torch.allclose(found.logits, expected, atol=1e-5)


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
    monkeypatch.setattr(inception, "_network", lambda *_: torch.nn.Identity())
    for _ in range(2):
        inception.load()
    assert asked == [(URL_INCEPTION_V3, sha256, "--inception-weights")]


def test_a_download_that_fails_names_the_option(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "INCEPTION_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="give files you have with --inception-weights"):
        inception.load()
    assert list(cache.iterdir()) == []


def test_what_is_missing_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(InceptionError, match=r"can't be read \("):
            inception.load(path)
    monkeypatch.setattr(inception, "find_spec", lambda _: None)
    with pytest.raises(InceptionError, match=r"pip install 'svae-bench\[fidelity\]'"):
        inception.load()


@pytest.mark.parametrize("name", ["kid_subset_size", "rng_seed"])
def test_a_torch_fidelity_with_other_names_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take its default and say nothing."""
    monkeypatch.delitem(DEFAULTS, name)
    with pytest.raises(InceptionError, match=f"has no {name}; allowed: 0.4"):
        scored()


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
    network = inception.load(Path(os.environ[WEIGHTS]), device)
    found = network.scores(cifar10.train, cifar10.test)
    assert found["inception_score_imagenet"] == pytest.approx(11.23678, abs=0.005)
    assert found["inception_sd_imagenet"] == pytest.approx(0.09514, abs=0.005)
