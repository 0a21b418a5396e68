"""Who plays on CIFAR-10 and CelebA: the networks of the authors' published code.

As there, every network has noise of its own beside its inputs: a channel of the image for encoder
and critic, 20 numbers for the decoder and the critic's branch of z; noise and prior are uniform on
[-1, 1], and so are images and codes, through tanh. `width` scales all channels and units. Three
things are not as there: convolutions pad alike on all sides (TensorFlow's SAME does not), no layer
is batch-normed twice, and the critic's noise is its own, not that of encoder and decoder.

Images are (n, c, h, w) of 32 or 64 pixels, codes (n, d), critics' logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.images import Deconv, ImageShape, Part, layer_norm, norm1d, norm2d

NOISE = 20
"""Numbers of noise beside a code."""
LEAK = 0.2


def _conv(d_in: int, d_out: int, norm: Callable[[int], nn.Module], act: nn.Module) -> nn.Module:
    """5 x 5, stride 2: halves the image."""
    return nn.Sequential(nn.Conv2d(d_in, d_out, 5, 2, 2), norm(d_out), act)


def _large(shape: ImageShape) -> bool:
    """Whether the images are CelebA's, 64 pixels wide, not CIFAR-10's."""
    return shape.size >= 64


class Encoder(nn.Module):
    """z = h(x, eps): convolutions 32, 64, 128, 256 (CelebA: and 512, dense 512), dense d, tanh."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.eps_shape = (1, shape.size, shape.size)
        full = (32, 64, 128, 256, 512) if _large(shape) else (32, 64, 128, 256)
        channels = [shape.channels + 1, *map(shape.units, full)]
        layers = [_conv(a, b, norm2d, nn.ReLU()) for a, b in pairwise(channels)]
        d = channels[-1] * (shape.size >> len(full)) ** 2
        layers.append(nn.Flatten())
        if _large(shape):
            hidden = shape.units(512)
            layers += [nn.Linear(d, hidden), norm1d(hidden), nn.LeakyReLU(LEAK)]
            d = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(d, shape.d_z), nn.Tanh())

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """x (n, c, h, w), eps (n, 1, h, w) -> z (n, d) in [-1, 1]."""
        return self.layers(torch.cat([x, eps], 1))


class Decoder(nn.Module):
    """x = g(z, noise): dense 8192, deconvolutions 256, 128 (CelebA: and 64), c, tanh.

    CelebA's begins with dense 1024, in the code's order: ReLU, batch norm, leaky ReLU.
    """

    noise = ((NOISE,),)

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        a, b, c, d = (shape.units(full) for full in (512, 256, 128, 64))
        d_in, leaky = shape.d_z + NOISE, nn.LeakyReLU(LEAK)
        first: list[nn.Module] = []
        if _large(shape):
            hidden = shape.units(1024)
            first, d_in = [nn.Linear(d_in, hidden), nn.ReLU(), norm1d(hidden), leaky], hidden
        self.layers = nn.Sequential(
            *first,
            nn.Linear(d_in, a * 16),
            norm1d(a * 16),
            leaky if _large(shape) else nn.ReLU(),
            nn.Unflatten(1, (a, 4, 4)),
            *(Deconv(a, b), norm2d(b), leaky),
            *(Deconv(b, c), norm2d(c), leaky if _large(shape) else nn.ReLU()),
            *((Deconv(c, d), norm2d(d), leaky) if _large(shape) else ()),
            Deconv(d if _large(shape) else c, shape.channels),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        """z (n, d), noise (n, 20) -> x (n, c, h, w) in [-1, 1]."""
        return self.layers(torch.cat([z, noise], 1))


def _features(
    shape: ImageShape, extra: int, norm: Callable[[int], nn.Module]
) -> tuple[nn.Sequential, int]:
    """Convolutions 64, 128, 256, 512; CelebA's features are averaged over the image."""
    channels = [shape.channels + extra, *(shape.units(full) for full in (64, 128, 256, 512))]
    layers = [_conv(a, b, norm, nn.LeakyReLU(LEAK)) for a, b in pairwise(channels)]
    pool = [nn.AdaptiveAvgPool2d(1)] if _large(shape) else []
    d = channels[-1] * (1 if pool else (shape.size >> 4) ** 2)
    return nn.Sequential(*layers, *pool, nn.Flatten()), d


class Critic(nn.Module):
    """f(x): the convolutions, dense 1. For generators without an encoder; no noise."""

    def __init__(self, shape: ImageShape, norm: Callable[[int], nn.Module] = norm2d) -> None:
        super().__init__()
        self.features, d = _features(shape, 0, norm)
        self.head = nn.Linear(d, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


class JointCritic(nn.Module):
    """f(x, z): the convolutions of x and dense 2048 of z, side by side, to the logit at once.

    Being a function of x plus one of z, it can't see how they belong together: as in the
    supplement's table, unlike the suite's critic for MNIST, which has a layer of both.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.noise = ((1, shape.size, shape.size), (NOISE,))
        self.features, d = _features(shape, 1, norm2d)
        hidden = shape.units(2048)
        self.code = nn.Sequential(nn.Linear(shape.d_z + NOISE, hidden), nn.LeakyReLU(LEAK))
        self.head = nn.Linear(d + hidden, 1)

    def forward(self, x: Tensor, z: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        """x (n, c, h, w), z (n, d) and noise (n, 1, h, w), (n, 20) -> (n,)."""
        of_x = self.features(torch.cat([x, eps], 1))
        of_z = self.code(torch.cat([z, noise], 1))
        return self.head(torch.cat([of_x, of_z], 1)).squeeze(1)


PARTS: dict[str, Part] = {
    "implicit": Encoder,
    "conv": Decoder,
    "f(x)": Critic,
    "f(x), layer norm": lambda shape: Critic(shape, layer_norm),
    "f(x, z)": JointCritic,
}
"""Every network there is for these images, by the names that objectives use."""
