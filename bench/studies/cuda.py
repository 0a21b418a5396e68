"""Records work as CUDA graphs, and tells errors of a GPU apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class Unrecorded(Exception):
    """Updates can't be recorded as a CUDA graph; the message says why, `methods` says whose."""

    def __init__(self, why: str, methods: tuple[str, ...]) -> None:
        super().__init__(why, methods)
        self.why, self.methods = why, methods

    def __str__(self) -> str:
        return self.why


_failed = False  # whether a recording has failed in this process


def spoiled() -> bool:
    """Returns whether a recording has failed here. Then later recordings may fail as well.

    torch's allocator believes that a failed recording is still under way, at least up to 2.11. So
    the engine replaces the process.
    """
    return _failed


def record(
    work: Callable[[], T], device: torch.device, methods: tuple[str, ...]
) -> Callable[[], T]:
    """Records the kernels of `work` as a CUDA graph without running them, on the current stream.

    A call of the result runs the kernels without Python in between, on the memory of the recording,
    and returns the same tensors. `work` must have run once before, because a recording can't make
    optimiser states and workspaces. Raises Unrecorded, or what `out_of_memory` knows. After either
    error the process is `spoiled`.
    """
    global _failed
    try:
        return _graph(work, device)
    except RuntimeError as error:
        _failed = True
        if out_of_memory(error):
            raise
        why = error.__context__ or error  # ending a failed recording raises a second error
        raise Unrecorded(" ".join(str(why).split())[:300], methods) from error


def _graph(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    # CUDA records on any stream but the default; torch has one of its own for that.
    own = None if stream == torch.cuda.default_stream(device) else stream
    torch.cuda.synchronize(device)
    # The outer context restores the stream even if the recording fails.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=own):
        results = work()

    def replay() -> T:
        graph.replay()
        return results

    return replay


def out_of_memory(error: BaseException | None) -> bool:
    """Says whether memory ran out, in this error or in an error that led to it."""
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch raises a plain RuntimeError when the CPU's allocator or a GPU's library gets no memory.
    refusals = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    refused = isinstance(error, RuntimeError) and any(each in str(error) for each in refusals)
    return refused or out_of_memory(error.__context__)
