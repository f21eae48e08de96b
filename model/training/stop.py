"""Handle SIGTERM, which clusters send before they kill: write a checkpoint after the current step, then exit.

A second SIGTERM ends the training at once, as Ctrl-C always does; it then resumes from the last complete checkpoint.
With several workers, the process that started them gets the signal. It creates a file in OUT, which rank 0 checks.
"""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from model.training.dist import DistContext

log = logging.getLogger("vl3syn.train")

FILE = ".stop"
"""File in OUT: the process that started the workers got a SIGTERM."""


class TerminatedError(SystemExit):
    """A training ended because of a SIGTERM. The exit code is 143, as for SIGTERM."""

    def __init__(self, line: str = "") -> None:
        super().__init__(128 + signal.SIGTERM)
        if line:
            log.warning("vl3syn: SIGTERM: %s; run the same command to go on", line)


class Stop:
    """A context in which the first SIGTERM only requests a stop; `agreed` tells whether one was requested."""

    def __init__(self, file: Path, workers: int) -> None:
        """With several workers, also check whether `file` exists."""
        self._file, self._workers, self.signalled = file, workers, False
        self._before: Any = None

    def __enter__(self) -> Self:
        try:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        except ValueError:  # not in the main thread, as with Ray Train: there the file is used
            self._before = None
        return self

    def _on_signal(self, *_: object) -> None:
        self.signalled = True
        signal.signal(signal.SIGTERM, self._before)  # a second SIGTERM is not caught

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def agreed(self, world: DistContext) -> bool:
        """Return whether a stop was requested on any rank. All ranks must call this; all get the same answer."""
        wanted = self.signalled or (self._workers > 1 and world.is_main and self._file.exists())
        return world.all_reduce_sum([float(wanted)])[0] > 0
