"""Handle SIGTERM and Ctrl-C: write a checkpoint after the current step, then end.

Clusters send SIGTERM before they kill. A second signal ends the training at once; it then resumes from the last
complete checkpoint. With several workers, the process that started them gets the signal. It creates a file in OUT,
which rank 0 checks.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from model.training.dist import DistContext

log = logging.getLogger("vl3syn.train")

FILE = ".stop"
"""File in OUT: the process that started the workers got a signal. Its content is the signal's name."""

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class TerminatedError(SystemExit):
    """A training ended because of a SIGTERM. The exit code is 143, as for SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Signals:
    """A context in which the first SIGTERM or Ctrl-C only sets `name`. Signals that were ignored before stay so.

    Attributes:
        name: Name of the signal that arrived: `SIGTERM` or `Ctrl-C`; empty until then.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Also write the name into `file`, if one is given; at the end the file is deleted."""
        self.name, self._file = "", file
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _NAMES:
            if signal.getsignal(number) != signal.SIG_IGN:
                try:
                    self._before[number] = signal.signal(number, self._on_signal)
                except ValueError:  # not in the main thread, as with Ray Train: there the file is used
                    break
        return self

    def _on_signal(self, number: int, _: object) -> None:
        self._restore()  # a second signal is not caught
        self.name = _NAMES[signal.Signals(number)]
        if self._file:
            self._file.write_text(self.name)
        if number == signal.SIGINT:  # somebody waits; print() may be interrupted inside of itself, and would raise
            os.write(2, b"vl3syn: Ctrl-C: a checkpoint follows this step; again: ends at once\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()
        if self._file:
            self._file.unlink(missing_ok=True)
        if kind is None and self.name == "Ctrl-C":  # it came after the last step
            raise KeyboardInterrupt


class Stop(Signals):
    """A context in which the first SIGTERM or Ctrl-C only requests a stop; `agreed` tells whether one was requested."""

    def __init__(self, file: Path, workers: int) -> None:
        """With several workers, also check whether `file` exists."""
        super().__init__()
        self._asked, self._workers = file, workers

    def agreed(self, world: DistContext) -> bool:
        """Return whether a stop was requested on any rank. All ranks must call this; all get the same answer."""
        wanted = bool(self.name) or (self._workers > 1 and world.is_main and self._asked.exists())
        return world.all_reduce_sum([float(wanted)])[0] > 0

    def error(self, line: str) -> BaseException:
        """Return what ends the training: KeyboardInterrupt after Ctrl-C, else TerminatedError.

        Args:
            line: Where the training stands; it is logged. Ranks other than 0 give an empty one.
        """
        if line:
            name = self.name or self._asked.read_text()
            log.warning("vl3syn: %s: %s; run the same command to go on", name, line)
        return KeyboardInterrupt() if self.name == "Ctrl-C" else TerminatedError()
