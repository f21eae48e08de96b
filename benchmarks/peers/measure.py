"""What a command takes, with all processes that it starts: seconds, CPU seconds and peak memory. Linux."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
EVERY = 0.25  # seconds
PATIENCE = 10  # seconds that what is left behind has to end
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "WANDB_MODE": "disabled",
}


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        seconds: By the clock, from its start to its exit.
        core_seconds: CPU time of all its processes.
        mib: The most memory that they have held together, where what they share counts once.
    """

    seconds: float
    core_seconds: float
    mib: float


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    """Run a command in a folder, where `log` gets what it says.

    Raises:
        SystemExit: It failed.
    """
    _adopt(True)
    # Whoever sets it makes each process compile its modules anew.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    others = _descendants()
    before, begin = _core_seconds(), time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**inherited, **OFFLINE, **environment}
        )
    memory = _Memory(others)
    memory.start()
    code = process.wait()
    seconds = time.perf_counter() - begin
    memory.stop()
    _end(others)
    _adopt(False)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n{(folder / 'log').read_text()[-3000:]}")
    return Measured(seconds, _core_seconds() - before, memory.most / 2**20)


class _Memory(Thread):
    """Looks at the descendants of this process but for some: `most`, the bytes that they have held."""

    def __init__(self, others: set[int]) -> None:
        super().__init__(daemon=True)
        self.most, self._others, self._stopped = 0, others, Event()

    def run(self) -> None:
        while not self._stopped.wait(EVERY):
            self.most = max(self.most, sum(map(_held, _descendants() - self._others)))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _descendants() -> set[int]:
    """The processes that this one has started, directly or not."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _held(pid: int) -> int:
    """Bytes of a process: its own, and its share of what it shares."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _end(others: set[int]) -> None:
    """Wait for the processes that were left behind, at last with a signal: only then do their CPU seconds count."""
    deadline = time.monotonic() + PATIENCE
    while left := _descendants() - others:
        for pid in left:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # of one of them
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def _adopt(orphans: bool) -> None:
    """Let descendants that lose their parent become our children, so that their CPU seconds count."""
    ctypes.CDLL(None).prctl(SUBREAPER, int(orphans), 0, 0, 0)


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
