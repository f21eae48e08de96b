"""Signals that end a process: let them raise an exception, so that `finally` runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in the main thread. Signals that are ignored or handled stay so."""
    main = threading.current_thread() is threading.main_thread()
    fatal = [n for n in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in fatal:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in fatal:
            if signal.getsignal(number) is _end:  # else Ray has set its own
                signal.signal(number, signal.SIG_DFL)


def end_main_thread() -> None:
    """Raise SystemExit in the main thread, from another thread, also while the main thread waits.

    Nothing happens if SIGTERM is ignored, or would end the process without cleaning up: see `ended_by_signals`.
    """
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
