"""`vl3syn index PATH`: it says what it took the path for, and goes on with it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Call = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., Path]


def test_index_says_what_it_took_the_path_for(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    pool, run = make_images(tmp_path / "pool", 3), tmp_path / "run"
    done = vl3syn("index", pool, "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    assert f"pool: {pool}: a folder of images (3 .jpg)" in done.stderr
    assert json.loads(done.stdout)["funnel"]["rows"] == 3
    (pool / "list.csv").write_text("url\nhttps://a.example/1.jpg\n")
    make_images(pool, 2, start=3)
    again = vl3syn("index", pool, "--run", run, "--json")
    assert again.returncode == 0, "the run knows what its pool is"
    assert json.loads(again.stdout)["funnel"]["rows"] == 5
    other = vl3syn("index", pool, "--run", tmp_path / "other")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "say which is the pool: --images or --urls" in other.stderr
    assert not (tmp_path / "other").exists()


def test_options_of_a_pool_go_with_a_recognised_path(tmp_path: Path, vl3syn: Call) -> None:
    (tmp_path / "l.csv").write_text("link,n\nhttps://a.example/1.jpg,7\n")
    options = ("--url-column", "link", "--id", "n")
    done = vl3syn("index", tmp_path / "l.csv", *options, "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "id: n" in (tmp_path / "run" / "recipe.yaml").read_text()
