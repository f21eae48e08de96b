"""kill -9 of the processes of a run, which are found by a mark in their environment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def kill(victim: str, driver: int, mark: str) -> int | None:
    """Kill one process of the run; None if it had none of that kind any more."""
    kinds = {
        "driver": lambda pid, name: pid == driver,
        "worker": is_worker,
        "raylet": lambda pid, name: "/raylet " in name,
    }
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and alive(driver):
        for pid, name in processes(mark):
            if kinds[victim](pid, name):
                os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.02)
    return None


def is_worker(pid: int, name: str) -> bool:
    return name.startswith(("ray::MapBatches", "ray::MapWorker")) or "local_child import serve" in name


def processes(mark: str) -> list[tuple[int, str]]:
    """The processes that inherited the mark, with their command lines."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    pids.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
            except OSError:
                continue  # it has ended meanwhile
    return pids


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and ") Z " not in status.read_text()


def wait_for_end_of(mark: str) -> None:
    """Most of Ray ends by itself after its driver or raylet; the rest could still write, and is killed."""
    deadline = time.monotonic() + 2
    while processes(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    end(mark)


def end(mark: str) -> None:
    for pid, _ in processes(mark):
        os.kill(pid, signal.SIGKILL)
