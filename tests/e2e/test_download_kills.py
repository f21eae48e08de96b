"""kill -9 of the driver, a worker, img2dataset at random moments: the next run ends where one run would have."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from manifests import open_run
from manifests.tables import Table
from tests.e2e.test_download import images_in_tars, stored_bytes, write_list
from tests.kills import end, kill, processes, wait_for_end_of
from tests.web_server import WebServer, image_of, serving

URLS, PART = 300, 20
PYTHON = [sys.executable, "-m", "pipeline"]
FACTS = ("url", "status", "image_bytes", "image_sha256", "image_width", "image_height", "http_status", "error")
"""Columns that do not depend on the tar that an image is in."""


@dataclass(frozen=True)
class Case:
    web: WebServer
    recipe: Path
    images: int

    def on_ray(self) -> Case:
        """The same case with Ray's workers; few rows get none by themselves."""
        recipe = yaml.safe_load(self.recipe.read_text())
        recipe["stages"][0]["resources"]["num_cpus"] = 1
        path = self.recipe.with_name("on_ray.yaml")
        path.write_text(yaml.safe_dump(recipe))
        return replace(self, recipe=path)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, download_python: str) -> Iterator[Case]:
    """A recipe over 300 URLs, which answer after 20 ms; one in ten is gone. Parts have 20 URLs."""
    folder = tmp_path_factory.mktemp("kills")
    with serving() as web:
        names = [f"{'404' if number % 10 == 0 else 'slow'}/{number}" for number in range(URLS)]
        pool = write_list(folder / "list.csv", [(web.url(name), "", "", "") for name in names])
        stage = {
            "stage": "download",
            "engine": {"python": download_python},
            "allow": ["127.0.0.2"],
            "per_host": 4,
            "concurrency": 4,
            "resources": {"part_rows": PART},
        }
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({"pool": pool, "stages": [stage]}))
        yield Case(web, recipe, sum(name.startswith("slow") for name in names))


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_killed_driver_resumes_without_asking_for_stored_urls(case: Case, tmp_path: Path) -> None:
    kill_and_resume("driver", random.Random(1), case, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", range(10))
@pytest.mark.parametrize("victim", ["driver", "worker", "img2dataset"])
def test_download_killed_at_random_moments_resumes(victim: str, moment: int, case: Case, tmp_path: Path) -> None:
    kill_and_resume(victim, random.Random(f"{victim} {moment}"), case.on_ray() if moment % 2 else case, tmp_path)


def kill_and_resume(victim: str, dice: random.Random, case: Case, folder: Path) -> None:
    run, mark, asked = folder / "run", f"VL3SYN_TEST={uuid.uuid4().hex}", case.web.asked
    asked.clear()
    name, _, value = mark.partition("=")
    driver = subprocess.Popen(
        [*PYTHON, "run", case.recipe, "--run", run],
        env={**os.environ, name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        when = dice.randrange(0, (URLS * 3) // 4)
        while sum(asked.values()) <= when and driver.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.random() * 0.2)
        killed = kill_img2dataset(mark) if victim == "img2dataset" else kill(victim, driver.pid, mark)
        _, said = driver.communicate(timeout=200)
        wait_for_end_of(mark)
    finally:
        end(mark)
    assert killed, "nothing was killed; the moment was too late"
    assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 0), said.decode()[-2000:]
    before, stored = Counter(asked), stored_urls(run)

    again = subprocess.run([*PYTHON, "run", case.recipe, "--run", run], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert not [path for path in stored if asked[path] != before[path]], "stored URLs are not asked again"
    twice = sum(asked.values()) - URLS
    print(f"{victim} at {when} requests: {len(stored)} rows stored, {twice} URLs asked for twice")
    # A worker has up to two parts under way: one is stored while the next one is fetched. Of two workers that die with
    # their driver, no more has been seen either.
    assert twice <= 2 * PART
    opened = open_run(str(run))
    rows = opened.manifest().with_columns(error=pl.col("drop_reason")).select(FACTS).sort("url").collect()
    assert_frame_equal(rows, expected(case.web))
    assert stored_bytes(opened) == {url: image_of(url.rpartition("/")[2]) for url in rows["url"] if "/slow/" in url}
    assert images_in_tars(run) == case.images, "no image is stored twice, and tars of killed workers are gone"
    assert not [name for name in os.listdir(run / "images") if not name.endswith(".tar")]


def expected(web: WebServer) -> pl.DataFrame:
    """The facts of an uninterrupted run."""
    rows = []
    for number in range(URLS):
        name, image = str(number), image_of(str(number))
        size = (len(image), hashlib.sha256(image).hexdigest(), 30, 40 + len(name))
        if number % 10:
            rows.append((web.url(f"slow/{name}"), "kept", *size, 200, None))
        else:
            rows.append((web.url(f"404/{name}"), "error", None, None, None, None, 404, "HTTP 404: Not Found"))
    types = [pl.String, pl.String, pl.Int64, pl.String, pl.Int32, pl.Int32, pl.Int16, pl.String]
    schema = dict(zip(FACTS, types, strict=True))
    return pl.DataFrame(rows, schema=schema, orient="row").sort("url")


def stored_urls(run: Path) -> list[str]:
    """Paths of URLs with a row in the stage's table."""
    opened = open_run(str(run))
    table: Table = opened.stages[0].table
    if not table.parts():
        return []
    rows = table.scan(["id"]).join(opened.index.scan(["id", "url"]), on="id").collect()
    return [url.split("/", 3)[3] for url in rows["url"]]


def kill_img2dataset(mark: str) -> int | None:
    for pid, command in processes(mark):
        if "fetching.child" in command:
            os.kill(pid, signal.SIGKILL)
            return pid
    return None


@pytest.mark.thorough
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_download_of_silent_servers(case: Case, tmp_path: Path, sent: signal.Signals) -> None:
    recipe = yaml.safe_load(case.recipe.read_text())
    recipe["pool"] = write_list(tmp_path / "list.csv", [(case.web.url(f"hang/{n}"), "", "", "") for n in range(300)])
    recipe["stages"][0]["timeout"] = 600
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    case.web.asked.clear()
    command = [*PYTHON, "run", tmp_path / "recipe.yaml", "--run", tmp_path / "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as driver:
        while not case.web.asked and driver.poll() is None:
            time.sleep(0.05)
        driver.send_signal(sent)
        try:
            driver.communicate(timeout=20)  # the server is silent for 30 s
        finally:
            driver.kill()
    assert driver.returncode == 128 + sent
