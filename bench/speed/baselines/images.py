"""Trains the joint-matching methods on images in a plain loop.

The loop is eager, with `torch.nn` layers, `torch.optim.Adam` and a DataLoader of float images. It
starts from the suite's weights. Its networks are MNIST's of the paper's supplement, or CIFAR-10's
of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import seed
from models.methods import METHODS
from models.objectives import OBJECTIVES

Noise = Callable[..., Tensor]
"""Returns the noise of one update: `noise(name, *shape)` is (n, *shape)."""

Batch = tuple[Tensor, Sequence[Noise], Noise]
"""Scaled images (n, c, h, w), the noise of each update of the critic and of the model."""

EXTRA = 20  # numbers of noise beside a code, in networks of colour images


def norm(d: int, of: type[nn.BatchNorm1d | nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.Module:
    """Returns batch norm that learns no scale."""
    layer = of(d, eps=1e-3)
    layer.weight.requires_grad_(False)
    return layer


def convs(*channels: int, act: nn.Module) -> nn.Sequential:
    """Returns convolutions of stride 2 from one number of channels to the next, then flat."""
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        layers += [nn.Conv2d(a, b, 5, stride=2, padding=2), norm(b), act]
    return nn.Sequential(*layers, nn.Flatten())


def deconv(d_in: int, d_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(d_in, d_out, 5, stride=2, padding=2, output_padding=1)


class Critic(nn.Module):
    """Computes f(x, z) (n,). In colour, `noise` is a channel beside x and numbers beside z."""

    def __init__(self, of_x: nn.Module, of_z: nn.Module, of_both: nn.Module) -> None:
        super().__init__()
        self.of_x, self.of_z, self.of_both = of_x, of_z, of_both

    def forward(self, x: Tensor, z: Tensor, *noise: Tensor) -> Tensor:
        of_x = self.of_x(torch.cat([x, *noise[:1]], 1))
        of_z = self.of_z(torch.cat([z, *noise[1:]], 1))
        return self.of_both(torch.cat([of_x, of_z], 1)).squeeze(1)


def digit_networks(d: int, units: Callable[[int], int]) -> tuple[nn.Module, ...]:
    """Returns encoder, decoder and critic of images (n, 1, 28, 28) and codes (n, d)."""
    a, b, c, e, hidden, wide = map(units, (16, 32, 64, 128, 784, 1024))
    relu = nn.ReLU()
    encoder = nn.Sequential(
        convs(2, a, b, act=relu),
        *(nn.Linear(b * 7 * 7, hidden), norm(hidden, nn.BatchNorm1d), relu),
        nn.Linear(hidden, d),
    )
    decoder = nn.Sequential(
        *(nn.Linear(d, wide), norm(wide, nn.BatchNorm1d), relu),
        *(nn.Linear(wide, c * 7 * 7), norm(c * 7 * 7, nn.BatchNorm1d), relu),
        nn.Unflatten(1, (c, 7, 7)),
        *(deconv(c, c), norm(c), relu),
        *(deconv(c, 1), nn.Sigmoid()),
    )
    both = nn.Sequential(nn.Linear(e * 4 * 4 + wide, wide), nn.LeakyReLU(0.2), nn.Linear(wide, 1))
    of_z = nn.Sequential(nn.Linear(d, wide), relu)
    return encoder, decoder, Critic(convs(1, b, c, e, act=relu), of_z, both)


def colour_networks(d: int, units: Callable[[int], int]) -> tuple[nn.Module, ...]:
    """Returns encoder, decoder and critic of images (n, 3, 32, 32) and codes (n, d) in [-1, 1]."""
    a, b, c, e, f, wide = map(units, (32, 64, 128, 256, 512, 2048))
    relu, leaky = nn.ReLU(), nn.LeakyReLU(0.2)
    encoder = nn.Sequential(convs(4, a, b, c, e, act=relu), nn.Linear(e * 2 * 2, d), nn.Tanh())
    decoder = nn.Sequential(
        *(nn.Linear(d + EXTRA, f * 4 * 4), nn.Unflatten(1, (f, 4, 4)), norm(f), relu),
        *(deconv(f, e), norm(e), leaky),
        *(deconv(e, c), norm(c), relu),
        *(deconv(c, 3), nn.Tanh()),
    )
    of_z = nn.Sequential(nn.Linear(d + EXTRA, wide), leaky)
    both = nn.Linear(f * 2 * 2 + wide, 1)
    return encoder, decoder, Critic(convs(4, b, c, e, f, act=leaky), of_z, both)


def initialise(network: nn.Module, start: int) -> nn.Module:
    """Returns the network with Xavier's weights drawn from this seed, and biases 0."""
    rng = torch.Generator().manual_seed(start)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=rng)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


