"""The networks of CIFAR-10 and CelebA: those of the authors' published code, and the paper's.

As in the code, every network has noise of its own beside its inputs: a channel of the image for
encoder and critic, 20 numbers for the decoder and the critic's branch of z. Noise and prior are
uniform on [-1, 1], and so are images and codes, through tanh. Two things are not as there.
Convolutions pad alike on all sides (TensorFlow's SAME does not), and no layer is normed twice.

The networks of the paper's supplement (appendix A) differ in their layers, and their critics get
no noise. WGAN-GP's residual networks are the same beside both.

Images are (n, c, h, w), codes (n, d), critics' logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import mnist
from models.mnist import Critic, ImageShape, ImplicitDecoder, ImplicitEncoder, JointCritic, Part

SIZES, PAPER_SIZES = (16, 32, 64, 128, 256), (32, 64)
"""Heights and widths of the images that `PARTS` and `PAPER` take, of any number of channels."""

NOISE = 20
"""Numbers of noise beside a code."""

PAPER_LAYERS = {
    32: {
        "encoder": "conv32 bn leaky conv64 bn leaky conv128 bn leaky conv256 bn leaky "
        "flatten fc512 leaky",
        "decoder": "fc512@4 view@4 bn leaky deconv256 bn relu deconv128 bn relu deconvc tanh",
        "critic": "conv64 bn relu conv128 bn relu conv256 bn relu conv512 bn relu pool flatten",
        "critic's code": "fc512 relu",
    },
    64: {
        "encoder": "conv32k4 bn leaky conv64k4 bn leaky conv128k4 bn leaky conv256k4 bn leaky "
        "conv512k4 bn leaky flatten fc512 leaky",
        "decoder": "fc1024 bn leaky fc512@4 view@4 bn leaky deconv256 bn leaky "
        "deconv128 bn leaky deconv64 bn leaky deconvc bn tanh",
        "critic": "conv64 bn relu conv128 bn relu conv256 bn relu conv512 bn relu flatten",
        "critic's code": "fc2046 relu",
    },
}
"""The supplement's layers of CIFAR-10 and CelebA, in the words of `models.mnist.build`.

The dense layer of 8192 is 512 channels of 4 x 4. Encoders end in fcz and tanh, critics in fc1.
"""


def code_layers(size: int) -> dict[str, str]:
    """The layers of the authors' code: CIFAR-10's at 32 pixels, CelebA's at 64.

    Each octave more or less is a convolution or deconvolution more or less: encoders and critics
    go down to images of 2 x 2, of at most 512 channels, and decoders double images of 4 x 4. What
    only CelebA's have, they have from 64 pixels on: dense layers of 512 and 1024, leaky decoders,
    and critics whose last halving is a pooling. CelebA's decoder begins in the code's order: ReLU,
    batch norm, leaky ReLU.
    """
    large, octaves = size >= 64, size.bit_length() - 2

    def convolutions(first: int, number: int, act: str) -> str:
        return " ".join(f"conv{min(first << i, 512)} bn {act}" for i in range(number))

    acts = ["leaky"] * octaves if large else ["relu", "leaky", "relu"]
    doubling = [f"deconv{256 >> i} bn {acts[i + 1]}" for i in range(octaves - 2)]
    dense = f"{'fc1024 relu bn leaky ' if large else ''}fc512@4 view@4 bn {acts[0]}"
    critic = convolutions(64, octaves - large, "leaky")
    return {
        "encoder": f"{convolutions(32, octaves, 'relu')} flatten{' fc512 bn leaky' * large}",
        "decoder": " ".join([dense, *doubling, "deconvc tanh"]),
        "critic": f"{critic}{' pool' * large} flatten",
        "critic's code": "fc2048 leaky",
    }


class DensityDecoder(ImplicitDecoder):
    """p(x|z) = N(mean, sd^2) without noise of its own; one sd, learned (Rybkin et al. 2021)."""

    def __init__(self, shape: ImageShape, text: str) -> None:
        super().__init__(shape, text)
        self.log_sd = nn.Parameter(torch.zeros(()))

    def log_density(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (n,)."""
        return mnist.normal_log_density(x, self(z), self.log_sd)


