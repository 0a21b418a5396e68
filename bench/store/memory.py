"""The memory of a folder: which rows it has had, so that a folder copied over another is noticed.

Ids lie one a line in a file of `_SCALE/rows/`. The name of the file changes with every change. So
a copied folder never replaces the file: its own file, even an earlier state of the same file,
comes to lie beside it, and rows that either file names are known.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from bench.store.atomic import write_atomically

_LINE = re.compile(rb"^[0-9a-f]{16}$", re.MULTILINE)


class Memory:
    """Knows the ids of rows; `lock` makes the lock of all changes."""

    def __init__(self, folder: Path, lock: Callable[[], FileLock]) -> None:
        self.folder, self.lock = folder, lock

    def ids(self) -> set[str]:
        """Returns all ids that are known; a torn line is none."""
        found: set[str] = set()
        for _ in range(100):
            with suppress(FileNotFoundError):  # a file was renamed meanwhile
                for path in self._files():
                    found |= {id.decode() for id in _LINE.findall(path.read_bytes())}
                break
        return found

    def add(self, ids: Iterable[str]) -> None:
        """Remembers these ids as well."""
        lines = "".join(f"\n{id}\n" for id in ids).encode()  # the line before may be torn
        with self.lock():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = next(iter(self._files()), self._fresh())
            with open(path, "ab", buffering=0) as file:
                file.write(lines)
            os.replace(path, self._fresh())

    def keep(self, choose: Callable[[set[str]], set[str]]) -> None:
        """Replaces what is known by what `choose` makes of it, under the lock."""
        with self.lock():
            old = self._files()
            content = "".join(f"{id}\n" for id in sorted(choose(self.ids()))).encode()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._fresh(), content, self.folder.parent / "tmp")
            for path in old:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        with suppress(OSError):  # such a folder can't be: preparing it says why
            return sorted(path for path in self.folder.glob("*.txt") if path.is_file())
        return []

    def _fresh(self) -> Path:
        return self.folder / f"{uuid.uuid4().hex}.txt"
