"""Variants of one piece of work, measured in turns, each in a process of its own.

The processes are started together and told one after the other to do the work once, round by round: what else happens
on the machine falls on all of them, so that the ratio within a round says more than the seconds do. Only one works at a
time, and what one holds in memory is not counted for another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Environment in which glibc gives memory back as soon as it is free: holes in the heap differ from run to run."""


def in_turns(
    script: str,
    works: Sequence[str],
    rounds: int,
    arguments: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> list[list[dict[str, Any]]]:
    """What `serve` told of each work (the script is called with `--only WORK`), round by round; the first warms up."""
    processes = [
        subprocess.Popen(
            [sys.executable, script, "--only", work, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        for work in works
    ]
    results = [[_run_once(process) for process in processes] for _ in range(rounds)]
    for process in processes:
        process.communicate()
    return results


def _run_once(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with {process.wait()}")  # type: ignore[arg-type]
    answer: dict[str, Any] = json.loads(line)
    return answer


def serve(work: Callable[[], Any]) -> None:
    """In the process of one variant: at each call do the work, and tell its result, seconds and peak memory, MiB.

    `seconds` are those of the clock, `core_seconds` those of all cores that the process was given.
    Peak memory is what the process holds at most during the work beyond what it held before the first time (Linux).
    """
    before = _held("VmRSS")
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begin, busy = time.perf_counter(), time.process_time()
        result = work()
        results = {"seconds": time.perf_counter() - begin, "core_seconds": time.process_time() - busy}
        results |= {"mib": _held("VmHWM") - before, "result": result}
        print(json.dumps(results), flush=True)


def _held(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for the documents."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
