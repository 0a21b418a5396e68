"""Says in a method's own terms what it does that the suite can't train, score or reproduce.

A contract is a function that yields a line for everything that is wrong, and a `Note` for what is
allowed but may be a slip, such as a term that a method leaves out. `of_objective` holds reductions
of logits to their contracts, `of_method` and `of_images` hold methods of images, and `of_metric`
metrics. The suite's own methods keep the same contracts, without a note.
"""

from __future__ import annotations

import math
import random
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bench
import models
from bench.scores import metrics
from bench.scores.metrics import Absent, Metric
from bench.speed.baselines.toy import PlainTrainer
from bench.studies import STUDIES
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, learn
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer
from models import colour, mnist
from models.methods import METHODS, Method, label
from models.mnist import ImageNetworks, ImageShape, Part
from models.objectives import OBJECTIVES, Reduction

LAM = 0.1  # the lambda above 0 of all trials
MEMBERS, BATCH = 5, 64  # of the stack of logits
STEPS = 15  # updates of one player, whose loss has to fall
LARGE, HUGE = 50.0, 1e4
"""Losses are finite at logits of this size; where they are not at the second, a note says so."""
PLAYERS = ("critic", "model")


class Note(str):
    """A line about something that is allowed."""


class Finding(NamedTuple):
    """Says that a contract is kept (no text), or what is wrong or, in a note, unusual."""

    contract: str
    text: str = ""
    note: bool = False


NUMBER, NUMBERS = "gives one finite number", "gives one number for each member of a stack"
SAME, SAME_NOISE = "depends on the logits alone", "draws noise by name"
UNCHANGED = "changes neither batch nor networks"
FIRST = (NUMBER, NUMBERS, UNCHANGED, SAME, SAME_NOISE)
Lines = Iterator[str]
Contracts = Mapping[str, Callable[[Any], Lines]]


def _findings(contracts: Contracts, players: Mapping[str, Any]) -> list[Finding]:
    """Returns what the contracts find of each player.

    The contracts rest on those of `FIRST`: a player who breaks one of these is not tried by the
    rest. What several contracts find, such as an error, is told once.
    """
    found, told, left = [], set[str](), dict(players)
    for contract, check in contracts.items():
        lines: list[str] = []
        for name, player in [*left.items()]:
            own = _tried(check, player)
            if contract in FIRST and any(not isinstance(line, Note) for line in own):
                del left[name]
                own.append(Note("no other contract is tried until this is mended"))
            start = f"{name}: " if name else ""
            lines += [type(line)(f"{start}{line}") for line in own]
        if len(left) == len(players) and not lines:
            found.append(Finding(contract))
        new = [line for line in dict.fromkeys(lines) if line not in told]
        found += [Finding(contract, str(line), isinstance(line, Note)) for line in new]
        told |= {*new}
    return found


def _tried(check: Callable[[Any], Lines], player: Any) -> list[str]:
    """Returns the lines of a contract; what the user's own code raises is one of them."""
    lines = []
    try:
        lines.extend(check(player))
    except _Wrong as wrong:
        lines.append(f"{wrong}{_place(wrong)}")
    except Exception as error:  # a user's function may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        lines.append(f"raises {what}{_place(error)}")
    return lines


class _Wrong(Exception):
    """A user's code did what a contract forbids; the message is the line."""


_LIBRARIES = [sysconfig.get_paths()[name] for name in ("stdlib", "platlib", "purelib")]
_SUITE = [str(Path(package.__path__[0]).resolve()) for package in (bench, models)]


def _place(error: BaseException | None = None) -> str:
    """Returns " (FILE:LINE)" of the user's code that raised this error, or that runs now.

    It is a line of the suite if the user's code has none there, and "" if there is no line at all.
    """
    frames = traceback.extract_tb(error.__traceback__) if error else traceback.extract_stack()
    inner = dropwhile(lambda frame: frame.filename == __file__, reversed(frames))
    theirs = [*takewhile(lambda frame: frame.filename != __file__, inner)]
    for others in (_LIBRARIES + _SUITE, _LIBRARIES, []):
        for frame in theirs:
            path = Path(frame.filename).resolve()
            if not any(path.is_relative_to(folder) for folder in others):
                return f" ({path.name}:{frame.lineno})"
    return ""


