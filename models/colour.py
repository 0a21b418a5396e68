"""Who plays on CIFAR-10 and CelebA: the networks of the authors' published code.

As there, every network has noise of its own beside its inputs: a channel of the image for encoder
and critic, 20 numbers for the decoder and the critic's branch of z; noise and prior are uniform on
[-1, 1], and so are images and codes, through tanh. `width` scales all channels and units. Two
things are not as there: convolutions pad alike on all sides (TensorFlow's SAME does not), and no
layer is batch-normed twice.

`paper=True` makes those of the paper's supplement (appendix A) instead, where they differ:
activations, a dense layer of CIFAR-10's encoder, kernels of CelebA's, batch norm on CelebA's
images, units and pooling of the critics, which get no noise.

Images are (n, c, h, w) of 32 or 64 pixels, codes (n, d), critics' logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from models import mnist as images
from models.mnist import Deconv, ImageShape, Part, layer_norm, norm1d, norm2d, normal_log_density
from models.residual import ResidualCritic, ResidualDecoder

NOISE = 20
"""Numbers of noise beside a code."""
LEAK = 0.2


def _conv(
    d_in: int, d_out: int, norm: Callable[[int], nn.Module], act: nn.Module, kernel: int = 5
) -> nn.Module:
    """Stride 2: halves the image."""
    return nn.Sequential(nn.Conv2d(d_in, d_out, kernel, 2, (kernel - 1) // 2), norm(d_out), act)


def _large(shape: ImageShape) -> bool:
    """Whether the images are CelebA's, 64 pixels wide, not CIFAR-10's."""
    return shape.size >= 64


class _Trunk(nn.Sequential):
    """Convolutions 32, 64, 128, 256 (CelebA: and 512, dense 512; the paper: always dense 512)."""

    def __init__(self, shape: ImageShape, extra: int, paper: bool) -> None:
        large, leaky = _large(shape), nn.LeakyReLU(LEAK)
        full = (32, 64, 128, 256, 512) if large else (32, 64, 128, 256)
        channels = [shape.channels + extra, *map(shape.units, full)]
        act, kernel = (leaky, 4 if large else 5) if paper else (nn.ReLU(), 5)
        layers = [_conv(a, b, norm2d, act, kernel) for a, b in pairwise(channels)]
        self.d_out = channels[-1] * (shape.size >> len(full)) ** 2
        layers.append(nn.Flatten())
        if large or paper:
            hidden = shape.units(512)
            norm = [] if paper else [norm1d(hidden)]
            layers += [nn.Linear(self.d_out, hidden), *norm, leaky]
            self.d_out = hidden
        super().__init__(*layers)


class Encoder(nn.Module):
    """z = h(x, eps): the trunk, dense d, tanh."""

    def __init__(self, shape: ImageShape, paper: bool = False) -> None:
        super().__init__()
        self.eps_shape = (1, shape.size, shape.size)
        trunk = _Trunk(shape, 1, paper)
        self.layers = nn.Sequential(*trunk, nn.Linear(trunk.d_out, shape.d_z), nn.Tanh())

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """x (n, c, h, w), eps (n, 1, h, w) -> z (n, d) in [-1, 1]."""
        return self.layers(torch.cat([x, eps], 1))


class GaussianEncoder(images.GaussianEncoder):
    """q(z|x) = N(mean, sd^2), diagonal: the trunk without noise, the mean through tanh."""

    def __init__(self, shape: ImageShape, paper: bool = False) -> None:
        super().__init__(shape, trunk=_Trunk(shape, 0, paper))

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sd = super()._moments(h)
        return mean.tanh(), log_sd


class Decoder(nn.Module):
    """x = g(z, noise): dense 8192, deconvolutions 256, 128 (CelebA: and 64), c, tanh.

    The 8192 are normed as 512 channels of 4 x 4. CelebA's begins with dense 1024, in the code's
    order: ReLU, batch norm, leaky ReLU.
    """

    def __init__(self, shape: ImageShape, noise: int = NOISE, paper: bool = False) -> None:
        super().__init__()
        self.noise = ((noise,),) if noise else ()
        a, b, c, d = (shape.units(full) for full in (512, 256, 128, 64))
        d_in, leaky, large = shape.d_z + noise, nn.LeakyReLU(LEAK), _large(shape)
        first: list[nn.Module] = []
        if large:
            hidden = shape.units(1024)
            relu = [] if paper else [nn.ReLU()]
            first, d_in = [nn.Linear(d_in, hidden), *relu, norm1d(hidden), leaky], hidden
        channels = shape.channels
        self.layers = nn.Sequential(
            *first,
            nn.Linear(d_in, a * 16),
            nn.Unflatten(1, (a, 4, 4)),
            norm2d(a),
            leaky if large or paper else nn.ReLU(),
            *(Deconv(a, b), norm2d(b), leaky if large or not paper else nn.ReLU()),
            *(Deconv(b, c), norm2d(c), leaky if large else nn.ReLU()),
            *((Deconv(c, d), norm2d(d), leaky) if large else ()),
            Deconv(d if large else c, channels),
            *([norm2d(channels)] if large and paper else []),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, *noise: Tensor) -> Tensor:
        """z (n, d), noise (n, 20) if it takes any -> x (n, c, h, w) in [-1, 1]."""
        return self.layers(torch.cat([z, *noise], 1))


class DensityDecoder(Decoder):
    """p(x|z) = N(mean, sd^2) without noise of its own; one sd, learned (Rybkin et al. 2021)."""

    def __init__(self, shape: ImageShape, paper: bool = False) -> None:
        super().__init__(shape, 0, paper)
        self.log_sd = nn.Parameter(torch.zeros(()))

    def log_density(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (n,)."""
        return normal_log_density(x, self(z), self.log_sd)


