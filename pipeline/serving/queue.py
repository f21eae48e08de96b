"""The requests that a server holds: how many there may be, and which one has the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio


class RequestError(Exception):
    """A request that is refused with an HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        body_bytes: Largest body, with its images and films in Base64.
        waiting: Most requests at a time, the one that is answered among them; further ones are refused.
        waiting_bytes: Most bytes of their bodies.
        media: Folder whose files requests may name by `file:` URLs; None: none.
        key: What requests must bring as `Authorization: Bearer KEY`; None: nothing.
        hosts: Names that a server without a key answers to, beside its addresses and local names.
    """

    body_bytes: int = 64 << 20
    waiting: int = 256
    waiting_bytes: int = 1 << 30
    media: str | None = None
    key: str | None = None
    hosts: Sequence[str] = ()


@dataclass
class Queue:
    """Lets one answer at a time have the model, in the order of arrival.

    Attributes:
        limits: How many requests and bytes may wait.
        ends: Returns whether the server is to end: then no answer begins, and none goes on.
    """

    limits: Limits
    ends: Callable[[], bool]
    _requests: int = 0
    _bytes: int = 0
    _free: anyio.Semaphore = field(default_factory=partial(anyio.Semaphore, 1))

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """Take a place in the queue. Yield a function that is told of each number of bytes that the request holds.

        Raises:
            RequestError: It is full. The function raises it, too.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._bytes += size
            if held > self.limits.body_bytes:
                raise RequestError(413, f"more than {self.limits.body_bytes:,} bytes: send fewer or smaller media")
            if self._bytes > max(self.limits.waiting_bytes, held):
                raise RequestError(503, "the requests that wait are too large together: try again later")

        if self._requests >= self.limits.waiting:
            raise RequestError(503, f"{self._requests} requests wait already: try again later")
        self._requests += 1
        try:
            yield hold
        finally:
            self._requests -= 1
            self._bytes -= held

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the model.

        Raises:
            RequestError: The server ends.
        """
        async with self._free:
            self._refuse_at_the_end()
            yield

    def while_serving(self, pieces: Generator[str]) -> Generator[str]:
        """Yield the pieces of an answer.

        Raises:
            RequestError: The server ends before the answer does.
        """
        with closing(pieces):
            for piece in pieces:
                self._refuse_at_the_end()
                yield piece

    def _refuse_at_the_end(self) -> None:
        if self.ends():
            raise RequestError(503, "the server is ending: ask it again when it is back")
