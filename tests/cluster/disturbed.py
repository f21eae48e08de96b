"""Runs on a cluster that lose a node in the middle, and the run that nothing disturbed, to which they are compared."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from manifests import open_run
from tests.ray_nodes import Cluster, Node

PART, CONCURRENCY = 64, 4
PYTHON = [sys.executable, "-m", "pipeline"]
STAGES = "tests.cluster.slow_stages"


@dataclass
class Chain:
    """A run that nothing disturbed, and how to run its stages again.

    Attributes:
        folder: With the pool, the run in `run`, its shards in `shards`.
        manifest: Of the run.
    """

    folder: Path
    manifest: pl.DataFrame

    def without(self, table: str, to: Path) -> Path:
        """Copy the run, without the tables that match."""
        shutil.copytree(self.folder / "run", to)
        for path in to.glob(table):
            shutil.rmtree(path)
        return to


def write_recipe(folder: Path, pool: Path, log: Path, url: str = "http://x/v1", seconds: float = 0.02) -> Path:
    slow: dict[str, Any] = {"log": str(log), "seconds": seconds}
    on_ray: dict[str, Any] = {"resources": {"num_cpus": 1}} if seconds else {}
    engine = {"kind": "server", "url": url, "concurrency": CONCURRENCY, "pause": 0.01, "timeout": 60}
    stages = [
        {"stage": f"{STAGES}:SlowEmbedding", **slow, "resources": {"part_rows": PART}},
        {"stage": f"{STAGES}:SlowClusters", "clusters": 8, **slow, **on_ray},
        {"stage": f"{STAGES}:SlowDuplicates", "by": ["semantic"], **slow, **on_ray},
        {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine},
    ]
    if seconds:
        stages[2]["resources"] = {"num_cpus": 1, "part_rows": PART}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": stages}, sort_keys=False))
    return path


def manifest_of(run: Path) -> pl.DataFrame:
    return open_run(run).manifest().sort("id").collect()


def on_cluster(cluster: Cluster, arguments: list[Any], said: Path) -> subprocess.Popen[bytes]:
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "VL3SYN_PROGRESS_SECONDS": "5"}
    with said.open("wb") as out:
        return subprocess.Popen([*PYTHON, *map(str, arguments)], env=environment, stdout=out, stderr=out)


def disturbed(cluster: Cluster, arguments: list[Any], said: Path, middle: Callable[[], Node | None]) -> None:
    """Run a command; kill the raylet of the node that `middle` returns as soon as it returns one."""
    driver = on_cluster(cluster, arguments, said)
    try:
        lose(driver, middle)
        driver.wait(300)
    finally:
        driver.kill()
    assert driver.returncode == 0, said.read_text()


def lose(driver: subprocess.Popen[bytes], middle: Callable[[], Node | None]) -> None:
    deadline = time.monotonic() + 300
    while (node := middle()) is None:
        assert driver.poll() is None, "the job ended before a node was lost"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    node.kill_raylet()


def when_stored(pattern: str, run: Path, files: int, node: Node) -> Callable[[], Node | None]:
    """Return what waits for some files."""
    before = set(run.glob(pattern))
    return lambda: node if len(set(run.glob(pattern)) - before) >= files else None


def work(log: Path) -> tuple[int, list[int]]:
    """Return the number of rows that stages began to compute, and the raylets of their workers."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return sum(int(rows) for rows, _ in lines), [int(raylet) for _, raylet in lines]
