"""Metrics of a job, scraped from the head node as Prometheus does."""

from __future__ import annotations

import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from manifests import funnel, open_run
from pipeline.execution.metrics import COUNTERS, GAUGES
from tests.cluster.jobs import ROOT, start_gated
from tests.ray_nodes import Cluster, Node


def scrape(node: Node) -> dict[tuple[str, str, str], float]:
    """Return the project's metrics by name, stage and reason; none before the node exports any."""
    try:
        with urllib.request.urlopen(node.metrics, timeout=60) as answer:
            text = answer.read().decode()
    except urllib.error.URLError:
        return {}
    values = {}
    for name, tags, value in re.findall(r"^(ray_vl3syn_\w+)\{(.*)\} (\S+)$", text, re.M):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        values[name, labels["stage"], labels.get("reason", "")] = float(value)
    return values


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_metrics_are_exported_and_end_at_the_funnels_rows(tmp_path: Path) -> None:
    rows, waiting = ("ray_vl3syn_rows_total", "gated", ""), ("ray_vl3syn_rows_waiting", "gated", "")

    during: dict[tuple[str, str, str], float] = {}

    def both() -> bool:
        during.update(scrape(cluster.head))
        return 0 < during.get(rows, 0) < 192 and during[rows] + during.get(waiting, 0) == 192

    with Cluster(cpus=2, PYTHONPATH=str(ROOT)) as cluster:
        job = start_gated(cluster, tmp_path, actors=2)
        try:
            job.wait_until(both)
            job.open_gate()
            assert job.process.wait(300) == 0, job.log
            after = scrape(cluster.head)  # Ray exports every 10 seconds, and when the driver ends
        finally:
            job.open_gate()
            if job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)
    counted = funnel(open_run(str(tmp_path / "run")))
    assert after[rows] == counted.stages[-1].seen == 192
    assert after["ray_vl3syn_rows_total", "index", ""] == counted.rows == 193
    assert after["ray_vl3syn_errors_total", "index", "not an image"] == counted.stages[0].errors == 1
    assert after["ray_vl3syn_bytes_read_total", "gated", ""] == pytest.approx(
        sum(path.stat().st_size for path in (tmp_path / "pool").iterdir() if path.name != "000-broken.png")
    )
    assert during["ray_vl3syn_rows_per_second", "gated", ""] > 0
    of_captions = {"ray_vl3syn_caption_tokens_total", "ray_vl3syn_model_idle_share"}
    metrics = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    assert {name for name, _, _ in {**during, **after}} == metrics - of_captions
