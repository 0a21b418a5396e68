"""The yardstick: one model, `torch.nn` layers, `torch.optim.Adam`, a plain loop.

Nothing here knows of stacks. Tests hold the stacked trainer to this loop's numbers, and
`bench.speed` to its speed. It sees the same random numbers as the stacked trainer and lays
tensors out as everybody does, batch first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from bench.spec import generator
from bench.studies.toy_grid import data
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import BETAS, toy_shape
from models.objectives import OBJECTIVES, regularised, squared_error
from models.stacked import Shape, xavier


def mlp(shape: Shape, weights: list[np.ndarray]) -> nn.Sequential:
    """A ReLU multilayer perceptron with the given matrices and biases of 0."""
    layers: list[nn.Module] = []
    for (d_in, d_out), matrix in zip(shape.layers, weights, strict=True):
        linear = nn.Linear(d_in, d_out)
        linear.weight.data = torch.from_numpy(matrix)
        linear.bias.data = torch.zeros(d_out, dtype=torch.float64)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PlainTrainer:
    """Trains one spec; the counterpart of `bench.studies.toy_grid.train.Trainer`."""

    def __init__(self, spec: ToySpec, dtype: torch.dtype = torch.float32) -> None:
        self.spec, self.dtype = spec, dtype
        rng = generator(spec.stream, "weights")
        self.encoder, self.decoder, self.critic = (
            mlp(shape, xavier(shape, rng)).to(dtype) for shape in toy_shape(spec)
        )
        self.model = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=spec.lr, betas=BETAS)
        self.model_adam = torch.optim.Adam(self.model, lr=spec.lr, betas=BETAS)
        self.objective = OBJECTIVES[spec.method]

    def code(self, x: Tensor, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of x and samples from z, each (batch, 2); eps (2, batch, 2)."""
        z_x = self.encoder(torch.cat([x, eps[0]], 1))
        x_z = self.decoder(torch.cat([z, eps[1]], 1))
        return z_x, x_z

    def logits(self, x: Tensor, z_x: Tensor, x_z: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """f on encoder pairs and on decoder pairs, each (batch,)."""
        f_q = self.critic(torch.cat([x, z_x], 1)).squeeze(1)
        f_p = self.critic(torch.cat([x_z, z], 1)).squeeze(1)
        return f_q, f_p

    def updates(self, x: Tensor, z: Tensor, critic_eps: Tensor, model_eps: Tensor) -> None:
        """All updates of one batch: the critic's, then the model's."""
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

    def batches(self, epoch: data.Epoch) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The epoch's batches with the features last, as `updates` takes them."""
        spec = self.spec

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.dtype).mT.contiguous()

        critic_eps = tensor(epoch.critic_eps).unflatten(2, (spec.critic_steps, spec.batch))
        return list(
            zip(
                tensor(epoch.x),
                tensor(epoch.z),
                critic_eps.movedim(2, 1),
                tensor(epoch.model_eps),
                strict=True,
            )
        )

    def epochs(self) -> Iterator[data.Epoch]:
        """The random numbers of every epoch, the same that the stacked trainer sees."""
        return islice(data.epochs(self.spec), self.spec.epochs)

    def train(self) -> None:
        """Runs all epochs."""
        for epoch in self.epochs():
            for batch in self.batches(epoch):
                self.updates(*batch)
