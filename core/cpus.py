"""How many CPUs this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU time that a Linux container may use, or `max`, and per how many."""


def count_cpus() -> int:
    """Return how many CPUs this process may use. A container may use a part of the machine's."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS: none
    quota, _, period = _QUOTA.read_text().partition(" ") if _QUOTA.is_file() else ("max", "", "")
    return affine if quota == "max" else max(1, min(affine, int(quota) // int(period)))
