"""The yardstick: the joint-matching methods on images as everybody would write them.

`torch.nn` layers, a DataLoader over float images, `torch.optim.Adam`, a plain eager loop. Tests
hold the suite's trainer to this loop's numbers, and `bench.speed` to its speed. It
starts from the same weights. Networks are MNIST's, or CIFAR-10's of the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench.studies.images.domain import domain as domain_of
from bench.studies.images.study import ImageSpec
from bench.studies.images.train import seed
from models.methods import METHODS
from models.mnist import ImageShape
from models.objectives import OBJECTIVES


class Noise(NamedTuple):
    """The noise of one update: z (n, d), eps and eps_cycle (n, 1, h, w), the last at lambda > 0.

    For colour images also that of the decoder (n, 20), likewise, and of the critic's two pairs.
    """

    z: Tensor
    eps: Tensor
    eps_cycle: Tensor | None = None
    decoder: Sequence[Tensor] = ()
    decoder_cycle: Sequence[Tensor] = ()
    q: Sequence[Tensor] = ()
    p: Sequence[Tensor] = ()


Batch = tuple[Tensor, Sequence[Noise], Noise]
"""Scaled images (n, c, h, w), the noise of each update of the critic and of the model."""


def shifted(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Batch norm that learns no scale."""
    norm.weight.requires_grad_(False)
    return norm


EXTRA = 20
"""Numbers of noise beside a code."""


def conv(d_in: int, d_out: int, act: nn.Module | None = None) -> nn.Sequential:
    layer = nn.Conv2d(d_in, d_out, 5, stride=2, padding=2)
    return nn.Sequential(layer, shifted(nn.BatchNorm2d(d_out, eps=1e-3)), act or nn.ReLU())


def dense(d_in: int, d_out: int) -> nn.Sequential:
    norm = shifted(nn.BatchNorm1d(d_out, eps=1e-3))
    return nn.Sequential(nn.Linear(d_in, d_out), norm, nn.ReLU())


