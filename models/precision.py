"""Sets how a GPU rounds the inputs of products and convolutions in float32.

The settings belong to the process, all its threads included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def allow_tf32(allowed: bool) -> None:
    """Allows, or forbids, a GPU to round the inputs of products and convolutions to TF32."""
    # torch has newer settings since 2.9, and raises where a program uses both kinds.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def exact() -> Iterator[None]:
    """Forbids TF32 inside. Scores are computed so, whatever their training's precision was.

    A recorded graph keeps the rounding of its recording.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
