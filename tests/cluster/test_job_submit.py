"""`ray job submit … python -m pipeline run` as docs/cluster.md tells it: a chain, a refusal, a stop, a lost head."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from manifests import funnel, open_run
from tests.conftest import jpeg
from tests.gated_stage import GatedRun
from tests.ray_nodes import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "manifests", "filters", "captioners", "clustering", "pipeline")
SECONDS = 400
IMAGES = 60
MakeImages = Callable[..., Path]

# Of recipes/demo.yaml, the stages whose weights are the smallest.
CHAIN = """
pool: {{images: {pool}}}
stages:
  - {{stage: aspect_ratio, keep: {{max: 2.5}}}}
  - {{stage: hashes, keep: {{per_group_content_hash: 1}}}}
  - {{stage: conse}}
  - {{stage: label_caption}}
  - {{stage: conse_text}}
  - {{stage: similarity, keep: {{top: 0.8}}}}
  - {{stage: clusters, clusters: 3}}
  - {{stage: describe}}
publish: {{rows_per_shard: 10}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's checkout after `make demo`, in small."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for file in ("tests/gated_stage.py", ".gitignore"):
        shutil.copy(ROOT / file, folder / file)
    for made in (".venv/bin/python", ".venv-download/bin/python", "demo/run/recipe.yaml", ".git/HEAD"):
        (folder / made).parent.mkdir(parents=True)
        (folder / made).touch()
    return folder


def _submitted(cluster: Cluster, checkout: Path, name: str, command: list[str]) -> subprocess.Popen[str]:
    """A client that submits a job of this name and waits for it."""
    line = ["ray", "job", "submit", "--submission-id", name, "--working-dir", ".", "--", *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        line, env=cluster.environment, cwd=checkout, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def _submit(cluster: Cluster, checkout: Path, name: str, command: list[str]) -> int:
    """Submit a job and wait for it; return the exit code of `ray job submit`."""
    for _ in range(30):
        client = _submitted(cluster, checkout, name, command)
        said, _ = client.communicate(timeout=SECONDS)
        if "No available agent" not in said:  # a head takes a while to be ready for jobs
            return client.returncode
        time.sleep(2)
    raise TimeoutError(said)


def _log(cluster: Cluster, name: str) -> str:
    """What `ray job logs` shows."""
    return next(cluster.folder.rglob(f"job-driver-{name}.log")).read_text()


def _ray_job(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(
        ["ray", "job", *arguments], env=cluster.environment, capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout + done.stderr


def _manifest(gated: GatedRun) -> pl.DataFrame:
    return open_run(gated.run).manifest().sort("id").collect()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for number in range(IMAGES):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg(20 + number % 7, 20, number))
    return folder


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, checkout: Path, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The manifest of a job that nothing disturbed."""
    gated = GatedRun(tmp_path_factory.mktemp("undisturbed") / "gated", pool)
    gated.gate.unlink()
    assert _submit(cluster, checkout, "undisturbed", gated.command) == 0
    return _manifest(gated)


@pytest.fixture
def gated(tmp_path: Path, pool: Path) -> GatedRun:
    return GatedRun(tmp_path / "gated", pool)


def test_job_runs_the_offline_chain(cluster: Cluster, checkout: Path, tmp_path: Path, photographs: list[Path]) -> None:
    (tmp_path / "pool").mkdir()
    for path in photographs:
        shutil.copy(path, tmp_path / "pool")
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(CHAIN.format(pool=tmp_path / "pool"))
    code = _submit(cluster, checkout, "chain", ["python", "-m", "pipeline", "run", str(recipe), "--run", str(run)])
    log = _log(cluster, "chain")
    assert code == 0, log
    assert "succeeded" in _ray_job(cluster, "status", "chain")
    assert not {"\x1b", "\r", "\b"} & set(log), "it can be read without a terminal"
    for stage in ("index", "aspect_ratio", "hashes", "conse", "similarity", "clusters", "describe"):
        assert f"\n{stage}: " in log
    counted = funnel(open_run(run))
    assert (counted.rows, counted.stages[0].errors) == (len(photographs), 0)
    published = pl.read_parquet(run / "shards/data/*.parquet")
    assert published.height == counted.survivors > 0
    assert published["short_caption"].null_count() == 0
    [package] = [path for path in cluster.folder.rglob("working_dir_files/_ray_pkg_*") if path.is_dir()]
    uploaded = {path.name for path in package.iterdir()}
    assert {"pipeline", "core"} <= uploaded
    assert {".venv", ".venv-download", "demo", ".git"}.isdisjoint(uploaded)


def test_missing_model_fails_a_job_in_one_line(
    cluster: Cluster, checkout: Path, tmp_path: Path, make_images: MakeImages
) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    stages = "[{stage: aspect_ratio}, {stage: clip, encoder: ViT-L-14/openai}]"
    recipe.write_text(f"pool: {{images: {make_images(tmp_path / 'pool', 3)}}}\nstages: {stages}\n")
    command = ["python", "-m", "pipeline", "run", str(recipe), "--run", str(run)]
    assert _submit(cluster, checkout, "refused", command) == 1
    log = _log(cluster, "refused")
    assert "Traceback" not in log
    [line] = log.partition("Running entrypoint")[2].splitlines()[1:]
    assert line.startswith("vl3syn: clip: ")
    assert not run.exists()


def test_stopped_job_goes_on(cluster: Cluster, checkout: Path, gated: GatedRun, undisturbed: pl.DataFrame) -> None:
    client = _submitted(cluster, checkout, "stopped", gated.command)
    gated.wait_at_the_gate(workers=2, seconds=SECONDS)
    _ray_job(cluster, "stop", "stopped")
    client.communicate(timeout=60)
    assert _log(cluster, "stopped").splitlines()[-1] == (
        "vl3syn: stopped by SIGTERM; what is stored stays, run again to go on"
    )
    gated.wait_for_end(60)
    gated.gate.unlink()
    assert _submit(cluster, checkout, "again", gated.command) == 0, _log(cluster, "again")
    assert _manifest(gated).equals(undisturbed)
    assert len(gated.keys()) == IMAGES, "what was stored is not computed again"


def test_job_of_a_lost_head_goes_on(checkout: Path, gated: GatedRun, undisturbed: pl.DataFrame) -> None:
    """Its processes are killed; the driver, which a lost machine takes with it, ends when no head answers."""
    with Cluster(cpus=2, RAY_gcs_rpc_server_reconnect_timeout_s="5") as lost:
        assert _submit(lost, checkout, "first", ["true"]) == 0  # the head is ready
        client = _submitted(lost, checkout, "lost", gated.command)
        gated.wait_at_the_gate(workers=2, seconds=SECONDS)
        os.killpg(lost.head.process.pid, signal.SIGKILL)
        client.communicate(timeout=100)
        assert client.returncode != 0
        gated.wait_for_end(100)
        assert "Traceback" not in _log(lost, "lost")
    gated.gate.unlink()
    with Cluster(cpus=2) as head:
        assert _submit(head, checkout, "again", gated.command) == 0, _log(head, "again")
    assert _manifest(gated).equals(undisturbed)
    assert len(gated.keys()) == IMAGES, "what was stored is not computed again"
