"""Show the log lines of a training to people: progress on stdout, warnings on stderr."""

from __future__ import annotations

import logging
import sys


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(self.format(record), file=stream, flush=True)


def show_log() -> None:
    """Print what the logger `vl3syn.train` gets from now on. Library code only logs; commands call this."""
    log = logging.getLogger("vl3syn.train")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console())
