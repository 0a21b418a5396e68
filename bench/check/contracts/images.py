"""Contracts of methods of images: their entry and their losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.check.contracts.common import (
    LAM,
    NUMBER,
    PLAYERS,
    SAME_NOISE,
    UNCHANGED,
    Contracts,
    Finding,
    Lines,
    Note,
    Wrong,
    findings,
    on_a_gpu,
    own_numbers,
    random_states,
)
from bench.studies import STUDIES
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, learn
from bench.studies.toy_grid.spec import ToySpec
from models import colour, mnist
from models.methods import METHODS, Method, label
from models.mnist import ImageNetworks, ImageShape, Part
from models.objectives import OBJECTIVES

STEPS = 15  # updates of one player, whose loss has to fall


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
            raise Wrong(f"draws {name!r} twice, each time with other numbers: give each a name")
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
    before = random_states()
    one = of.loss(nets)
    drawn = [*own_numbers(before, "draw by batch.normal(NAME, ...) or batch.uniform(NAME, ...)")]
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
    yield from on_a_gpu(lambda: of.loss(nets, draws=draws))


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
    return findings(contracts, {each: _Player(each, method, KINDS[kind]) for each in players})


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
    return [each for key in ENTRY for each in findings({key: ENTRY[key]}, {"": name})]
