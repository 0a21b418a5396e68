"""Records work as CUDA graphs, and tells errors of a GPU apart."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Has a GPU do the work inside in a queue of its own, which can be recorded.

    The work waits for what was queued before, and what is queued later waits for the work. On a CPU
    this does nothing.
    """
    if device.type != "cuda":
        yield
        return
    outer, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)


def record(
    work: Callable[[], T], device: torch.device, methods: tuple[str, ...]
) -> Callable[[], T]:
    """Records the kernels of `work` as a CUDA graph without running them.

    A call of the result runs the kernels without Python in between, on the memory of the recording,
    and returns the same tensors. `work` must have run once before, because a recording can't make
    optimiser states and workspaces. All three best happen in the same `own_stream`. Raises
    Unrecorded, or what `out_of_memory` knows. After either error the process is `spoiled`.
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
    # CUDA records no default stream; for that torch has another stream.
    own = None if stream == torch.cuda.default_stream(device) else stream
    # What only a cycle keeps alive of an eager step belongs to that step's stream, and would make
    # the recording fail. Up to 2.8 torch itself collected it here.
    gc.collect()
    torch.cuda.synchronize(device)
    # The outer context restores the stream even if the recording fails. Other threads may go on.
    with (
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"),
    ):
        results = work()

    def replay() -> T:
        graph.replay()
        return results

    return replay


def out_of_memory(error: BaseException | None) -> bool:
    """Says whether memory ran out, in this error or in an error that led to it."""
    # torch raises a plain RuntimeError when the CPU's allocator or a GPU's library gets no memory.
    signs = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    kinds = MemoryError, torch.OutOfMemoryError
    return any(isinstance(each, kinds) for each in _led(error)) or _says(error, signs)


def unusable(error: BaseException | None) -> bool:
    """Says whether a GPU, or a library of it, has failed. Then its process may never use it again.

    After most errors of CUDA every later call of the process fails as well.
    """
    return _says(error, ("CUDA error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "cuDNN error"))


def _says(error: BaseException | None, signs: tuple[str, ...]) -> bool:
    """Says whether a RuntimeError, or one that led to the error, has one of these words."""
    found = [str(each) for each in _led(error) if isinstance(each, RuntimeError)]
    return any(sign in text for sign in signs for text in found)


def _led(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__context__
