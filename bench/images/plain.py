"""The yardstick: the joint-matching methods on images as everybody would write them.

`torch.nn` layers, a DataLoader over float images, `torch.optim.Adam`, a plain eager loop. Tests
hold `bench.images.train.Trainer` to this loop's numbers, and `bench.timing` to its speed. It
starts from the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench.images.train import seed
from bench.spec import ImageSpec
from models.images import ImageShape
from models.methods import METHODS
from models.objectives import OBJECTIVES


class Noise(NamedTuple):
    """The noise of one update: z (n, d), eps and eps_cycle (n, 1, h, w), the last at lambda > 0."""

    z: Tensor
    eps: Tensor
    eps_cycle: Tensor | None = None


Batch = tuple[Tensor, Sequence[Noise], Noise]
"""Images (n, c, h, w) in [0, 1], the noise of each update of the critic and of the model."""


def shifted(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Batch norm that learns no scale."""
    norm.weight.requires_grad_(False)
    return norm


def conv(d_in: int, d_out: int) -> nn.Sequential:
    layer = nn.Conv2d(d_in, d_out, 5, stride=2, padding=2)
    return nn.Sequential(layer, shifted(nn.BatchNorm2d(d_out, eps=1e-3)), nn.ReLU())


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
    """Trains one spec of a method of `models.objectives` on images of c channels, h = w = size."""

    def __init__(
        self,
        spec: ImageSpec,
        channels: int,
        size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.spec, self.device, self.dtype = spec, torch.device(device), dtype
        self.shape = shape = ImageShape(channels, size, width=spec.width)
        self.encoder, self.decoder, self.critic = (
            initialise(network, seed(spec.stream, "weights", role)).to(self.device, dtype)
            for role, network in (
                ("encoder", encoder(shape)),
                ("decoder", decoder(shape)),
                ("critic", Critic(shape)),
            )
        )
        models = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.model = [p for p in models if p.requires_grad]
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
                z_x, x_z = self.encode(x, each.eps), self.decoder(each.z)
            loss = self.objective.critic(self.critic(x, z_x), self.critic(x_z, each.z))
            self.critic_adam.zero_grad()
            loss.backward()
            self.critic_adam.step()
        z_x, x_z = self.encode(x, noise.eps), self.decoder(noise.z)
        loss = self.objective.model(self.critic(x, z_x), self.critic(x_z, noise.z))
        if noise.eps_cycle is not None:
            x_rec, z_rec = self.decoder(z_x), self.encode(x_z, noise.eps_cycle)
            loss = loss + self.spec.lam * (F.l1_loss(x_rec, x) + F.l1_loss(z_rec, noise.z))
        self.model_adam.zero_grad()
        loss.backward(inputs=self.model)  # the critic's own gradient is not needed
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
        z = torch.randn(len(x), self.shape.d_z, device=x.device, dtype=x.dtype)
        eps = torch.randn_like(x[:, :1])
        cycle = torch.randn_like(eps) if model and self.spec.lam else None
        return Noise(z, eps, cycle)

    def loader(self, images: np.ndarray) -> DataLoader:
        """Shuffled batches of uint8 images (n, c, h, w), kept as floats in [0, 1]."""
        data = TensorDataset(torch.from_numpy(np.array(images)).to(self.dtype) / 255)
        pinned = self.device.type == "cuda"
        return DataLoader(data, self.spec.batch, shuffle=True, drop_last=True, pin_memory=pinned)
