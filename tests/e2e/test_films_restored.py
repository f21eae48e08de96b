"""Films whose file is copied over while a run reads it: they are errors until the file is whole again."""

from __future__ import annotations

import tarfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import open_run
from pipeline.execution.runner import prepare, run_stages
from pipeline.recipe import parse_recipe
from tests.film_files import film
from tests.runs import jobs_here, run_here

pytestmark = pytest.mark.usefixtures("here")


def write_pool(pool: Path, kind: str) -> Path:
    """A pool of one file with two films; return the file."""
    first, second = (film(pool.parent / f"{number}.mp4") for number in range(2))
    pool.mkdir()
    if kind == "file":
        second.rename(pool / "1.mp4")
        return first.rename(pool / "0.mp4")
    path = pool / f"a.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for each in (second, first):
                archive.add(each, each.name)
        return path
    cells = [{"bytes": each.read_bytes(), "path": each.name} for each in (second, first)]
    pq.write_table(pa.table({"video": cells}), path, compression="none", use_dictionary=False)
    return path


@pytest.mark.parametrize(
    ("kind", "error"), [("file", "changed: has "), ("tar", "cut off: "), ("parquet", "broken Parquet: ")]
)
def test_film_that_is_copied_over_is_retried(tmp_path: Path, kind: str, error: str) -> None:
    path, url = write_pool(tmp_path / "pool", kind), tmp_path / "run"
    recipe = {"name": "t", "pool": {"videos": str(tmp_path / "pool")}, "stages": [{"stage": "scenes"}]}
    run_here({**recipe, "stages": []}, url)
    whole = path.read_bytes()
    path.write_bytes(whole.rstrip(b"\0")[:-100])  # a tar ends in zeros
    checked = parse_recipe(recipe, "test")
    with jobs_here():
        (job,) = run_stages(prepare(checked, str(url)), checked)
    bad = open_run(str(url)).facts("scenes").filter(pl.col("error").is_not_null()).collect()
    assert job.computed == 2
    assert bad["error"].str.starts_with(error).all()
    assert bad["retry"].to_list() == [True] * (2 if kind == "parquet" else 1)
    path.write_bytes(whole)
    opened, jobs = run_here(recipe, url)
    assert (jobs["scenes"].computed, jobs["scenes"].errors) == (bad.height, 0)
    assert opened.facts("scenes").select(pl.col("error").is_null().all()).collect().item()
