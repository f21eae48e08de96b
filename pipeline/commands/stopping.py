"""End a command that stores results when a signal asks for it: with one line, its processes, and its temporary files.

Parts appear whole or not at all, so a command may end anywhere, and goes on when it is run again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # of a cluster's scheduler or `kill`, and of a terminal that was closed

_GRACE = 30
"""Seconds. A process that has not ended then, as with a thread that waits for a server, is ended by SIGALRM."""


_KEPT = "what is stored stays, run again to go on"


@contextmanager
def resumable(then: str = _KEPT) -> Iterator[None]:
    """A context, or a decorator, in which SIGTERM and SIGHUP raise SystemExit with the code of shells, 128 + number.

    Then, and after Ctrl-C, a line says what becomes of the work (`then`): by default that what is stored stays. A
    second SIGTERM ends the process at once. Signals that were ignored before stay so.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, partial(_stop, then=then))
    try:
        yield
    except KeyboardInterrupt:
        _say("Ctrl-C", then)
        raise
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _stop(number: int, _: object, then: str) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    signal.alarm(_GRACE)
    _say(signal.Signals(number).name, then)  # at once: `ray job stop` gives 3 s
    raise SystemExit(128 + number)


def _say(name: str, then: str) -> None:
    """Write the line by a system call: a signal may arrive inside of `print`, which would raise."""
    with suppress(OSError):  # a closed terminal
        os.write(2, f"vl3syn: stopped by {name}; {then}\n".encode())
