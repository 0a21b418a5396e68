"""What a training costs, before it is run."""

from __future__ import annotations

from bench.spec import ToySpec
from bench.studies.toy_grid.data import N_TRAIN
from models.networks import D_EPS, D_X, D_Z

OVERHEAD_WIDTH = 64
"""At this width a stacked step on one CPU core takes about twice its matrix products alone."""


def flops(spec: ToySpec) -> float:
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


def seconds(spec: ToySpec, rate: float) -> float:
    """A training's estimated share of its stack's time, where products run at `rate` FLOP/s."""
    width = (spec.encoder_width + spec.decoder_width + spec.critic_width) / 3
    return flops(spec) / rate * (width + OVERHEAD_WIDTH) / width


def _parameters(d_in: int, depth: int, width: int, d_out: int) -> int:
    return d_in * width + (depth - 1) * width**2 + width * d_out
