"""Measures how fast this machine multiplies matrices: estimates of time are made from that."""

from __future__ import annotations

import time

import torch


def matmul_rate(device: str, width: int = 64, budget: float = 0.15) -> float:
    """Returns the FLOP/s of batched products of this width, measured for `budget` seconds."""
    n, batch = (16, 128) if device == "cpu" else (256, 256)
    a = torch.ones(n, width, width, device=device)
    b = torch.ones(n, width, batch, device=device)
    sync = torch.cuda.synchronize if device != "cpu" else lambda: None
    torch.set_num_threads(1)  # as in a worker
    best = 0.0
    torch.bmm(a, b)
    sync()
    stop = time.perf_counter() + budget
    while (start := time.perf_counter()) < stop:
        for _ in range(4):
            torch.bmm(a, b)
        sync()
        best = max(best, 4 * 2 * n * width * width * batch / (time.perf_counter() - start))
    return best
