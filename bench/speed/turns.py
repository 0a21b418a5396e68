"""Rival timings in turns of a fraction of a second: a busy neighbour slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

TURN = 0.4
TURNS = 7

Line = tuple[str, str, str]
"""What was measured, what came out, and what is asked for."""


def steps_a_turn(update: Callable[[], object], steps: int) -> Callable[[], float]:
    """Steps a second over one turn of calling `update`, which makes so many steps."""

    def turn() -> float:
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < TURN:
            update()
            calls += 1
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return calls * steps / (time.perf_counter() - start)

    return turn


def in_turns(*rivals: Callable[[], float]) -> list[tuple[float, ...]]:
    """Each rival's rate in every turn; a first turn warms up and is dropped."""
    return [tuple(rival() for rival in rivals) for _ in range(TURNS + 1)][1:]
