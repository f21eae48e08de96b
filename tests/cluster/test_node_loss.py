"""A worker node is lost in the middle of a job: it goes on by itself, to the result of a run that nothing disturbed.

A node is lost as its raylet is killed: its workers end with it. Each node has one CPU, so workers of a stage hold all
that remains.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.chat_server import chat_server
from tests.cluster.disturbed import (
    CONCURRENCY,
    PART,
    PYTHON,
    Chain,
    disturbed,
    lose,
    manifest_of,
    on_cluster,
    when_stored,
    work,
    write_recipe,
)
from tests.conftest import jpeg
from tests.ray_nodes import Cluster, Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

IMAGES = 640
AWAITED = "slow_embedding: waiting for a node with 1 CPU and 1 GPU: none of the 3 nodes has it"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, which notices lost nodes sooner than by default."""
    noticed = {"period_ms": "1000", "timeout_ms": "5000", "failure_threshold": "3", "initial_delay_ms": "1000"}
    variables = {f"RAY_health_check_{name}": value for name, value in noticed.items()}
    with Cluster(cpus=0, PYTHONPATH=str(Path.cwd()), **variables) as cluster:
        yield cluster


@pytest.fixture
def workers(cluster: Cluster) -> list[Node]:
    """The two nodes with a CPU; a test that lost one leaves it to the next one to start another."""
    alive = [node for node in cluster.nodes if node is not cluster.head and node.process.poll() is None]
    return [*alive, *(cluster.add(cpus=1) for _ in range(2 - len(alive)))]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "pool").mkdir()
    for number in range(IMAGES):
        image = jpeg(20 + number % 37, 20 + number % 23, 7 * number)
        (folder / "pool" / f"{number:06d}.jpg").write_bytes(image[: 99 if number % 100 == 0 else None])
    with chat_server() as server:
        path = write_recipe(folder, folder / "pool", folder / "log", server.url, seconds=0)
        subprocess.run([*PYTHON, "run", path, "--run", folder / "run"], check=True)
    publish = ["publish", "--run", folder / "run", "--out", folder / "shards", "--rows-per-shard", "8"]
    subprocess.run([*PYTHON, *publish], check=True)
    return Chain(folder, manifest_of(folder / "run"))


