"""What is run: one training is one `Spec`, plain data with an identity of its own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import product
from typing import Any, ClassVar, TypeVar

PROTOCOL = 1
"""Bumped by hand when a stored number changes its meaning: old results are then another
generation and no table mixes the two."""
PROTOCOLS = {"cifar10": 2, "celeba": 2}
"""The same of single studies, where it is not `PROTOCOL`."""

BITS = ("static", "dynamic")
NETWORKS = ("suite", "paper")

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
        if not (self.lam >= 0 and math.isfinite(self.lam)):
            raise ValueError(f"lam is {self.lam}; allowed: a finite number >= 0")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr is {self.lr}; allowed: a finite number > 0")
        if self.precision not in self.PRECISIONS:
            allowed = ", ".join(self.PRECISIONS)
            raise ValueError(f"precision is {self.precision}; allowed: {allowed}")
        for name in ("batch", "epochs", "critic_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: an integer >= 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; allowed: an integer >= 0")

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
        values = self.__dict__
        return {
            name: values[name]
            for name, default in _defaults(type(self))
            if values[name] != default and name not in without
        }


@dataclass(frozen=True, kw_only=True)
class ToySpec(Spec):
    """One training of the toy study. Defaults are those of ALICE's published toy script."""

    encoder_depth: int = 2  # hidden layers
    decoder_depth: int = 2
    critic_depth: int = 2
    encoder_width: int = 256  # units of each hidden layer
    decoder_width: int = 256
    critic_width: int = 256
    model_steps: int = 5  # updates of encoder and decoder on the same batch


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """One training of an image study and how it is scored. Defaults are those of `paper` scale."""

    lr: float = 1e-4
    batch: int = 64
    data: str = "mnist"  # the images: a data set's name, see bench.studies.images.domain
    images: int = 0  # training images, the first so many; 0: all
    networks: str = "suite"  # of colour images also "paper", see models.colour
    width: float = 1.0  # of all networks, relative to the paper's
    samples: int = 10_000  # generated images behind inception score and Fréchet distance
    bits: str = "static"  # what AIS sees: the static binarization, or "dynamic": one of our own
    temperatures: int = 1000  # annealed importance sampling
    chains: int = 16
    leapfrog: int = 10
    ais_images: int = 100  # 0: no annealed importance sampling

    # In "bf16" training rounds what goes into products and what comes out; scores are float32's.
    PRECISIONS: ClassVar[tuple[str, ...]] = (*Spec.PRECISIONS, "bf16")
    UNPAIRED: ClassVar[tuple[str, ...]] = (
        *Spec.UNPAIRED,
        *("samples", "bits", "temperatures", "chains", "leapfrog", "ais_images"),
    )

    @property
    def simulated(self) -> int:
        """Images simulated from the model, which carry the BDMC gap: one for five real ones."""
        return max(2, self.ais_images // 5) if self.ais_images else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in BITS:
            raise ValueError(f"bits is {self.bits}; allowed: {', '.join(BITS)}")
        if self.networks not in NETWORKS:
            raise ValueError(f"networks is {self.networks}; allowed: {', '.join(NETWORKS)}")
        least = {"batch": 2, "samples": 10, "temperatures": 2, "ais_images": 0, "images": 0}
        for name in (*least, "chains", "leapfrog", "ais_images"):
            if getattr(self, name) < least.get(name, 1):
                allowed = f"an integer >= {least.get(name, 1)}"
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {allowed}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}; allowed: a number > 0, at most 4")


_KINDS = {"str": str, "int": int, "float": float}


@cache
def columns(kind: type[Spec]) -> dict[str, type]:
    """Every field of this kind of spec and its type, in the order of the columns."""
    return {f.name: _KINDS[str(f.type)] for f in fields(kind)}


@cache
def _defaults(kind: type[Spec]) -> list[tuple[str, Any]]:
    return [(f.name, f.default) for f in fields(kind)]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _digest(content: Any) -> str:
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def grid(kind: type[S], **axes: Iterable[Any]) -> list[S]:
    """Specs of every combination of the given values, the last axis varying fastest.

    An axis whose name joins several fields by commas takes tuples for values. Raises ValueError
    like the spec itself; every value is checked once, not every combination: fields are
    independent.
    """
    names = [name.split(",") for name in axes]
    choices = [
        [dict(zip(joined, value if len(joined) > 1 else (value,), strict=True)) for value in axis]
        for joined, axis in zip(names, axes.values(), strict=True)
    ]
    if not all(choices):
        return []
    first = {k: v for values in choices for k, v in values[0].items()}
    checked = [[_fields(kind(**first | value), value) for value in axis] for axis in choices]
    base = _fields(kind(**first), columns(kind))
    specs = []
    for values in product(*checked):
        spec = object.__new__(kind)
        spec.__dict__.update(base)
        for value in values:
            spec.__dict__.update(value)
        specs.append(spec)
    return specs


def _fields(spec: Spec, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in names}
