"""Defines the networks of CIFAR-10 and CelebA, by the authors' published code and by the paper.

Every network of the code has noise of its own beside its inputs. Noise is a channel of the image
for encoder and critic, and 20 numbers for the decoder and the critic's branch of z. Noise and prior
are uniform on [-1, 1]; tanh keeps images and codes there. Two things differ from the code.
Convolutions pad alike on all sides (TensorFlow's SAME does not), and no layer is normed twice.

The networks of the paper's supplement (appendix A) have other layers, and their critics get no
noise. WGAN-GP's residual networks are the same in both.

Images are (n, c, h, w), codes (n, d), critics' logits (n,).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import mnist
from models.mnist import Critic, ImageShape, ImplicitDecoder, ImplicitEncoder, JointCritic, Part

SIZES, PAPER_SIZES = (16, 32, 64, 128, 256), (32, 64)
"""`PARTS` and `PAPER` take images of these heights and widths, with any number of channels."""

NOISE = 20  # a code has so many numbers of noise beside it

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

Its dense layer of 8192 is 512 channels of 4 x 4. Encoders end in fcz and tanh, critics in fc1.
"""


def code_layers(size: int) -> dict[str, str]:
    """Returns the layers of the authors' code: CIFAR-10's at 32 pixels, CelebA's at 64.

    Other sizes have a convolution or deconvolution for each octave. Encoders and critics go down to
    2 x 2 pixels and up to 512 channels; decoders begin at 4 x 4. From 64 pixels on, there are dense
    layers of 512 and 1024 as in CelebA's networks. The decoder is leaky there, beginning with ReLU,
    batch norm and leaky ReLU, and the critic's last halving is a pooling.
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
    """Decodes by p(x|z) = N(mean, sd^2) without noise, with one learned sd (Rybkin et al. 2021)."""

    def __init__(self, shape: ImageShape, text: str) -> None:
        super().__init__(shape, text)
        self.log_sd = nn.Parameter(torch.zeros(()))

    def log_density(self, x: Tensor, z: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (n,)."""
        return mnist.normal_log_density(x, self(z), self.log_sd)


class Block(nn.Module):
    """Adds to a shortcut of x two 3 x 3 convolutions, each after its norm and ReLU.

    `resize` 2 doubles the image before the first convolution (nearest), 0.5 halves it after the
    second (mean), 1 leaves it. The shortcut is a 1 x 1 convolution if width or size change. The
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
    """Decodes by WGAN-GP's x = g(z): dense 4 x 4 x 128, a block for each doubling, 3 x 3 to c.

    Gulrajani et al. 2017, appendix F, and their code for CIFAR-10. Here z, the first weights and
    the constant learning rate are the study's own.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__(shape, "fc128@4 view@4")
        units, doublings = shape.units(128), shape.size.bit_length() - 3
        self.layers.extend(Block(units, units, 2.0, mnist.batch_norm) for _ in range(doublings))
        last = nn.Conv2d(units, shape.channels, 3, 1, 1)
        self.layers.extend([mnist.batch_norm(units), nn.ReLU(), last, nn.Tanh()])


class ResidualCritic(nn.Module):
    """Computes WGAN-GP's f(x): blocks that halve to 8 x 8, two more, ReLU, mean, dense 1; no norm.

    The source is the same, and so are the 128 channels.
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
    """Returns networks whose layers depend on the image's size; f(x, z) has `noise` beside z.

    Features of x and of z go to the logit at once, as in the supplement's table. So f(x, z) is
    additive, unlike the suite's critic for MNIST, whose head the joint f(x, z) has.
    """

    def text(shape: ImageShape, name: str) -> str:
        return layers(shape.size)[name]

    def critic(head: str) -> Part:
        return lambda s: JointCritic(s, text(s, "critic"), text(s, "critic's code"), head, noise)

    return {
        "implicit": lambda s: ImplicitEncoder(s, f"{text(s, 'encoder')} fcz tanh"),
        "gaussian": lambda s: mnist.GaussianEncoder(s, text(s, "encoder"), bounded=True),
        "conv": lambda s: ImplicitDecoder(s, text(s, "decoder"), NOISE),
        "conv, no noise": lambda s: ImplicitDecoder(s, text(s, "decoder")),
        "density": lambda s: DensityDecoder(s, text(s, "decoder")),
        "residual": ResidualDecoder,
        "f(x)": lambda s: Critic(s, f"{text(s, 'critic')} fc1"),
        "f(x), layer norm": lambda s: Critic(s, f"{text(s, 'critic').replace('bn', 'ln')} fc1"),
        "f(x), residual": ResidualCritic,
        mnist.JOINT: critic(mnist.ADDITIVE_HEAD),
        f"{mnist.JOINT}, joint": critic(mnist.JOINT_HEAD),
    }


PARTS, PAPER = _parts(code_layers, NOISE), _parts(PAPER_LAYERS.__getitem__, 0)
"""Methods ask for these networks by name: `PARTS` are the authors' code's, `PAPER` the paper's."""