def test_image_stage_loses_only_the_parts_under_way(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run, log = chain.without("stages/slow_embedding-*", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    middle = when_stored("stages/slow_embedding-*/part-*", run, 3, workers[0])
    disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", middle)
    assert manifest_of(run).equals(chain.manifest)
    valid = chain.manifest.filter(pl.col("error").is_null()).height
    assert 0 <= work(log)[0] - valid <= 2 * PART, "a worker has two parts at once"


def test_node_lost_while_its_worker_loads_costs_nothing(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run, log = chain.without("stages/slow_embedding-*", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    text = path.read_text().replace("seconds: 0.02", "seconds: 0.02\n  load_seconds: 10", 1)
    path.write_text(text)
    disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", lambda: node_of(workers, log))
    assert manifest_of(run).equals(chain.manifest)
    assert work(log)[0] == chain.manifest.filter(pl.col("error").is_null()).height, "each row is computed once"


def test_captions_are_asked_again_only_if_under_way(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run = chain.without("stages/short_caption-*", tmp_path / "run")
    with chat_server(delay=0.2) as server:
        path = write_recipe(tmp_path, chain.folder / "pool", tmp_path / "log", server.url)

        def middle() -> Node | None:
            return workers[0] if sum(server.answered.values()) > 200 else None

        disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", middle)
        asked = Counter(server.requests)
    assert manifest_of(run).equals(chain.manifest)
    assert 0 <= sum(asked.values()) - len(asked) <= 2 * CONCURRENCY, "answers are in the journal at once"


def test_published_shards_are_the_same_bytes(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run, out = chain.without("nothing", tmp_path / "run"), tmp_path / "shards"
    arguments = ["publish", "--run", run, "--out", out, "--rows-per-shard", "8"]
    disturbed(cluster, arguments, tmp_path / "said", when_stored("**/*.parquet", out, 3, workers[0]))
    assert shards_in(out) == shards_in(chain.folder / "shards")


def shards_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_index_has_each_image_once(cluster: Cluster, workers: list[Node], tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(4_000):
        (pool / f"{number}.jpg").write_bytes(jpeg(20 + number % 37, 20 + number % 23, 7))
    path = tmp_path / "recipe.yaml"
    path.write_text(f"pool: {{images: {pool}}}\nstages: [{{stage: aspect_ratio}}]\n")
    subprocess.run([*PYTHON, "run", path, "--run", tmp_path / "undisturbed"], check=True)
    run = tmp_path / "run"
    middle = when_stored("index/part-*", run, 2, workers[0])
    disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", middle)
    assert manifest_of(run).equals(manifest_of(tmp_path / "undisturbed"))


def test_groups_that_were_under_way_are_compared_again(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run, log = chain.without("stages/duplicates-*", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    middle = when_stored("stages/duplicates-*/part-*", run, 1, workers[0])
    disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", middle)
    assert manifest_of(run).equals(chain.manifest)


def test_training_whose_node_is_lost_runs_again(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    run, log = chain.without("fitted", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    disturbed(cluster, ["run", path, "--run", run], tmp_path / "said", lambda: node_of(workers, log))
    assert manifest_of(run).equals(chain.manifest)
    assert len(work(log)[1]) == 2, "trained on the node that was lost, and on the other one"


def node_of(workers: list[Node], log: Path) -> Node | None:
    """Return the node of the first worker that wrote into the log."""
    raylets = work(log)[1]
    return next((node for node in workers if raylets and node.raylet() == raylets[0]), None)


def test_job_without_its_gpu_says_so_and_goes_on_with_another(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    gpu = cluster.add(cpus=1, gpus=1)
    run, log = chain.without("stages/slow_embedding-*", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    path.write_text(path.read_text().replace("part_rows: 64", "part_rows: 64\n    num_gpus: 1", 1))
    driver = on_cluster(cluster, ["run", path, "--run", run], tmp_path / "said")
    try:
        lose(driver, when_stored("stages/slow_embedding-*/part-*", run, 2, gpu))
        wait_for_line(tmp_path / "said", AWAITED, driver)
        another = cluster.add(cpus=1, gpus=1)
        driver.wait(300)
    finally:
        driver.kill()
    another.end()
    assert driver.returncode == 0, (tmp_path / "said").read_text()
    assert manifest_of(run).equals(chain.manifest)


def test_job_that_waits_for_a_gpu_ends_by_ctrl_c(
    cluster: Cluster, workers: list[Node], chain: Chain, tmp_path: Path
) -> None:
    gpu = cluster.add(cpus=1, gpus=1)
    run, log = chain.without("stages/slow_embedding-*", tmp_path / "run"), tmp_path / "log"
    path = write_recipe(tmp_path, chain.folder / "pool", log)
    path.write_text(path.read_text().replace("part_rows: 64", "part_rows: 64\n    num_gpus: 1", 1))
    driver = on_cluster(cluster, ["run", path, "--run", run], tmp_path / "said")
    try:
        lose(driver, when_stored("stages/slow_embedding-*/part-*", run, 2, gpu))
        wait_for_line(tmp_path / "said", AWAITED, driver)
        driver.send_signal(signal.SIGINT)
        driver.wait(120)
    finally:
        driver.kill()
    said = (tmp_path / "said").read_text()
    assert driver.returncode == 130, said
    assert said.splitlines()[-1] == "vl3syn: stopped by Ctrl-C; what is stored stays, run again to go on"
    assert "Traceback" not in said


def wait_for_line(said: Path, line: str, driver: subprocess.Popen[bytes]) -> None:
    """Wait until the job says this."""
    deadline = time.monotonic() + 240
    while line not in said.read_text().splitlines():
        assert driver.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.2)
