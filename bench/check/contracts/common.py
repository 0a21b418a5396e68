"""What a contract finds, and what all contracts share."""

from __future__ import annotations

import os
import random
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bench
import models

LAM = 0.1  # the lambda above 0 of all trials
PLAYERS = ("critic", "model")


class Note(str):
    """A line about something that is allowed."""


class Finding(NamedTuple):
    """Says that a contract is kept (no text), or what is wrong or, in a note, unusual."""

    contract: str
    text: str = ""
    note: bool = False


NUMBER, NUMBERS = "gives one finite number", "gives one number for each member of a stack"
SAME, SAME_NOISE = "depends on the logits alone", "draws noise by name"
UNCHANGED = "changes neither batch nor networks"
FIRST = (NUMBER, NUMBERS, UNCHANGED, SAME, SAME_NOISE)
Lines = Iterator[str]
Contracts = Mapping[str, Callable[[Any], Lines]]


def findings(contracts: Contracts, players: Mapping[str, Any]) -> list[Finding]:
    """Returns what the contracts find of each player.

    The contracts rest on those of `FIRST`: a player who breaks one of these is not tried by the
    rest. What several contracts find, such as an error, is told once.
    """
    found, told, left = [], set[str](), dict(players)
    for contract, check in contracts.items():
        lines: list[str] = []
        for name, player in [*left.items()]:
            own = _tried(check, player)
            if contract in FIRST and any(not isinstance(line, Note) for line in own):
                del left[name]
                own.append(Note("no other contract is tried until this is mended"))
            start = f"{name}: " if name else ""
            lines += [type(line)(f"{start}{line}") for line in own]
        if len(left) == len(players) and not lines:
            found.append(Finding(contract))
        new = [line for line in dict.fromkeys(lines) if line not in told]
        found += [Finding(contract, str(line), isinstance(line, Note)) for line in new]
        told |= {*new}
    return found


def _tried(check: Callable[[Any], Lines], player: Any) -> list[str]:
    """Returns the lines of a contract; what the user's own code raises is one of them."""
    lines = []
    try:
        lines.extend(check(player))
    except Wrong as wrong:
        lines.append(f"{wrong}{_place(wrong)}")
    except Exception as error:  # a user's function may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        lines.append(f"raises {what}{_place(error)}")
    return lines


class Wrong(Exception):
    """A user's code did what a contract forbids; the message is the line."""


_LIBRARIES = [sysconfig.get_paths()[name] for name in ("stdlib", "platlib", "purelib")]
_SUITE = [str(Path(package.__path__[0]).resolve()) for package in (bench, models)]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return os.path.dirname(frame.filename) == os.path.dirname(__file__)


def _place(error: BaseException | None = None) -> str:
    """Returns " (FILE:LINE)" of the user's code that raised this error, or that runs now.

    It is a line of the suite if the user's code has none there, and "" if there is no line at all.
    """
    frames = traceback.extract_tb(error.__traceback__) if error else traceback.extract_stack()
    inner = dropwhile(_is_ours, reversed(frames))
    theirs = [*takewhile(lambda frame: not _is_ours(frame), inner)]
    for others in (_LIBRARIES + _SUITE, _LIBRARIES, []):
        for frame in theirs:
            path = Path(frame.filename).resolve()
            if not any(path.is_relative_to(folder) for folder in others):
                return f" ({path.name}:{frame.lineno})"
    return ""


def random_states() -> dict[str, bytes]:
    """Returns the state of all random numbers that belong to the whole process."""
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "numpy's": repr(np.random.get_state(legacy=False)).encode(),
        "Python's": repr(random.getstate()).encode(),
    }


def own_numbers(before: Mapping[str, bytes], instead: str) -> Lines:
    """Yields whose random numbers were used since these `random_states`, and what to do instead."""
    after = random_states()
    for whose, state in before.items():
        if after[whose] != state:
            yield f"uses {whose} own random numbers: two runs of one seed would differ; {instead}"


class Elsewhere(TorchDispatchMode):
    """Notes operations that a CUDA graph can't hold, and where: by name, file:line.

    Tensors are on "meta", which stands for the GPU. Such operations are on another device, or wait
    for a number of the GPU.
    """

    WAITING = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.waiting: set[str] = set()  # places
        self.mixing: set[str] = set()  # places where tensors of both devices meet

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        devices = {each.device.type for each in tensors}
        devices |= {each.type for each in leaves if isinstance(each, torch.device)}
        waits = func._overloadpacket in self.WAITING
        if waits or devices - {"meta"}:
            place = _place()
            self.found.setdefault(str(func), place)
            if waits and "meta" in devices:
                self.waiting.add(place)
            if "meta" in devices and any(t.dim() and not t.is_meta for t in tensors):
                self.mixing.add(place)
        return func(*args, **(kwargs or {}))


def on_a_gpu(loss: Callable[[], Tensor]) -> Lines:
    """Yields what a loss on device "meta", and its gradient, could not do on a GPU."""
    with Elsewhere() as seen:
        try:
            loss().sum().backward()
        except Exception:
            if not seen.mixing and not seen.waiting:
                raise
    for place in sorted(seen.mixing):
        yield (
            f"mixes a tensor on the CPU with the batch's, and so fails on a GPU{place}: make it "
            "on the device of its input"
        )
    for place in sorted(seen.waiting):
        yield Note(
            f"reads a number of the GPU{place}, as .item(), float() and if do: a GPU can't "
            "record its steps and trains slower"
        )
