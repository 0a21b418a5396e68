"""The one loop of the toy study trains a stack of models side by side, each as if alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.ahead import ahead
from bench.spec import generator
from bench.studies.cost import counted
from bench.studies.cuda import own_stream, record
from bench.studies.toy_grid import data
from bench.studies.toy_grid.spec import ToySpec
from models.objectives import OBJECTIVES, regularised, squared_error
from models.products import Adam, runs
from models.stacked import Factors, Group, Shape, ToyNetworks, Trio, draw

BETAS = (0.5, 0.999)  # Adam's decay rates: beta1 of ALICE's toy script, and the default beta2


class Batch(NamedTuple):
    """Holds a batch of every member and the noise of all its updates, features before the batch.

    x and z are (m, 2, batch). critic_eps (2 m, 2, critic_steps * batch) has encoders, then
    decoders. model_eps (model_steps, 2, 2 m, 2, batch) is for codes and samples, then the cycle.
    kept is flat and says, bank by bank, which hidden units dropout keeps: see `Drop`. Without
    dropout it is empty.
    """

    x: Tensor
    z: Tensor
    critic_eps: Tensor
    model_eps: Tensor
    kept: Tensor


class Drop(NamedTuple):
    """Says whose dropout the networks of a bank have.

    Each of `sources` is a stream and 0, 1 or 2, for the stream's encoder, decoder or critic.
    Network i has the masks of source rows[i]. `size` of a batch's masks is (sources, depth, width,
    samples), see `data.Epoch`.
    """

    sources: list[tuple[str, int]]
    rows: Tensor
    size: tuple[int, int, int, int]


class Drops(NamedTuple):
    """Yields the factors of hidden units, one by one for each pass of a batch through networks."""

    coders: Iterator[Factors]
    critics: Iterator[Factors]


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
            raise ValueError("the members of a stack must share batch, updates, epochs and dropout")
        # Members of a method lie side by side, so the method's loss is one call on a slice.
        self.specs = sorted(specs, key=lambda spec: spec.method)
        self.device, self.dtype = torch.device(device), dtype
        self.record, self.graph = record and self.device.type == "cuda", False
        # What epochs took, without what the caller did between them.
        self.seconds, self.cpu_seconds = 0.0, 0.0
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
        one = self.specs[0]
        self.dropout, updates = one.dropout, (one.critic_steps, one.model_steps)
        self.coder_drops = self._drops(self.nets.coders, 0, updates[0] + 2 * updates[1])
        self.critic_drops = self._drops(self.nets.critics, 2, 2 * sum(updates))
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

    def critic_steps(self, x: Tensor, z: Tensor, eps: Tensor, drops: Drops) -> None:
        """Makes all updates of the critics on one batch, coded in one pass for all updates."""
        steps, batch = self.specs[0].critic_steps, x.shape[2]
        with torch.no_grad():
            xs, zs = x.repeat(1, 1, steps), z.repeat(1, 1, steps)
            z_x, x_z = self.nets.code(xs, zs, eps, next(drops.coders))
        for z_x_step, x_z_step in zip(z_x.split(batch, 2), x_z.split(batch, 2), strict=True):
            logits = self.nets.logits(x, z_x_step, x_z_step, z, factors=next(drops.critics))
            self.critic_adam.descend(self.reduce("critic", *logits))

    def model_step(self, x: Tensor, z: Tensor, eps: Tensor, drops: Drops) -> None:
        """Makes one update of encoders and decoders, with frozen critics."""
        z_x, x_z = self.nets.code(x, z, eps[0], next(drops.coders))
        logits = self.nets.logits(x, z_x, x_z, z, frozen=True, factors=next(drops.critics))
        loss = self.reduce("model", *logits)
        if self.cycle:
            z_rec, x_rec = self.nets.code(x_z, z_x, eps[1], next(drops.coders))
            loss = regularised(loss, self.lam, squared_error(x, x_rec, z, z_rec))
        self.model_adam.descend(loss)

    def updates(self, batch: Batch) -> None:
        """Makes all updates of one batch: the critics', then the models'."""
        drops = self.drops(batch.kept)
        self.critic_steps(batch.x, batch.z, batch.critic_eps, drops)
        for eps in batch.model_eps:
            self.model_step(batch.x, batch.z, eps, drops)

    def drops(self, kept: Tensor) -> Drops:
        """Returns the factors of hidden units in each pass of a batch, see `Batch`."""
        if not self.dropout:
            return Drops(repeat(None), repeat(None))
        one, banks = self.specs[0], [*self.coder_drops, *self.critic_drops]
        whole = kept.split([prod(drop.size) for drop in banks])
        each = [part.unflatten(0, drop.size) for part, drop in zip(whole, banks, strict=True)]
        coders, critics = each[: len(self.coder_drops)], each[len(self.coder_drops) :]
        sizes = [one.critic_steps * one.batch, *[one.batch] * (2 * one.model_steps)]
        passes = list(zip(*(part.split(sizes, 3) for part in coders), strict=True))
        if not self.cycle:
            passes = passes[:1] + passes[1::2]
        logits = zip(*(part.split(2 * one.batch, 3) for part in critics), strict=True)
        return Drops(
            (self._factors(parts, self.coder_drops) for parts in passes),
            (self._factors(parts, self.critic_drops) for parts in logits),
        )

    def _factors(self, kept: Sequence[Tensor], drops: Sequence[Drop]) -> Factors:
        """Returns the factors of one pass: 0 for what is not kept, and else 1 / (1 - dropout)."""
        scale = 1 / (1 - self.dropout)
        return [
            part.to(self.dtype).mul_(scale).index_select(0, drop.rows)
            for part, drop in zip(kept, drops, strict=True)
        ]

    def _drops(self, group: Group, first: int, updates: int) -> list[Drop]:
        """Returns a Drop for each bank. Networks of the first m are the streams' number `first`."""
        found, m = [], len(self.specs)
        for bank, members in zip(group.banks, group.members, strict=True):
            keys = [(self.specs[i % m].stream, first + i // m) for i in members]
            sources = list(dict.fromkeys(keys))
            rows = torch.tensor([sources.index(key) for key in keys], device=self.device)
            samples = updates * self.specs[0].batch
            size = len(sources), bank.shape.depth, bank.shape.width, samples
            found.append(Drop(sources, rows, size))
        return found

    def epochs(self) -> Iterator[list[Batch]]:
        """Yields epochs as lists of batches; members of one stream share one draw.

        A GPU does not wait for the draws of its next epoch: a thread makes them meanwhile.
        """
        sources = {spec.stream: data.epochs(spec) for spec in self.specs}
        streams = list(sources)
        member = [streams.index(spec.stream) for spec in self.specs]
        member = torch.tensor(member, device=self.device)

        def drawn() -> Iterator[list[np.ndarray]]:
            """Yields x, z, both kinds of noise with an axis of streams, and kept of an epoch."""
            while True:
                *epochs, kept = zip(*map(next, sources.values()), strict=True)
                noise = [np.stack(*each) for each in zip(epochs, (1, 1, 2, 3), strict=True)]
                yield [*noise, flat(dict(zip(streams, kept, strict=True)), len(noise[0]))]

        def flat(kept: Mapping[str, Sequence[np.ndarray]], n: int) -> np.ndarray:
            """Returns (n, numbers) for n batches, see `Batch`."""
            if not self.dropout:
                return np.zeros((n, 0), dtype=bool)
            drops = [*self.coder_drops, *self.critic_drops]
            banks = [np.stack([kept[s][role] for s, role in drop.sources], 1) for drop in drops]
            return np.concatenate([bank.reshape(n, -1) for bank in banks], 1)

        def stacked(array: np.ndarray, axis: int) -> Tensor:
            return torch.from_numpy(array).to(self.device, self.dtype).index_select(axis, member)

        for x, z, critic_eps, model_eps, kept in (
            ahead(drawn()) if self.device.type == "cuda" else drawn()
        ):
            critic = stacked(critic_eps, 2).flatten(1, 2)
            model = stacked(model_eps, 3).unflatten(2, (2, 2)).flatten(3, 4)
            on_device = torch.from_numpy(kept).to(self.device)
            parts = zip(stacked(x, 1), stacked(z, 1), critic, model, on_device, strict=True)
            yield [Batch(*each) for each in parts]

    def train(self, after_epoch: Callable[[int], None] = lambda epoch: None) -> None:
        """Runs all epochs and counts their seconds, without those of `after_epoch`.

        Calls `after_epoch` with the number of finished epochs, from 0 on. Raises what `record`
        raises.
        """
        after_epoch(0)
        update, source = self.updates, self.epochs()
        with own_stream(self.device):
            for epoch in range(1, self.specs[0].epochs + 1):
                with counted([self]):
                    for batch in next(source):
                        update(batch)
                        if self.record and not self.graph:
                            update, self.graph = self._recorded(batch), True
                    if self.device.type == "cuda":
                        torch.cuda.synchronize(self.device)
                after_epoch(epoch)

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


def program(spec: ToySpec) -> tuple[float, ...]:
    """Returns what the members of a stack must have in common."""
    return spec.critic_steps, spec.model_steps, spec.batch, spec.epochs, spec.dropout


def toy_shape(spec: ToySpec) -> Trio:
    """Returns the shapes of encoder, decoder and critic. Data, codes and noise have 2 numbers."""
    encoder, decoder, critic = zip(spec.depths, spec.widths, strict=True)
    return Shape(2 + 2, *encoder, 2), Shape(2 + 2, *decoder, 2), Shape(2 + 2, *critic, 1)
