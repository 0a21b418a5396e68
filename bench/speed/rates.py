"""Measures the rates of rivals in short turns, so that other programs slow all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bench.studies.cost import matmul_rate

TURN, TURNS = 0.4, 7  # seconds of a turn, and number of turns

Line = tuple[str, str, str]
"""What was measured, what came out, and what is asked for."""
Rival = Callable[[], float]
"""Works for one turn and returns its rate a second."""


def steps_a_turn(update: Callable[[], object], steps: int = 1) -> Rival:
    """Returns a rival that calls `update` again and again; each call makes so many steps."""

    def turn() -> float:
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < TURN:
            update()
            calls += 1
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return calls * steps / (time.perf_counter() - start)

    return turn


def products(width: int = 64, device: str = "cpu") -> Rival:
    """Returns a rival that multiplies batches of matrices; its rate is in FLOP/s."""
    return lambda: matmul_rate(device, width, TURN)


class Rates:
    """Holds each rival's rate in every turn; a first turn warms up and is dropped."""

    def __init__(self, **rivals: Rival) -> None:
        turns = [{name: rival() for name, rival in rivals.items()} for _ in range(TURNS + 1)]
        self.turns = turns[1:]

    def ratio(self, one: str, other: str) -> float:
        """Returns the median over turns of one rival's rate to another's."""
        return statistics.median(turn[one] / turn[other] for turn in self.turns)

    def summary(self, flops: float, whose: str = "") -> str:
        """Returns the ratio of `suite` to `plain` and the share of `products` that `suite` reaches.

        `flops` is what one step of `suite` takes; `whose` names the machine of the products.
        """
        ratio, share = self.ratio("suite", "plain"), flops * self.ratio("suite", "products")
        rate = statistics.median(turn["products"] for turn in self.turns) / 1e9
        return f"{ratio:.2f} x, {share:.0%} of {whose}{rate:.0f} GFLOP/s in products"
