"""The last few blocks of a source in memory, each read once, whichever threads ask for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BlockCache(Generic[T]):
    """Blocks by number; of more than `most`, the one that was not asked for longest is let go."""

    def __init__(self, read: Callable[[int], T], most: int) -> None:
        """Use `read` for what is not there."""
        self._read, self._most = read, most
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Future[T]] = OrderedDict()

    def __call__(self, number: int) -> T:
        """The block; what `read` raises is raised for all who wait for it, and tried again by the next."""
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
