"""Trains a model whose joints have densities, by a learned critic or by the optimal one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from bench.spec import generator
from bench.studies.cost import counted
from bench.studies.theory.data import BATCHES, Draw, data_of, dimensions, draws
from bench.studies.theory.spec import (
    EXACT,
    JOINT,
    MODES,
    SD,
    SLOPE,
    SUPPORTS,
    VANISHING,
    TheorySpec,
)
from models.explicit import (
    EXPLICIT,
    Batch,
    Conditional,
    Critic,
    JointCritic,
    Joints,
    annealed,
    cycle,
)
from models.objectives import regularised

START = 1.5
"""Ratio of the updates that prepare the start of a training of SUPPORTS to its own updates."""


def networks(spec: TheorySpec) -> tuple[Joints, JointCritic]:
    """Returns a new model and critic; methods and critics of one stream begin with equal weights.

    In MODES the model is one Gaussian with a mean from -2 to 2 and a deviation from .5 to 2. In
    VANISHING the joints differ only in a shift of p(x|z), along the first axis.
    """
    rng, (d, k) = generator(spec.stream, "weights"), dimensions(spec)
    hidden = [spec.width] * 2
    coded, sd = ([], 1.0) if spec.experiment != SUPPORTS else (hidden, 0.2)
    encoder = Conditional(rng, d, k, coded, sd)
    decoder = Conditional(rng, k, d, coded, sd)
    critic = JointCritic(rng, d + k, hidden)
    with torch.no_grad():
        if spec.experiment == MODES:
            decoder.affine()[1].fill_(rng.uniform(-2, 2))
            decoder.widen(2 ** rng.uniform(-1, 1))
        if spec.experiment == VANISHING:
            for part in (encoder, decoder):
                part.affine()[0].copy_(SLOPE * torch.eye(d))
                part.widen(SD)
            decoder.affine()[1][0] = spec.distance * SD
    return Joints(encoder, decoder, data_of(spec)), critic


class Trainer:
    """Trains one model; `joints` and `critic` change in place.

    Nothing is shared with other trainings but the start, which the caller may give.
    """

    def __init__(self, spec: TheorySpec, device: str, start: nn.Module | None = None) -> None:
        self.spec, self.device = spec, device
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.joints, self.critic = networks(spec)
        if start is not None:
            self.joints.load_state_dict(start.state_dict())
        self.joints.to(device)
        self.critic.to(device)
        self.method = EXPLICIT[spec.method]
        self.learns = self.method.critic is not None and spec.critic == JOINT
        self.model_adam, self.critic_adam = (
            torch.optim.Adam(players.parameters(), spec.lr, self.method.betas, fused=True)
            for players in (self.joints, self.critic)
        )

    def f(self) -> Critic:
        """Returns the critic that the model follows now."""
        return self.critic if self.learns else self.joints.held()

    def batch(self, x: Tensor, z: Tensor, eps: Tensor) -> Batch:
        """Returns x and z with their partners; `eps` begins with the noise of both."""
        d, k = x.shape[-1], z.shape[-1]
        eps_z, eps_x = eps[..., : k + d].split([k, d], -1)
        return Batch(x, z, *self.joints.pairs(x, z, eps_z, eps_x))

    def critic_steps(self, draw: Draw) -> None:
        """Makes all updates of the critic on one batch."""
        assert self.method.critic is not None
        for eps in draw.critic_eps:
            with torch.no_grad():
                batch = self.batch(draw.x, draw.z, eps)
            _descend(self.critic_adam, self.method.critic(self.critic, batch, eps[:, -1:]))

    def model_loss(self, draw: Draw, eps: Tensor) -> Tensor:
        """Returns what the model minimises on one batch, with the terms of (29) at lambda > 0."""
        batch = self.batch(draw.x, draw.z, eps)
        loss = self.method.model(self.joints, self.f(), batch)
        if self.spec.lam == 0:
            return loss
        d, k = draw.x.shape[-1], draw.z.shape[-1]
        error = cycle(self.joints, batch, *eps[..., k + d :].split([k, d], -1))
        return regularised(loss, self.spec.lam, error)

    def updates(self, draw: Draw) -> None:
        """Makes all updates of one batch: the critic's, then the model's."""
        if self.learns:
            self.critic_steps(draw)
        for eps in draw.model_eps[: self.spec.model_steps]:
            _descend(self.model_adam, self.model_loss(draw, eps))

    def train(self, stops: Iterable[int], at_stop: Callable[[int], None]) -> None:
        """Trains up to the last of these ascending numbers of batches, and counts the seconds.

        Calls `at_stop` at each number, whose time is left out.
        """
        source, done = draws(self.spec, "batches", self.device), 0
        for stop in stops:
            with counted([self]):
                for draw in islice(source, stop - done):
                    self.updates(draw)
            done = stop
            at_stop(stop)

    def finite(self) -> bool:
        """Returns whether all parameters are finite."""
        every = [*self.joints.parameters(), *self.critic.parameters()]
        return all(bool(each.isfinite().all()) for each in every)


def preparation(spec: TheorySpec) -> TheorySpec:
    """Returns the VAE that prepares the start of a training of SUPPORTS, whoever starts from it."""
    return replace(spec, method="vae", lam=0.0, critic=EXACT)


def prepared(spec: TheorySpec, device: str) -> Joints:
    """Returns the model from which all trainings of SUPPORTS of one stream start.

    It is a VAE, whose KL has a weight that rises from 0 to 1 in the first half of its updates.
    Without the rise some seeds make no use of a code, and all modes of the data look alike.
    """
    trainer, updates = Trainer(preparation(spec), device), round(START * spec.epochs * BATCHES)
    for i, draw in enumerate(islice(draws(trainer.spec, "start", device), updates)):
        batch = trainer.batch(draw.x, draw.z, draw.model_eps[0])
        loss = annealed(trainer.joints, batch, min(1.0, 2 * i / updates))
        _descend(trainer.model_adam, loss)
    return trainer.joints


def _descend(adam: torch.optim.Adam, loss: Tensor) -> None:
    """Makes a step of Adam; the gradient of a loss reaches the optimiser's own player alone."""
    players = adam.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, players, allow_unused=True)
    for player, gradient in zip(players, gradients, strict=True):
        player.grad = gradient
    adam.step()
