"""Makes the next item of an iterator while the caller works with this item."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields the same items. A thread makes the next item meanwhile, and ends with the caller.

    What `items` raises is raised in its turn.
    """
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(list[T], islice(items, 1))
        while item := following.result():
            following = thread.submit(list[T], islice(items, 1))
            yield item[0]
