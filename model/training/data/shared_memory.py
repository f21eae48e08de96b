"""Memory that two processes share: one puts bytes there, the other reads them in place and tells when it is done.

It is used again and again, so its pages are cleared and mapped once. It has no name, so it leaves nothing behind, and
takes only as many pages as were in use at one time.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable

import numpy as np

SIZE = 1 << 30  # bytes; they are addresses, not pages
_ALIGNED = 64  # bytes: a line of a cache


def create(size: int = SIZE) -> int | None:
    """Return the descriptor of new memory of so many bytes, or None: only Linux has memory without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("vl3syn")
    os.truncate(descriptor, size)
    return descriptor


class Writer:
    """The end that puts bytes there."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._ends: dict[int, int] = {}  # of each block in use, by its start

    def put(self, block: memoryview) -> int | None:
        """Copy a block of bytes to a free place, the first one that is long enough. Return its start; None: no room."""
        start = 0
        for taken in sorted(self._ends):
            if taken - start >= block.nbytes:
                break
            start = self._ends[taken]
        end = start + block.nbytes
        if end > len(self._memory):
            return None
        self._ends[start] = end + -end % _ALIGNED
        self._memory[start:end] = block
        return start

    def free(self, starts: Iterable[int]) -> None:
        """Use the places of these blocks again."""
        for start in starts:
            del self._ends[start]


class Reader:
    """The end that reads them."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._unused: deque[int] = deque()

    def block(self, start: int, length: int) -> memoryview:
        """Return a block in place. It counts as used as long as anything refers to its bytes."""
        block = np.frombuffer(self._memory, np.uint8, length, start)
        weakref.finalize(block, self._unused.append, start).atexit = False
        return block.data

    def unused(self) -> list[int]:
        """Return, once, the start of each block that is no longer used. Other threads may end uses meanwhile."""
        return [self._unused.popleft() for _ in range(len(self._unused))]
