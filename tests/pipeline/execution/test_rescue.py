"""Blocks whose worker died after it had stored them are not computed again: their rows would be there twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from filters.aspect_ratio import AspectRatio
from manifests.run import index_table
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.index import read_chunk
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.rescue import RowRescue, ShardRescue
from pipeline.execution.stage_task import StageTask
from pipeline.pools.registry import parse_pool


def test_salvage_when_the_part_is_stored_returns_its_receipt(tmp_path: Path) -> None:
    stage = AspectRatio()
    table = Table(Folder.at(tmp_path), table_schema(stage.writes))
    store = Store(table, table.next_writer(), {})
    rescue = RowRescue(StageTask(stage=stage, name=stage.name, inputs=Inputs([]), batch_size=64, store=store))
    stored, lost = pa.table({"id": [7, 3, 5]}), pa.table({"id": [9, 8]})
    facts = {field.name: pa.nulls(3, field.type) for field in table.schema}
    store(pa.table({**facts, "id": stored["id"], "error": ["a", None, None], "retry": [False] * 3}))

    left, receipts = rescue.salvage([stored, lost])
    assert [block["id"].to_pylist() for block in left] == [[9, 8]]
    assert [(done["rows"][0].as_py(), done["errors"][0].as_py()) for done in receipts] == [(3, 1)]


def test_salvage_when_the_chunk_is_indexed_returns_its_receipt(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    pool = parse_pool({"images": str(make_images(tmp_path / "pool", 10))})
    listing = pool.listing(leave_out=Folder.at(str(tmp_path / "run")))
    table = index_table(Folder.at(str(tmp_path / "run")))
    store = Store(table, table.next_writer(), {})
    stored, lost = listing.shards.slice(0, 6), listing.shards.slice(6)
    read_chunk(stored, pool, listing.root, store)

    left, receipts = ShardRescue(pool, store).salvage([stored, lost])
    assert [block["path"].to_pylist() for block in left] == [lost["path"].to_pylist()]
    assert [done["rows"][0].as_py() for done in receipts] == [6]
