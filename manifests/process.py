"""Processes by a name that no other process has, now or later, so that what one left can be told from what it owns."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path

_STATE, _START = 0, 19
"""Fields of `/proc/PID/stat` behind the program's name: its state, and when it was started, in ticks since the boot."""


def this_process() -> str:
    """This process: `<machine>-<process id>-<time of its start>`, of letters, digits and two dashes."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid()) or 0}"


def is_gone(process: str) -> bool | None:
    """Whether a process (of `this_process`) has ended, or is this very one; None for one of another machine."""
    machine, _, rest = process.partition("-")
    pid, _, started = rest.partition("-")
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()):
        return None
    return process == this_process() or _started(int(pid)) != int(started)


@functools.cache
def _machine() -> str:
    """The machine since it was booted, or the container: where process ids mean the same processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        names = f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        names = socket.gethostname()
    return hashlib.blake2b(names.encode(), digest_size=8).hexdigest()


def _started(pid: int) -> int | None:
    """When a process was started; 0 where the system does not say, None if there is none."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE] in "ZX" else int(fields[_START])
