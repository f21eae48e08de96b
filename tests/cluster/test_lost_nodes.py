"""A node is lost while a job runs: one line says so, and nothing of Ray's is between the results."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.jobs import ROOT, start_gated
from tests.ray_nodes import Cluster


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_lost_node_is_one_line_and_its_parts_run_again(tmp_path: Path) -> None:
    with Cluster(cpus=2, PYTHONPATH=str(ROOT)) as cluster:
        node = cluster.add(cpus=2)
        job = start_gated(cluster, tmp_path, actors=4)
        try:
            job.wait_until(lambda: bool(re.search(r"^gated: [1-9]\d* of 192 rows", job.log, re.M)))
            node.kill_raylet()
            job.wait_until(lambda: "was lost" in job.log)
            job.open_gate()
            assert job.process.wait(600) == 0, job.log
        finally:
            job.open_gate()
            if job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)
    lost = re.findall(r"^node [\d.]+ was lost; its parts under way are computed again$", job.log, re.M)
    assert len(lost) == 1, job.log
    printed = json.loads((tmp_path / "out").read_text())
    assert printed["jobs"][-1]["computed"] == 192
    for ray in ("[state-dump]", "(raylet)", "retries remaining", "Traceback"):
        assert ray not in job.log
