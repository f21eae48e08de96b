"""Signals that end a process: let them raise an exception, so that `finally` runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_OWN = signal.SIGUSR1
"""The signal of a process to itself: SIGTERM has handlers of others, such as Ray's, which say who sent it."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and SIGUSR1 raise SystemExit in the main thread. Ignored and handled ones stay so."""
    main = threading.current_thread() is threading.main_thread()
    signals = signal.SIGTERM, signal.SIGHUP, _OWN
    fatal = [number for number in signals if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in fatal:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in fatal:
            if signal.getsignal(number) is _end:  # else Ray has set its own
                signal.signal(number, signal.SIG_DFL)


def end_main_thread() -> None:
    """Raise SystemExit in the main thread, from another thread, also while the main thread waits for something.

    Nothing happens if the main thread is not in `ended_by_signals`.
    """
    if callable(signal.getsignal(_OWN)):
        signal.pthread_kill(threading.main_thread().ident or 0, _OWN)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
