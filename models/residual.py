"""The residual decoder and critic of WGAN-GP, for colour images.

Gulrajani et al. 2017, appendix F, as their code has them for CIFAR-10: two blocks of the critic
halve the image, two more follow, none is normed; the decoder doubles it from 4 x 4. Bigger images
have another block for each octave. Here z is the study's own, and so are the first weights and
the learning rate, which is constant.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from models.mnist import ImageShape, norm2d

FULL = 128
"""Channels of every residual block."""


class Block(nn.Module):
    """x -> its shortcut plus two 3 x 3 convolutions, each after its norm and ReLU.

    `resize` 2 doubles the image before the first convolution (nearest), 0.5 halves it after the
    second (mean), 1 leaves it. Where anything changes, the shortcut is a 1 x 1 convolution.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        resize: float = 1.0,
        norm: Callable[[int], nn.Module] = lambda channels: nn.Identity(),
        first: bool = False,
    ) -> None:
        """`first`: of a critic, which sees images and has no activation before them."""
        super().__init__()
        self.resize = resize
        self.before = nn.Sequential(*([] if first else [norm(d_in), nn.ReLU()]))
        self.one = nn.Sequential(nn.Conv2d(d_in, d_out, 3, 1, 1), norm(d_out), nn.ReLU())
        self.two = nn.Conv2d(d_out, d_out, 3, 1, 1)
        same = d_in == d_out and resize == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(d_in, d_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        if self.resize > 1:
            x, h = (F.interpolate(each, scale_factor=2.0) for each in (x, h))
        h = self.two(self.one(h))
        if self.resize < 1:
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        return self.shortcut(x) + h


class ResidualDecoder(nn.Module):
    """x = g(z): dense 4 x 4 x 128, a doubling block for each further octave, 3 x 3 to c, tanh."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        units = shape.units(FULL)
        octaves = shape.size.bit_length() - 3
        self.layers = nn.Sequential(
            nn.Linear(shape.d_z, units * 16),
            nn.Unflatten(1, (units, 4, 4)),
            *(Block(units, units, 2.0, norm2d) for _ in range(octaves)),
            norm2d(units),
            nn.ReLU(),
            nn.Conv2d(units, shape.channels, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """z (n, d) -> x (n, c, h, w) in [-1, 1]."""
        return self.layers(z)


class ResidualCritic(nn.Module):
    """f(x): two halving blocks (64 pixels: three), two more, ReLU, mean, dense 1; no norm."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        units = shape.units(FULL)
        more = [Block(units, units, 0.5) for _ in range(shape.size.bit_length() - 5)]
        self.layers = nn.Sequential(
            Block(shape.channels, units, 0.5, first=True),
            *more,
            *(Block(units, units) for _ in range(2)),
            nn.ReLU(),
        )
        self.head = nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3))).squeeze(1)
