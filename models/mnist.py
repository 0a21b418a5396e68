"""Defines the networks of MNIST, and the parts of all networks of images.

The trunks are from the paper's supplement, appendix A. Every method gets the same encoder and
decoder trunk; only heads and critics differ. `build` makes a network from a line of words.
`width` scales all channels and units. Batch norm has no scale and eps 1e-3, as in TensorFlow then.
Batch norm in training sees the batch alone, so critics norm real and generated images apart.

Images are (n, c, h, w), codes (n, d), critics' logits (n,).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.flows import AutoregressiveFlow, PlanarFlow
from models.layers import Conv, Deconv, Linear, View, beside

SIZES = tuple(range(16, 257, 4))
"""These networks take images of these heights and widths, with any number of channels."""


@dataclass(frozen=True)
class ImageShape:
    """Holds what the networks of a study have in common: images, codes, width."""

    channels: int = 1
    size: int = 28
    d_z: int = 64
    width: float = 1.0

    def units(self, full: int) -> int:
        """Returns the number of channels or units at this width, from the paper's number."""
        return max(1, round(full * self.width))

    def image(self, more: int = 0) -> tuple[int, int, int]:
        """Returns (c, h, w) of an image with so many channels beside its own."""
        return self.channels + more, self.size, self.size


Norm = nn.BatchNorm1d | nn.BatchNorm2d


def batch_norm(d: int, of_images: bool = True) -> Norm:
    """Returns batch norm with a shift and no scale.

    Running statistics average over all batches while `track_running_stats` is True. It is False in
    training, which has no use for them and would wait for each on a GPU.
    """
    norm = (nn.BatchNorm2d if of_images else nn.BatchNorm1d)(d, eps=1e-3, momentum=None)
    norm.weight.requires_grad_(False)
    norm.track_running_stats = False
    return norm


_WORD = re.compile(r"([a-z]+?)(\d+|[cz])?(?:@(\d+|[qs]))?(?:k(\d))?")


