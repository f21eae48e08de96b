"""The record of jobs: what the runner computes is written down, and added up by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.execution.job_log import StageSpeed, record, speeds
from pipeline.execution.job_result import JobResult
from tests.conftest import MakeImages
from tests.runs import run
from tests.stored_facts import store_run


def test_jobs_of_a_step_are_added_up(tmp_path: Path, make_images: MakeImages) -> None:
    opened = store_run(tmp_path / "run", {"pool": {"images": str(make_images(tmp_path / "pool", 2))}, "stages": []}, {})
    assert speeds(opened, print) == []
    for idle, working in ((0.5, 1.0), (0.1, 3.0)):
        record(opened, JobResult("clip", computed=10, errors=1, stored=0, seconds=5.0, working=working, idle=idle))
    record(opened, JobResult("index", computed=7, errors=0, stored=0, seconds=1.0, working=0.0))
    record(opened, JobResult.nothing_computed("quality", stored=7, seconds=1.0))
    clip, index = speeds(opened, print)
    assert clip == StageSpeed("clip", jobs=2, rows=20, errors=2, seconds=10.0, working=4.0, idle=pytest.approx(0.2))
    assert clip.rate == 5.0
    assert (index.rows, index.idle, index.rate) == (7, None, 7000.0)


@pytest.mark.usefixtures("here")
def test_run_records_its_jobs_once(tmp_path: Path, make_images: MakeImages) -> None:
    recipe = {
        "pool": {"images": str(make_images(tmp_path / "pool", 3))},
        "stages": [{"stage": "aspect_ratio"}],
    }
    run(recipe, tmp_path / "run")
    opened, _ = run(recipe, tmp_path / "run")
    assert [(speed.stage, speed.jobs, speed.rows) for speed in speeds(opened, print)] == [
        ("index", 1, 3),
        ("aspect_ratio", 1, 3),
    ]
