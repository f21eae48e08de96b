"""recipes/download_demo.py, as docs/download.md shows it: from a list of URLs to shards, with two runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("download_python")
def test_download_demo_makes_shards_of_a_list(
    photographs: list[Path], tmp_path: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder, run = tmp_path / "demo/pool/photographs", tmp_path / "demo/download/run"
    folder.mkdir(parents=True)
    for file in photographs:
        with Image.open(file) as image:  # smaller, since each one is described
            shrink = max(1, min(image.size) / 220)
            image.resize((int(image.width / shrink), int(image.height / shrink))).save(folder / file.name)
    command = [sys.executable, ROOT / "recipes/download_demo.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert " requests by the first run, 1 by the second" in done.stderr, "only the one that was busy"

    funnel = json.loads(vl3syn("funnel", run, "--json").stdout)
    stages = {stage["stage"]: stage for stage in funnel["stages"]}
    assert funnel["rows"] == funnel["survivors"] + sum(s["dropped"] + s["errors"] for s in funnel["stages"])
    kinds = {"HTTP 404", "HTTP 403", "not an image", "opt-out", "forbidden scheme", "forbidden address"}
    assert kinds <= stages["download"]["reasons"].keys()
    assert "HTTP 503" not in stages["download"]["reasons"], "the busy one has answered"
    assert funnel["survivors"] > len(photographs) / 2
    shards = pq.read_table(run / "shards/data").to_pylist()
    assert len(shards) >= funnel["survivors"]
    for row in shards:
        assert row["image"]["bytes"] == (folder / unquote(row["url"]).rpartition("/")[2]).read_bytes()
        assert row["alt_text"].startswith(("A photograph called ", "The first photograph again"))
