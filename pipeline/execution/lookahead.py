"""Start tasks before their results are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def started_ahead(tasks: Iterable[T], most: int) -> Iterator[T]:
    """Yield tasks in order while the next `most` are started; `tasks` starts each task when it yields it."""
    started: deque[T] = deque()
    for task in tasks:
        started.append(task)
        if len(started) > most:
            yield started.popleft()
    yield from started
