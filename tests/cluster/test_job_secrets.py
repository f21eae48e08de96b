"""A key in the `env_vars` of a submitted job reaches the caption server, and nothing that the job writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from manifests import open_run
from tests.chat_server import chat_server
from tests.ray_nodes import Cluster

SECRET = "aBcDeFgHiJkLmNoPqRsT0123"


def holders(folder: Path) -> list[str]:
    """The files below a folder in which the secret is."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(str(file.relative_to(folder)) for file in files if SECRET.encode() in file.read_bytes())


@pytest.mark.cluster
def test_key_of_a_submitted_job_is_in_no_run_and_no_log(
    head: Cluster, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    """The server repeats the key in its errors, as some do."""
    refusal = f"the key {SECRET} may not send this image"
    with chat_server(faults=("400",), share=0.5, refusal=refusal) as server:
        engine = {"kind": "server", "url": server.url, "key": "MY_SERVER"}
        stage = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine}
        written = {"pool": {"images": str(make_images(tmp_path / "pool", 6))}, "stages": [stage], "publish": {}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
        command = ["ray", "job", "submit", "--runtime-env-json", json.dumps({"env_vars": {"MY_SERVER": SECRET}}), "--"]
        command += ["vl3syn", "run", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
        done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.keys == {f"Bearer {SECRET}"}
    assert SECRET not in done.stdout + done.stderr
    errors = open_run(tmp_path / "run").facts("short_caption").collect()["error"].drop_nulls()
    assert set(errors) == {"server: 400 the key … may not send this image"}
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"jobs", "shards", "stages", "recipe.yaml"}
    assert holders(tmp_path) == []
    logs = head.folder / "ray/session_latest/logs"
    (ours,) = logs.glob("job-driver-*.log")
    assert "short_caption" in ours.read_text()
    assert SECRET not in ours.read_text()
    assert [name for name in holders(logs.resolve()) if name.startswith(("worker-", "job-"))] == []
