"""The circle: a model that was trained here captions a pool over HTTP, and the next training learns from that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from captioners.engines.server_process import start_server
from manifests import open_run
from model import Processor, VideoLLaMA3
from model.training.metrics_log import read_metrics
from tests.conftest import jpeg
from tests.model.training import training_data

pytestmark = pytest.mark.slow

TOKENS = 16
Command = Callable[..., subprocess.CompletedProcess[str]]


def _train(vl3syn: Command, recipe: dict[str, Any], out: Path) -> Path:
    """Train, and return the folder of the first stage's model."""
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    done = vl3syn("train", path, "--run", out)
    assert done.returncode == 0, done.stderr
    return next(out.glob("1-*/model"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, vl3syn: Command) -> Path:
    folder = tmp_path_factory.mktemp("first")
    recipe = training_data.recipe(folder, steps=60)
    return _train(vl3syn, {**recipe, "stages": recipe["stages"][:1], "ask": 0}, folder / "out")


@pytest.fixture(scope="module")
def url(trained: Path) -> Iterator[str]:
    command = f"{sys.executable} -m pipeline serve {{model}} --port {{port}} --name mine --system '' --dtype float32"
    served = start_server(command, str(trained), 120, "test")
    yield served.url
    served.stop()


def test_model_captions_what_the_next_training_learns(trained: Path, url: str, tmp_path: Path, vl3syn: Command) -> None:
    pool, run = tmp_path / "pool", tmp_path / "run"
    pool.mkdir()
    for number in range(6):
        (pool / f"{number}.jpg").write_bytes(jpeg(60 + 20 * number, 80, 40 * number))
    engine = {"kind": "server", "url": url}
    stage = {"stage": "short_caption", "model": "mine", "prompts": ["What is it?"], "engine": engine}
    # The rules for captions in earnest would drop those of so small a model.
    stage |= {"max_new_tokens": TOKENS, "keep": {"max_short_control_tokens": TOKENS}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": [stage], "publish": {}}))
    done = vl3syn("run", recipe, "--run", run)
    assert done.returncode == 0, done.stderr
    shards = pl.read_parquet(run / "shards/data/*.parquet")
    facts = open_run(run).facts("short_caption").collect()
    assert shards.height == facts.height == 6
    model, processor = (kind.from_pretrained(trained) for kind in (VideoLLaMA3, Processor))
    for row in shards.iter_rows(named=True):
        inputs = processor(
            [{"role": "user", "content": [{"type": "image", "image": row["image"]["bytes"]}, "What is it?"]}]
        )
        said = processor.decode(model.generate(**inputs, max_new_tokens=TOKENS)[0])
        assert row["short_caption"] == said.strip()

    again = training_data.recipe(tmp_path, steps=3)
    again |= {"ask": 0, "sources": {"captions": {"shards": str(run / "shards"), "caption": "short"}}}
    again["stages"] = [{**again["stages"][0], "mixture": {"captions": 1}}]
    _train(vl3syn, again, tmp_path / "second")
    steps = [line for line in read_metrics(tmp_path / "second") if line["kind"] == "step"]
    assert len(steps) == 3
