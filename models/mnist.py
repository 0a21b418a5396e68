"""Who plays on MNIST: convolutional encoders, decoders and critics.

The trunks are those of the paper's supplement, appendix A; every method gets the same encoder and
decoder trunk, and only heads and critics differ. `width` scales all channels and units. Batch
norm is TensorFlow's of that time: no scale, eps 1e-3; in training it sees the batch alone, so a
critic that is asked about real and generated images in turn normalises each by itself.

Images are (n, c, h, w), codes (n, d), critics' logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.flows import AutoregressiveFlow, PlanarFlow


@dataclass(frozen=True)
class ImageShape:
    """What the networks of a study have in common: images, codes, width."""

    channels: int = 1
    size: int = 28
    d_z: int = 64
    width: float = 1.0

    def units(self, full: int) -> int:
        """The paper's number of channels or units at this width."""
        return max(1, round(full * self.width))


Norm = nn.BatchNorm1d | nn.BatchNorm2d


def _without_scale(norm: Norm) -> Norm:
    """Batch norm with a shift and no scale.

    Running statistics are the mean over all batches seen while `track_running_stats` is True.
    It is False: training has no use for them, and on a GPU would wait for each.
    """
    norm.weight.requires_grad_(False)
    norm.track_running_stats = False
    return norm


def norm1d(units: int) -> Norm:
    return _without_scale(nn.BatchNorm1d(units, eps=1e-3, momentum=None))


def norm2d(channels: int) -> Norm:
    return _without_scale(nn.BatchNorm2d(channels, eps=1e-3, momentum=None))


class Deconv(nn.ConvTranspose2d):
    """5 x 5, stride 2: doubles the image.

    To few channels it is computed as a 3 x 3 convolution to the four phases of the output, each
    of which meets every second tap of the kernel: the same numbers as a transposed convolution
    to rounding, forward three times as fast on a CPU. To many, the zeros among its taps cost more.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, 5, 2, 2, output_padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.out_channels >= 8:
            return super().forward(input, output_size)
        taps = F.pad(self.weight, (0, 1, 0, 1)).flip(2, 3)
        phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).flip(3, 5)
        weight = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        assert self.bias is not None
        return F.pixel_shuffle(F.conv2d(input, weight, self.bias.repeat_interleave(4), 1, 1), 2)


def conv(d_in: int, d_out: int, norm: Callable[[int], nn.Module] = norm2d) -> nn.Sequential:
    """5 x 5, stride 2: halves the image, rounding up."""
    return nn.Sequential(nn.Conv2d(d_in, d_out, 5, 2, 2), norm(d_out), nn.ReLU())


def _dense(d_in: int, d_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_in, d_out), norm1d(d_out), nn.ReLU())


class Trunk(nn.Module):
    """Images and a channel of noise to features: conv 16, conv 32, dense 784."""

    def __init__(self, shape: ImageShape, extra: int) -> None:
        super().__init__()
        a, b, self.d_out = shape.units(16), shape.units(32), shape.units(784)
        side = -(-shape.size // 4)
        self.layers = nn.Sequential(
            conv(shape.channels + extra, a),
            conv(a, b),
            nn.Flatten(),
            _dense(b * side * side, self.d_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ImplicitEncoder(nn.Module):
    """z = h(x, eps): the noise is one more channel of the image, as in the authors' code."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.eps_shape = (1, shape.size, shape.size)
        self.trunk = Trunk(shape, 1)
        self.head = nn.Linear(self.trunk.d_out, shape.d_z)

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """x (n, c, h, w), eps (n, 1, h, w) -> z (n, d)."""
        return self.head(self.trunk(torch.cat([x, eps], 1)))