def _features(
    shape: ImageShape, extra: int, norm: Callable[[int], nn.Module], paper: bool
) -> tuple[nn.Sequential, int]:
    """Convolutions 64, 128, 256, 512; CelebA's (in the paper CIFAR-10's) are halved by means."""
    channels = [shape.channels + extra, *(shape.units(full) for full in (64, 128, 256, 512))]
    act = nn.ReLU() if paper else nn.LeakyReLU(LEAK)
    layers = [_conv(a, b, norm, act) for a, b in pairwise(channels)]
    pool = [nn.AvgPool2d(2)] if _large(shape) != paper else []
    d = channels[-1] * (shape.size >> 4 >> len(pool)) ** 2
    return nn.Sequential(*layers, *pool, nn.Flatten()), d


class Critic(nn.Module):
    """f(x): the convolutions, dense 1. For generators without an encoder; no noise."""

    def __init__(
        self,
        shape: ImageShape,
        norm: Callable[[int], nn.Module] = norm2d,
        paper: bool = False,
    ) -> None:
        super().__init__()
        self.features, d = _features(shape, 0, norm, paper)
        self.head = nn.Linear(d, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


class JointCritic(nn.Module):
    """f(x, z): the convolutions of x and dense 2048 of z, side by side, to the logit at once.

    Being a function of x plus one of z, it can't see how they belong together: as in the
    supplement's table, unlike the suite's critic for MNIST, which has a layer of both.
    """

    def __init__(self, shape: ImageShape, paper: bool = False) -> None:
        super().__init__()
        noisy = not paper
        self.noise = ((1, shape.size, shape.size), (NOISE,)) if noisy else ()
        self.features, d = _features(shape, int(noisy), norm2d, paper)
        full = (2046 if _large(shape) else 512) if paper else 2048
        hidden, act = shape.units(full), nn.ReLU() if paper else nn.LeakyReLU(LEAK)
        self.code = nn.Sequential(nn.Linear(shape.d_z + NOISE * noisy, hidden), act)
        self.head = nn.Linear(d + hidden, 1)

    def forward(self, x: Tensor, z: Tensor, *noise: Tensor) -> Tensor:
        """x (n, c, h, w), z (n, d) and, unless the paper's, noise (n, 1, h, w), (n, 20) -> (n,)."""
        to_x, to_z = noise[:1], noise[1:]
        of_x = self.features(torch.cat([x, *to_x], 1))
        of_z = self.code(torch.cat([z, *to_z], 1))
        return self.head(torch.cat([of_x, of_z], 1)).squeeze(1)


def _parts(paper: bool) -> dict[str, Part]:
    return {
        "implicit": partial(Encoder, paper=paper),
        "gaussian": partial(GaussianEncoder, paper=paper),
        "conv": partial(Decoder, paper=paper),
        "conv, no noise": partial(Decoder, noise=0, paper=paper),
        "density": partial(DensityDecoder, paper=paper),
        "residual": ResidualDecoder,
        "f(x)": partial(Critic, paper=paper),
        "f(x), layer norm": partial(Critic, norm=layer_norm, paper=paper),
        "f(x), residual": ResidualCritic,
        "f(x, z)": partial(JointCritic, paper=paper),
    }


PARTS, PAPER = _parts(False), _parts(True)
"""Every network there is for these images, by the names that objectives use: the authors' code's
and the paper's."""

SIZES, PAPER_SIZES = (32, 64), (32, 64)
"""Heights and widths of the images that `PARTS` and `PAPER` take."""
