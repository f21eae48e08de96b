"""The manifest of some columns and rows equals that part of the whole one, and reads nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from manifests import Run
from tests.stored_facts import store_run


@pytest.fixture
def run(tmp_path: Path, make_images: Callable[..., Path]) -> Run:
    pool = make_images(tmp_path / "pool", 8)
    (pool / "broken.jpg").write_bytes(b"no image")
    keys = [f"{n:06d}.jpg" for n in range(8)]
    ratios = {key: {"aspect_ratio": 1.0 + number, "side": 20, "pixels": 400} for number, key in enumerate(keys)}
    scores = {keys[0]: {"quality": 0.25}, keys[1]: "undecodable: x"}
    stages = [{"stage": "aspect_ratio", "keep": {"max": 4.5}}, {"stage": "quality", "keep": {"min": 0.5}}]
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": stages}
    return store_run(tmp_path / "run", recipe, {"aspect_ratio": ratios, "quality": scores})


def test_chosen_columns_and_rows_are_those_of_the_whole(run: Run) -> None:
    whole = run.manifest().collect()
    assert whole["status"].value_counts(sort=True).sort("status").rows() == [
        ("dropped", 5),
        ("error", 2),
        ("pending", 2),
    ]
    assert whole.schema == run.manifest_schema
    some = whole.sample(4, seed=1).select("id")
    for columns in (["key"], ["drop_reason"], ["status", "quality"], ["drop_stage", "width"], whole.columns):
        wanted = list(dict.fromkeys(["id", *columns]))
        assert run.manifest(columns).collect().equals(whole.select(wanted))
        part = run.manifest(columns, ids=some).collect()
        assert part.equals(whole.join(some, on="id", how="semi").sort("id").select(wanted))


def test_columns_that_are_not_wanted_are_not_read(run: Run) -> None:
    table = run.stages[1].table
    for name in table.parts():
        damage(Path(table.folder.path) / name, "quality")
    assert run.manifest(["aspect_ratio"]).collect().height == 9
    with pytest.raises(UserError, match="damaged"):
        run.manifest(["quality"])


def damage(part: Path, column: str) -> None:
    """Change a byte of a column's values."""
    group = pq.read_metadata(part).row_group(0)
    chunk = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == column)
    data = bytearray(part.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    part.write_bytes(data)


def test_unknown_column_is_refused_with_a_suggestion(run: Run) -> None:
    with pytest.raises(UserError, match="no column 'qualty'; did you mean 'quality'"):
        run.manifest(["qualty"])


def test_verdict_that_was_computed_before_is_used(run: Run) -> None:
    verdict = run.verdict()
    assert run.manifest(["status"], verdict=verdict).collect().equals(run.manifest(["status"]).collect())
    none_left = type(verdict)(verdict.alive, verdict.left.clear())
    assert run.manifest(["status"], verdict=none_left).collect()["status"].unique().to_list() == ["kept"]


def test_manifest_of_no_rows_has_its_columns(run: Run) -> None:
    empty = pl.DataFrame(schema={"id": pl.Int64})
    assert run.manifest(["status", "quality"], ids=empty).collect().schema == {
        "id": pl.Int64,
        "status": pl.String,
        "quality": pl.Float32,
    }
