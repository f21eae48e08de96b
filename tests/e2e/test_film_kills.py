"""kill -9 while films are cut and clips are decoded: the next run ends where one run would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from manifests import open_run
from tests.e2e.test_films import film, recipe
from tests.kills import end, kill, wait_for_end_of

FILMS = 30


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over 30 films of two clips each, one in ten of them broken, in small parts."""
    folder = tmp_path_factory.mktemp("film_kills")
    (folder / "films").mkdir()
    for number in range(FILMS):
        path = film(folder / "films" / f"{number}.mp4", [12, 12])
        if number % 10 == 0:
            path.write_bytes(path.read_bytes()[:200])
    of_films = recipe(folder / "films")
    for stage in (of_films["stages"][1], of_films["clips"]["stages"][1]):
        stage["resources"] = {"part_rows": 4, "actors": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(of_films))
    return folder / "recipe.yaml"


def manifests(run: Path) -> list[pl.DataFrame]:
    return [open_run(url).manifest().sort("id").collect() for url in (run, run / "clips")]


@pytest.fixture(scope="module")
def uninterrupted(written: Path) -> list[pl.DataFrame]:
    run = written.parent / "uninterrupted"
    subprocess.run([sys.executable, "-m", "pipeline", "run", written, "--run", run], check=True, capture_output=True)
    return manifests(run)


@pytest.mark.thorough
@pytest.mark.timeout(600)  # a minute on an idle machine
@pytest.mark.parametrize("victim", ["driver", "worker"])
@pytest.mark.parametrize("parts", [4, 12])
def test_killed_run_of_films_ends_as_an_undisturbed_one(
    victim: str, parts: int, written: Path, uninterrupted: list[pl.DataFrame], tmp_path: Path
) -> None:
    run, mark = tmp_path / "run", f"VL3SYN_TEST={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-m", "pipeline", "run", str(written), "--run", str(run)]
    driver = subprocess.Popen(
        command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while driver.poll() is None and sum(1 for _ in run.rglob("stages/*/part-*.parquet")) < parts:
            time.sleep(0.005)
        killed = kill(victim, driver.pid, mark)
        driver.communicate(timeout=500)
        wait_for_end_of(mark)
    finally:
        end(mark)
    assert killed, "nothing was killed; the moment was too late"
    assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 0)
    for part in run.rglob("*.parquet"):
        pq.read_table(part)  # raises for an unreadable one
    subprocess.run(command, check=True, capture_output=True)
    films, clips = manifests(run)
    assert films.equals(uninterrupted[0])
    assert clips.equals(uninterrupted[1])
    assert (films.height, films.filter(pl.col("status") == "kept").height) == (FILMS, FILMS * 9 // 10)
    for table in (stage.table for url in (run, run / "clips") for stage in open_run(url).stages):
        ids = table.every_id().collect()["id"]
        assert ids.n_unique() == ids.len(), "a row was computed twice"
