"""Lines, figures, and the processes that lines run in. Imports nothing but Python's own modules."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = ["torch", "transformers.models.qwen2.modeling_qwen2", "transformers.generation.utils"]
"""Modules that a server process imports once; each line begins as its copy. None of them may touch the GPU."""

FORK_ERROR = "Cannot re-initialize CUDA in forked subprocess"


@dataclass(frozen=True)
class Figure:
    """A measured number or text.

    Attributes:
        name: What was measured.
        value: None if it cannot be measured here: on a CPU, or without an optional package.
        unit: Its unit.
        most: Largest value that is right.
        least: Smallest value that is right.
    """

    name: str
    value: float | str | None
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value keeps its limits. What was not measured does."""
        if not isinstance(self.value, int | float):
            return True
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def shown(self) -> str:
        if self.value is None:
            return "–"
        if isinstance(self.value, str):
            return self.value
        whole = abs(self.value) >= 1000 or float(self.value).is_integer()
        digits = f"{self.value:,.0f}" if whole else f"{self.value:.3g}"
        return f"{digits} {self.unit}".rstrip()

    @property
    def limit(self) -> str:
        bounds = [f"{sign} {bound:.3g}" for sign, bound in (("≤", self.most), ("≥", self.least)) if bound is not None]
        if not bounds or self.value is None:
            return ""
        return f"{', '.join(bounds)}: {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Place:
    """Where a line runs.

    Attributes:
        dry: Whether sizes are tiny and the device is the CPU.
        device: `cuda` or `cpu`.
        folder: An empty folder for the line's files.
    """

    dry: bool
    device: str
    folder: Path

    def size(self, real: Any, tiny: Any) -> Any:
        """Return the size for a GPU, or the one for a dry run."""
        return tiny if self.dry else real

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"


Work = Callable[[Place], Iterator[Figure]]


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: Its name.
        work: `module:function`; the function is a `Work`.
        seconds: Time limit.
        packages: Packages that it needs beside the model's.
    """

    name: str
    work: str
    seconds: float
    packages: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of a line: `ok`, `failed` or `skipped`, and why; of a failed one the end of what it wrote."""

    line: str
    state: str = "ok"
    message: str = ""
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    log: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Processes:
    """Runs lines one after another, each in a process of its own."""

    def __init__(self, dry: bool, end: float) -> None:
        """Run lines until `end`, by `time.perf_counter`."""
        self._dry, self._end = dry, end
        self._scratch = Path(tempfile.mkdtemp(prefix="gpu-proof-"))
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, line: Line) -> Outcome:
        """Run a line to its end, its crash or its time limit."""
        outcome = self._run(line)
        if FORK_ERROR in outcome.message:  # a module of the server has touched the GPU: begin processes anew
            self._context = multiprocessing.get_context("spawn")
            outcome = self._run(line)
        return outcome

    def _run(self, line: Line) -> Outcome:
        if missing := [package for package in line.packages if find_spec(package) is None]:
            return Outcome(line.name, "skipped", f"no {missing[0]}")
        limit = min(line.seconds if not self._dry else 10 * line.seconds, self._end - time.perf_counter())
        if limit <= 0:
            return Outcome(line.name, "failed", "not run: the time for all lines is over")
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        receive, send = self._context.Pipe(duplex=False)
        begin = time.perf_counter()
        process = self._context.Process(target=work, args=(line.work, self._dry, folder, send))
        process.start()
        send.close()
        outcome = Outcome(line.name)
        try:
            outcome.message = _received(receive, outcome.figures, begin + limit)
            process.join(timeout=5)  # it removes what it has made
        except TimeoutError:
            outcome.message = f"not done after {limit:.0f} s"
        except EOFError:
            process.join()
            outcome.message = f"the process died (exit code {process.exitcode})"
        _end(process)
        written = (folder / "log").read_text(errors="replace") if (folder / "log").is_file() else ""
        outcome.seconds = round(time.perf_counter() - begin, 1)
        missed = [figure for figure in outcome.figures if not figure.met]
        if missed and not outcome.message:
            outcome.message = f"{missed[0].name}: {missed[0].shown}, {missed[0].limit}"
        if outcome.message:
            outcome.state, outcome.log = "failed", written[-4000:]
        shutil.rmtree(folder, ignore_errors=True)
        return outcome


def _received(receive: Connection, figures: list[Figure], end: float) -> str:
    """Collect figures up to the line's end; return its error, or an empty text.

    Raises:
        TimeoutError: The time is over.
        EOFError: The process has died.
    """
    while receive.poll(max(end - time.perf_counter(), 0)):
        sent = receive.recv()
        if isinstance(sent, str):
            return sent
        figures.append(sent)
    raise TimeoutError


def _end(process: Any) -> None:
    """End a line's process, and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # all have ended
    process.join()


def work(path: str, dry: bool, folder: Path, send: Connection) -> None:
    """Run a line in this process, and send its figures, then its error or an empty text."""
    os.setsid()  # so that all that it starts can be ended with it
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        module, _, name = path.partition(":")
        line: Work = getattr(importlib.import_module(module), name)
        for figure in line(Place(dry, "cpu" if dry else "cuda", folder)):
            send.send(figure)
        send.send("")
    except Exception as error:  # whatever a line raises is its result
        traceback.print_exc()
        said = " ".join(str(error).split())[:300]
        send.send(f"{type(error).__name__}: {said}")
