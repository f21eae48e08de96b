"""`ray job submit … python -m pipeline run` on a head node of its own, as the README tells it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests import funnel, open_run
from tests.ray_nodes import Cluster


@pytest.mark.cluster
def test_job_runs_a_recipe_on_the_cluster_it_is_submitted_to(
    head: Cluster, tmp_path: Path, make_images: Callable[..., Path]
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
        done = subprocess.run(command, env=head.environment, cwd=checkout, capture_output=True, text=True, timeout=240)
        if "No available agent" not in done.stderr:  # a head takes a while to be ready for jobs
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 rows" in done.stdout
    counted = funnel(open_run(tmp_path / "run"))
    assert counted.rows == 300
    assert 0 < counted.survivors < 300
