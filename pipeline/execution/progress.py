"""The progress of a job: a bar on a terminal, else a line in the log every 30 seconds; and metrics, if Ray runs.

A `Progress` gets each receipt where the driver receives it. A thread of its own looks every few seconds, so that a line
comes also while no part is done.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from core.errors import UserError
from core.secrets import redact
from core.text import printable
from pipeline.execution.losses import awaited_node
from pipeline.execution.lost_nodes import LostNodes
from pipeline.execution.metrics import Metrics
from pipeline.execution.tally import Tally

SECONDS = 30.0
"""Between two lines of a log, unless the environment variable VL3SYN_PROGRESS_SECONDS has another number."""

_TICK = 5.0  # seconds, at most, between two looks at the nodes of the cluster


class Progress:
    """The observer of one job. As a context manager it shows the progress until the job ends.

    Calling it with receipts counts them; this may happen in any thread.
    """

    def __init__(self, name: str, total: int, noun: str = "image", unit: str = "rows") -> None:
        """Describe the job.

        Args:
            name: Its name.
            total: Rows of its blocks.
            noun: What a row that is computed is (`Pool.noun`).
            unit: What is counted by `total`: `rows`, or `files` of the index.

        Raises:
            UserError: VL3SYN_PROGRESS_SECONDS is not a positive number.
        """
        self._name, self._total, self._noun, self._unit = name, total, noun, unit
        self._seconds = _seconds_between_lines()
        self._tally, self._last = Tally(), time.monotonic()
        self._metrics = Metrics(name)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._shown = ExitStack()
        self._bar: Any = None

    def __call__(self, receipts: pa.Table) -> None:
        with self._lock:
            self._tally.add(receipts)
            self._last = time.monotonic()
            self._metrics.update(self._tally, self._waiting)
            if self._bar:
                self._show_bar()

    @property
    def _waiting(self) -> int:
        return max(0, self._total - self._tally.taken)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = self._shown.enter_context(_bar())
            self._bar.add_task("", total=self._total)
            self._show_bar()
        self._thread = threading.Thread(target=self._look, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(_TICK)  # it may wait for a cluster that is gone
        self._shown.close()

    def _look(self) -> None:
        """Show what happens until the job ends."""
        nodes, shown = LostNodes(), time.monotonic()
        while not self._ended.wait(min(_TICK, self._seconds)):
            for line in nodes.look():
                self._say(line)
            with self._lock:
                self._metrics.update(self._tally, self._waiting)
                line = self.line()
                if self._bar:
                    self._show_bar()
            if not self._ended.is_set() and time.monotonic() - shown >= self._seconds:
                if not self._bar:
                    self._say(line)
                if awaited := self._awaited():
                    self._say(f"{self._name}: {awaited}")
                shown = time.monotonic()

    def _awaited(self) -> str:
        """Return which node a job waits for that has stored nothing since the last line; an empty text if none."""
        return awaited_node() if time.monotonic() - self._last >= self._seconds else ""

    def line(self) -> str:
        """Return what is done so far, as one line."""
        tally = self._tally
        facts = [f"{self._name}: {tally.taken:,} of {self._total:,} {self._unit}"]
        if not tally.receipts:
            return f"{facts[0]}, waiting for the first part"
        if self._unit != "rows":
            facts.append(f"{tally.rows:,} rows")
        facts.append(f"{_rounded(tally.rate)} {self._noun}s/s")
        if tally.errors:
            facts.append(f"{tally.errors:,} errors (most: {tally.commonest()})")
        if tally.idle is not None:
            facts.append(f"model idle {tally.idle:.0%}")
        if (since := time.monotonic() - self._last) >= self._seconds:
            facts.append(f"last part {_duration(since)} ago")
        if tally.taken:
            facts.append(f"{_duration(self._waiting * tally.working / tally.taken)} left")
        return redact(printable(", ".join(facts)))

    def _show_bar(self) -> None:
        self._bar.update(self._bar.task_ids[0], completed=self._tally.taken, description=self.line())

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(line, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(20), text)
    return Progress(*columns, console=Console(stderr=True, highlight=False, emoji=False), transient=True)


def _seconds_between_lines() -> float:
    text = os.environ.get("VL3SYN_PROGRESS_SECONDS") or str(SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise UserError(f"VL3SYN_PROGRESS_SECONDS is {text!r}; set it to a number of seconds, such as {SECONDS:.0f}")
    return seconds


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
