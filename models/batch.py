"""What a method asks of its networks and of a batch: codes, images, logits and noise by name."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

Networks = Any
"""`models.mnist.ImageNetworks`: networks by role, e.g. nets["encoder"](x, eps)."""


class Batch(Protocol):
    """Real images x (n, c, h, w), in [0, 1] for MNIST, and noise: equal names, equal numbers.

    All noise is (n, *shape): `noise` what codes and networks' own noise are drawn from, N(0, I) for
    MNIST; `normal` N(0, I); `uniform` U[0, 1).
    """

    x: Tensor

    def noise(self, name: str, *shape: int) -> Tensor: ...
    def normal(self, name: str, *shape: int) -> Tensor: ...
    def uniform(self, name: str, *shape: int) -> Tensor: ...


def encode(nets: Networks, batch: Batch, x: Tensor, name: str = "eps") -> Tensor:
    """z ~ q(z|x), (n, d)."""
    encoder = nets["encoder"]
    draw = batch.normal if hasattr(encoder, "moments") else batch.noise
    return encoder(x, draw(name, *encoder.eps_shape))


def prior(nets: Networks, batch: Batch) -> Tensor:
    """z ~ p(z), (n, d)."""
    return batch.noise("z", nets.shape.d_z)


def decode(nets: Networks, batch: Batch, z: Tensor, name: str = "noise") -> Tensor:
    """x ~ p(x|z), or its mean, (n, c, h, w)."""
    return nets["decoder"](z, *_own_noise(nets["decoder"], batch, name))


def generate(nets: Networks, batch: Batch) -> Tensor:
    """x of a code of the prior, (n, c, h, w)."""
    return decode(nets, batch, prior(nets, batch))


def judge(
    nets: Networks, batch: Batch, x: Tensor, z: Tensor, name: str, critic: str = "critic"
) -> Tensor:
    """f(x, z), (n,)."""
    return nets[critic](x, z, *_own_noise(nets[critic], batch, f"{critic}'s {name}"))


def _own_noise(network: Any, batch: Batch, name: str) -> list[Tensor]:
    """The noise that a network takes beside its inputs; only those of `models.colour` do."""
    shapes: Any = getattr(network, "noise", ())
    return [batch.noise(f"{name} {i}", *shape) for i, shape in enumerate(shapes)]
