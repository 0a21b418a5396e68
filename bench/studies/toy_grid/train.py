"""The one loop of the toy study trains a stack of models side by side, each as if alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.ahead import ahead
from bench.spec import generator
from bench.studies.cuda import own_stream, record
from bench.studies.toy_grid import data
from bench.studies.toy_grid.spec import ToySpec
from models.objectives import OBJECTIVES, regularised, squared_error
from models.products import Adam, runs
from models.stacked import Group, Shape, ToyNetworks, Trio, draw

BETAS = (0.5, 0.999)  # Adam's decay rates: beta1 of ALICE's toy script, and the default beta2


class Batch(NamedTuple):
    """Holds a batch of every member and the noise of all its updates, features before the batch.

    x and z are (m, 2, batch). critic_eps (2 m, 2, critic_steps * batch) has encoders, then
    decoders. model_eps (model_steps, 2, 2 m, 2, batch) is for codes and samples, then the cycle.
    """

    x: Tensor
    z: Tensor
    critic_eps: Tensor
    model_eps: Tensor


class Trainer:
    """Trains the given specs as one stack: one tensor program, with a member for each spec.

    Members share their `program`. Each has its own shape, method, lambda, learning rate and seed.
    No operation mixes members. A loss is averaged over the batch and summed over the stack, so
    every member gets its own gradient. The trainer sorts `specs`. On a GPU the trainer records all
    updates of a batch after the first, unless it is told not to `record`. Then `graph` is true.
    Raises ValueError if programs differ.
    """

    def __init__(
        self,
        specs: Sequence[ToySpec],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        record: bool = True,
    ) -> None:
        if len({program(spec) for spec in specs}) != 1:
            raise ValueError("the members of a stack must share batch, updates and epochs")
        # Members of a method lie side by side, so the method's loss is one call on a slice.
        self.specs = sorted(specs, key=lambda spec: spec.method)
        self.device, self.dtype = torch.device(device), dtype
        self.record, self.graph = record and self.device.type == "cuda", False
        shapes = [toy_shape(spec) for spec in self.specs]
        streams = [spec.stream for spec in self.specs]  # methods and lambdas share one
        by_stream = dict(zip(streams, shapes, strict=True))
        drawn = {s: draw(shape, generator(s, "weights")) for s, shape in by_stream.items()}
        weights = [drawn[stream] for stream in streams]
        self.nets = ToyNetworks(shapes, weights, self.device, dtype)
        lrs = [spec.lr for spec in self.specs]
        self.critic_adam = StackedAdam(self.nets.critics, lrs)
        self.model_adam = StackedAdam(self.nets.coders, lrs + lrs)
        self.lam = torch.tensor([spec.lam for spec in self.specs], device=device, dtype=dtype)
        self.cycle = any(spec.lam > 0 for spec in self.specs)
        objectives = [OBJECTIVES[spec.method] for spec in self.specs]
        # Neighbours that reduce logits in the same way share one call.
        self.reductions = {
            "critic": runs([objective.critic for objective in objectives]),
            "model": runs([objective.model for objective in objectives]),
        }

    def reduce(self, which: str, f_q: Tensor, f_p: Tensor) -> Tensor:
        """Returns each member's own loss (m,) of its logits; `which` is "critic" or "model"."""
        reductions, starts, ends = zip(*self.reductions[which], strict=True)
        sizes = [end - start for start, end in zip(starts, ends, strict=True)]
        parts = zip(reductions, f_q.split(sizes), f_p.split(sizes), strict=True)
        return torch.cat([reduction(q, p) for reduction, q, p in parts])

    def critic_steps(self, x: Tensor, z: Tensor, eps: Tensor) -> None:
        """Makes all updates of the critics on one batch, coded in one pass for all updates."""
        steps, batch = self.specs[0].critic_steps, x.shape[2]
        with torch.no_grad():
            z_x, x_z = self.nets.code(x.repeat(1, 1, steps), z.repeat(1, 1, steps), eps)
        for z_x_step, x_z_step in zip(z_x.split(batch, 2), x_z.split(batch, 2), strict=True):
            loss = self.reduce("critic", *self.nets.logits(x, z_x_step, x_z_step, z))
            self.critic_adam.descend(loss)

    def model_step(self, x: Tensor, z: Tensor, eps: Tensor) -> None:
        """Makes one update of encoders and decoders, with frozen critics."""
        z_x, x_z = self.nets.code(x, z, eps[0])
        loss = self.reduce("model", *self.nets.logits(x, z_x, x_z, z, frozen=True))
        if self.cycle:
            z_rec, x_rec = self.nets.code(x_z, z_x, eps[1])
            loss = regularised(loss, self.lam, squared_error(x, x_rec, z, z_rec))
        self.model_adam.descend(loss)

    def updates(self, batch: Batch) -> None:
        """Makes all updates of one batch: the critics', then the models'."""
        self.critic_steps(batch.x, batch.z, batch.critic_eps)
        for eps in batch.model_eps:
            self.model_step(batch.x, batch.z, eps)

    def epochs(self) -> Iterator[list[Batch]]:
        """Yields epochs as lists of batches; members of one stream share one draw.

        A GPU does not wait for the draws of its next epoch: a thread makes them meanwhile.
        """
        sources = {spec.stream: data.epochs(spec) for spec in self.specs}
        streams = list(sources)
        member = [streams.index(spec.stream) for spec in self.specs]
        member = torch.tensor(member, device=self.device)

        def drawn() -> Iterator[list[np.ndarray]]:
            """Yields x, z and both kinds of noise of an epoch, with an axis of streams."""
            while True:
                epochs = zip(*map(next, sources.values()), strict=True)
                yield [np.stack(*each) for each in zip(epochs, (1, 1, 2, 3), strict=True)]

        def stacked(array: np.ndarray, axis: int) -> Tensor:
            return torch.from_numpy(array).to(self.device, self.dtype).index_select(axis, member)

        for x, z, critic_eps, model_eps in (
            ahead(drawn()) if self.device.type == "cuda" else drawn()
        ):
            critic = stacked(critic_eps, 2).flatten(1, 2)
            model = stacked(model_eps, 3).unflatten(2, (2, 2)).flatten(3, 4)
            parts = zip(stacked(x, 1), stacked(z, 1), critic, model, strict=True)
            yield [Batch(*each) for each in parts]

    def train(self, after_epoch: Callable[[int], None] = lambda epoch: None) -> float:
        """Runs all epochs and returns their seconds, without the time of `after_epoch`.

        Calls `after_epoch` with the number of finished epochs, from 0 on. Raises what `record`
        raises.
        """
        after_epoch(0)
        update, seconds, source = self.updates, 0.0, self.epochs()
        with own_stream(self.device):
            for epoch in range(1, self.specs[0].epochs + 1):
                start = time.perf_counter()
                for batch in next(source):
                    update(batch)
                    if self.record and not self.graph:
                        update, self.graph = self._recorded(batch), True
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                seconds += time.perf_counter() - start
                after_epoch(epoch)
        return seconds

    def _recorded(self, example: Batch) -> Callable[[Batch], None]:
        """Returns the updates of a batch as recorded work, see `record`."""
        static = Batch(*(tensor.clone() for tensor in example))
        methods = tuple(sorted({spec.method for spec in self.specs}))
        replay = record(lambda: self.updates(static), self.device, methods)

        def update(batch: Batch) -> None:
            for own, tensor in zip(static, batch, strict=True):
                own.copy_(tensor)
            replay()

        return update

    def parameters(self, member: int) -> Tensor:
        """Returns all parameters of a member in one row: encoder, decoder, critic."""
        return torch.cat([tensor.flatten() for tensor in self.nets.weights(member).values()])

    @torch.no_grad()
    def finite(self) -> list[bool]:
        """Returns whether all parameters of each member are finite."""
        return [bool(self.parameters(i).isfinite().all()) for i in range(len(self.specs))]


class StackedAdam:
    """Runs Adam over the banks of a group, with a learning rate for every network."""

    def __init__(self, group: Group, lrs: Sequence[float]) -> None:
        self.steps = [
            Adam(bank.parameters, bank.gradient, [lrs[i] for i in members], BETAS).step
            for bank, members in zip(group.banks, group.members, strict=True)
        ]

    def descend(self, loss: Tensor) -> None:
        """Steps down each network's own loss; `loss` (m,) has a number for each member."""
        loss.sum().backward()
        for step in self.steps:
            step()


def program(spec: ToySpec) -> tuple[int, ...]:
    """Returns what the members of a stack must have in common."""
    return spec.critic_steps, spec.model_steps, spec.batch, spec.epochs


def toy_shape(spec: ToySpec) -> Trio:
    """Returns the shapes of encoder, decoder and critic. Data, codes and noise have 2 numbers."""
    encoder, decoder, critic = zip(spec.depths, spec.widths, strict=True)
    return Shape(2 + 2, *encoder, 2), Shape(2 + 2, *decoder, 2), Shape(2 + 2, *critic, 1)
