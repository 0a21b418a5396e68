"""A trained model that one can use: samples, codes, reconstructions, logits, networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.cli import UsageError
from bench.spec import Spec
from bench.store import checkpoint
from bench.store.weights import Unusable

CHANGED = "changed after training"
Through = Callable[[Tensor, str], Tensor]
"""Passes rows of x or z through a network, with the noise of a name."""
CHUNK = 500
"""Rows in one pass through the networks."""


class TrainedModel:
    """Holds the networks of one training, and its row. A kind of study is a subclass.

    Methods take arrays, tensors or lists, and return arrays of float32. Points x are (n, 2), images
    x (n, c, h, w) in [0, 1] or uint8, codes z (n, d). All noise belongs to `seed`: the same seed
    gives the same numbers, and `sample` of several models starts from the same codes. Noise goes by
    the place in the array. Batch norm is frozen, also while `networks` are trained on. Methods
    raise UsageError for what this model does not have, and for arrays of another shape.
    """

    shape: tuple[int, ...]
    """The shape of one x."""
    d_z: int
    """The numbers in one z."""

    def __init__(
        self,
        spec: Spec,
        weights: Mapping[str, Tensor],
        about: Mapping[str, str],
        row: Mapping[str, Any] | None,
        device: str,
    ) -> None:
        """Takes weights, what their file says of them, and the stored row if there is one.

        Raises Unusable for weights of other networks.
        """
        self.spec, self.about, self.device = spec, dict(about), torch.device(device)
        self.row = dict(row) if row is not None else None
        self.data: Path | None = None  # the place of images that `train` was given
        self.networks = self._networks(weights)
        try:
            self.networks.load_state_dict(dict(weights))
        except RuntimeError:  # torch's message has a line for each tensor
            raise Unusable("weights of other networks") from None
        self.networks.to(self.device).eval()
        self._trained = self._digest()

    def __repr__(self) -> str:
        spec = self.spec
        what = f"{spec.method}, λ = {spec.lam:g}, seed {spec.seed}, {spec.study} at {spec.scale}"
        if self.changed:
            what += f", {CHANGED}"
        return f"<{type(self).__name__} {spec.id}: {what}>"

    @property
    def changed(self) -> bool:
        """Says whether weights were changed after the training, so that `row` is not about them."""
        return CHANGED in self.about or self._digest() != self._trained

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for tensor in self.networks.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Computes without gradients and by frozen batch norm, also while a caller trains."""
        learning = [module for module in self.networks.modules() if module.training]
        self.networks.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in learning:
                module.training = True

    # What a kind of study fills in. Tensors are on the model's device.

    def _networks(self, weights: Mapping[str, Tensor]) -> nn.ModuleDict:
        """Returns networks by role, into which these weights fit."""
        raise NotImplementedError

    def _codes(self, n: int, seed: str) -> Tensor:
        """Returns z ~ p(z), (n, d)."""
        raise NotImplementedError

    def _encode(self, x: Tensor, seed: str) -> Tensor:
        raise NotImplementedError

    def _decode(self, z: Tensor, seed: str) -> Tensor:
        raise NotImplementedError

    def _critic(self, x: Tensor | None, z: Tensor | None, seed: str) -> Tensor:
        raise NotImplementedError

    def test_data(self, data: Path | str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns held-out x of this training, (m, ...), and labels (m,), None if there are none.

        `data` is the place of images; without it that which `train` was given. Raises UsageError
        for images that are not there or are not those of the training.
        """
        raise NotImplementedError

    def _tensor(self, x: Any) -> Tensor:
        """Returns x as the networks take it."""
        return self._of_shape("x", x, self.shape)

    # What a user calls.

    def prior(self, n: int, seed: int = 0) -> np.ndarray:
        """Returns n codes z ~ p(z), (n, d)."""
        if not isinstance(n, int | np.integer) or n < 1:
            raise UsageError(f"n is {n!r}; allowed: a whole number >= 1")
        with self._frozen():
            return _array(self._codes(int(n), _seed(seed)))

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Returns n samples x ~ p(x), which are `decode(prior(n, seed), seed)`."""
        return self.decode(self.prior(n, seed), seed)

    def encode(self, x: Any, seed: int = 0) -> np.ndarray:
        """Returns codes z ~ q(z|x), (n, d)."""
        self._need("encoder")
        return self._by_chunk(self._encode, self._tensor(x), seed)

    def decode(self, z: Any, seed: int = 0) -> np.ndarray:
        """Returns x ~ p(x|z), or its mean where the method's decoder gives the mean."""
        self._need("decoder")
        return self._by_chunk(self._decode, self._of_shape("z", z, (self.d_z,)), seed)

    def reconstruct(self, x: Any, seed: int = 0) -> np.ndarray:
        """Returns x ~ p(x|z) of z ~ q(z|x), which are `decode(encode(x, seed), seed)`."""
        return self.decode(self.encode(x, seed), seed)

    def critic(self, x: Any = None, z: Any = None, seed: int = 0) -> np.ndarray:
        """Returns logits f(x, z), (n,), which estimate log p(x, z) - log q(x, z), see (11).

        A method whose critic takes x alone, or z alone, is given that alone.
        """
        self._need("critic")
        if x is None and z is None:
            raise UsageError("critic() has neither x nor z; allowed: what the critic takes")
        of_x = None if x is None else self._tensor(x)
        of_z = None if z is None else self._of_shape("z", z, (self.d_z,))
        if of_x is not None and of_z is not None and len(of_x) != len(of_z):
            raise UsageError(f"{len(of_x)} x and {len(of_z)} z; allowed: as many of both")
        with self._frozen():
            return _array(self._critic(of_x, of_z, _seed(seed)))

    def save(self, path: Path | str) -> None:
        """Writes weights and spec to a file of safetensors, which `load` reads.

        A file that is there is replaced. The file says if weights were `changed`.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise UsageError(f"{path}; allowed: a file that ends with .safetensors")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path}; allowed: a file in a folder that is there")
        about = self.about | ({CHANGED: "true"} if self.changed else {})
        checkpoint.save(path, self.networks.state_dict(), about)

    def _need(self, role: str) -> None:
        if role not in self.networks:
            there = ", ".join(self.networks)
            raise UsageError(f"{self.spec.method} has no {role}; its networks are: {there}")

    def _of_shape(self, name: str, given: Any, shape: tuple[int, ...]) -> Tensor:
        try:
            if isinstance(given, Tensor):
                given = given.detach().cpu().numpy()
            array = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
            wanted = ", ".join(["n", *map(str, shape)])
            raise UsageError(f"{name} is {np.shape(given)}; allowed: numbers ({wanted})")
        if not np.isfinite(array).all():
            raise UsageError(f"{name} is not finite; allowed: finite numbers")
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _by_chunk(self, through: Through, x: Tensor, seed: int) -> np.ndarray:
        name = _seed(seed)
        with self._frozen():
            parts = [through(part, f"{name} {i}") for i, part in enumerate(x.split(CHUNK))]
        return _array(torch.cat(parts))


def _seed(seed: int) -> str:
    """Returns the name of a seed's noise."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"seed is {seed!r}; allowed: a whole number >= 0")
    return str(int(seed))


def _array(x: Tensor) -> np.ndarray:
    return x.float().cpu().numpy()
