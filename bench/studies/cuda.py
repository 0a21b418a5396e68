"""Records work as CUDA graphs, and sets how a GPU rounds products."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def record(work: Callable[[], T], device: torch.device, name: str) -> Callable[[], T] | None:
    """Records the kernels of `work` as a CUDA graph without running them; None if that fails.

    A call of the result runs the kernels without Python in between, on the memory of the recording,
    and returns the same tensors. `work` must have run once before, because a recording can't make
    optimiser states and workspaces. A warning with `name` says why there is no graph.
    """
    try:
        return _graph(work, device)
    except RuntimeError as error:
        why = error.__context__ or error  # ending a failed recording raises a second error
        warnings.warn(f"{name} goes on without a CUDA graph: {why}", stacklevel=2)
        return None


def _graph(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    # The outer context restores the stream even if the recording fails.
    with torch.cuda.stream(torch.cuda.current_stream(device)), torch.cuda.graph(graph):
        results = work()

    def replay() -> T:
        graph.replay()
        return results

    return replay


def allow_tf32(allowed: bool) -> None:
    """Allows, or forbids, a GPU to round the inputs of products and convolutions to TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