class GaussianEncoder(nn.Module):
    """q(z|x) = N(mean, sd^2), diagonal, carried on by a flow if there is one."""

    def __init__(self, shape: ImageShape, flow: str = "", trunk: Any = None) -> None:
        """`trunk`: in the place of MNIST's, with `d_out` features."""
        super().__init__()
        self.trunk = trunk or Trunk(shape, 0)
        d, h = shape.d_z, self.trunk.d_out
        self.eps_shape = (d,)
        self.mean, self.log_sd = nn.Linear(h, d), nn.Linear(h, d)
        self.flow: PlanarFlow | AutoregressiveFlow | None = None
        if flow:
            kinds = {"planar": PlanarFlow, "autoregressive": AutoregressiveFlow}
            self.flow = kinds[flow](d, h)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log sd of q(z|x) before any flow, (n, d) each; sd is kept in [e^-7, e^7]."""
        return self._moments(self.trunk(x))

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(h), 7 * torch.tanh(self.log_sd(h) / 7)

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """z ~ q(z|x) from eps ~ N(0, I), (n, d) each."""
        return self.sample(x, eps)[0]

    def sample(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) (n, d) and log q(z|x) (n,)."""
        h = self.trunk(x)
        mean, log_sd = self._moments(h)
        z = mean + log_sd.exp() * eps
        log_q = normal_log_density(z, mean, log_sd)
        if self.flow is not None:
            z, log_det = self.flow(z, h)
            log_q = log_q - log_det
        return z, log_q


