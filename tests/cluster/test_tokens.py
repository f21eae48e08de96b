"""Ray's token authentication: who does not have the token submits no job, and joins no cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.ray_nodes import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=1) as cluster:
        yield cluster


def environment(cluster: Cluster, token: str | None) -> Mapping[str, str]:
    """That of the cluster, with another token, or without one."""
    mine = {name: value for name, value in cluster.environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    return {**mine, "RAY_AUTH_TOKEN": token} if token else {**mine, "RAY_AUTH_MODE": "disabled"}


@pytest.mark.cluster
@pytest.mark.parametrize("token", [None, "0" * 64])
def test_job_client_without_the_token_is_refused(cluster: Cluster, tmp_path: Path, token: str | None) -> None:
    command = ["ray", "job", "submit", "--", "touch", str(tmp_path / "ran")]
    done = subprocess.run(command, env=environment(cluster, token), capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "uthentication" in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.cluster
def test_job_client_with_the_token_is_served(cluster: Cluster, tmp_path: Path) -> None:
    command = ["ray", "job", "submit", "--", "touch", str(tmp_path / "ran")]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.cluster
def test_run_without_the_token_joins_no_cluster(
    cluster: Cluster, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    pool = make_images(tmp_path / "pool", 5)
    (tmp_path / "recipe.yaml").write_text(f"pool: {{images: {pool}}}\nstages: [{{stage: aspect_ratio}}]\n")
    command = ["vl3syn", "run", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    without = {**environment(cluster, "0" * 64), "RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, env=without, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert not (tmp_path / "run").exists()
