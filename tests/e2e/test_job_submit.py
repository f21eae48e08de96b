"""`ray job submit … python -m pipeline run` on a head node of its own, as the README tells it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests import funnel, open_run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head() -> Iterator[dict[str, str]]:
    """The environment that reaches a Ray head with its dashboard; ended by its process group, not by `ray stop`."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray puts sockets below it
    programs = Path(sys.executable).parent
    dashboard = _free_port()
    environment = {**os.environ, "RAY_TMPDIR": folder, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [programs / "ray", "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
    command += [f"--port={_free_port()}", f"--dashboard-port={dashboard}", "--disable-usage-stats"]
    command += [f"--dashboard-agent-listen-port={_free_port()}"]  # the default one may be another Ray's
    log = Path(folder) / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + 60
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    yield {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    os.killpg(process.pid, signal.SIGTERM)  # it ends all of its node
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_job_runs_a_recipe_on_the_cluster_it_is_submitted_to(
    head: dict[str, str], tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    pool = make_images(tmp_path / "pool", 300)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {pool}}}\nstages: [{{stage: aspect_ratio, keep: {{max: 1.5}}}}]\n")
    command = ["ray", "job", "submit", "--working-dir", ".", "--"]
    command += ["python", "-m", "pipeline", "run", str(recipe), "--run", str(tmp_path / "run")]
    # The working directory is uploaded: only the packages, as a user's checkout without its environment would be.
    checkout = tmp_path / "checkout"
    for package in ("pipeline", "filters", "manifests"):
        shutil.copytree(package, checkout / package)
    for _ in range(30):
        done = subprocess.run(command, env=head, cwd=checkout, capture_output=True, text=True, timeout=240)
        if "No available agent" not in done.stderr:  # a head takes a while to be ready for jobs
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 rows" in done.stdout
    counted = funnel(open_run(tmp_path / "run"))
    assert counted.rows == 300
    assert 0 < counted.survivors < 300
