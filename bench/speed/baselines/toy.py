"""Trains one toy model in a plain loop of `torch.nn` layers and `torch.optim.Adam`, batch first.

The loop sees the same random numbers as the stacked trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor, nn

from bench.spec import generator
from bench.studies.toy_grid import data
from bench.studies.toy_grid.spec import ToySpec
from models.objectives import OBJECTIVES, regularised, squared_error

BETAS = (0.5, 0.999)  # Adam's decay rates in the authors' code


def perceptron(depth: int, width: int, d_out: int, rng: np.random.Generator) -> nn.Sequential:
    """Returns a ReLU perceptron of inputs (n, 4), float64, with Xavier's weights and biases 0."""
    layers: list[nn.Module] = []
    for size in pairwise([4, *[width] * depth, d_out]):
        linear = nn.Linear(*size, dtype=torch.float64)
        weights = rng.uniform(-1, 1, linear.weight.shape) * math.sqrt(6 / sum(size))
        linear.weight.data = torch.from_numpy(weights)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PlainTrainer:
    """Trains one spec; the counterpart of `bench.studies.toy_grid.train.Trainer`."""

    def __init__(self, spec: ToySpec, dtype: torch.dtype = torch.float32) -> None:
        self.spec, self.dtype = spec, dtype
        rng = generator(spec.stream, "weights")
        self.encoder = perceptron(spec.encoder_depth, spec.encoder_width, 2, rng).to(dtype)
        self.decoder = perceptron(spec.decoder_depth, spec.decoder_width, 2, rng).to(dtype)
        self.critic = perceptron(spec.critic_depth, spec.critic_width, 1, rng).to(dtype)
        self.model = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=spec.lr, betas=BETAS)
        self.model_adam = torch.optim.Adam(self.model, lr=spec.lr, betas=BETAS)
        self.objective = OBJECTIVES[spec.method]

    def code(self, x: Tensor, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns codes of x and samples from z, each (batch, 2), for eps (2, batch, 2)."""
        return self.encoder(torch.cat([x, eps[0]], 1)), self.decoder(torch.cat([z, eps[1]], 1))

    def logits(self, x: Tensor, z_x: Tensor, x_z: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f on encoder pairs and on decoder pairs, each (batch,)."""
        f_q = self.critic(torch.cat([x, z_x], 1)).squeeze(1)
        f_p = self.critic(torch.cat([x_z, z], 1)).squeeze(1)
        return f_q, f_p

    def updates(self, x: Tensor, z: Tensor, critic_eps: Tensor, model_eps: Tensor) -> None:
        """Makes all updates of one batch: the critic's, then the model's."""
        for eps in critic_eps:
            with torch.no_grad():
                z_x, x_z = self.code(x, z, eps)
            loss = self.objective.critic(*self.logits(x, z_x, x_z, z))
            self.critic_adam.zero_grad()
            loss.backward()
            self.critic_adam.step()
        for eps in model_eps:
            z_x, x_z = self.code(x, z, eps[:2])
            loss = self.objective.model(*self.logits(x, z_x, x_z, z))
            if self.spec.lam > 0:
                z_rec, x_rec = self.code(x_z, z_x, eps[2:])
                loss = regularised(loss, self.spec.lam, squared_error(x, x_rec, z, z_rec))
            self.model_adam.zero_grad()
            loss.backward(inputs=self.model)  # the critic's own gradient is not needed
            self.model_adam.step()

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Yields the batches of all epochs, features last, as `updates` takes them."""
        steps = self.spec.critic_steps, self.spec.batch
        for epoch in islice(data.epochs(self.spec), self.spec.epochs):
            arrays = epoch.x, epoch.z, epoch.critic_eps, epoch.model_eps
            x, z, critic_eps, model_eps = (
                torch.from_numpy(array).to(self.dtype).mT.contiguous() for array in arrays
            )
            critic_eps = critic_eps.unflatten(2, steps).movedim(2, 1)
            yield from zip(x, z, critic_eps, model_eps, strict=True)
