"""A trained model of images, whose batch norm is frozen."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.cli import UsageError
from bench.data.load import load
from bench.studies.images.domain import data_of
from bench.studies.images.spec import ImageSpec, dataset
from bench.studies.images.train import Draws, Model
from bench.studies.trained import TrainedModel
from models import batch

OUTSIDE = 1e-5
"""Pixels may lie so far outside [0, 1], by rounding."""


class ImageModel(TrainedModel):
    """Encodes and decodes images (n, c, h, w) in [0, 1]; z is N(0, I), of colour images uniform."""

    def _networks(self, weights: Mapping[str, Tensor]) -> nn.ModuleDict:
        """Returns the networks of the spec, whose weights have the statistics of batch norm."""
        assert isinstance(self.spec, ImageSpec)
        model = Model(self.spec, self.device)
        self._data, self._method, self._domain = self.spec.data, model.method, model.domain
        self.shape = (self._domain.channels, self._domain.size, self._domain.size)
        self.d_z = self._domain.d_z
        return model.nets

    def test_data(self, data: Path | str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the test images, uint8 (m, c, h, w), and their classes."""
        place = self.data if data is None else Path(data)
        try:
            images = load(dataset(self._data), place)
        except UsageError as error:
            raise UsageError(f"{error}; here: test_data(PLACE)") from None
        if data_of(self._data, images) != self._data:
            asked = f"those of the training, {self._data}"
            raise UsageError(f"{images.origin} has other images; allowed: {asked}")
        return images.test, images.test_labels

    def _draws(self, x: Tensor, seed: str) -> Draws:
        return Draws(x, "seed", seed, self._domain.uniform, "cpu")

    def _codes(self, n: int, seed: str) -> Tensor:
        rows = next(self.networks.parameters()).new_empty(n)
        return batch.prior(self.networks, self._draws(rows, seed))

    def _encode(self, x: Tensor, seed: str) -> Tensor:
        return batch.encode(self.networks, self._draws(x, seed), x)

    def _decode(self, z: Tensor, seed: str) -> Tensor:
        return self._domain.unit(batch.decode(self.networks, self._draws(z, seed), z))

    def _critic(self, x: Tensor | None, z: Tensor | None, seed: str) -> Tensor:
        critic = self.networks["critic"]
        inputs = inspect.signature(critic.forward).parameters.values()
        if sum(each.kind is not each.VAR_POSITIONAL for each in inputs) > 1:
            takes = ["x", "z"]
        else:
            takes = ["z"] if self._method.parts["critic"].startswith("f(z") else ["x"]
        given = {name: each for name, each in (("x", x), ("z", z)) if each is not None}
        if [*given] != takes:
            raise UsageError(
                f"the critic of {self.spec.method} takes {' and '.join(takes)}; allowed: no more "
                "and no less"
            )
        if x is not None and z is not None:
            return batch.judge(self.networks, self._draws(x, seed), x, z, "pair")
        return critic(*given.values())

    def _tensor(self, x: Any) -> Tensor:
        """Returns images as the networks take them, from uint8 or [0, 1], (n, h, w) if grey."""
        array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        if array.dtype == np.uint8:
            array = array / np.float32(255)
        if array.ndim == 3 and self.shape[0] == 1:
            array = array[:, None]
        found = self._of_shape("x", array, self.shape)
        if not (found.min() >= -OUTSIDE and found.max() <= 1 + OUTSIDE):
            raise UsageError("x has pixels outside [0, 1]; allowed: uint8, or floats in [0, 1]")
        return found * (1 - self._domain.low) + self._domain.low
