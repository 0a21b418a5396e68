"""A spec describes one training: plain data with an identity of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import chain, product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from numpy.random import Generator

PROTOCOL = 1
"""Raised by hand when a stored number changes its meaning. No table mixes rows of two protocols."""
PROTOCOLS = {"cifar10": 2, "celeba": 2}
"""Protocols of studies with a protocol of their own."""

MOST = 10**6
"""Trainings that a command selects at most: it holds them in memory, about a kilobyte each."""
LARGEST = 2**63 - 1
"""Rows hold integers of 64 bits."""
FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""The smallest positive and the largest number in which networks compute at full precision."""
SLOWEST = 1e-8
"""A weight of 0.1 is equal to its sum with a smaller step of Adam, in float32."""
OPTIONS = {"lam": "--lam", "lr": "--lr", "seed": "--seeds", "precision": "--precision"}
"""Options of `bench.run` that replace a study's own values of a field, see `option`."""

S = TypeVar("S", bound="Spec")
Axes = dict[str, list[Any]]
"""Values of fields by name, or of several fields at a time by names that commas join."""


def protocol(study: str) -> int:
    """Returns the protocol of a study's results."""
    return PROTOCOLS.get(study, PROTOCOL)


def option(field: str) -> str:
    """Returns the option of `bench.run` that changes a field."""
    selects = "--only" if field == "method" else "--set"
    return OPTIONS.get(field, f"{selects} {field}=...")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One training has these fields in every study; kinds of studies add their own.

    Raises ValueError, in one line, for a value that can't be trained.
    """

    study: str
    scale: str
    method: str
    lam: float
    critic_steps: int = 1  # updates of the critic on each batch, before the model's
    lr: float = 1e-3  # Adam
    batch: int = 128
    epochs: int = 100
    seed: int = 0
    precision: str = "float32"  # of matrix products: "tf32" rounds their inputs on a GPU

    PRECISIONS: ClassVar[tuple[str, ...]] = ("float32", "tf32")
    UNPAIRED: ClassVar[tuple[str, ...]] = ("method", "lam", "precision")
    """Fields without influence on the random numbers: runs that differ in them are paired."""

    def __post_init__(self) -> None:
        # 1 and 1.0, of numpy or Python, must give the same experiment.
        for name, kind in columns(type(self)).items():
            given = getattr(self, name)
            if type(given) is not kind or given == 0:
                value = given or 0  # -0.0 is 0.0
                if kind is int and value != value // 1:
                    raise self.wrong(name, "an integer")
                object.__setattr__(self, name, kind(value))
        least, most = FLOAT32
        if not (self.lam == 0 or least <= self.lam <= most):
            raise self.wrong("lam", f"0, or a number from {least:.2g} to {most:.2g}")
        if not SLOWEST <= self.lr <= most:
            raise self.wrong("lr", f"a number from {SLOWEST:g} to {most:.2g}")
        self.one_of("precision", self.PRECISIONS)
        self.at_least(batch=1, epochs=1, critic_steps=1, seed=0)

    def wrong(self, name: str, allowed: str) -> ValueError:
        """Returns the error of a field: its value, what is allowed, and the option for it."""
        return ValueError(f"{name} is {getattr(self, name)}; allowed: {allowed} ({option(name)})")

    def at_least(self, **least: int) -> None:
        """Raises ValueError for a field below its least value, or too large to be stored."""
        for name, value in least.items():
            given = getattr(self, name)
            if given < value:
                raise self.wrong(name, f"an integer >= {value}")
            if given > LARGEST:
                raise self.wrong(name, f"an integer from {value} to {LARGEST}")

    def one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        """Raises ValueError for a field with any other value."""
        if getattr(self, name) not in allowed:
            raise self.wrong(name, ", ".join(allowed))

    @cached_property
    def id(self) -> str:
        """Returns 16 hex digits that name this training; equal specs alone share them."""
        return _digest([protocol(self.study), self._given()])[:16]

    @cached_property
    def stream(self) -> str:
        """Returns 64 hex digits that name the random numbers of this training.

        They leave `UNPAIRED` fields out. So every method and lambda sees the same initial weights,
        data, batches and noise at one configuration and seed.
        """
        return _digest(["stream", self._given(*self.UNPAIRED)])

    @cached_property
    def config(self) -> str:
        """Returns 16 hex digits that name the configuration: all but seed and `UNPAIRED` fields."""
        return _digest(["config", self._given("seed", *self.UNPAIRED)])[:16]

    def _given(self, *without: str) -> dict[str, Any]:
        """Returns the fields that differ from their default, so that new fields change no id."""
        kind, values = type(self), vars(self)
        given = [name for name in columns(kind) if values[name] != getattr(kind, name, None)]
        return {name: values[name] for name in given if name not in without}


@cache
def columns(kind: type[Spec]) -> dict[str, type]:
    """Returns every field of this kind of spec and its type, in the order of the columns."""
    return {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(kind)}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _digest(content: Any) -> str:
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def grid(kind: type[S], **axes: Iterable[Any]) -> list[S]:
    """Returns specs of every combination of the given values; the last axis varies fastest.

    An axis that joins fields by commas takes tuples for values. Raises ValueError as `Spec` does,
    and for more than MOST specs.
    """
    lists = {axis: list(values) for axis, values in axes.items()}
    enough(prod(map(len, lists.values())))
    names = [name for axis in lists for name in axis.split(",")]
    parts = [values if "," in axis else zip(values) for axis, values in lists.items()]
    return [kind(**dict(zip(names, chain(*each), strict=True))) for each in product(*parts)]


def axes_with(axes: Mapping[str, Iterable[Any]], given: Mapping[str, Iterable[Any]]) -> Axes:
    """Returns the axes, where the given axes take the place of all values of their fields.

    A joined axis keeps its other fields, with each combination of their values once.
    """
    replaced, found = {field for axis in given for field in axis.split(",")}, {}
    for axis, values in axes.items():
        fields = axis.split(",")
        kept = [at for at, field in enumerate(fields) if field not in replaced]
        if axis in given or len(kept) == len(fields):
            found[axis] = list(given.get(axis, values))  # in its place: the order of specs stays
        elif kept:
            rows = dict.fromkeys(tuple(value[at] for at in kept) for value in values)
            name = ",".join(fields[at] for at in kept)
            found[name] = [*rows] if len(kept) > 1 else [value for (value,) in rows]
    return found | {axis: list(values) for axis, values in given.items()}


def enough(number: int) -> None:
    """Raises ValueError for more trainings, or seeds, than a command can hold."""
    if number > MOST:
        raise ValueError(
            f"{number} trainings are selected; allowed: at most {MOST} (--seeds, or fewer values)"
        )


def generator(stream: str, purpose: str) -> Generator:
    """Returns the random numbers of one training (`Spec.stream`, hex digits) for one purpose.

    They depend neither on other trainings in the stack, nor on the device or the order of jobs.
    """
    from numpy.random import PCG64, Generator

    words = [int(stream[i : i + 8], 16) for i in range(0, len(stream), 8)]
    return Generator(PCG64([*words, *purpose.encode()]))
