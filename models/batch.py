"""Defines what a method asks of its networks and its batch: codes, images, logits, noise."""

from typing import Any, Protocol

from torch import Tensor

Networks = Any
"""`models.mnist.ImageNetworks` has networks by role, for example nets["encoder"](x, eps)."""


class Batch(Protocol):
    """Holds real images x (n, c, h, w) and draws noise (n, *shape), the same for the same name.

    Codes and networks' own noise are drawn from `noise`, which is N(0, I) for MNIST and uniform on
    [-1, 1] for colour images. `normal` is N(0, I), `uniform` U[0, 1).
    """

    x: Tensor

    def noise(self, name: str, *shape: int) -> Tensor: ...
    def normal(self, name: str, *shape: int) -> Tensor: ...
    def uniform(self, name: str, *shape: int) -> Tensor: ...


def encode(nets: Networks, batch: Batch, x: Tensor, name: str = "eps") -> Tensor:
    """Returns z ~ q(z|x), (n, d)."""
    encoder = nets["encoder"]
    draw = batch.normal if hasattr(encoder, "moments") else batch.noise
    return encoder(x, draw(name, *encoder.eps_shape))


def prior(nets: Networks, batch: Batch) -> Tensor:
    """Returns z ~ p(z), (n, d)."""
    return batch.noise("z", nets.shape.d_z)


def decode(nets: Networks, batch: Batch, z: Tensor, name: str = "noise") -> Tensor:
    """Returns x ~ p(x|z), or its mean, (n, c, h, w)."""
    return nets["decoder"](z, *_own_noise(nets["decoder"], batch, name))


def generate(nets: Networks, batch: Batch) -> Tensor:
    """Returns x of a code of the prior, (n, c, h, w)."""
    return decode(nets, batch, prior(nets, batch))


def judge(
    nets: Networks, batch: Batch, x: Tensor, z: Tensor, name: str, critic: str = "critic"
) -> Tensor:
    """Returns f(x, z), (n,)."""
    return nets[critic](x, z, *_own_noise(nets[critic], batch, f"{critic}'s {name}"))


def _own_noise(network: Any, batch: Batch, name: str) -> list[Tensor]:
    """Returns the noise that a network of `models.colour` takes beside its inputs."""
    shapes: Any = getattr(network, "noise", ())
    return [batch.noise(f"{name} {i}", *shape) for i, shape in enumerate(shapes)]
