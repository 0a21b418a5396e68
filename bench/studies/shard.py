"""One part of a selection of trainings, for schedulers that know nothing of this suite."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from bench.spec import S


@dataclass(frozen=True)
class Shard:
    """Part `i` of `n`, from 1 to n. The parts of one selection are disjoint and cover it."""

    i: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `i/n`. Raises argparse's error for anything else."""
        i, slash, n = text.partition("/")
        if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: i/n with i from 1 to n, like 2/3")
        return cls(int(i), int(n))

    def of(self, specs: Sequence[S]) -> list[S]:
        """Every n-th training by id: whoever lists the same selection cuts it alike.

        An id is a hash, so that each part gets its share of cheap and costly trainings; parts
        differ by one training at most.
        """
        mine = set(sorted(spec.id for spec in specs)[self.i - 1 :: self.n])
        return [spec for spec in specs if spec.id in mine]

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"