class Decoder(nn.Module):
    """z -> images as logits of pixel means: dense 1024, dense 3136, deconv 64, deconv."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        side, a = shape.size // 4, shape.units(64)
        hidden = shape.units(1024)
        self.layers = nn.Sequential(
            _dense(shape.d_z, hidden),
            _dense(hidden, a * side * side),
            nn.Unflatten(1, (a, side, side)),
            Deconv(a, a),
            norm2d(a),
            nn.ReLU(),
            Deconv(a, shape.channels),
        )

    def logits(self, z: Tensor) -> Tensor:
        """(n, d) -> (n, c, h, w), before the sigmoid."""
        return self.layers(z)

    def forward(self, z: Tensor) -> Tensor:
        """(n, d) -> (n, c, h, w) in [0, 1]."""
        return self.layers(z).sigmoid()


class MlpDecoder(Decoder):
    """Three dense layers for the GAN of Goodfellow et al. 2014, before convolutions."""

    def __init__(self, shape: ImageShape) -> None:
        nn.Module.__init__(self)
        hidden = shape.units(1024)
        image = (shape.channels, shape.size, shape.size)
        self.layers = nn.Sequential(
            _dense(shape.d_z, hidden),
            _dense(hidden, hidden),
            nn.Linear(hidden, shape.channels * shape.size**2),
            nn.Unflatten(1, image),
        )


def _image_features(
    shape: ImageShape, norm: Callable[[int], nn.Module]
) -> tuple[nn.Sequential, int]:
    a, b, c = (shape.units(full) for full in (32, 64, 128))
    side = -(-shape.size // 8)
    layers = [conv(shape.channels, a, norm), conv(a, b, norm), conv(b, c, norm), nn.Flatten()]
    return nn.Sequential(*layers), c * side * side


class Critic(nn.Module):
    """f(x): conv 32, conv 64, conv 128, dense 1."""

    def __init__(self, shape: ImageShape, norm: Callable[[int], nn.Module] = norm2d) -> None:
        super().__init__()
        self.features, d = _image_features(shape, norm)
        self.head = nn.Linear(d, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


class JointCritic(nn.Module):
    """f(x, z): the features of x beside a dense layer of z, then one layer of both, then 1.

    The supplement goes from the concatenation to the logit at once. Such an f is a sum of a
    function of x and one of z and can't see how they belong together, let alone reach (11).
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.features, d = _image_features(shape, norm2d)
        hidden = shape.units(1024)
        self.code = nn.Sequential(nn.Linear(shape.d_z, hidden), nn.ReLU())
        self.head = nn.Sequential(
            nn.Linear(d + hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.head(torch.cat([self.features(x), self.code(z)], 1)).squeeze(1)


class DenseCritic(nn.Module):
    """Two dense layers, then 1: f(z) of Makhzani et al. 2015, f(x) of a GAN on dense layers."""

    def __init__(self, d_in: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(d_in, hidden),
            activation,
            nn.Linear(hidden, hidden),
            activation,
            nn.Linear(hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


class EnergyCritic(nn.Module):
    """EB-GAN's critic: ||decode(encode(x)) - x||, an autoencoder of the study's own trunks."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.trunk = Trunk(shape, 0)
        self.head = nn.Linear(self.trunk.d_out, shape.d_z)
        self.decoder = Decoder(shape)

    def forward(self, x: Tensor) -> Tensor:
        x_rec = self.decoder(self.head(self.trunk(x)))
        return (x_rec - x).square().flatten(1).sum(1).add(1e-8).sqrt()


def layer_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


Part = Callable[[ImageShape], nn.Module]

PARTS: dict[str, Part] = {
    "implicit": ImplicitEncoder,
    "gaussian": GaussianEncoder,
    "planar": lambda shape: GaussianEncoder(shape, "planar"),
    "autoregressive": lambda shape: GaussianEncoder(shape, "autoregressive"),
    # one network by four names: others have images whose decoders differ, see models.colour
    **dict.fromkeys(("conv", "conv, no noise", "bernoulli", "density"), Decoder),
    "mlp": MlpDecoder,
    "f(x)": Critic,
    "f(x), layer norm": lambda shape: Critic(shape, layer_norm),
    "f(x), mlp": lambda shape: DenseCritic(
        shape.channels * shape.size**2, shape.units(1024), nn.LeakyReLU(0.2)
    ),
    "f(x, z)": JointCritic,
    "f(z)": lambda shape: DenseCritic(shape.d_z, shape.units(1000), nn.ReLU()),
    "energy": EnergyCritic,
}
"""Every network for MNIST that an objective can ask for by name."""


class ImageNetworks(nn.ModuleDict):
    """The networks of one method by their roles: encoder, decoder, critic (critic_x, ...)."""

    def __init__(
        self,
        parts: Mapping[str, str],
        shape: ImageShape,
        seed: Callable[[str], int],
        table: Mapping[str, Part] = PARTS,
    ) -> None:
        """`parts` maps roles to names in `table`; `seed(role)` starts the draw of its weights.

        Weights are Xavier's (Glorot & Bengio 2010), biases 0, as in the paper; equal roles and
        parts get equal weights whatever the method.
        """
        super().__init__({role: table[part](shape) for role, part in parts.items()})
        self.shape = shape
        for role, network in self.items():
            rng = torch.Generator().manual_seed(seed(role))
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.xavier_uniform_(module.weight, generator=rng)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def critics(self) -> list[nn.Parameter]:
        """The parameters that critics learn."""
        return self._learned(lambda role: role.startswith("critic"))

    def models(self) -> list[nn.Parameter]:
        """The parameters that encoder and decoder learn."""
        return self._learned(lambda role: not role.startswith("critic"))

    def _learned(self, mine: Callable[[str], bool]) -> list[nn.Parameter]:
        fixed = {id(m.weight) for m in self.modules() if isinstance(m, Norm)}
        parts = [network for role, network in self.items() if mine(role)]
        return [p for part in parts for p in part.parameters() if id(p) not in fixed]


def normal_log_density(z: Tensor, mean: Tensor | float, log_sd: Tensor | float) -> Tensor:
    """log N(z; mean, sd^2) summed over all but the first dimension: (n, ...) -> (n,)."""
    if not isinstance(log_sd, Tensor):
        log_sd = z.new_full((), log_sd)  # on its device: a copy from the CPU would wait for it
    squared = ((z - mean) * (-log_sd).exp()).square()
    return -(0.5 * squared + log_sd + _HALF_LOG_2PI).flatten(1).sum(1)


_HALF_LOG_2PI = 0.9189385332046727


def bernoulli_log_density(bits: Tensor, logits: Tensor) -> Tensor:
    """log p(bits | logits) of independent pixels, in nats: (n, ...) -> (n,)."""
    return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").flatten(1).sum(1)


SIZES = tuple(range(16, 257, 4))
"""Heights and widths of the images that these networks take."""