def _random_states() -> dict[str, bytes]:
    """Returns the state of all random numbers that belong to the whole process."""
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "numpy's": repr(np.random.get_state(legacy=False)).encode(),
        "Python's": repr(random.getstate()).encode(),
    }


def _drawn(before: Mapping[str, bytes], instead: str) -> Lines:
    after = _random_states()
    for whose, state in before.items():
        if after[whose] != state:
            yield f"uses {whose} own random numbers: two runs of one seed would differ; {instead}"


class Elsewhere(TorchDispatchMode):
    """Notes operations that a CUDA graph can't hold, and where: by name, file:line.

    Tensors are on "meta", which stands for the GPU. Such operations are on another device, or wait
    for a number of the GPU.
    """

    WAITING = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.waiting: set[str] = set()  # places
        self.mixing: set[str] = set()  # places where tensors of both devices meet

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        devices = {each.device.type for each in tensors}
        devices |= {each.type for each in leaves if isinstance(each, torch.device)}
        waits = func._overloadpacket in self.WAITING
        if waits or devices - {"meta"}:
            place = _place()
            self.found.setdefault(str(func), place)
            if waits and "meta" in devices:
                self.waiting.add(place)
            if "meta" in devices and any(t.dim() and not t.is_meta for t in tensors):
                self.mixing.add(place)
        return func(*args, **(kwargs or {}))


def _on_a_gpu(loss: Callable[[], Tensor]) -> Lines:
    """Yields what a loss on device "meta", and its gradient, could not do on a GPU."""
    with Elsewhere() as seen:
        try:
            loss().sum().backward()
        except Exception:
            if not seen.mixing and not seen.waiting:
                raise
    for place in sorted(seen.mixing):
        yield (
            f"mixes a tensor on the CPU with the batch's, and so fails on a GPU{place}: make it "
            "on the device of its input"
        )
    for place in sorted(seen.waiting):
        yield Note(
            f"reads a number of the GPU{place}, as .item(), float() and if do: a GPU can't "
            "record its steps and trains slower"
        )


# Joint reductions ---------------------------------------------------------------------------


class _Reduction(NamedTuple):
    """A reduction of logits, and whether the critic or the model minimises it."""

    call: Reduction
    player: str


