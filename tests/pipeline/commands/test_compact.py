"""`vl3syn compact`: a run in fewer files says the same, goes on as before, and its replaced files are deleted later."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests import open_run
from manifests.storage import Folder
from pipeline.execution.failed import mark
from tests.runs import run

MakeImages = Callable[..., Path]
Call = Callable[..., subprocess.CompletedProcess[str]]
STAGES = [{"stage": "aspect_ratio", "keep": {"max": 2.1}}, {"stage": "hashes"}]


def grown(url: Path | str, pool: Path, make_images: MakeImages, jobs: range) -> dict[str, int]:
    """Add five images to the pool per job; the rows that the last job has computed."""
    computed: dict[str, int] = {}
    for number in jobs:
        make_images(pool, 5, start=5 * number)
        (pool / f"broken{number}.jpg").write_text("no image")
        _, done = run({"name": "t", "pool": {"images": str(pool)}, "stages": STAGES}, url)
        computed = {name: job.computed for name, job in done.items()}
    return computed


def said(vl3syn: Call, url: Path | str, every: int = 8) -> list[Any]:
    """What the commands say of a run: its counts, its rows and, of one image in `every`, everything."""
    rows = open_run(url).manifest().collect()
    keys = rows["id"][::every].to_list()
    asked = [("funnel", url), *(("explain", url, key) for key in keys)]
    return [*(json.loads(vl3syn(*command, "--json").stdout) for command in asked), *rows.to_dicts()]


def tables(url: Path | str) -> dict[str, int]:
    """The number of files in the run's tables."""
    folders = [Folder.at(url).join("index"), *(Folder.at(url).join("stages").join(n) for n in names(url))]
    return {folder.path.rpartition("/")[2]: len(folder.files()) for folder in folders}


def names(url: Path | str) -> list[str]:
    return Folder.at(url).join("stages").folders()


@pytest.mark.usefixtures("here")
def test_compacted_run_says_the_same_and_goes_on(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    url, pool = tmp_path / "run", tmp_path / "pool"
    grown(url, pool, make_images, range(2))
    assert mark(open_run(url), "index", "key like 'broken1%'").marked == 1
    grown(url, pool, make_images, range(2, 3))
    before, files = said(vl3syn, url), tables(url)
    assert min(files.values()) >= 3

    done = vl3syn("compact", url, "--json")
    assert done.returncode == 0, done.stderr
    printed = {table.pop("table"): table for table in json.loads(done.stdout)}
    assert {name: table["files_before"] for name, table in printed.items()} == files
    assert {table["files_after"] for table in printed.values()} == {1}
    assert {name: table["waiting"] for name, table in printed.items()} == files
    assert said(vl3syn, url) == before
    assert grown(url, pool, make_images, range(3, 4)) == {"index": 6, "aspect_ratio": 5, "hashes": 5}

    rows = open_run(url).manifest().collect().height
    assert tables(url) == {name: count + 2 for name, count in files.items()}
    for file in url.rglob("part-*"):
        os.utime(file, (time.time() - 4000,) * 2)
    grown(url, pool, make_images, range(4, 5))  # a job deletes what was replaced
    assert set(tables(url).values()) == {3}
    assert open_run(url).manifest().collect().height == rows + 6
    table = vl3syn("compact", url)
    assert "files before" in table.stdout
    assert f"{3 * len(files)} replaced files stay for an hour" in table.stderr


@pytest.mark.thorough
@pytest.mark.usefixtures("here")
def test_run_in_an_object_store_is_compacted(
    bucket: str, tmp_path: Path, make_images: MakeImages, vl3syn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pool = f"{bucket}/compacted-run", tmp_path / "pool"
    grown(url, pool, make_images, range(2))
    before, files = said(vl3syn, url, every=99), tables(url)
    assert min(files.values()) == 2
    assert vl3syn("compact", url).returncode == 0
    monkeypatch.setattr("manifests.compaction.LIFETIME_S", -1.0)
    done = vl3syn("compact", url, "--json")
    assert {table["deleted"] for table in json.loads(done.stdout)} == {2}
    assert set(tables(url).values()) == {1}
    assert said(vl3syn, url, every=99) == before
    assert grown(url, pool, make_images, range(2, 3)) == {"index": 6, "aspect_ratio": 5, "hashes": 5}


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, vl3syn: Call) -> None:
    done = vl3syn("compact", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a run" in done.stderr
    assert done.stderr.count("\n") == 1
