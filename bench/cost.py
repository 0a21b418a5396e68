"""What a training costs, before it is run."""

from __future__ import annotations

import time

import torch

from bench.data import N_TRAIN
from bench.spec import Spec
from models.networks import D_EPS, D_X, D_Z

OVERHEAD_WIDTH = 64
"""At this width a stacked step on one CPU core takes about twice its matrix products alone."""


def flops(spec: Spec) -> float:
    """Multiplications and additions of all matrix products of a training."""
    encoder = _parameters(D_X + D_EPS, spec.encoder_depth, spec.encoder_width, D_Z)
    decoder = _parameters(D_Z + D_EPS, spec.decoder_depth, spec.decoder_width, D_X)
    critic = _parameters(D_X + D_Z, spec.critic_depth, spec.critic_width, 1)
    # Per sample: 2 a weight forward, 2 back to the inputs, 2 for the weight's own gradient.
    critic_step = 2 * (encoder + decoder) + 2 * 6 * critic
    passes = 2 if spec.lam > 0 else 1  # the cycle is a second pass through both
    model_step = passes * 6 * (encoder + decoder) + 2 * 4 * critic
    batches = spec.epochs * (N_TRAIN // spec.batch)
    per_batch = spec.critic_steps * critic_step + spec.model_steps * model_step
    return float(batches * spec.batch * per_batch)


def seconds(spec: Spec, rate: float) -> float:
    """A training's estimated share of its stack's time, where products run at `rate` FLOP/s."""
    width = (spec.encoder_width + spec.decoder_width + spec.critic_width) / 3
    return flops(spec) / rate * (width + OVERHEAD_WIDTH) / width


def _parameters(d_in: int, depth: int, width: int, d_out: int) -> int:
    return d_in * width + (depth - 1) * width**2 + width * d_out


def matmul_rate(device: str, width: int = 64, budget: float = 0.15) -> float:
    """FLOP/s of batched products of this width on the device, measured for `budget` seconds."""
    n, batch = (16, 128) if device == "cpu" else (256, 256)
    a = torch.ones(n, width, width, device=device)
    b = torch.ones(n, width, batch, device=device)

    def sync() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

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