class Block(nn.Module):
    """x -> its shortcut plus two 3 x 3 convolutions, each after its norm and ReLU.

    `resize` 2 doubles the image before the first convolution (nearest), 0.5 halves it after the
    second (mean), 1 leaves it. Where anything changes, the shortcut is a 1 x 1 convolution. The
    `first` block of a critic sees images and has no activation before them.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        resize: float = 1.0,
        norm: Callable[[int], nn.Module] = nn.Identity,
        first: bool = False,
    ) -> None:
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


class ResidualDecoder(ImplicitDecoder):
    """WGAN-GP's x = g(z): dense 4 x 4 x 128, a block for each doubling, 3 x 3 to c, tanh.

    Gulrajani et al. 2017, appendix F, as their code has it for CIFAR-10. Here z is the study's
    own, and so are the first weights and the learning rate, which is constant.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__(shape, "fc128@4 view@4")
        units, doublings = shape.units(128), shape.size.bit_length() - 3
        self.layers.extend(Block(units, units, 2.0, mnist.batch_norm) for _ in range(doublings))
        last = nn.Conv2d(units, shape.channels, 3, 1, 1)
        self.layers.extend([mnist.batch_norm(units), nn.ReLU(), last, nn.Tanh()])


class ResidualCritic(nn.Module):
    """WGAN-GP's f(x): blocks that halve to 8 x 8, two more, ReLU, mean, dense 1; no norm.

    Of the same source, and of 128 channels too. It halves images of 32 twice, and bigger images
    once more each octave.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        units, halvings = shape.units(128), shape.size.bit_length() - 4
        self.layers = nn.Sequential(
            Block(shape.channels, units, 0.5, first=True),
            *(Block(units, units, 0.5) for _ in range(halvings - 1)),
            *(Block(units, units) for _ in range(2)),
            nn.ReLU(),
        )
        self.head = nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3))).squeeze(1)


def _parts(layers: Callable[[int], Mapping[str, str]], noise: int) -> dict[str, Part]:
    """Networks whose layers depend on the image's size; f(x, z) has `noise` numbers beside z.

    The features of x and those of z, side by side, go to the logit at once. Being a function of x
    plus one of z, f(x, z) can't see how they belong together: as in the supplement's table, unlike
    the suite's critic for MNIST, which has a layer of both.
    """

    def part(kind: Callable[..., nn.Module], *texts: str, **settings: Any) -> Part:
        def made(shape: ImageShape) -> nn.Module:
            named = layers(shape.size)
            return kind(shape, *(text.format_map(named) for text in texts), **settings)

        return made

    return {
        "implicit": part(ImplicitEncoder, "{encoder} fcz tanh"),
        "gaussian": part(mnist.GaussianEncoder, "{encoder}", bounded=True),
        "conv": part(ImplicitDecoder, "{decoder}", noise=NOISE),
        "conv, no noise": part(ImplicitDecoder, "{decoder}"),
        "density": part(DensityDecoder, "{decoder}"),
        "residual": ResidualDecoder,
        "f(x)": part(Critic, "{critic} fc1"),
        "f(x), layer norm": lambda s: Critic(
            s, f"{layers(s.size)['critic'].replace('bn', 'ln')} fc1"
        ),
        "f(x), residual": ResidualCritic,
        "f(x, z)": part(JointCritic, "{critic}", "{critic's code}", "fc1", noise=noise),
    }


PARTS, PAPER = _parts(code_layers, NOISE), _parts(PAPER_LAYERS.__getitem__, 0)
"""Every network there is for these images, by the names that objectives use: the authors' code's
and the paper's."""