def _layer(word: str, shape: ImageShape, d: int, *pixels: int) -> nn.Module:
    """Returns the layer that a word of `build` names, for inputs (n, d, *pixels)."""
    found = _WORD.fullmatch(word)
    kind, number, side, kernel = found.groups() if found else ("", "", "", "")
    exact = {"c": shape.channels, "z": shape.d_z, "1": 1}
    n = exact.get(number) or shape.units(int(number or 1))
    side, k = {"q": shape.size // 4, "s": shape.size}.get(side) or int(side or 1), int(kernel or 5)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: Conv(d, n, k),
        "deconv": lambda: Deconv(d, n),
        "fc": lambda: Linear(d, n * side**2),
        "view": lambda: View(1, (d // side**2, side, side)),
        "flatten": nn.Flatten,
        "pool": lambda: nn.AvgPool2d(2),
        "bn": lambda: batch_norm(d, of_images=bool(pixels)),
        "ln": lambda: nn.GroupNorm(1, d),
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(0.2),
        "tanh": nn.Tanh,
    }
    if kind not in kinds:
        raise ValueError(f"no layer is called {word!r}")
    return kinds[kind]()


@torch.no_grad()
def build(text: str, shape: ImageShape, *size: int) -> tuple[nn.Sequential, int]:
    """Returns the layers that `text` names, and how many numbers they make of an input.

    Inputs are images of `size` (c, h, w) or codes of `size` (d,). The words are:

        conv32      5 x 5 to 32 channels, stride 2: halves the image, rounding up; conv32k4: 4 x 4
        deconv32    5 x 5 to 32 channels, stride 2: doubles the image
        fc32        dense to 32 units; fc32@4: to the numbers of 32 channels of 4 x 4
        view@4      numbers become images of 4 x 4; flatten: images become numbers
        bn, ln      batch norm, layer norm; pool: the mean of each 2 x 2
        relu, leaky (slope 0.2), tanh

    After @, s is the image's size and q a quarter of it. `shape.width` scales numbers of channels
    and units, but not c (the image's), z (the code's) and 1 (the logit), as in deconvc, fcz and
    fc1. Raises ValueError for another word.
    """
    layers = nn.Sequential()
    for word in text.split():
        layers.append(_layer(word, shape, *size))
        size = layers[-1](torch.zeros(2, *size)).shape[1:]
    return layers, math.prod(size)


class ImplicitEncoder(nn.Module):
    """Encodes z = h(x, eps), with noise as a channel of the image, as in the authors' code."""

    def __init__(self, shape: ImageShape, text: str) -> None:
        super().__init__()
        self.eps_shape = (1, shape.size, shape.size)
        self.layers, _ = build(text, shape, *shape.image(1))

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """Returns z (n, d) of x (n, c, h, w) and eps (n, 1, h, w)."""
        return self.layers(beside(x, eps))


class GaussianEncoder(nn.Module):
    """Encodes by q(z|x) = N(mean, sd^2), diagonal, which a flow may carry on."""

    def __init__(
        self,
        shape: ImageShape,
        text: str,
        flow: Callable[[int, int], PlanarFlow | AutoregressiveFlow] | None = None,
        bounded: bool = False,
    ) -> None:
        """Takes in `text` the layers from images to features; tanh bounds a `bounded` mean."""
        super().__init__()
        self.trunk, features = build(text, shape, *shape.image())
        self.eps_shape, self.bounded = (shape.d_z,), bounded
        self.mean = nn.Linear(features, shape.d_z)
        self.log_sd = nn.Linear(features, shape.d_z)
        self.flow = flow(shape.d_z, features) if flow else None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log sd of q(z|x) before a flow, (n, d) each; sd is in [e^-7, e^7]."""
        return self._moments(self.trunk(x))

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(h)
        return mean.tanh() if self.bounded else mean, 7 * torch.tanh(self.log_sd(h) / 7)

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        """Returns z ~ q(z|x) of eps ~ N(0, I), (n, d) each."""
        return self.sample(x, eps)[0]

    def sample(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z ~ q(z|x) (n, d) and log q(z|x) (n,)."""
        h = self.trunk(x)
        mean, log_sd = self._moments(h)
        z = mean + log_sd.exp() * eps
        log_q = normal_log_density(z, mean, log_sd)
        if self.flow is None:
            return z, log_q
        z, log_det = self.flow(z, h)
        return z, log_q - log_det


class ImplicitDecoder(nn.Module):
    """Decodes x = g(z, noise), with so many numbers of noise beside the code."""

    def __init__(self, shape: ImageShape, text: str, noise: int = 0) -> None:
        super().__init__()
        self.noise = ((noise,),) if noise else ()
        self.layers, _ = build(text, shape, shape.d_z + noise)

    def forward(self, z: Tensor, *noise: Tensor) -> Tensor:
        """Returns x (n, c, h, w) of z (n, d) and noise (n, *`self.noise`[0])."""
        return self.layers(torch.cat([z, *noise], 1))


class Decoder(ImplicitDecoder):
    """Decodes z to pixel means, which it has as logits first."""

    def logits(self, z: Tensor) -> Tensor:
        """Returns (n, c, h, w), before the sigmoid, of (n, d)."""
        return self.layers(z)

    def forward(self, z: Tensor) -> Tensor:
        """Returns (n, c, h, w) in [0, 1] of (n, d)."""
        return self.layers(z).sigmoid()


class Critic(nn.Module):
    """Computes f(x), or f of codes of `size` (d,)."""

    def __init__(self, shape: ImageShape, text: str, *size: int) -> None:
        super().__init__()
        self.layers, _ = build(text, shape, *(size or shape.image()))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


class JointCritic(nn.Module):
    """Computes f(x, z) by features of x, features of z, and a head of both."""

    def __init__(self, shape: ImageShape, of_x: str, of_z: str, head: str, noise: int = 0) -> None:
        """Takes so many numbers of `noise` beside z, and then a channel of noise beside x."""
        super().__init__()
        self.noise = ((1, shape.size, shape.size), (noise,)) if noise else ()
        self.features, d = build(of_x, shape, *shape.image(1 if noise else 0))
        self.code, hidden = build(of_z, shape, shape.d_z + noise)
        self.head, _ = build(head, shape, d + hidden)

    def forward(self, x: Tensor, z: Tensor, *noise: Tensor) -> Tensor:
        """Returns f (n,) of x (n, c, h, w), z (n, d), and noise of the shapes of `self.noise`."""
        of_x = self.features(beside(x, *noise[:1]))
        of_z = self.code(torch.cat([z, *noise[1:]], 1))
        return self.head(torch.cat([of_x, of_z], 1)).squeeze(1)


class EnergyCritic(nn.Module):
    """Computes EB-GAN's ||decode(encode(x)) - x|| by an autoencoder of the study's own trunks."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.encoder, _ = build(f"{_TRUNK} fcz", shape, *shape.image())
        self.decoder = Decoder(shape, _DECODER)

    def forward(self, x: Tensor) -> Tensor:
        x_rec = self.decoder(self.encoder(x))
        return (x_rec - x).square().flatten(1).sum(1).add(1e-8).sqrt()


_TRUNK = "conv16 bn relu conv32 bn relu flatten fc784 bn relu"
_DECODER = "fc1024 bn relu fc64@q bn relu view@q deconv64 bn relu deconvc"
_FEATURES = "conv32 bn relu conv64 bn relu conv128 bn relu flatten"
_CODE = "fc1024 relu"
"""The supplement's layers. Its dense layer of 3136 units is 64 channels of 7 x 7."""

JOINT_HEAD, ADDITIVE_HEAD = "fc1024 leaky fc1", "fc1"
"""The layers after features of x and of z: f(x, z) with a hidden layer of both, or a sum.

With an additive head, f is a function of x plus a function of z.
"""

Part = Callable[[ImageShape], nn.Module]

JOINT = "f(x, z)"
"""Methods ask for their critic of x and z by this name; `ImageSpec.critic` adds the kind."""

PARTS: dict[str, Part] = {
    "implicit": lambda shape: ImplicitEncoder(shape, f"{_TRUNK} fcz"),
    "gaussian": lambda shape: GaussianEncoder(shape, _TRUNK),
    "planar": lambda shape: GaussianEncoder(shape, _TRUNK, PlanarFlow),
    "autoregressive": lambda shape: GaussianEncoder(shape, _TRUNK, AutoregressiveFlow),
    # One decoder has four names, because colour images have four decoders, see models.colour.
    **dict.fromkeys(
        ("conv", "conv, no noise", "bernoulli", "density"), lambda shape: Decoder(shape, _DECODER)
    ),
    # Goodfellow et al. 2014 had no convolutions.
    "mlp": lambda shape: Decoder(shape, "fc1024 bn relu fc1024 bn relu fcc@s view@s"),
    "f(x), mlp": lambda shape: Critic(shape, "flatten fc1024 leaky fc1024 leaky fc1"),
    "f(x)": lambda shape: Critic(shape, f"{_FEATURES} fc1"),
    "f(x), layer norm": lambda shape: Critic(shape, f"{_FEATURES.replace('bn', 'ln')} fc1"),
    # The supplement's f is additive and can't reach (11), so the suite's own f is joint.
    JOINT: lambda shape: JointCritic(shape, _FEATURES, _CODE, JOINT_HEAD),
    f"{JOINT}, additive": lambda shape: JointCritic(shape, _FEATURES, _CODE, ADDITIVE_HEAD),
    # Makhzani et al. 2015 judge codes by two layers of 1000.
    "f(z)": lambda shape: Critic(shape, "fc1000 relu fc1000 relu fc1", shape.d_z),
    "energy": EnergyCritic,
}
"""Methods ask for these networks for MNIST by name."""


class ImageNetworks(nn.ModuleDict):
    """Holds the networks of one method by role: encoder, decoder, critic (critic_x, ...)."""

    def __init__(
        self,
        parts: Mapping[str, str],
        shape: ImageShape,
        seed: Callable[[str], int],
        table: Mapping[str, Part] = PARTS,
    ) -> None:
        """Takes `parts` from roles to names in `table`; `seed(role)` seeds the role's weights.

        Weights are Xavier's (Glorot & Bengio 2010), biases 0, as in the paper. Equal roles and
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
        self._learned = [name for name, p in self.named_parameters() if p.requires_grad]

    def critics(self) -> list[nn.Parameter]:
        """Returns the parameters that critics learn."""
        return [self.get_parameter(name) for name in self._learned if name.startswith("critic")]

    def models(self) -> list[nn.Parameter]:
        """Returns the parameters that encoder and decoder learn."""
        return [self.get_parameter(name) for name in self._learned if not name.startswith("critic")]


def normal_log_density(z: Tensor, mean: Tensor | float, log_sd: Tensor | float) -> Tensor:
    """Returns log N(z; mean, sd^2) (n,) of z (n, ...), summed over all other dimensions."""
    if not isinstance(log_sd, Tensor):
        log_sd = z.new_full((), log_sd)  # a copy from the CPU would wait
    squared = ((z - mean) * (-log_sd).exp()).square()
    return -(0.5 * squared + log_sd + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def bernoulli_log_density(bits: Tensor, logits: Tensor) -> Tensor:
    """Returns log p(bits | logits) (n,) of independent pixels (n, ...), in nats."""
    return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").flatten(1).sum(1)
