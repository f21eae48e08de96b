"""SIGTERM, which clusters send before they kill: a training writes a checkpoint after the step under way, and ends.

A second SIGTERM ends it at once, as Ctrl-C does at any time: then it goes on after the last whole checkpoint. With
several workers the process that has started them is told; it leaves a file in OUT, at which the first worker looks.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from model.training.dist import DistContext

FILE = ".stop"
"""In OUT: the process that has started the workers got a SIGTERM."""


class TerminatedError(SystemExit):
    """A training that was asked to end and has ended; the exit code is that of a SIGTERM, 143."""

    def __init__(self, line: str = "") -> None:
        super().__init__(128 + signal.SIGTERM)
        if line:
            print(f"vl3syn: SIGTERM: {line}; run the same command to go on", file=sys.stderr, flush=True)


class Stop:
    """Whether this training is to end; a context in which the first SIGTERM only asks for it."""

    def __init__(self, file: Path, workers: int) -> None:
        """Look at `file` too, if there are several workers."""
        self._file, self._workers, self.signalled = file, workers, False
        self._before: Any = None

    def __enter__(self) -> Self:
        try:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        except ValueError:  # not in the main thread, as with Ray Train: there the file tells
            self._before = None
        return self

    def _on_signal(self, *_: object) -> None:
        self.signalled = True
        signal.signal(signal.SIGTERM, self._before)  # of a second one nothing is caught

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def agreed(self, world: DistContext) -> bool:
        """Whether any worker was asked; all of them call it at the same place, and hear the same."""
        wanted = self.signalled or (self._workers > 1 and world.is_main and self._file.exists())
        return world.all_reduce_sum([float(wanted)])[0] > 0