def deconv(d_in: int, d_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(d_in, d_out, 5, stride=2, padding=2, output_padding=1)


def encoder(shape: ImageShape) -> nn.Sequential:
    """x and its channel of noise (n, c + 1, h, w) -> z (n, d)."""
    a, b, hidden = shape.units(16), shape.units(32), shape.units(784)
    features = b * (-(-shape.size // 4)) ** 2
    return nn.Sequential(
        conv(shape.channels + 1, a),
        conv(a, b),
        nn.Flatten(),
        dense(features, hidden),
        nn.Linear(hidden, shape.d_z),
    )


def decoder(shape: ImageShape) -> nn.Sequential:
    """z (n, d) -> x (n, c, h, w) in [0, 1]."""
    a, hidden, side = shape.units(64), shape.units(1024), shape.size // 4
    return nn.Sequential(
        dense(shape.d_z, hidden),
        dense(hidden, a * side * side),
        nn.Unflatten(1, (a, side, side)),
        deconv(a, a),
        shifted(nn.BatchNorm2d(a, eps=1e-3)),
        nn.ReLU(),
        deconv(a, shape.channels),
        nn.Sigmoid(),
    )


class Critic(nn.Module):
    """f(x, z) (n,)."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        a, b, c = (shape.units(full) for full in (32, 64, 128))
        hidden, features = shape.units(1024), c * (-(-shape.size // 8)) ** 2
        self.of_x = nn.Sequential(conv(shape.channels, a), conv(a, b), conv(b, c), nn.Flatten())
        self.of_z = nn.Sequential(nn.Linear(shape.d_z, hidden), nn.ReLU())
        self.of_both = nn.Sequential(
            nn.Linear(features + hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.of_both(torch.cat([self.of_x(x), self.of_z(z)], 1)).squeeze(1)


class PhotoDecoder(nn.Module):
    """z (n, d), noise (n, 20) -> x (n, c, h, w) in [-1, 1]."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        a, b, c = (shape.units(full) for full in (512, 256, 128))
        self.layers = nn.Sequential(
            nn.Linear(shape.d_z + EXTRA, a * 16),
            nn.Unflatten(1, (a, 4, 4)),
            shifted(nn.BatchNorm2d(a, eps=1e-3)),
            nn.ReLU(),
            deconv(a, b),
            shifted(nn.BatchNorm2d(b, eps=1e-3)),
            nn.LeakyReLU(0.2),
            deconv(b, c),
            shifted(nn.BatchNorm2d(c, eps=1e-3)),
            nn.ReLU(),
            deconv(c, shape.channels),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        return self.layers(torch.cat([z, noise], 1))


def photo_encoder(shape: ImageShape) -> nn.Sequential:
    """x and its channel of noise (n, c + 1, h, w) -> z (n, d) in [-1, 1]."""
    channels = [shape.channels + 1, *(shape.units(full) for full in (32, 64, 128, 256))]
    features = channels[-1] * (shape.size // 16) ** 2
    convs = [conv(a, b) for a, b in pairwise(channels)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(features, shape.d_z), nn.Tanh())


class PhotoCritic(nn.Module):
    """f(x, z) (n,), with a channel of noise beside x and 20 numbers beside z."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        channels = [shape.channels + 1, *(shape.units(full) for full in (64, 128, 256, 512))]
        convs = [conv(a, b, nn.LeakyReLU(0.2)) for a, b in pairwise(channels)]
        self.of_x = nn.Sequential(*convs, nn.Flatten())
        hidden, features = shape.units(2048), channels[-1] * (shape.size // 16) ** 2
        self.of_z = nn.Sequential(nn.Linear(shape.d_z + EXTRA, hidden), nn.LeakyReLU(0.2))
        self.of_both = nn.Linear(features + hidden, 1)

    def forward(self, x: Tensor, z: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        of_x, of_z = self.of_x(torch.cat([x, eps], 1)), self.of_z(torch.cat([z, noise], 1))
        return self.of_both(torch.cat([of_x, of_z], 1)).squeeze(1)


def initialise(network: nn.Module, start: int) -> nn.Module:
    """Xavier's weights drawn from this seed, biases 0."""
    rng = torch.Generator().manual_seed(start)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=rng)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


class PlainTrainer:
    """Trains one spec of a method of `models.objectives`.

    Unless `frugal`, the model's step computes the critic's gradient as well and drops it, as in
    PyTorch's DCGAN example.
    """

    def __init__(
        self,
        spec: ImageSpec,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        frugal: bool = True,
    ) -> None:
        self.spec, self.device, self.dtype = spec, torch.device(device), dtype
        domain = domain_of(spec.data)
        self.colour = domain.channels == 3
        self.shape = shape = ImageShape(domain.channels, domain.size, domain.d_z, spec.width)
        if self.colour:
            networks = photo_encoder(shape), PhotoDecoder(shape), PhotoCritic(shape)
        else:
            networks = encoder(shape), decoder(shape), Critic(shape)
        self.encoder, self.decoder, self.critic = (
            initialise(network, seed(spec.stream, "weights", role)).to(self.device, dtype)
            for role, network in zip(("encoder", "decoder", "critic"), networks, strict=True)
        )
        models = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.model = [p for p in models if p.requires_grad]
        self.reached = self.model if frugal else None
        betas = METHODS[spec.method].betas
        learned = [p for p in self.critic.parameters() if p.requires_grad]
        self.critic_adam = torch.optim.Adam(learned, lr=spec.lr, betas=betas)
        self.model_adam = torch.optim.Adam(self.model, lr=spec.lr, betas=betas)
        self.objective = OBJECTIVES[spec.method]

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        """z ~ q(z|x), (n, d)."""
        return self.encoder(torch.cat([x, eps], 1))

    def updates(self, x: Tensor, critic_noise: Sequence[Noise], noise: Noise) -> None:
        """All updates of one batch: the critic's, then the model's."""
        for each in critic_noise:
            with torch.no_grad():
                z_x, x_z = self.encode(x, each.eps), self.decoder(each.z, *each.decoder)
            f_q, f_p = self.critic(x, z_x, *each.q), self.critic(x_z, each.z, *each.p)
            loss = self.objective.critic(f_q, f_p)
            self.critic_adam.zero_grad()
            loss.backward()
            self.critic_adam.step()
        z_x, x_z = self.encode(x, noise.eps), self.decoder(noise.z, *noise.decoder)
        f_q, f_p = self.critic(x, z_x, *noise.q), self.critic(x_z, noise.z, *noise.p)
        loss = self.objective.model(f_q, f_p)
        if noise.eps_cycle is not None:
            x_rec = self.decoder(z_x, *noise.decoder_cycle)
            z_rec = self.encode(x_z, noise.eps_cycle)
            loss = loss + self.spec.lam * (F.l1_loss(x_rec, x) + F.l1_loss(z_rec, noise.z))
        self.model_adam.zero_grad()
        loss.backward(inputs=self.reached)
        self.model_adam.step()

    def train(self, batches: Iterable[Batch]) -> None:
        """All updates of all these batches."""
        for batch in batches:
            self.updates(*batch)

    def epoch(self, loader: DataLoader) -> Iterator[Batch]:
        """Every batch of the loader once, with fresh noise."""
        for (images,) in loader:
            x = images.to(self.device, self.dtype, non_blocking=True)
            yield x, [self._noise(x) for _ in range(self.spec.critic_steps)], self._noise(x, True)

    def _noise(self, x: Tensor, model: bool = False) -> Noise:
        def draw(*size: int) -> Tensor:
            like = torch.empty(len(x), *size, device=x.device, dtype=x.dtype)
            return like.uniform_(-1, 1) if self.colour else like.normal_()

        channel, cycle = (1, *x.shape[2:]), model and self.spec.lam > 0
        found = Noise(draw(self.shape.d_z), draw(*channel), draw(*channel) if cycle else None)
        if not self.colour:
            return found
        pairs = [(draw(*channel), draw(EXTRA)) for _ in "qp"]
        again = [draw(EXTRA)] if cycle else []
        return Noise(*found[:3], [draw(EXTRA)], again, *pairs)

    def loader(self, images: np.ndarray) -> DataLoader:
        """Shuffled batches of uint8 images (n, c, h, w), kept as scaled floats."""
        scaled = torch.from_numpy(np.array(images)).to(self.dtype) / 255
        data = TensorDataset(scaled * 2 - 1 if self.colour else scaled)
        pinned = self.device.type == "cuda"
        return DataLoader(data, self.spec.batch, shuffle=True, drop_last=True, pin_memory=pinned)
