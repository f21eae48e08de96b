"""How many workers fit on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.execution import placement


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), (None, 8)]
)
def test_count_cpus_in_a_container_obeys_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(placement, "_CPU_QUOTA", tmp_path / "cpu.max", raising=False)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert placement.count_cpus() == cpus
