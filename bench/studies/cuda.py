"""What a GPU is asked beside tensors: recorded work, and how its products round."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def record(work: Callable[[], T], device: torch.device, name: str) -> Callable[[], T] | None:
    """The kernels of `work` as a CUDA graph, not run meanwhile; None if they can't be recorded.

    Each call of what is returned runs them, without Python in between, on the memory that they
    were recorded on, and returns the same tensors. `work` must have been done once before: that
    makes an optimiser's state and the libraries' workspaces, which a recording can't. A warning
    with `name` says why there is no graph.
    """
    try:
        return _graph(work, device)
    except RuntimeError as error:  # slower, but nothing is lost
        why = error.__context__ or error  # the end of a recording that failed fails as well
        warnings.warn(f"{name} goes on without a CUDA graph: {why}", stacklevel=2)
        return None


def _graph(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    # The stream that is set here comes back where a recording fails, too.
    with torch.cuda.stream(torch.cuda.current_stream(device)), torch.cuda.graph(graph):
        results = work()

    def replay() -> T:
        graph.replay()
        return results

    return replay


def allow_tf32(allowed: bool) -> None:
    """Whether products and convolutions of a GPU may round what goes into them to TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
