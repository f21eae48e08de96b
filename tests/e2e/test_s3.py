"""A run and its pool on S3 give the manifest that local folders give."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import boto3
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import funnel, open_run
from manifests.sweep import sweep
from pipeline.execution.index import open_pool
from pipeline.execution.index_job import build_index
from pipeline.execution.runner import prepare, run_stages
from pipeline.recipe import parse_recipe
from tests.runs import jobs_here

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def pools(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    """One folder each of images, tars and Parquet, with something broken in each."""
    images = make_images(tmp_path / "images", 40)
    (images / "empty.jpg").touch()
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as archive:
        for file in sorted(images.glob("*.jpg")):
            archive.add(file, file.name)
    data = (tmp_path / "tars" / "0.tar").read_bytes()
    (tmp_path / "tars" / "1.tar").write_bytes(data[: len(data) // 2])
    (tmp_path / "parquet").mkdir()
    cells = [f.read_bytes() for f in sorted(images.glob("*.jpg"))]
    pq.write_table(pa.table({"image": [*cells, None], "url": ["http://x/"] * 42}), tmp_path / "parquet" / "0.parquet")
    return tmp_path


def upload(folder: Path, bucket: str, prefix: str) -> None:
    client = boto3.client("s3")
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder)}"
            client.upload_fileobj(io.BytesIO(file.read_bytes()), bucket.removeprefix("s3://"), key)


def manifest(pool: dict[str, str], run: str) -> pl.DataFrame:
    recipe = parse_recipe({"pool": pool, "stages": [{"stage": "aspect_ratio", "keep": {"max": 1.5}}]}, "t")
    listing = open_pool(recipe.pool, run)
    opened = prepare(recipe, run)
    first = [build_index(opened, recipe.pool, listing, lambda text: None), *run_stages(opened, recipe)]
    again = [build_index(opened, recipe.pool, listing, lambda text: None), *run_stages(opened, recipe)]
    assert all(job.computed for job in first)
    assert not any(job.computed for job in again)
    return open_run(run).manifest().sort("id").collect()


@pytest.mark.parametrize(("kind", "pattern"), [("images", ""), ("tars", "/*.tar"), ("parquet", "/*.parquet")])
def test_run_on_s3_equals_a_local_one(kind: str, pattern: str, pools: Path, bucket: str, tmp_path: Path) -> None:
    upload(pools / kind, bucket, f"pool/{kind}")
    with jobs_here():
        local = manifest({kind: f"{pools}/{kind}{pattern}"}, str(tmp_path / "run"))
    with nullcontext() if kind == "images" else jobs_here():  # of one kind, in Ray's workers
        remote = manifest({kind: f"{bucket}/pool/{kind}{pattern}"}, f"{bucket}/run/{kind}")
    assert remote.equals(local)
    assert local["status"].n_unique() == 3
    opened = open_run(f"{bucket}/run/{kind}")
    counted = funnel(opened)
    assert counted.survivors == sweep(opened, {"aspect_ratio.max": [1.5]})["kept"][0]


def test_missing_bucket_is_one_clear_error(bucket: str) -> None:
    with pytest.raises(ValueError, match="is not a run"):
        open_run("s3://no-such-bucket/run")
