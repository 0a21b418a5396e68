"""The one loop of the image studies trains one model by any method, resumable at every step.

Every random number belongs to a step and has a name. So a resumed training sees what it would have
seen without a stop, and all methods see the same batches and the same noise.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from bench.spec import generator
from bench.studies.cost import counted
from bench.studies.cuda import record
from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from models.layers import layout
from models.methods import METHODS

POINTS = 64
"""The suite keeps both losses at so many evenly spaced steps."""

Losses = tuple[Tensor, Tensor]  # the critic's loss and the model's loss


class Draws:
    """Holds the batch of one update: images, and noise by name, which is drawn when asked for."""

    def __init__(
        self,
        x: Tensor,
        stream: str,
        update: str,
        uniform: bool = False,
        by: torch.device | str | None = None,
    ) -> None:
        """`by` is the device that draws noise, by default the batch's.

        `uniform` says whether codes and noise are uniform, see `Domain.uniform`.
        """
        self.x, self._stream, self._update, self._uniform = x, stream, update, uniform
        self._by = x.device if by is None else torch.device(by)
        self._drawn: dict[str, tuple[Callable[..., Tensor], Tensor]] = {}

    def noise(self, name: str, *shape: int) -> Tensor:
        """Returns N(0, I), or U[-1, 1) if the domain is uniform, of (n, *shape)."""
        return self.uniform(name, *shape) * 2 - 1 if self._uniform else self.normal(name, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Returns N(0, I) of (n, *shape)."""
        return self._draw(torch.randn, name, shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Returns U[0, 1) of (n, *shape)."""
        return self._draw(torch.rand, name, shape)

    def _draw(self, kind: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._drawn:
            out = torch.empty(len(self.x), *shape, device=self.x.device, dtype=self.x.dtype)
            self._drawn[name] = kind, out
            self._fill(name)
        return self._drawn[name][1]

    def _fill(self, name: str) -> None:
        kind, out = self._drawn[name]
        rng = torch.Generator(self._by).manual_seed(seed(self._stream, self._update, name))
        if self._by == out.device:
            kind(out.shape, generator=rng, out=out)
        else:
            out.copy_(kind(out.shape, generator=rng, dtype=out.dtype, device=self._by))

    def again(self, update: str) -> None:
        """Draws all noise anew for another update, into the same memory."""
        self._update = update
        for name in self._drawn:
            self._fill(name)


def seed(*names: str) -> int:
    """Returns a 63-bit seed that belongs to these names."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Model:
    """Holds the networks of one spec, and draws the noise that they take."""

    def __init__(
        self,
        spec: ImageSpec,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        laid_out: torch.memory_format | None = None,
    ) -> None:
        """Takes the layout of weights, by default that of products in float32, see `layout`."""
        self.spec, self.device, self.dtype = spec, torch.device(device), dtype
        self.method, self.domain = METHODS[spec.method], domain(spec.data)
        seeds, kinds = partial(seed, spec.stream, "weights"), (spec.networks, spec.critic)
        self.nets = self.domain.networks(self.method, spec.width, seeds, *kinds)
        self.nets.to(self.device, dtype)
        self.nets.to(memory_format=laid_out or layout(self.device))

    def draws(self, x: Tensor, update: str, by: torch.device | str | None = None) -> Draws:
        """Returns the batch x with this training's noise for one update, see `Draws`."""
        return Draws(x, self.spec.stream, update, self.domain.uniform, by)

    def finite(self) -> bool:
        """Returns whether all parameters are finite."""
        return all(bool(p.isfinite().all()) for p in self.nets.parameters())


class Trainer(Model):
    """Trains one spec on uint8 images (n, c, h, w).

    A step takes one batch for all updates of the critic and the update of the model. Each update
    draws fresh noise and, unlike the authors' CelebA code, fresh codes of the prior. On a GPU the
    trainer records the updates of its first step, unless it is told not to `record`. Then `graph`
    is true. All steps are on a `stream` of the trainer's own there, so that trainers can share the
    GPU, see `together`. Trainers may share images that lie on the device.
    """

    def __init__(
        self,
        spec: ImageSpec,
        images: np.ndarray | Tensor,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        record: bool = True,
        laid_out: torch.memory_format | None = None,
    ) -> None:
        device = torch.device(device)
        rounded = spec.precision != "float32"
        super().__init__(spec, device, dtype, laid_out or layout(device, rounded))
        images = images[: spec.images or None]
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.array(images))
        self.images = images.to(device)
        self.rounded = spec.precision == "bf16"
        if self.rounded:
            for module in self.nets.modules():  # autocast rounds products alone by these hooks
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    module.register_forward_hook(lambda module, inputs, output: output.to(dtype))
        self.critics, self.models = self.nets.critics(), self.nets.models()
        self.critic_adam = self._adam(self.critics) if self.critics else None
        self.model_adam = self._adam(self.models)
        self.critic_steps = self.method.critic_updates(spec.critic_steps)
        self.record, self.graph = record and self.device.type == "cuda", False
        self._replay: Callable[[Tensor, Sequence[str]], Losses] | None = None
        self._epoch, self._order = -1, torch.empty(0)
        self.steps_per_epoch = max(1, len(self.images) // spec.batch)
        self.steps = spec.epochs * self.steps_per_epoch
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.losses: list[tuple[int, float, float]] = []  # step, critic's, model's
        self.stream = _new_stream(device)

    def _adam(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Adam:
        on_gpu = self.device.type == "cuda"
        lr, betas = self.spec.lr, self.method.betas
        adam = torch.optim.Adam(parameters, lr, betas, fused=True, capturable=on_gpu)
        for p in parameters:  # Adam would make the same zeros at its first step
            adam.state[p] = {"step": torch.zeros((), device=self.device)}
            adam.state[p] |= {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        return adam

    def batch(self, step: int) -> Tensor:
        """Returns a step's images, (batch, c, h, w) scaled; each epoch has an order of its own."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            order = generator(self.spec.stream, f"order {epoch}").permutation(len(self.images))
            # This copy does not wait for the steps before it.
            order = torch.from_numpy(order).to(self.device, non_blocking=True)
            self._epoch, self._order = epoch, order
        rows = self._order[i * self.spec.batch : (i + 1) * self.spec.batch]
        return self.domain.scaled(self.images[rows], self.dtype)

    def update_names(self, step: int) -> list[str]:
        """Returns the names of a step's updates, which seed their noise: the model's is last."""
        critics = self.critic_steps if self.method.critic else 0
        return [*(f"{step} critic {k}" for k in range(critics)), f"{step} model"]

    def updates(self, draws: Sequence[Draws]) -> Losses:
        """Makes all updates of one batch, see `update_names`; returns the last losses."""
        *for_critic, for_model = draws
        critic_loss = for_model.x.new_zeros(())
        if self.method.critic is not None and self.critic_adam is not None:
            learn(self.critics, self.models)
            for each in for_critic:
                with self._precision():
                    critic_loss = self.method.critic(self.nets, each)
                _descend(self.critic_adam, critic_loss)
                if self.method.clip:
                    for parameter in self.critics:
                        parameter.data.clamp_(-self.method.clip, self.method.clip)
        learn(self.models, self.critics)
        with self._precision():
            model_loss = self.method.model(self.nets, for_model, self.spec.lam)
        _descend(self.model_adam, model_loss)
        return critic_loss.detach(), model_loss.detach()

    def advance(self) -> Losses:
        """Makes the next step; returns its last losses, which a later step may overwrite.

        A GPU may still be at work on the step, on this trainer's stream. Raises what `record`
        raises.
        """
        with torch.cuda.stream(self.stream):
            x, names = self.batch(self.step), self.update_names(self.step)
            if self._replay is not None:
                losses = self._replay(x, names)
            else:
                draws = [self.draws(x, name) for name in names]
                losses = self.updates(draws)
                if self.record:
                    self._replay, self.graph = self._recorded(x, draws), True
        self.step += 1
        return losses

    def _recorded(self, x: Tensor, draws: Sequence[Draws]) -> Callable[..., Losses]:
        """Returns updates that were just made as recorded work, see `record`.

        A later step lays its batch into their memory. The noise is drawn by then, because no
        recording can draw.
        """
        replay = record(lambda: self.updates(draws), self.device, (self.spec.method,))

        def step(images: Tensor, names: Sequence[str]) -> Losses:
            x.copy_(images)
            for each, name in zip(draws, names, strict=True):
                each.again(name)
            return replay()

        return step

    def _precision(self) -> torch.autocast:
        """Returns the context of a loss, whose gradient keeps the loss's precisions."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.rounded)

    def train(self, after_step: Callable[[], None] = lambda: None) -> None:
        """Goes on to the end; calls `after_step` between steps and does not count its time."""
        for _ in together([self]):
            after_step()

    def proceed(self) -> None:
        """Makes the next step, and keeps its losses at about POINTS steps of the training."""
        losses = self.advance()
        if self.step % spacing(self.steps) == 0:
            with torch.cuda.stream(self.stream):
                critic_loss, model_loss = (float(loss) for loss in losses)
            self.losses.append((self.step, critic_loss, model_loss))
        if self.step == self.steps:
            self.wait()
            self._replay = None  # a recording keeps its memory alive
            self.nets.zero_grad(set_to_none=True)

    def wait(self) -> None:
        """Waits until the device has made all steps that it was asked for."""
        if self.stream is not None:
            self.stream.synchronize()

    def _moments(self) -> dict[str, Tensor]:
        """Returns the tensors of both Adams by name."""
        found = {}
        for name, adam in (("critic_adam", self.critic_adam), ("model_adam", self.model_adam)):
            for i, moments in enumerate(adam.state.values() if adam else ()):
                found |= {f"{name}.{i}.{key}": tensor for key, tensor in moments.items()}
        return found

    def state(self) -> dict[str, Tensor]:
        """Returns all that the rest of the training depends on: parameters, Adam, step, losses.

        A training that goes on from a state equals a training that was never stopped. This waits
        for the device and does not count the wait.
        """
        self.wait()
        return {
            **{f"nets.{name}": tensor for name, tensor in self.nets.state_dict().items()},
            **self._moments(),
            "step": torch.tensor(self.step),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
            "cpu_seconds": torch.tensor(self.cpu_seconds, dtype=torch.float64),
            "graph": torch.tensor(self.graph),
            "losses": torch.tensor(self.losses, dtype=torch.float64).reshape(-1, 3),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes back to a `state`. Raises KeyError or RuntimeError for a state of other networks."""
        nets = {k.removeprefix("nets."): t for k, t in tensors.items() if k.startswith("nets.")}
        with torch.cuda.stream(self.stream):  # the next step must see all of it
            self.nets.load_state_dict(nets)
            for name, moment in self._moments().items():
                moment.copy_(tensors[name])
        self.step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        # States of version 1.0 lack it, and nobody knows what their processors did.
        self.cpu_seconds = float(tensors.get("cpu_seconds", math.nan))
        self.graph = bool(tensors.get("graph", False))
        self.losses = [(int(s), c, m) for s, c, m in tensors["losses"].tolist()]


def spacing(steps: int) -> int:
    """Returns after how many steps each a training of so many steps keeps both losses."""
    return max(1, steps // POINTS)


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Returns a new stream of a GPU, which begins after all that is asked for now; else None."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def together(trainers: Sequence[Trainer]) -> Iterator[list[Trainer]]:
    """Goes on with trainings to their ends, a step of each in turn, and waits for the device.

    Yields after each turn the trainings that have ended in it. On a GPU their steps overlap,
    because every trainer has a stream of its own. The time of a turn counts as training, in equal
    parts for all that are under way; the caller's time does not count. Raises what `record` raises.
    """
    for trainer in trainers:
        trainer.nets.train()
    left = under_way(trainers)
    try:
        while left:
            with counted(left):
                for trainer in left:
                    trainer.proceed()
            ended = [trainer for trainer in left if trainer.step == trainer.steps]
            left = under_way(left)
            yield ended
    finally:
        # An error frees tensors that the device may still be writing to.
        with suppress(RuntimeError):
            for trainer in left:
                trainer.wait()


def under_way(trainers: Sequence[Trainer]) -> list[Trainer]:
    """Returns those trainers whose trainings have not ended."""
    return [trainer for trainer in trainers if trainer.step < trainer.steps]


def learn(these: list[torch.nn.Parameter], not_those: list[torch.nn.Parameter]) -> None:
    """Lets gradients reach the first parameters and not the second."""
    for parameters, learning in ((these, True), (not_those, False)):
        for parameter in parameters:
            parameter.requires_grad_(learning)


def _descend(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()
