"""What is run: one training is one `Spec`, plain data with an identity of its own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from numpy.random import Generator

PROTOCOL = 1
"""Bumped by hand when a stored number changes its meaning: old results are then another
generation and no table mixes the two."""
PROTOCOLS = {"cifar10": 2, "celeba": 2}
"""The same of single studies, where it is not `PROTOCOL`."""

S = TypeVar("S", bound="Spec")


def protocol(study: str) -> int:
    """The generation of a study's results."""
    return PROTOCOLS.get(study, PROTOCOL)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One training: the fields that every study has. Kinds of studies add their own.

    Raises ValueError, in one line, for a value that can't be trained.
    """

    study: str
    scale: str
    method: str
    lam: float
    critic_steps: int = 1  # updates of the critic on each batch, then those of the model
    lr: float = 1e-3  # Adam
    batch: int = 128
    epochs: int = 100
    seed: int = 0
    precision: str = "float32"  # of matrix products: "tf32" rounds their inputs on a GPU

    PRECISIONS: ClassVar[tuple[str, ...]] = ("float32", "tf32")
    UNPAIRED: ClassVar[tuple[str, ...]] = ("method", "lam", "precision")
    """Fields that leave the random numbers as they are: runs differing in them are paired."""

    def __post_init__(self) -> None:
        # Two spellings of one number must be one experiment: 1 and 1.0, numpy's and Python's.
        for name, kind in columns(type(self)).items():
            value = getattr(self, name)
            if type(value) is not kind or value == 0:
                object.__setattr__(self, name, kind(value or 0))  # -0.0 is 0.0
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam is {self.lam}; allowed: a finite number >= 0")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr is {self.lr}; allowed: a finite number > 0")
        self.one_of("precision", self.PRECISIONS)
        self.at_least(batch=1, epochs=1, critic_steps=1, seed=0)

    def at_least(self, **least: int) -> None:
        """Raises ValueError for a field that is smaller than it may be."""
        for name, value in least.items():
            if (given := getattr(self, name)) < value:
                raise ValueError(f"{name} is {given}; allowed: an integer >= {value}")

    def one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        """Raises ValueError for a field that has another value than these."""
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} is {getattr(self, name)}; allowed: {', '.join(allowed)}")

    @cached_property
    def id(self) -> str:
        """16 hex digits that name this training: equal specs, and only those, share them."""
        return _digest([protocol(self.study), self._given()])[:16]

    @cached_property
    def stream(self) -> str:
        """Names the random numbers of this training (64 hex digits).

        `UNPAIRED` fields are left out: at one configuration and seed every method and lambda sees
        the same initial weights, data, batches and noise, so that comparisons are paired.
        """
        return _digest(["stream", self._given(*self.UNPAIRED)])

    @cached_property
    def config(self) -> str:
        """Names the configuration (16 hex digits): all but seed and `UNPAIRED` fields."""
        return _digest(["config", self._given("seed", *self.UNPAIRED)])[:16]

    def _given(self, *without: str) -> dict[str, Any]:
        """The fields that differ from their default: a later field keeps today's identities."""
        kind, values = type(self), vars(self)
        given = [name for name in columns(kind) if values[name] != getattr(kind, name, None)]
        return {name: values[name] for name in given if name not in without}


@cache
def columns(kind: type[Spec]) -> dict[str, type]:
    """Every field of this kind of spec and its type, in the order of the columns."""
    return {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(kind)}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _digest(content: Any) -> str:
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def grid(kind: type[S], **axes: Iterable[Any]) -> list[S]:
    """Specs of every combination of the given values, the last axis varying fastest.

    An axis whose name joins several fields by commas takes tuples for values. Raises ValueError
    like the spec itself. The constructor checks every value once and not every combination:
    fields are independent, and 100,000 checks would take a second.
    """
    choices: list[list[dict[str, Any]]] = []
    for name, values in axes.items():
        names = name.split(",")
        choices.append([dict(zip(names, v if names[1:] else (v,), strict=True)) for v in values])
    if not all(choices):
        return []
    first = {field: value for values in choices for field, value in values[0].items()}
    base = vars(kind(**first))
    for values in choices:
        checked = [vars(kind(**first | value)) for value in values]
        values[:] = [{field: each[field] for field in values[0]} for each in checked]
    specs = []
    for combination in product(*choices):
        spec = object.__new__(kind)
        for part in (base, *combination):
            vars(spec).update(part)
        specs.append(spec)
    return specs


def generator(stream: str, purpose: str) -> Generator:
    """The random numbers of one training (`Spec.stream`, hex digits) for one purpose.

    What a training sees never depends on its neighbours in a stack, on the device or on the order
    of jobs.
    """
    from numpy.random import PCG64, Generator

    words = [int(stream[i : i + 8], 16) for i in range(0, len(stream), 8)]
    return Generator(PCG64([*words, *purpose.encode()]))
