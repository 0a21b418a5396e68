"""Contracts of joint reductions: the losses of joint-matching methods, made of logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.check.contracts.common import (
    LAM,
    NUMBERS,
    PLAYERS,
    SAME,
    Contracts,
    Finding,
    Lines,
    Note,
    findings,
    on_a_gpu,
    own_numbers,
    random_states,
)
from bench.speed.baselines.toy import PlainTrainer
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer
from models.objectives import OBJECTIVES, Reduction

MEMBERS, BATCH = 5, 64  # of the stack of logits
LARGE, HUGE = 50.0, 1e4
"""Losses are finite at logits of this size; where they are not at the second, a note says so."""


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
    before = random_states()
    one = of.call(f_q, f_p)
    drawn = [*own_numbers(before, "compute it from f_q and f_p alone")]
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
    yield from on_a_gpu(lambda: of.call(*f))


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
    found = findings(REDUCTION, {player: _Reduction(call, player) for player, call in calls})
    if not any(each.text and not each.note for each in found):
        found += findings({ALIKE: _trains_alike}, {"": name})
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
