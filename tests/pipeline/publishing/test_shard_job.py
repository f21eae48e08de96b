"""Few images are published without Ray; what a local worker dies of is left to Ray's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.stored_facts import store_run

MakeImages = Callable[..., Path]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]

_MORTAL = """
import os
from pathlib import Path
from pipeline.pools.files import ImageFiles

DIED = Path(__file__).with_name("died")

class Mortal(ImageFiles):
    def read_images(self, root, group):
        if not DIED.exists():
            DIED.touch()
            os._exit(1)
        return super().read_images(root, group)
"""


def captioned(folder: Path, make_images: MakeImages, kind: str) -> Path:
    """A run of thirty images with short captions."""
    pool = make_images(folder / "pool", 30)
    engine = {"kind": "server", "url": "http://127.0.0.1:9/v1"}
    stage = {"stage": "short_caption", "model": "m", "engine": engine}
    recipe = {"name": "t", "pool": {"kind": kind, "where": str(pool)}, "stages": [stage]}
    captions = {path.name: {"short_caption": caption(path)} for path in pool.iterdir()}
    store_run(folder / "run", recipe, {"short_caption": captions})
    return folder / "run"


def caption(path: Path) -> str:
    return f"Image {path.stem}."


def published(run: Path, vl3syn_process: CommandLine, rows_per_shard: int) -> list[str]:
    done = vl3syn_process("publish", "--run", run, "--rows-per-shard", rows_per_shard)
    assert done.returncode == 0, done.stderr
    captions: list[str] = sorted(pl.read_parquet(run / "shards/data/*.parquet")["short_caption"])
    return captions


def test_few_images_are_published_without_ray(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = captioned(tmp_path, make_images, "images")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert published(run, vl3syn_process, 30) == sorted(map(caption, (tmp_path / "pool").iterdir()))


@pytest.mark.slow  # Ray starts
def test_shard_of_a_local_worker_that_died_is_written_by_ray(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mortal.py").write_text(_MORTAL)
    monkeypatch.syspath_prepend(tmp_path)
    run = captioned(tmp_path, make_images, "mortal:Mortal")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    captions = published(run, vl3syn_process, 10)
    assert (tmp_path / "died").exists()
    assert captions == sorted(map(caption, (tmp_path / "pool").iterdir()))
