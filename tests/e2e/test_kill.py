"""kill -9 of the driver, of a worker, of the raylet at random moments: the next run ends where one run would have."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from manifests import open_run
from tests.kills import end, kill, wait_for_end_of
from tests.runs import jobs_here

IMAGES = 5_000
PARTS = 36  # of 40, 20 of the index and 20 of the stage: later there may be nothing left to kill
PYTHON = [sys.executable, "-m", "pipeline"]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over 5,000 images, one in fifty of them broken."""
    import io

    from PIL import Image

    folder = tmp_path_factory.mktemp("kill")
    pool = folder / "pool"
    pool.mkdir()
    for number in range(IMAGES):
        data = io.BytesIO()
        Image.new("RGB", (8 + number % 57, 8 + number % 23)).save(data, "JPEG")
        (pool / f"{number:05d}.jpg").write_bytes(data.getvalue()[: 99 if number % 50 == 0 else None])
    path = folder / "recipe.yaml"
    path.write_text(
        f"pool: {{images: {pool}}}\nstages:\n  - {{stage: aspect_ratio, keep: {{max: 2.0, min_side: 12}}}}\n"
    )
    return path


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, vl3syn: Command) -> pl.DataFrame:
    run = recipe.parent / "uninterrupted"
    with jobs_here():
        assert vl3syn("run", recipe, "--run", run).returncode == 0
    manifest = open_run(run).manifest().sort("id").collect()
    assert manifest.height == IMAGES
    return manifest


@pytest.mark.parametrize("victim", ["driver"])
def test_killed_run_resumes_where_it_stopped(
    victim: str, recipe: Path, uninterrupted: pl.DataFrame, tmp_path: Path, vl3syn: Command
) -> None:
    kill_and_resume(victim, random.Random(victim), recipe, uninterrupted, tmp_path, vl3syn)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", range(20))
@pytest.mark.parametrize("victim", ["driver", "worker", "raylet"])
def test_run_killed_at_random_moments_resumes_to_the_same_result(
    victim: str, moment: int, recipe: Path, uninterrupted: pl.DataFrame, tmp_path: Path, vl3syn: Command
) -> None:
    kill_and_resume(victim, random.Random(f"{victim} {moment}"), recipe, uninterrupted, tmp_path, vl3syn)


def kill_and_resume(
    victim: str, dice: random.Random, recipe: Path, expected: pl.DataFrame, folder: Path, vl3syn: Command
) -> None:
    run, mark = folder / "run", f"VL3SYN_TEST={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    driver = subprocess.Popen(
        [*PYTHON, "run", recipe, "--run", run],
        env={**os.environ, name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        # The stage's last tasks are over before a worker is found at them.
        when = dice.randrange(PARTS - 10 if victim == "worker" else PARTS)
        wait_for_parts(run, when, driver)
        time.sleep(dice.random() * 0.05)
        killed = kill(victim, driver.pid, mark)
        _, said = driver.communicate(timeout=120)
        wait_for_end_of(mark)
    finally:
        end(mark)
    assert killed, "nothing was killed; the moment was too late"
    for part in run.rglob("*.parquet"):
        pq.read_table(part)  # raises for an unreadable one
    stored = rows_stored(run)
    again = vl3syn("run", recipe, "--run", run, "--json")
    assert again.returncode == 0, again.stderr
    jobs = {job["stage"]: job for job in json.loads(again.stdout)["jobs"]}
    computed = {stage: job["computed"] for stage, job in jobs.items()}
    total = {"index": IMAGES, "aspect_ratio": expected.filter(pl.col("error").is_null()).height}
    # What was stored is not computed again, to the row.
    assert computed == {stage: total[stage] - stored[stage] for stage in total}
    assert open_run(run).manifest().sort("id").collect().equals(expected)
    print(f"{victim} {killed} at {when} parts: exit {driver.returncode}, stored {stored}, computed again {computed}")
    if victim == "driver":
        assert driver.returncode == -signal.SIGKILL
    if victim == "worker":
        assert driver.returncode == 0, "Ray runs the task of a killed worker again"
    if victim == "raylet" and driver.returncode != 0:
        assert said, "a run that dies with its cluster says something"


def wait_for_parts(run: Path, parts: int, driver: subprocess.Popen[bytes]) -> None:
    while driver.poll() is None and sum(1 for _ in run.rglob("part-*.parquet")) < parts:
        time.sleep(0.005)


def rows_stored(run: Path) -> dict[str, int]:
    """Rows in the index and in the stage table, as a reader sees them after the kill."""
    try:
        opened = open_run(run)
    except ValueError:
        return {"index": 0, "aspect_ratio": 0}
    tables = {"index": opened.index, "aspect_ratio": opened.stages[0].table}
    return {name: table.scan().select(pl.len()).collect().item() for name, table in tables.items()}
