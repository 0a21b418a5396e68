"""A trained model of the toy study, as `torch.nn` networks."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.cli import UsageError
from bench.studies.toy_grid.data import posterior_logits, toy_data
from bench.studies.trained import TrainedModel


class ToyModel(TrainedModel):
    """Encodes z = h(x, eps), decodes x = g(z, eps), judges f(x, z); z and eps are N(0, I), (n, 2).

    Each network is a `torch.nn.Sequential` of Linear and ReLU, and takes both numbers of the one
    and then both of the other.
    """

    shape, d_z = (2,), 2

    def _networks(self, weights: Mapping[str, Tensor]) -> nn.ModuleDict:
        """Returns networks of as many layers as `ToyNetworks.weights` names."""
        networks = nn.ModuleDict()
        for role in ("encoder", "decoder", "critic"):
            layers: list[nn.Module] = []
            names = [name for name in weights if re.fullmatch(rf"{role}\.\d+\.weight", name)]
            for name in sorted(names, key=lambda name: int(name.split(".")[1])):
                layers += [nn.Linear(weights[name].shape[1], weights[name].shape[0]), nn.ReLU()]
            networks[role] = nn.Sequential(*layers[:-1])  # the output is linear
        return networks

    def test_data(self, data: Path | str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the 1,024 held-out points (m, 2), and the nearest of the five centres to each."""
        if data is not None:
            raise UsageError("the toy study draws its own data; allowed: no place of data")
        x = toy_data(self.spec.stream).x_test
        return x, posterior_logits(x).argmax(1)

    def _normal(self, n: int, *names: str) -> Tensor:
        """Returns N(0, I), (n, 2), which belongs to these names."""
        rng = np.random.default_rng([*"\0".join(names).encode()])
        return torch.from_numpy(rng.standard_normal((n, 2), dtype=np.float32)).to(self.device)

    def _codes(self, n: int, seed: str) -> Tensor:
        return self._normal(n, "z", seed)

    def _encode(self, x: Tensor, seed: str) -> Tensor:
        return self.networks["encoder"](torch.cat([x, self._normal(len(x), "encoder", seed)], 1))

    def _decode(self, z: Tensor, seed: str) -> Tensor:
        return self.networks["decoder"](torch.cat([z, self._normal(len(z), "decoder", seed)], 1))

    def _critic(self, x: Tensor | None, z: Tensor | None, seed: str) -> Tensor:
        if x is None or z is None:
            raise UsageError("the critic takes x and z; allowed: both")
        return self.networks["critic"](torch.cat([x, z], 1)).squeeze(1)
