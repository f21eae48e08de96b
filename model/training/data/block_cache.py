"""Keep a source's most recently used blocks in memory. Threads that need the same block share one read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BlockCache(Generic[T]):
    """An LRU cache of blocks by number: above `most` blocks it evicts the least recently used."""

    def __init__(self, read: Callable[[int], T], most: int) -> None:
        """Call `read` for blocks that are not cached, and keep at most `most`."""
        self._read, self._most = read, most
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Future[T]] = OrderedDict()

    def __call__(self, number: int) -> T:
        """Return a block. An error of `read` is raised in all waiting threads; the next call reads again."""
        with self._lock:
            cached = self._blocks.get(number)
            mine: Future[T] = Future()
            if cached is None:
                self._blocks[number] = mine
                while len(self._blocks) > self._most:
                    self._blocks.popitem(last=False)
            else:
                self._blocks.move_to_end(number)
        if cached is not None:
            return cached.result()
        try:
            mine.set_result(self._read(number))
        except BaseException as error:
            with self._lock:
                if self._blocks.get(number) is mine:
                    del self._blocks[number]
            mine.set_exception(error)
        return mine.result()
