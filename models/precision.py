"""Sets how a GPU rounds the inputs of products and convolutions in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def allow_tf32(allowed: bool) -> None:
    """Allows, or forbids, a GPU to round the inputs of products and convolutions to TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def _allowed() -> bool:
    return torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32


@contextmanager
def exact() -> Iterator[None]:
    """Forbids TF32 inside. Scores are computed so, whatever their training's precision was.

    A recorded graph keeps the rounding of its recording.
    """
    before = _allowed()
    allow_tf32(False)
    try:
        yield
    finally:
        allow_tf32(before)
