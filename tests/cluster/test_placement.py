"""Which node and which GPUs the workers of a stage get, on two nodes whose GPUs Ray only counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from manifests import open_run
from tests.ray_nodes import Cluster

pytestmark = pytest.mark.cluster
PROBES = "tests.cluster.probes"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head with a CPU, and two nodes of two CPUs and two GPUs."""
    with Cluster(cpus=1) as cluster:
        cluster.add(cpus=2, gpus=2)
        cluster.add(cpus=2, gpus=2)
        yield cluster


@pytest.fixture
def recipe(tmp_path: Path, make_images: Callable[..., Path]) -> Callable[..., Path]:
    """Return what writes a recipe of these stages over 64 images."""
    pool = make_images(tmp_path / "pool", 64)

    def write(*stages: dict[str, Any]) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": list(stages)}))
        return path

    return write


def run(nodes: Cluster, recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "run", str(recipe), "--run", str(recipe.parent / "run"), *options]
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def rows(recipe: Path) -> pl.DataFrame:
    return open_run(str(recipe.parent / "run")).manifest().collect()


def probe(tmp_path: Path, processes: int, stage: str = "Probe", **resources: Any) -> dict[str, Any]:
    """A stage whose parts are computed when so many processes have one."""
    meeting = {"meeting": str(tmp_path / stage), "processes": processes}
    return {"stage": f"{PROBES}:{stage}", **meeting, "resources": {"part_rows": 2, **resources}}


def test_actors_have_a_gpu_each_and_tasks_all_cpus(nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path) -> None:
    written = recipe(probe(tmp_path, 5, "TaskProbe"), probe(tmp_path, 4))
    done = run(nodes, written)
    assert done.returncode == 0, done.stderr
    computed = rows(written)
    # Those that waited for each other held all CPUs at once; afterwards Ray may replace a process by another.
    met = sorted((tmp_path / "TaskProbe").iterdir(), key=lambda file: file.stat().st_mtime_ns)[:5]
    at_once = computed.unique("task_process").filter(pl.col("task_process").is_in([int(file.name) for file in met]))
    assert Counter(at_once["task_node"].value_counts()["count"]) == Counter([1, 2, 2])
    actors = computed.select("probe_process", "probe_node", "probe_devices").unique()
    assert actors.height == 4
    assert actors.unique(["probe_node", "probe_devices"]).height == 4
    assert set(actors["probe_devices"]) == {"0", "1"}


def test_two_actors_with_half_a_gpu_each_share_it(nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path) -> None:
    written = recipe(probe(tmp_path, 8, num_gpus=0.5, num_cpus=0.5))
    done = run(nodes, written)
    assert done.returncode == 0, done.stderr
    actors = rows(written).select("probe_process", "probe_node", "probe_devices").unique()
    shared = actors.group_by("probe_node", "probe_devices").len()
    assert shared["len"].to_list() == [2, 2, 2, 2]


def test_part_of_a_gpu_is_of_one_gpu(nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path) -> None:
    written = recipe(probe(tmp_path, 4, num_gpus=0.6, num_cpus=0.25))
    done = run(nodes, written)
    assert done.returncode == 0, done.stderr
    actors = rows(written).select("probe_process", "probe_node", "probe_devices").unique()
    assert actors.height == actors.unique(["probe_node", "probe_devices"]).height == 4


def test_gpus_of_a_parallel_model_are_of_one_node(nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path) -> None:
    written = recipe({**probe(tmp_path, 2), "wants": 2})
    done = run(nodes, written)
    assert done.returncode == 0, done.stderr
    actors = rows(written).select("probe_process", "probe_node", "probe_devices").unique()
    assert actors.height == actors["probe_node"].n_unique() == 2
    assert set(actors["probe_devices"]) == {"0,1"}


def test_training_has_the_gpus_of_one_actor(nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path) -> None:
    clusters = {"stage": f"{PROBES}:ProbeClusters", "clusters": 4, "resources": {"num_gpus": 2}}
    done = run(nodes, recipe({"stage": f"{PROBES}:Vectors"}, clusters))
    assert done.returncode == 0, done.stderr
    (fitted,) = (tmp_path / "run" / "fitted").rglob("*.parquet")
    assert json.loads(pq.read_schema(fitted).metadata[b"vl3syn"])["devices"] == "0,1"


def test_started_servers_have_ports_and_gpus_of_their_own(
    nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    started = tmp_path / "started"
    started.mkdir()
    wait = f"while [ $(ls {started} | wc -l) -lt 4 ]; do sleep 0.1; done"
    server = f"touch {started}/{{port}}_${{RAY_RAYLET_PID}}_$CUDA_VISIBLE_DEVICES; {wait}"
    command = f"sh -c '{server}; exec {sys.executable} -m tests.chat_server --port {{port}}'"
    captions = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "start": command}}
    done = run(nodes, recipe({**captions, "resources": {"part_rows": 2}}))
    assert done.returncode == 0, done.stderr
    ports, raylets, devices = zip(*(file.name.split("_") for file in started.iterdir()), strict=True)
    assert len(set(ports)) == 4
    assert sorted(Counter(zip(raylets, devices, strict=True)).values()) == [1, 1, 1, 1]
    assert set(devices) == {"0", "1"}


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ({"resources": {"num_gpus": 3}}, "3 GPU on one node, and the nodes have at most 2 CPU and 2 GPU"),
        ({"resources": {"num_cpus": 4}}, "4 CPU and 1 GPU on one node, and the nodes have at most 2 CPU and 2 GPU"),
        ({"wants": 4}, "1 CPU and 4 GPU on one node"),
    ],
)
def test_actor_that_fits_no_node_is_refused_before_the_index(
    nodes: Cluster, recipe: Callable[..., Path], tmp_path: Path, stage: dict[str, Any], reason: str
) -> None:
    done = run(nodes, recipe({"stage": "aspect_ratio"}, {"stage": f"{PROBES}:Probe", **stage}))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "probe: an actor needs" in done.stderr
    assert reason in done.stderr
    assert not (tmp_path / "run").exists()


def test_actors_may_wait_for_nodes_that_will_come(nodes: Cluster, recipe: Callable[..., Path]) -> None:
    written = recipe({"stage": f"{PROBES}:Probe", "resources": {"num_gpus": 3, "actors": 2}})
    done = run(nodes, written, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert [stage["lacks"] for stage in json.loads(done.stdout)["stages"]] == [None]


def test_torch_that_sees_no_gpu_of_its_actor_is_an_error(
    nodes: Cluster, recipe: Callable[..., Path], tiny_clip: Path
) -> None:
    clip = {"stage": "clip", "encoder": f"local-dir:{tiny_clip}", "resources": {"actors": 1}}
    done = run(nodes, recipe(clip))
    assert done.returncode == 1
    assert "CUDA_VISIBLE_DEVICES gives this process GPU 0, and torch" in done.stderr.splitlines()[-1]
    done = run(nodes, recipe({**clip, "resources": {"actors": 1, "num_gpus": 0}}))
    assert done.returncode == 0, done.stderr
