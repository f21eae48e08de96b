"""A signal of a process to itself: another thread ends what the main thread does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_OWN = signal.SIGUSR1
"""Not SIGTERM: that one has handlers of others, such as Ray's, which say who sent it."""


@contextmanager
def endable() -> Iterator[None]:
    """Let `end_main_thread` raise SystemExit in the main thread, so that `finally` runs."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(_OWN) is signal.SIG_DFL
    if mine:
        signal.signal(_OWN, _end)
    try:
        yield
    finally:
        if mine:
            signal.signal(_OWN, signal.SIG_DFL)


def end_main_thread() -> None:
    """Raise SystemExit in the main thread, from another thread, also while the main thread waits for something.

    Nothing happens if the main thread is not in `endable`.
    """
    if callable(signal.getsignal(_OWN)):
        signal.pthread_kill(threading.main_thread().ident or 0, _OWN)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
