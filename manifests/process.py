"""Give each process a name that no other process ever has, so that one can tell whether a file's owner still runs."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path

_STATE, _START = 0, 19
"""Indices of fields in `/proc/PID/stat` after the program's name: state, and start time in ticks since boot."""


def this_process() -> str:
    """Return the name of this process, `<machine>-<process id>-<start time>`: letters, digits and two dashes."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid()) or 0}"


def is_gone(process: str) -> bool | None:
    """Return whether a process (a name from `this_process`) has ended or is this process; None for other machines."""
    machine, _, rest = process.partition("-")
    pid, _, started = rest.partition("-")
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()):
        return None
    return process == this_process() or _started(int(pid)) != int(started)


@functools.cache
def _machine() -> str:
    """Return a hash of the machine's boot and its process namespace, in which process ids are unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        names = f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        names = socket.gethostname()
    return hashlib.blake2b(names.encode(), digest_size=8).hexdigest()


def _started(pid: int) -> int | None:
    """Return the start time of a process in ticks since boot; 0 if the system does not say, None if it has ended."""
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
