"""Pools of workers while nodes come and go."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from manifests import open_run
from tests.ray_nodes import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def growing() -> Iterator[Cluster]:
    """A head with a CPU."""
    with Cluster(cpus=1) as cluster:
        yield cluster


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    """A stage of 40 parts, of which none is done before three processes have one."""
    stage = {"stage": f"tests.cluster.probes:{request.param}", "seconds": 0.5, "resources": {"part_rows": 1}}
    stage |= {"meeting": str(tmp_path / "meeting"), "processes": 3}
    path, pool = tmp_path / "recipe.yaml", make_images(tmp_path / "pool", 40)
    path.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": [stage]}))
    return path


def wait_for_files(folder: Path, pattern: str, count: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while len(list(folder.glob(pattern))) < count:
        assert driver.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < deadline, f"{len(list(folder.glob(pattern)))} of {pattern}"
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("recipe", "column"), [("Probe", "probe_node"), ("TaskProbe", "task_node")], indirect=["recipe"]
)
def test_nodes_that_join_get_work_and_a_lost_one_loses_none(
    growing: Cluster, recipe: Path, column: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pipeline", "run", str(recipe), "--run", str(tmp_path / "run")]
    environment = {**growing.environment, "RAY_ADDRESS": growing.address}
    said = tmp_path / "said"
    with said.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as driver:
        try:
            wait_for_files(tmp_path, "meeting/*", 1, driver)
            lost, kept = growing.add(cpus=1), growing.add(cpus=1)
            wait_for_files(tmp_path, "run/stages/*/part-*.parquet", 6, driver)
            lost.kill_raylet()
            assert driver.wait(240) == 0, said.read_text()
        finally:
            driver.kill()
    kept.end()
    rows = open_run(str(tmp_path / "run")).manifest().collect()
    assert rows["status"].to_list() == ["kept"] * 40
    assert rows[column].n_unique() >= 2  # three have met; what the lost one had may have been computed again
