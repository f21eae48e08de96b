"""Local paths on two nodes, of which one has another view of the file system: refused in one line with its name."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests import funnel, open_run
from tests.ray_nodes import Cluster

MakeImages = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the second node sees nothing in `hidden`."""
    folder = tmp_path_factory.mktemp("paths")
    for name in ("shared", "hidden"):
        (folder / name).mkdir()
    return folder


def need_views() -> None:
    """Skip a test that only root can make."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("only root can give a node another view of the file system")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    need_views()
    with Cluster(cpus=1) as cluster:
        cluster.add(cpus=1, without=folder / "hidden")
        yield cluster


def vl3syn(cluster: Cluster, *arguments: object, named: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**cluster.environment, **({"RAY_ADDRESS": cluster.address} if named else {})}
    command = ["vl3syn", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def recipe(folder: Path, pool: Path, stage: str = "{stage: aspect_ratio}") -> Path:
    path = folder / f"recipe-{os.urandom(4).hex()}.yaml"
    path.write_text(f"pool: {{images: {pool}}}\nstages: [{stage}]\n")
    return path


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The only line of a refused command."""
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.cluster
def test_paths_that_all_nodes_see_are_run(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    pool = make_images(folder / "shared/pool", 40)
    done = vl3syn(cluster, "run", recipe(folder, pool), "--run", folder / "shared/run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert funnel(open_run(folder / "shared/run")).rows == 40
    assert not list((folder / "shared/run").rglob(".aside-*"))


@pytest.mark.cluster
def test_run_that_a_node_does_not_see_is_refused(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    pool = make_images(folder / "shared/other", 5)
    line = refusal(vl3syn(cluster, "run", recipe(folder, pool), "--run", folder / "hidden/runs/1"))
    assert line.startswith(f"vl3syn: run: {folder}/hidden/runs/1: is not there on node ")
    assert "use a file system that all nodes share" in line
    assert list((folder / "hidden").iterdir()) == []


@pytest.mark.cluster
def test_pool_that_a_node_does_not_see_is_refused(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    pool = make_images(folder / "hidden/pool", 5)
    line = refusal(vl3syn(cluster, "run", recipe(folder, pool), "--run", folder / "shared/without-pool"))
    assert line.startswith(f"vl3syn: pool: {pool}/000000.jpg: is not there on node ")
    assert not (folder / "shared/without-pool").exists()


@pytest.mark.cluster
def test_last_shard_that_a_node_does_not_see_is_refused(
    cluster: Cluster, folder: Path, tmp_path: Path, make_images: MakeImages
) -> None:
    """The run has an index, and the first shards are long."""
    (folder / "shared/tars").mkdir()
    for number, place in enumerate(("shared/tars/a.tar", "hidden/b.tar")):
        images = make_images(tmp_path / str(number), 40, start=40 * number)
        with tarfile.open(folder / place, "w") as tar:
            tar.add(images, "")
    last = folder / "shared/tars/b.tar"
    last.symlink_to(folder / "hidden/b.tar")
    run = folder / "shared/tarred"
    options = ("--tars", f"{folder}/shared/tars/*.tar", "--follow-links", "--run", run)
    indexed = vl3syn(cluster, "index", *options, named=False)
    assert indexed.returncode == 0, indexed.stderr
    line = refusal(vl3syn(cluster, "filter", "aspect-ratio", "--max", 3, "--run", run))
    assert line.startswith(f"vl3syn: pool: {last}: is not there on node ")


@pytest.mark.cluster
def test_cluster_that_is_not_named_is_refused(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    """Ray joins it without RAY_ADDRESS. Its nodes are not compared then."""
    pool = make_images(folder / "shared/fifth", 5)
    stage = "{stage: aspect_ratio, resources: {actors: 1}}"
    done = vl3syn(cluster, "run", recipe(folder, pool, stage), "--run", folder / "shared/unnamed", named=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("vl3syn: this machine is a node of a Ray cluster: set RAY_ADDRESS=")


@pytest.mark.cluster
def test_model_that_a_node_does_not_see_is_refused(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    pool = make_images(folder / "shared/third", 5)
    model = folder / "hidden/model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "blip"}')
    stage = f"{{stage: coarse_caption, model: {model}}}"
    line = refusal(vl3syn(cluster, "run", recipe(folder, pool, stage), "--run", folder / "shared/without-model"))
    assert line.startswith(f"vl3syn: coarse_caption: model: {model}: is not there on node ")
    assert not (folder / "shared/without-model").exists()


@pytest.mark.cluster
def test_relative_run_of_a_submitted_job_is_refused(cluster: Cluster, folder: Path, make_images: MakeImages) -> None:
    """It would be written into the job's copy of its working directory."""
    path = recipe(folder, make_images(folder / "shared/fourth", 5))
    command = ["ray", "job", "submit", "--", "vl3syn", "run", str(path), "--run", "runs/1"]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "vl3syn: run: runs/1 is a relative path" in done.stdout + done.stderr


@pytest.mark.cluster
def test_node_without_the_package_is_refused(head: Cluster, tmp_path: Path, make_images: MakeImages) -> None:
    need_views()
    head.add(cpus=1, without=Path(__file__).parents[2] / "pipeline")
    pool = make_images(tmp_path / "pool", 5)
    line = refusal(vl3syn(head, "run", recipe(tmp_path, pool), "--run", tmp_path / "run"))
    assert line.startswith("vl3syn: node ")
    assert "cannot import vl3syn" in line
    assert "No module named 'pipeline.execution'" in line
