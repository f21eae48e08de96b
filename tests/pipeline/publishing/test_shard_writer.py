"""Shards have every column that a stage may define."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow as pa
import pytest

from core.stages import Stage
from manifests.schemas import column
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.runs import run


class Numbers(Stage):
    """A stage whose columns are called as columns of the publication itself once were."""

    name: ClassVar = "numbers"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema(
        [column(name, pa.int32(), "the width", 0) for name in ("number", "position_in_shard", "part_0")]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table([batch["width"]] * 3, names=["number", "position_in_shard", "part_0"])


@pytest.mark.usefixtures("engine")
def test_columns_of_a_stage_with_internal_names_are_published(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    pool = make_images(tmp_path / "pool", 6)
    with chat_server() as server:
        caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        stages = [{"stage": f"{__name__}:Numbers"}, caption]
        opened, _ = run({"pool": {"images": str(pool)}, "stages": stages}, tmp_path / "run")
    out = tmp_path / "out"
    publish(opened, recipe_of(opened), Publish(rows_per_shard=4), Folder.at(str(out)), str(out))
    rows = pl.read_parquet(f"{out}/data/*.parquet")
    assert rows.height == 6
    for name in ("number", "position_in_shard", "part_0"):
        assert rows[name].to_list() == rows["width"].to_list()
