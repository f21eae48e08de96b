"""Runs whose index was cut off by a kill -9: commands say so, and nothing that is stored is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from manifests import funnel, open_run
from tests.kills import wait_for_end_of
from tests.runs import run as compute

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., Path]

# In every process of the command's: a header that says so is read for ever.
SITE = """
import time
from PIL import JpegImagePlugin

JPEG = JpegImagePlugin.JpegImageFile
opened = JPEG._open

def slow(self):
    opened(self)
    if self.info.get("comment") == b"sleep":
        time.sleep(600)

JPEG._open = slow
"""
COMPUTING = (
    ("filter", "aspect-ratio", "--run"),
    ("filter", "similarity", "--run"),
    ("caption", "short", "--server", "http://127.0.0.1:9/v1", "--model", "m", "--run"),
    ("dedup", "--run"),
    ("publish", "--run"),
)
VIEWS: tuple[tuple[str, ...], ...] = (("funnel", "--json"), ("sweep", "--json"), ("groups", "--by", "shard", "--json"))


def refusal(run: Path) -> str:
    return f"vl3syn: {run}: its index is not finished; `vl3syn index --run {run}` goes on with it\n"


def killed_index(run: Path, pool: Path, site: Path, parts: int) -> None:
    """An index job that meets a header it cannot get over is killed when so many parts are there."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    mark = uuid.uuid4().hex
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.getcwd()}", "VL3SYN_TEST": mark}
    command = [sys.executable, "-m", "pipeline", "index", "--run", str(run), "--images", str(pool)]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(run.glob("index/part-*"))) < parts or not (run / "recipe.yaml").exists():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    wait_for_end_of(mark)


def sleeper(pool: Path, name: str) -> None:
    Image.new("RGB", (40, 30)).save(pool / name, comment=b"sleep")


@pytest.mark.parametrize("command", COMPUTING)
def test_commands_refuse_a_run_killed_before_its_first_part(
    tmp_path: Path, make_images: MakeImages, vl3syn: Command, command: tuple[str, ...]
) -> None:
    run = unindexed(tmp_path, make_images)
    done = vl3syn(*command, run)
    assert (done.returncode, done.stderr, done.stdout) == (1, refusal(run), "")


@pytest.mark.parametrize("command", [*VIEWS, ("explain", "000001.jpg"), ("retry", "index")])
def test_views_refuse_a_run_killed_before_its_first_part(
    tmp_path: Path, make_images: MakeImages, vl3syn: Command, command: tuple[str, ...]
) -> None:
    run = unindexed(tmp_path, make_images)
    name, *rest = command
    done = vl3syn(name, run, *rest)
    assert (done.returncode, done.stderr, done.stdout) == (1, refusal(run), "")


def unindexed(tmp_path: Path, make_images: MakeImages) -> Path:
    """As a kill leaves it between the recipe and the first part; earlier versions left the same."""
    from pipeline.execution.runner import prepare
    from pipeline.recipe import parse_recipe

    pool = {"images": str(make_images(tmp_path / "pool", 3))}
    prepare(parse_recipe({"pool": pool}, "test"), str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.mark.thorough
def test_index_killed_half_way_is_reported_and_resumed(
    tmp_path: Path, make_images: MakeImages, vl3syn: Command
) -> None:
    pool, run = make_images(tmp_path / "pool", 600), tmp_path / "run"
    sleeper(pool, "000300.jpg")  # in the second of three parts
    killed_index(run, pool, tmp_path / "site", parts=1)
    stored = open_run(run).index.scan(["id"]).collect().height
    assert 0 < stored < 600
    for command in COMPUTING:
        done = vl3syn(*command, run)
        assert (done.returncode, done.stderr, done.stdout) == (1, refusal(run), ""), command
    said = f"{run}: its index is not finished: this is a part of the pool; `vl3syn index --run {run}` goes on with it\n"
    for name, *rest in VIEWS:
        done = vl3syn(name, run, *rest)
        assert (done.returncode, done.stderr) == (0, said), name
    assert json.loads(vl3syn("funnel", run, "--json").stdout)["rows"] == stored
    again = vl3syn("index", "--run", run, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["jobs"][0]["stored"] == stored, "what is stored is not read again"
    done = vl3syn("funnel", run, "--json")
    assert (json.loads(done.stdout)["rows"], done.stderr) == (600, "")


@pytest.mark.thorough
@pytest.mark.usefixtures("engine")
def test_growing_index_when_killed_loses_nothing_and_is_reported(
    tmp_path: Path, make_images: MakeImages, vl3syn: Command
) -> None:
    pool, run = make_images(tmp_path / "pool", 3), tmp_path / "run"
    recipe = {"pool": {"images": str(pool)}, "stages": [{"stage": "aspect_ratio"}]}
    compute(recipe, run)
    make_images(pool, 600, start=3)
    sleeper(pool, "000300.jpg")
    killed_index(run, pool, tmp_path / "site", parts=2)
    said = f"{run}: its index was cut off while images were added; `vl3syn index --run {run}` goes on with it"
    done = vl3syn("filter", "aspect-ratio", "--run", run, "--json")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, said)
    job = json.loads(done.stdout)["jobs"][0]
    stored = job["computed"] + job["stored"]
    assert job["stored"] == 3
    assert 3 < stored < 603
    done = vl3syn("funnel", run, "--json")
    assert (done.returncode, done.stderr) == (0, f"{said}\n")
    assert json.loads(done.stdout)["survivors"] == stored
    opened, jobs = compute(recipe, run)
    assert {name: job.stored for name, job in jobs.items()} == {"index": stored, "aspect_ratio": stored}
    assert funnel(opened).survivors == 603
    assert vl3syn("funnel", run).stderr == ""


@pytest.mark.usefixtures("engine")
def test_finished_index_has_no_note(tmp_path: Path, make_images: MakeImages, vl3syn: Command) -> None:
    run = tmp_path / "run"
    compute({"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": []}, run)
    assert [path.name[:5] for path in (run / "index").iterdir()] == ["part-"]
    done = vl3syn("funnel", run, "--json")
    assert (done.returncode, done.stderr) == (0, "")
