"""How many connections a host gets at once, and how long it is left alone after it asked for that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Semaphore

LONGEST = 3600.0
"""Seconds. A host that asks for a longer pause is left alone for so long."""


class HostPausedError(Exception):
    """A host that asked for a longer pause than its URLs wait. The text says how long; `seconds` too."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"host asked to wait: {seconds:.0f} s more")
        self.seconds = seconds


class _Host:
    def __init__(self, limit: int) -> None:
        self.turns = Semaphore(limit)
        self.until = 0.0  # the end of its pause, by time.monotonic
        self.waited = 0.0  # seconds of pause in this part


class Hosts:
    """The hosts of a process, by name. Threads take turns at each.

    Args:
        per_host: Connections to a host at once.
        min_pause: Seconds for which a host is left alone after a status 429 or 503, if it asks for less.
        max_pause: Seconds for which the URLs of a part wait for one host, all of its pauses together.
    """

    def __init__(self, per_host: int, min_pause: float, max_pause: float) -> None:
        self._per_host, self._min_pause, self._max_pause = per_host, min_pause, max_pause
        self._hosts: dict[str, _Host] = {}
        self._lock = Lock()

    def begin_part(self) -> None:
        """Forget hosts without a pause now, and what the last part waited for others. No thread may have a turn."""
        now = time.monotonic()
        self._hosts = {name: host for name, host in self._hosts.items() if host.until > now}
        for host in self._hosts.values():
            host.waited = host.until - now

    @contextmanager
    def turn(self, name: str) -> Iterator[float]:
        """Wait for a turn at a host, and for the end of its pause; yield the seconds that were waited.

        Raises:
            HostPausedError: Its pause is too long to wait for.
        """
        begin = time.monotonic()
        with self._lock:
            host = self._hosts.setdefault(name, _Host(self._per_host))
        with host.turns:
            while (pause := host.until - time.monotonic()) > 0:
                if host.waited > self._max_pause:
                    raise HostPausedError(pause)
                time.sleep(pause)
            yield time.monotonic() - begin

    def pause(self, name: str, seconds: float | None) -> None:
        """Leave a host alone for the seconds of its Retry-After, which may be missing.

        A pause that begins within another one prolongs it.
        """
        now = time.monotonic()
        with self._lock:
            host = self._hosts.setdefault(name, _Host(self._per_host))
            until = max(host.until, now + min(max(seconds or 0.0, self._min_pause), LONGEST))
            host.waited += until - max(host.until, now)
            host.until = until