class PlainTrainer:
    """Trains one spec; the counterpart of `bench.studies.images.train.Trainer`.

    Unless the loop is `frugal`, the model's step computes the critic's gradient as well and drops
    it, as in PyTorch's DCGAN example. The networks are `compiled` by torch.compile if it is asked.
    """

    def __init__(
        self,
        spec: ImageSpec,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        frugal: bool = True,
        compiled: bool = False,
    ) -> None:
        self.spec, self.device, self.dtype = spec, torch.device(device), dtype
        of = domain(spec.data)
        self.d, self.colour, self.channel = of.d_z, of.channels == 3, (1, of.size, of.size)
        self.beside = [self.channel, (EXTRA,)] if self.colour else []  # x and z
        networks = colour_networks if self.colour else digit_networks
        self.encoder, self.decoder, self.critic = (
            initialise(network, seed(spec.stream, "weights", role)).to(self.device, dtype)
            for role, network in zip(
                ("encoder", "decoder", "critic"),
                networks(of.d_z, lambda full: max(1, round(full * spec.width))),
                strict=True,
            )
        )
        if compiled:
            for network in (self.encoder, self.decoder, self.critic):
                network.compile()
        models = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.model = [p for p in models if p.requires_grad]
        self.reached = self.model if frugal else None
        betas = METHODS[spec.method].betas
        learned = [p for p in self.critic.parameters() if p.requires_grad]
        self.critic_adam = torch.optim.Adam(learned, lr=spec.lr, betas=betas)
        self.model_adam = torch.optim.Adam(self.model, lr=spec.lr, betas=betas)
        self.objective = OBJECTIVES[spec.method]

    def encode(self, x: Tensor, noise: Noise, name: str = "eps") -> Tensor:
        """Returns z ~ q(z|x), (n, d)."""
        return self.encoder(torch.cat([x, noise(name, *self.channel)], 1))

    def decode(self, z: Tensor, noise: Noise, name: str = "noise") -> Tensor:
        """Returns x ~ p(x|z), (n, c, h, w)."""
        extra = [noise(f"{name} 0", *shape) for shape in self.beside[1:]]
        return self.decoder(torch.cat([z, *extra], 1))

    def judge(self, x: Tensor, z: Tensor, noise: Noise, name: str) -> Tensor:
        """Returns f(x, z), (n,)."""
        own = (noise(f"critic's {name} {i}", *shape) for i, shape in enumerate(self.beside))
        return self.critic(x, z, *own)

    def updates(self, x: Tensor, critic_noise: Sequence[Noise], noise: Noise) -> None:
        """Makes all updates of one batch: the critic's, then the model's."""
        for each in critic_noise:
            z = each("z", self.d)
            with torch.no_grad():
                z_x, x_z = self.encode(x, each), self.decode(z, each)
            f_q, f_p = self.judge(x, z_x, each, "q"), self.judge(x_z, z, each, "p")
            self.critic_adam.zero_grad()
            self.objective.critic(f_q, f_p).backward()
            self.critic_adam.step()
        z = noise("z", self.d)
        z_x, x_z = self.encode(x, noise), self.decode(z, noise)
        f_q, f_p = self.judge(x, z_x, noise, "q"), self.judge(x_z, z, noise, "p")
        loss = self.objective.model(f_q, f_p)
        if self.spec.lam > 0:
            x_rec = self.decode(z_x, noise, "noise of the cycle")
            z_rec = self.encode(x_z, noise, "eps of the cycle")
            loss = loss + self.spec.lam * (F.l1_loss(x_rec, x) + F.l1_loss(z_rec, z))
        self.model_adam.zero_grad()
        loss.backward(inputs=self.reached)
        self.model_adam.step()

    def batches(self, images: np.ndarray) -> Iterator[Batch]:
        """Yields shuffled batches of uint8 images (n, c, h, w) without end, with fresh noise."""
        scaled = torch.from_numpy(np.array(images)).to(self.dtype) / 255
        data = TensorDataset(scaled * 2 - 1 if self.colour else scaled)
        pinned = self.device.type == "cuda"
        loader = DataLoader(data, self.spec.batch, shuffle=True, drop_last=True, pin_memory=pinned)
        while True:
            for (batch,) in loader:
                x = batch.to(self.device, self.dtype, non_blocking=True)
                yield x, [self.fresh] * self.spec.critic_steps, self.fresh

    def fresh(self, name: str, *shape: int) -> Tensor:
        """Returns new noise (batch, *shape) of any name: U[-1, 1) for colour images, or N(0, I)."""
        out = torch.empty(self.spec.batch, *shape, device=self.device, dtype=self.dtype)
        return out.uniform_(-1, 1) if self.colour else out.normal_()