def logits(
    dtype: torch.dtype = torch.float64, at: float = 0.0, sd: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns f_q around -at and f_p around `at`, of shape (MEMBERS, BATCH), always the same."""
    rng = torch.Generator().manual_seed(0)
    noise = sd * torch.randn(2, MEMBERS, BATCH, generator=rng, dtype=torch.float64)
    f_q, f_p = (noise[0] - at).to(dtype), (noise[1] + at).to(dtype)
    return f_q.requires_grad_(), f_p.requires_grad_()


def _gradients(loss: Tensor, of: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), of, allow_unused=True, materialize_grads=True)


def _a_number_each(of: _Reduction) -> Lines:
    f_q, f_p = (f.detach() for f in logits())
    given = {"f_q": (f_q, f_q.clone()), "f_p": (f_p, f_p.clone())}
    of.call(f_q, f_p)
    for name, (now, then) in given.items():
        if not torch.equal(now, then):
            yield f"changes {name} in place: make a new tensor, as in {name} = {name} + 1"
            return
    for dtype in (torch.float64, torch.float32):
        f_q, f_p = logits(dtype=dtype)
        for q, p in (
            (f_q, f_p),
            (f_q[0], f_p[0]),
            (f_q[:4].view(2, 2, -1), f_p[:4].view(2, 2, -1)),
        ):
            loss: Any = of.call(q, p)
            if not isinstance(loss, Tensor):
                yield f"returns {type(loss).__name__}: return a tensor, by .mean(-1) of logits"
                return
            if loss.shape != q.shape[:-1]:
                yield (
                    f"logits of shape {(*q.shape,)} give a loss of shape {(*loss.shape,)}, not "
                    f"{(*q.shape[:-1],)}: average over the last axis alone, .mean(-1)"
                )
                return
            if loss.dtype != dtype:
                kinds = [str(each).removeprefix("torch.") for each in (dtype, loss.dtype)]
                yield "logits in {} give a loss in {}: keep their dtype".format(*kinds)
                return
            if not loss.requires_grad:
                yield (
                    "its loss has no gradient: compute it from f_q and f_p by torch, without "
                    ".detach(), .item() and torch.no_grad()"
                )
                return


def _finite(of: _Reduction) -> Lines:
    for size in (1.0, LARGE, HUGE):
        f_q = torch.tensor([[-size, size, -size, size]], requires_grad=True)
        f_p = torch.tensor([[-size, -size, size, size]], requires_grad=True)
        loss = of.call(f_q, f_p)
        ends = {"loss": loss, "gradient": torch.cat(_gradients(loss, (f_q, f_p)))}
        for what, numbers in ends.items():
            if not numbers.isfinite().all():
                bad = float(numbers[~numbers.isfinite()][0].detach())
                line = f"its {what} is {bad} at logits of ±{size:g} in float32: use softplus, "
                line += "logsigmoid or clamp in the place of log and exp"
                yield Note(line) if size > LARGE else line
                return


def _averages(of: _Reduction) -> Lines:
    f_q, f_p = logits()
    once = of.call(f_q, f_p)
    twice = of.call(torch.cat([f_q, f_q], -1), torch.cat([f_p, f_p], -1))
    a, b = once.tolist()[0], twice.tolist()[0]
    if not _close(twice, once):
        doubles, change = _close(twice, 2 * once), f"goes from {a:.3g} to {b:.3g}"
        line = f"the loss {'doubles' if doubles else change} if the batch is repeated"
        near = bool(((twice - once).abs() <= 0.05 * (1 + once.abs())).all())
        yield Note(line) if near else f"{line}: average over the batch axis, .mean(-1)"
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(1))
    if not _close(of.call(f_q[:, order], f_p[:, order]), once):
        yield "the loss depends on the order of the batch: treat all of its pairs alike"


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def _mixes_nothing(of: _Reduction) -> Lines:
    f_q, f_p = logits()
    losses = of.call(f_q, f_p)
    for gradient in _gradients(losses[2], (f_q, f_p)):
        if gradient[[i for i in range(MEMBERS) if i != 2]].any():
            yield (
                "the gradient of a training's loss reaches the logits of others in its stack: "
                "reduce over the last axis alone"
            )
            return
    for other in (-3.0 * f_q.detach().flip(0), torch.full_like(f_q, torch.nan)):
        q, p = (torch.cat([other[:2], f[2:3], other[3:]]) for f in (f_q, f_p))
        if not _close(of.call(q, p)[2], losses[2]):
            kind = "NaN" if other.isnan().any() else "other values"
            yield (
                f"the loss of a training changes with {kind} in the logits of others in its "
                "stack: reduce over the last axis alone"
            )
            return
    if not _close(of.call(f_q[2:3], f_p[2:3])[0], losses[2]):
        yield "the loss of a training alone differs from its loss in a stack"


def _repeats(of: _Reduction) -> Lines:
    f_q, f_p = logits()
    before = _random_states()
    one = of.call(f_q, f_p)
    drawn = [*_drawn(before, "compute it from f_q and f_p alone")]
    yield from drawn
    if not drawn and not torch.allclose(one, of.call(f_q, f_p), 0, 0, equal_nan=True):
        yield "gives another number for the same logits: compute it from f_q and f_p alone"


def _points_f(of: _Reduction) -> Lines:
    # The other player has done its work here, so no loss is at its target.
    critic = of.player == "critic"
    f = logits(at=-2.0 if critic else 2.0, sd=0.3)
    by_q, by_p = (float(g.sum()) for g in _gradients(of.call(*f), f))
    wrong = ["up" if critic else "down", "down" if critic else "up"]
    reversed_ = [by_q < 0, by_p > 0] if critic else [by_q > 0, by_p < 0]
    pairs = zip(wrong, ("encoder", "decoder"), reversed_, strict=True)
    if pushed := " and ".join(f"{way} on {whose} pairs" for way, whose, is_so in pairs if is_so):
        why = "label 1 = decoder pair" if critic else "a model works against its critic"
        yield f"pushes f {pushed}: the paper's sign is {why}"
        return
    f = logits()
    by_q, by_p = _gradients(of.call(*f), f)
    if not critic:
        by_q, by_p = -by_q, -by_p
    if (by_q < 0).any() or (by_p > 0).any():
        yield Note("pushes some logits the other way, as a squared error does beyond its target")


def _falls(of: _Reduction) -> Lines:
    f_q, f_p = logits()
    before = of.call(f_q, f_p)
    by_q, by_p = _gradients(before, (f_q, f_p))
    after = of.call(f_q - 1e-2 * by_q, f_p - 1e-2 * by_p)
    moves = by_q.any(-1) | by_p.any(-1)
    if (after >= before)[moves].any():
        yield "its own loss does not fall down its gradient while the other player stands still"


def _uses_both(of: _Reduction) -> Lines:
    f = logits()
    used = [bool(g.any()) for g in _gradients(of.call(*f), f)]
    if of.player == "critic":
        if not any(used):
            yield "neither f_q nor f_p gives a gradient, so the critic learns nothing"
        elif not all(used):
            name, whose = ("f_p", "decoder") if used[0] else ("f_q", "encoder")
            yield Note(f"{name} does not enter, so the critic learns nothing of {whose} pairs")
        return
    for name, whose, is_used in zip(("f_q", "f_p"), ("encoder", "decoder"), used, strict=True):
        if not is_used:
            yield Note(f"{name} does not enter, so the {whose} gets no gradient by matching")


def _reduces_on_a_gpu(of: _Reduction) -> Lines:
    f = [each.detach().to("meta").requires_grad_() for each in logits()]
    yield from _on_a_gpu(lambda: of.call(*f))


REDUCTION: Contracts = {
    NUMBERS: _a_number_each,
    SAME: _repeats,
    "is finite": _finite,
    "averages over the batch": _averages,
    "mixes no members of a stack": _mixes_nothing,
    "pushes f the paper's way": _points_f,
    "falls down its gradient": _falls,
    "uses both logits": _uses_both,
    "works on a GPU": _reduces_on_a_gpu,
}
"""What the critic's loss and the model's loss of a joint-matching method are held to."""


ALIKE = "trains in a stack as alone"


def of_objective(name: str) -> list[Finding]:
    """Returns what contracts find of this method of `OBJECTIVES`, as reductions of logits."""
    each = OBJECTIVES[name]
    calls = zip(PLAYERS, (each.critic, each.model), strict=True)
    found = _findings(REDUCTION, {player: _Reduction(call, player) for player, call in calls})
    if not any(each.text and not each.note for each in found):
        found += _findings({ALIKE: _trains_alike}, {"": name})
    return found


def gap_in_a_stack(
    specs: Sequence[ToySpec],
    dtype: torch.dtype,
    batches: int,
    loop: type[PlainTrainer] = PlainTrainer,
) -> float:
    """Returns the largest gap of a parameter between a stack and plain loops after some batches."""
    stack = Trainer(specs, dtype=dtype)
    every = (batch for epoch in stack.epochs() for batch in epoch)
    for batch in islice(every, batches):
        stack.updates(batch)
    worst = 0.0
    for i, spec in enumerate(stack.specs):
        plain = loop(spec, dtype)
        for batch in islice(plain.batches(), batches):
            plain.updates(*batch)
        gap = (stack.parameters(i) - plain_row(plain)).abs().max().item()
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def plain_row(plain: PlainTrainer) -> Tensor:
    """Returns the parameters of a plain loop, laid out as those of a stack's member."""
    parts = []
    for network in (plain.encoder, plain.decoder, plain.critic):
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                parts += [layer.weight.detach().flatten(), layer.bias.detach()]
    return torch.cat(parts)


def _trains_alike(name: str) -> Lines:
    given = {"study": "toy_grid", "scale": "smoke", "model_steps": 2, "critic_steps": 2}
    given |= {f"{role}_width": 16 for role in ("encoder", "decoder", "critic")}
    trained = [(name, 0.0), (name, LAM), (next(iter(OBJECTIVES)), LAM)]
    specs = [ToySpec(method=method, lam=lam, **given) for method, lam in dict.fromkeys(trained)]
    gap = gap_in_a_stack(specs, torch.float64, batches=4)
    if gap > 1e-9:
        yield f"a training in a stack differs from a training alone by {gap:.2g} after 4 batches"


# Methods of images --------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Describes images that methods are tried on: networks by name, shape, range and noise."""

    parts: Mapping[str, Part]
    shape: ImageShape
    low: float = 0.0  # pixels are in [low, 1]
    uniform: bool = False  # codes and noise are uniform on [-1, 1], or N(0, I)


KINDS = {
    "grey": Kind(mnist.PARTS, ImageShape(1, 28, 6, 1 / 16)),
    "colour": Kind(colour.PARTS, ImageShape(3, 32, 6, 1 / 16), -1.0, True),
}
"""The kinds of images, as in `bench.studies.images.domain`, small."""
IMAGES = 8  # in a batch


def kinds(method: Method) -> list[str]:
    """Returns the kinds of images that have all networks of the method."""
    asked = {*method.parts.values()}
    return [name for name, kind in KINDS.items() if asked <= kind.parts.keys()]


class _Draws(Draws):
    """Refuses a name that is asked for twice with different numbers behind it."""

    def _draw(self, kind: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        drawn = super()._draw(kind, name, shape)
        if self._drawn[name][0] is not kind or drawn.shape[1:] != shape:
            raise _Wrong(f"draws {name!r} twice, each time with other numbers: give each a name")
        return drawn

    def _fill(self, name: str) -> None:
        if self.x.device.type != "meta":  # which has no random numbers
            super()._fill(name)


class _Twice(_Draws):
    """Draws noise whose second half repeats the first half, as the images do."""

    def _fill(self, name: str) -> None:
        kind, out = self._drawn[name]
        first, second = out.chunk(2)
        self._drawn[name] = kind, first
        super()._fill(name)
        second.copy_(first)
        self._drawn[name] = kind, out


def batch(kind: Kind, device: str = "cpu", twice: bool = False) -> Draws:
    """Returns made-up images of this kind and their noise in float64, always the same.

    With `twice` the whole batch stands there once more.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *kind.shape.image(), generator=rng, dtype=torch.float64)
    x = (x * (1 - kind.low) + kind.low).to(device)
    draws, x = (_Twice, torch.cat([x, x])) if twice else (_Draws, x)
    return draws(x, "contract", "0", kind.uniform)


def networks(method: Method, kind: Kind) -> ImageNetworks:
    """Returns the method's networks for such images, in float64, always with the same weights."""
    return ImageNetworks(method.parts, kind.shape, len, kind.parts).double()


@dataclass(frozen=True)
class _Player:
    """The critic or the model of a method, on images of a kind."""

    name: str
    method: Method
    kind: Kind

    def networks(self) -> ImageNetworks:
        """Returns networks of which the other player's stand still, as in training."""
        nets = networks(self.method, self.kind)
        learn(self.own(nets), nets.models() if self.name == "critic" else nets.critics())
        return nets

    def own(self, nets: ImageNetworks) -> list[nn.Parameter]:
        return nets.critics() if self.name == "critic" else nets.models()

    def loss(self, nets: ImageNetworks, lam: float = LAM, draws: Draws | None = None) -> Any:
        """Returns what the player minimises, on a batch that is always the same."""
        draws = draws or batch(self.kind)
        if self.name == "model":
            return self.method.model(nets, draws, lam)
        assert self.method.critic is not None
        return self.method.critic(nets, draws)

    @property
    def lams(self) -> tuple[float, ...]:
        return (0.0, LAM) if self.name == "model" else (LAM,)


def _a_number(of: _Player) -> Lines:
    for lam in of.lams:
        loss = of.loss(of.networks(), lam)
        if not isinstance(loss, Tensor):
            yield f"returns {type(loss).__name__}: return a tensor, one number"
        elif loss.shape != ():
            yield f"its loss has shape {(*loss.shape,)}: return one number, by .mean()"
        elif not loss.isfinite():
            yield f"its loss is {float(loss.detach())} at λ = {lam:g}, with the first weights"
        elif not loss.requires_grad:
            yield (
                "its loss has no gradient: compute it from its own networks, without .detach(), "
                ".item() and torch.no_grad()"
            )


def _reaches(of: _Player) -> Lines:
    unreached = []
    for lam in of.lams:
        nets = of.networks()
        own = {name: p for name, p in nets.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad(of.loss(nets, lam), [*own.values()], allow_unused=True)
        reached = {name: g for name, g in zip(own, grads, strict=True) if g is not None}
        roles = list(dict.fromkeys(name.split(".")[0] for name in own))
        felt = {name.split(".")[0] for name, g in reached.items() if g.any()}
        for role in roles:
            mine = [name for name in own if name.split(".")[0] == role]
            lost = [name for name in mine if name not in reached]
            if any(not reached[name].isfinite().all() for name in mine if name in reached):
                yield f"the gradient of network {role} is not finite, with the first weights"
            elif role in felt and lost:
                yield Note(f"{len(lost)} of {len(mine)} parameters get no gradient, as {lost[0]}")
        unreached.append([role for role in roles if role not in felt])
        if not felt:
            at = f" at λ = {lam:g}" if of.name == "model" else ""
            yield f"gets no gradient: its loss{at} reaches none of {', '.join(roles)}"
            return
    for role in unreached[0]:
        at = "" if role in unreached[-1] else " at λ = 0"
        yield Note(f"network {role} gets no gradient{at}")


def _learns(of: _Player) -> Lines:
    nets = of.networks()
    adam = torch.optim.Adam(of.own(nets), 1e-3)
    seen = []
    for _ in range(STEPS):
        loss = of.loss(nets)
        adam.zero_grad()
        loss.backward()
        adam.step()
        seen.append(float(loss.detach()))
    if not seen[-1] < seen[0]:
        yield (
            f"its loss does not fall in {STEPS} updates of its own ({seen[0]:.4g} to "
            f"{seen[-1]:.4g}) while the other player stands still"
        )


def _averages_images(of: _Player) -> Lines:
    for lam in of.lams:
        once = float(of.loss(of.networks(), lam).detach())
        twice = float(of.loss(of.networks(), lam, batch(of.kind, twice=True)).detach())
        if not math.isclose(once, twice, rel_tol=1e-6, abs_tol=1e-9):
            doubles = math.isclose(2 * once, twice, rel_tol=1e-3)
            change = "doubles" if doubles else f"goes from {once:.3g} to {twice:.3g}"
            line = f"the loss {change} if the batch is repeated"
            yield f"{line}: average over images, by .mean()" if doubles else Note(line)
            return


def _draws_by_name(of: _Player) -> Lines:
    nets = of.networks()
    before = _random_states()
    one = of.loss(nets)
    drawn = [*_drawn(before, "draw by batch.normal(NAME, ...) or batch.uniform(NAME, ...)")]
    yield from drawn
    if not drawn and not torch.equal(one, of.loss(nets)):
        yield "gives another number for the same batch and noise: keep nothing between calls"


def _changes_nothing(of: _Player) -> Lines:
    nets, draws = of.networks(), batch(of.kind)
    x, weights = draws.x.clone(), {name: t.clone() for name, t in nets.state_dict().items()}
    of.loss(nets, draws=draws)
    if not torch.equal(draws.x, x):
        yield "changes batch.x in place, which later updates of the step see: make a new tensor"
    for name, tensor in nets.state_dict().items():
        if not torch.equal(tensor, weights[name]):
            yield f"changes {name} while it computes its loss: the optimiser alone may do so"
            return


def _lambda_has_a_name(of: _Player) -> Lines:
    if of.name == "critic":
        return
    at_zero, above = (float(of.loss(of.networks(), lam).detach()) for lam in of.lams)
    name = of.method.label_cycle
    if at_zero == above and name:
        yield f"λ changes nothing, but label_cycle is {name!r}: use lam, or leave label_cycle out"
    if at_zero != above and not name:
        yield "λ changes the loss: name the method at λ > 0 by label_cycle"


def _trains_on_a_gpu(of: _Player) -> Lines:
    nets = of.networks().to("meta")
    draws = batch(of.kind, "meta")
    yield from _on_a_gpu(lambda: of.loss(nets, draws=draws))


IMAGE_LOSS: Contracts = {
    NUMBER: _a_number,
    UNCHANGED: _changes_nothing,
    SAME_NOISE: _draws_by_name,
    "reaches its own networks": _reaches,
    "falls by its own updates": _learns,
    "λ matters where it has a name": _lambda_has_a_name,
    "works on a GPU": _trains_on_a_gpu,
}
"""What both losses of a method of images are held to."""
OWN_LOSS: Contracts = {"averages over the batch": _averages_images}
"""The same, where they are no reductions of logits, of which the same is asked for anyway."""


def of_images(name: str, kind: str) -> list[Finding]:
    """Returns what contracts find of this method's losses on images of a kind, see `KINDS`."""
    method = METHODS[name]
    players = PLAYERS if method.critic and _critics(method) else PLAYERS[1:]
    contracts = {**IMAGE_LOSS, **({} if name in OBJECTIVES else OWN_LOSS)}
    return _findings(contracts, {each: _Player(each, method, KINDS[kind]) for each in players})


def _critics(method: Method) -> list[str]:
    return [role for role in method.parts if role.startswith("critic")]


def _has_networks(name: str) -> Lines:
    method = METHODS[name]
    if "decoder" not in method.parts:
        yield f"its parts are {', '.join(method.parts) or 'none'}: add the role decoder"
    everywhere = {part for kind in KINDS.values() for part in kind.parts}
    for role, part in method.parts.items():
        if part not in everywhere:
            yield (
                f"there is no network {part!r} for its {role}; allowed: "
                f"{', '.join(map(repr, sorted(everywhere)))}, or one more in PARTS of "
                "models.mnist or models.colour"
            )
            return
    if not kinds(method):
        lacking = [
            f"{kind} images lack {min({*method.parts.values()} - each.parts.keys())!r}"
            for kind, each in KINDS.items()
        ]
        yield f"no images have all of its networks: {', '.join(lacking)}"
    elif not trainable(name):
        yield "no study has images that its networks take"
    if method.critic and not _critics(method):
        yield "it has a critic's loss, but no role in parts begins with critic"
    if not method.critic and _critics(method):
        yield f"{_critics(method)[0]} never learns: give the method a critic's loss"


def trainable(name: str) -> list[str]:
    """Returns the studies of images and points that can train this method."""
    return [
        study.name
        for study in STUDIES.values()
        if issubclass(study.kind, ToySpec | ImageSpec) and name in study.every_method()
    ]


def _has_settings(name: str) -> Lines:
    method = METHODS[name]
    steps: Any = method.critic_steps
    if not isinstance(steps, int) or steps < 1:
        yield f"critic_steps is {steps!r}; allowed: a whole number >= 1"
    betas: Any = method.betas
    numbers = isinstance(betas, tuple | list) and len(betas) == 2
    if not numbers or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
        yield f"betas is {betas!r}; allowed: two numbers from 0 to below 1"
    clip: Any = method.clip
    if not isinstance(clip, int | float) or not clip >= 0:
        yield f"clip is {clip!r}; allowed: a number >= 0"


def _has_a_name(name: str) -> Lines:
    own = list(dict.fromkeys(label(name, lam) for lam in (0.0, LAM)))
    if not all(own):
        yield "its label is empty: tables need a name"
    elif METHODS[name].label_cycle == METHODS[name].label:
        yield f"label and label_cycle are both {own[0]!r}: tables would mix λ = 0 with λ > 0"


ENTRY: Contracts = {
    "names networks that exist": _has_networks,
    "has settings that can be trained": _has_settings,
    "has a name of its own": _has_a_name,
}
"""What the entry of a method is held to."""


def of_method(name: str) -> list[Finding]:
    """Returns what contracts find of this method's entry in `METHODS` or `OBJECTIVES`."""
    return [each for key in ENTRY for each in _findings({key: ENTRY[key]}, {"": name})]


# Metrics ------------------------------------------------------------------------------------


class _Metric(NamedTuple):
    metric: Metric
    of_images: bool


def _has_own_columns(of: _Metric) -> Lines:
    table = metrics.IMAGES if of.of_images else metrics.TOY
    taken = {*metrics.columns([each for each in table if each is not of.metric])}
    for study in STUDIES.values():
        taken |= {*study.taken()} if of.metric in study.metrics() else {*()}
    if double := taken & {*of.metric.columns}:
        yield f"fills column {min(double)}, which is another's"
    if not of.metric.explanation:
        yield Note("its function has no docstring, so captions do not explain it")


def _gives_numbers(of: _Metric) -> Lines:
    try:
        values = of.metric.values(metrics.made_up(of.of_images))
    except Absent as absent:
        yield f"asks for {absent}, which {'images' if of.of_images else 'points'} do not have"
        return
    for column, value in values.items():
        if not np.isfinite(value):
            yield f"{column} is {value} of made-up samples: return a finite number"


def _scores_the_same(of: _Metric) -> Lines:
    before = _random_states()
    one = of.metric.values(metrics.made_up(of.of_images))
    drawn = [*_drawn(before, "draw by numpy.random.default_rng(0)")]
    yield from drawn
    other = of.metric.values(metrics.made_up(of.of_images))
    if not drawn and repr(one) != repr(other):
        yield "gives another number for the same outputs: two scores of a model would differ"


def _leaves_outputs(of: _Metric) -> Lines:
    outputs, fresh = metrics.made_up(of.of_images), metrics.made_up(of.of_images)
    of.metric.values(outputs)
    for name, then in vars(fresh).items():
        now = vars(outputs).get(name)
        if isinstance(then, np.ndarray) and not (
            isinstance(now, np.ndarray) and np.array_equal(now, then)
        ):
            yield f"changes outputs.{name}, which later metrics see: work on a copy"


METRIC: Contracts = {
    "gives a finite number for each column": _gives_numbers,
    "has columns of its own": _has_own_columns,
    "scores the same outputs alike": _scores_the_same,
    "leaves outputs as they are": _leaves_outputs,
}
"""What a metric is held to, on made-up outputs."""


def of_metric(metric: Metric, of_images: bool) -> list[Finding]:
    """Returns what contracts find of a metric of `IMAGES`, or else of `TOY`."""
    return _findings(METRIC, {"": _Metric(metric, of_images)})
