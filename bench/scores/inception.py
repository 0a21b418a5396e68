"""ImageNet's inception score, FID and KID of images: torch-fidelity's network and arithmetic.

An optional extra, `pip install 'svae-bench[fidelity]'`. The network is the Inception of December
2015 that published scores refer to. Its weights are one file of known SHA-256, from
torch-fidelity's release or given, and hashed before anything in it is parsed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cli import UsageError
from bench.data import download
from bench.data.load import cache

BATCH = 64
LAYERS = ["logits_unbiased", "2048"]
"""torch-fidelity's names of the layers that the inception score, and FID and KID are made of."""


class InceptionError(UsageError):
    """The network can't be had; the message says why and what to do."""


@dataclass(frozen=True)
class Features:
    """What the network makes of n images: `logits`, without bias, (n, 1008), `pool` (n, 2048)."""

    logits: Tensor
    pool: Tensor

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True)
class Inception:
    """The network on its device, and the SHA-256 of its weights file."""

    network: Callable[[Tensor], tuple[Tensor, ...]]
    """Images uint8 (n, 3, h, w) to logits (n, 1008) and features (n, 2048)."""
    device: torch.device
    weights_sha256: str

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> Features:
        """What the network makes of images, uint8 (n, 3, h, w); worth keeping for real ones.

        Raises ValueError for other images, and if the answer is not finite.
        """
        _check(images)
        # copies, as torch warns of memory-mapped images, which can't be written to
        batches = (images[i : i + BATCH].copy() for i in range(0, len(images), BATCH))
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact:
            parts = [self.network(torch.from_numpy(x).to(self.device)) for x in batches]
        logits, pool = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
        if not (logits.isfinite().all() and pool.isfinite().all()):
            raise ValueError("the Inception network's answer is not finite: no scores")
        return Features(logits, pool)

    def scores(
        self,
        generated: np.ndarray | Features,
        real: np.ndarray | Features,
        *,
        splits: int = 10,
        seed: int = 2020,
        shuffle: bool = True,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
    ) -> dict[str, float | int | str]:
        """What torch-fidelity's `calculate_metrics` gives, whose defaults these are.

        Images are uint8 (n, 3, h, w); those that are scored often may be given as `features`.
        `inception_score_imagenet` and `inception_sd_imagenet` are of the generated images over
        splits, `fid`, `kid` and `kid_sd`, over subsets, against the real ones; then come
        `n_samples`, `n_real`, the settings and `weights_sha256`. Raises ValueError, before the
        network is run, for images and settings that allow no score; and for one not finite.
        """
        for name, images in (("generated", generated), ("real", real)):
            if not isinstance(images, Features):
                _check(images)
            _between(f"the number of {name} images", len(images), 2)
        _between("splits", splits, 1, len(generated))
        _between("seed", seed, 0, 2**32 - 1)
        _between("kid_subsets", kid_subsets, 1)
        _between("kid_subset_size", kid_subset_size, 2, min(len(generated), len(real)))
        a, b = (x if isinstance(x, Features) else self.features(x) for x in (generated, real))
        subsets = {"kid_subsets": kid_subsets, "kid_subset_size": kid_subset_size}
        found = _inception_score(a.logits, splits, shuffle, seed)
        found |= _distances(a.pool, b.pool, rng_seed=seed, **subsets)
        for name, value in found.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; allowed: a finite number")
        found |= {"n_samples": len(a), "n_real": len(b), "splits": splits, "shuffle": shuffle}
        return {**found, "seed": seed, **subsets, "weights_sha256": self.weights_sha256}


def load(path: Path | None = None, device: str | torch.device = "cpu") -> Inception:
    """The network with the weights in `path`, or in the cache and downloaded to it if need be.

    Raises InceptionError if torch-fidelity is not there or too old, and for a file that can't be
    read or is another one; DataError if the download fails.
    """
    if find_spec("torch_fidelity") is None:
        raise InceptionError(
            "FID, KID and ImageNet's inception score need torch-fidelity: "
            "pip install 'svae-bench[fidelity]'"
        )
    if path is None:
        path = cache() / download.INCEPTION
        if not path.exists():
            download.inception(cache())
    network = _network(_content(path), path).to(device)
    return Inception(network, torch.device(device), download.INCEPTION_SHA256)


def _content(path: Path) -> bytes:
    """What is in the file, if that is what it should be."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InceptionError(f"{path} can't be read ({error.strerror})") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != download.INCEPTION_SHA256:
        raise InceptionError(
            f"{path} has SHA-256 {sha256[:12]}…, expected {download.INCEPTION_SHA256[:12]}…: "
            f"damaged or another file; allowed: {download.INCEPTION_URL}/{download.INCEPTION}"
        )
    return content


def _network(content: bytes, path: Path) -> torch.nn.Module:
    from torch_fidelity import FeatureExtractorInceptionV3  # optional, and costs seconds

    # torch-fidelity lets its file run anything. It gets one written here, of tensors alone, and
    # not the path, where another file may lie by then.
    tensors = BytesIO()
    try:
        torch.save(torch.load(BytesIO(content), "cpu", weights_only=True), tensors)
    except UnpicklingError:
        raise InceptionError(f"{path} holds more than tensors: not read") from None
    tensors.seek(0)
    weights = _known(feature_extractor_weights_path=tensors)
    return FeatureExtractorInceptionV3("inception-v3-compat", LAYERS, **weights)


def _known(**settings: Any) -> dict[str, Any]:
    """The settings, if torch-fidelity has them all: what it doesn't know it ignores."""
    from torch_fidelity.defaults import DEFAULTS

    unknown = sorted(settings.keys() - DEFAULTS.keys())
    if unknown:
        raise InceptionError(f"this torch-fidelity has no {', '.join(unknown)}; allowed: 0.4")
    return settings


def _inception_score(logits: Tensor, splits: int, shuffle: bool, seed: int) -> dict[str, float]:
    from torch_fidelity import metric_isc as isc

    found = isc.isc_features_to_metric(logits, splits=splits, shuffle=shuffle, rng_seed=seed)
    mean, sd = found[isc.KEY_METRIC_ISC_MEAN], found[isc.KEY_METRIC_ISC_STD]
    return {"inception_score_imagenet": mean, "inception_sd_imagenet": sd}


def _distances(a: Tensor, b: Tensor, **settings: int) -> dict[str, float]:
    from torch_fidelity import metric_fid as fid
    from torch_fidelity import metric_kid as kid

    moments = [fid.fid_features_to_statistics(each) for each in (a, b)]
    distance = fid.fid_statistics_to_metric(*moments, verbose=False)[fid.KEY_METRIC_FID]
    found = kid.kid_features_to_metric(a, b, **_known(**settings, verbose=False))
    mean, sd = found[kid.KEY_METRIC_KID_MEAN], found[kid.KEY_METRIC_KID_STD]
    return {"fid": distance, "kid": mean, "kid_sd": sd}


def _check(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not images.size:
        raise ValueError(f"images are {images.dtype} {images.shape}; allowed: uint8 (n, 3, h, w)")


def _between(name: str, value: int, low: int, high: float = math.inf) -> None:
    if not low <= value <= high:
        allowed = f"{low} or more" if high == math.inf else f"{low} to {high}"
        raise ValueError(f"{name} is {value}; allowed: {allowed}")
