"""One deadline for everything that is done for a URL."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any


class DeadlineError(Exception):
    """The time is over."""


class Deadline:
    """The moment until which a URL must be fetched: look-ups, connections, redirects and reading together."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises:
            DeadlineError: None are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineError("timed out")
        return left

    def extend(self, seconds: float) -> None:
        """Move the deadline, by time that was spent on waiting for a turn."""
        self._end += seconds


class _Timed:
    """A socket with a deadline. A timeout of the usual kind starts again with each byte that arrives."""

    deadline: Deadline | None = None

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        if self.deadline:
            self.settimeout(self.deadline.remaining())  # type: ignore[attr-defined]
        return super().recv_into(*arguments, **options)  # type: ignore[misc,no-any-return]


class TimedSocket(_Timed, socket.socket):
    """A TCP socket with a deadline."""


class TimedTLSSocket(_Timed, ssl.SSLSocket):
    """A TLS socket with a deadline."""
