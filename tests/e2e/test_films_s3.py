"""Films and both runs on S3: the clips are those of local folders."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from tests.e2e.test_films import film, recipe, run_both, spans

pytestmark = pytest.mark.usefixtures("engine")


def test_clips_of_films_on_s3_equal_local_ones(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "films").mkdir()
    for number, shots in enumerate([[20, 30, 8], [15, 25]]):
        path = film(tmp_path / "films" / f"{number}.mp4", shots)
        boto3.client("s3").upload_file(str(path), bucket.removeprefix("s3://"), f"films/{number}.mp4")
    _, local, _ = run_both(recipe(tmp_path / "films"), tmp_path / "run")
    there = recipe(tmp_path) | {"pool": {"videos": f"{bucket}/films"}}
    _, clips, jobs = run_both(there, f"{bucket}/run")
    columns = ["key", "status", "motion", "phash", "content_hash"]
    assert jobs["frames"].computed == 4
    assert spans(clips) == spans(local)
    assert clips.manifest(columns).collect().equals(local.manifest(columns).collect())
