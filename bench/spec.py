"""What is run: one training is one `Spec`, plain data with an identity of its own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any

PROTOCOL = 1
"""Bumped by hand when a stored number changes its meaning: old results are then another
generation and no table mixes the two."""

PRECISIONS = ("float32", "tf32")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One training of the toy study. Defaults are those of ALICE's published toy script.

    Raises ValueError, in one line, for a value that can't be trained.
    """

    study: str
    scale: str
    method: str
    lam: float
    encoder_depth: int = 2  # hidden layers
    decoder_depth: int = 2
    critic_depth: int = 2
    encoder_width: int = 256  # units of each hidden layer
    decoder_width: int = 256
    critic_width: int = 256
    critic_steps: int = 1  # updates of the critic on each batch, then
    model_steps: int = 5  # updates of encoder and decoder on the same batch
    lr: float = 1e-3  # Adam
    batch: int = 128
    epochs: int = 100
    seed: int = 0
    precision: str = "float32"  # of matrix products: "tf32" rounds their inputs on a GPU

    def __post_init__(self) -> None:
        # Two spellings of one number must be one experiment: 1 and 1.0, numpy's and Python's.
        for name, kind in _KINDS:
            value = getattr(self, name)
            if type(value) is not kind or value == 0:
                object.__setattr__(self, name, kind(value or 0))  # -0.0 is 0.0
        if not (self.lam >= 0 and math.isfinite(self.lam)):
            raise ValueError(f"lam is {self.lam}; allowed: a finite number >= 0")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr is {self.lr}; allowed: a finite number > 0")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision}; allowed: {', '.join(PRECISIONS)}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; allowed: an integer >= 0")

    @cached_property
    def id(self) -> str:
        """16 hex digits that name this training: equal specs, and only those, share them."""
        return _digest([PROTOCOL, self._given()])[:16]

    @cached_property
    def stream(self) -> str:
        """Names the random numbers of this training (64 hex digits).

        Method and lambda are left out: at one configuration and seed every method sees the same
        initial weights, data, batches and noise, so that comparisons are paired.
        """
        return _digest(["stream", self._given("method", "lam", "precision")])

    @cached_property
    def config(self) -> str:
        """Names the configuration (16 hex digits): all but method, lambda, seed and precision."""
        return _digest(["config", self._given("method", "lam", "seed", "precision")])[:16]

    def _given(self, *without: str) -> dict[str, Any]:
        """The fields that differ from their default: a later field keeps today's identities."""
        values = self.__dict__
        return {
            name: values[name]
            for name, default in _DEFAULTS
            if values[name] != default and name not in without
        }


_KINDS = [(f.name, {"str": str, "int": int, "float": float}[str(f.type)]) for f in fields(Spec)]
_DEFAULTS = [(f.name, f.default) for f in fields(Spec)]
FIELDS: dict[str, type] = dict(_KINDS)
"""Every field of a spec and its type, in the order of the columns."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _digest(content: Any) -> str:
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def grid(**axes: Iterable[Any]) -> list[Spec]:
    """Every combination of the given values, the last axis varying fastest.

    An axis whose name joins several fields by commas takes tuples for values. Raises ValueError
    like `Spec`, which checks every value once, not every combination: fields are independent.
    """
    names = [name.split(",") for name in axes]
    choices = [
        [dict(zip(fields, value if len(fields) > 1 else (value,), strict=True)) for value in axis]
        for fields, axis in zip(names, axes.values(), strict=True)
    ]
    if not all(choices):
        return []
    first = {k: v for values in choices for k, v in values[0].items()}
    checked = [[_fields(Spec(**first | value), value) for value in axis] for axis in choices]
    base = _fields(Spec(**first), dict(_KINDS))
    specs = []
    for values in product(*checked):
        spec = object.__new__(Spec)
        spec.__dict__.update(base)
        for value in values:
            spec.__dict__.update(value)
        specs.append(spec)
    return specs


def _fields(spec: Spec, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in names}
