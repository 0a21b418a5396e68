"""Runs pieces of work in child processes, and goes on where one of them fails."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from bench.engine.executors import deaf
from bench.studies.cuda import Unrecorded

LIMIT = 60.0  # seconds that a single piece of work may take
SPAWN = multiprocessing.get_context("spawn")

Found = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A piece of work for a child process: a function, its arguments, and what it is about.

    The function takes a last argument more: whether a GPU records updates.
    """

    call: Callable[..., Found]
    arguments: tuple[Any, ...]
    about: Found
    record: bool = True

    def __call__(self) -> Found:
        return self.call(*self.arguments, self.record)


@dataclass(frozen=True)
class Failure:
    """Says why a piece of work failed; `unrecorded` says that recording was what failed."""

    why: str
    unrecorded: bool = False


def _child(pipe: Connection) -> None:
    """Answers each task with what it gives, until it is ended or the process that asks is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # as in a worker
    while True:
        try:
            task = pipe.recv()
        except EOFError:  # the process that asks is gone
            return
        try:
            found: Found | Failure = task()
        except Exception as error:
            recording = isinstance(error, Unrecorded)
            why = str(error) if recording else f"{type(error).__name__}: {error}"
            found = Failure(" ".join(why.split())[:300], recording)
        with suppress(BrokenPipeError):
            pipe.send(found)


def _end_with_parent() -> None:
    """Ends this process once the process that asks is gone, as a closed terminal leaves it."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


class Child:
    """Is a process that works on one task at a time."""

    def __init__(self) -> None:
        self.pipe, end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_child, args=(end,), daemon=True)
        with deaf():
            self.process.start()
        end.close()

    def begin(self, task: Task) -> None:
        with suppress(BrokenPipeError):  # the answer will say that the process is gone
            self.pipe.send(task)
        self.since = time.monotonic()

    def answer(self) -> Found | Failure:
        """Returns what the task has given, or why it gives nothing."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Failure(f"its process has ended, with status {self.process.exitcode}")
        return Failure(f"it took more than {LIMIT:.0f} s")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def outcomes(groups: Sequence[Sequence[Task]], children: int) -> list[list[Found | Failure]]:
    """Returns what the tasks of each group give, in their order.

    So many child processes work at a time. A process takes the tasks of a group one after the
    other. After a failure a fresh process goes on, because up to torch 2.11 a recording that fails
    makes later recordings of its process fail.
    """
    found: list[list[Found | Failure]] = [[] for _ in groups]
    waiting, idle = deque(i for i, group in enumerate(groups) if group), list[Child]()
    running: dict[Any, tuple[Child, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < children:
                child, i = idle.pop() if idle else Child(), waiting.popleft()
                child.begin(groups[i][len(found[i])])
                running[child.pipe] = child, i
            ready = wait([*running], 1)
            for pipe, (child, i) in [*running.items()]:
                if pipe not in ready and time.monotonic() - child.since < LIMIT:
                    continue
                found[i].append(child.answer())
                del running[pipe]
                if len(found[i]) < len(groups[i]):
                    waiting.appendleft(i)
                if isinstance(found[i][-1], Failure):
                    child.end()
                else:
                    idle.append(child)
    finally:
        for child in [*idle, *(child for child, _ in running.values())]:
            child.end()
    return found


def results_of(groups: Sequence[Sequence[Task]], children: int) -> list[Found]:
    """Returns what the tasks are about and what they give, with a `failure` or None.

    Tasks that can't be recorded are made again without a recording; `no_graph` says why.
    """
    tasks = [task for group in groups for task in group]
    found = [one for each in outcomes(groups, children) for one in each]
    why = {i: one.why for i, one in enumerate(found) if isinstance(one, Failure) and one.unrecorded}
    again = outcomes([[replace(tasks[i], record=False) for i in why]], 1)[0]
    for i, one in zip(why, again, strict=True):
        found[i] = one if isinstance(one, Failure) else one | {"no_graph": why[i]}
    return [
        {"failure": None} | task.about | ({"failure": one.why} if isinstance(one, Failure) else one)
        for task, one in zip(tasks, found, strict=True)
    ]
