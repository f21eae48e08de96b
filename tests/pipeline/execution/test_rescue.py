"""Blocks whose worker died after it had stored them are not computed again: their rows would be there twice."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow as pa

from core.stages import Stage
from filters.aspect_ratio import AspectRatio
from manifests.contents import LENGTH, content_rows, contents_table
from manifests.journal import Journal
from manifests.run import index_table
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.index import read_chunk
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.rescue import RowRescue, ShardRescue
from pipeline.execution.stage_task import StageTask
from pipeline.execution.tally import Tally
from pipeline.pools.registry import parse_pool


class Rewritten(Stage):
    """A stage with a journal; an earlier version wrote captions that this one computes again."""

    name: ClassVar = "rewritten"
    journaled: ClassVar = True
    writes: ClassVar = pa.schema([column("caption", pa.string(), "of the image")])

    def outdated(self, stored: pl.LazyFrame) -> pl.Series:
        return stored.filter(pl.col("caption").str.starts_with("<think>")).select("id").collect()["id"]


def task_of(stage: Stage, store: Store, contents: Store | None = None) -> StageTask:
    return StageTask(stage=stage, name=stage.name, inputs=Inputs(), batch_size=64, store=store, contents=contents)


def captions(texts: dict[int, str | None]) -> pa.Table:
    """Rows of captions; None: the server was down."""
    errors = [None if text else "server: 503" for text in texts.values()]
    columns = {"id": list(texts), "caption": list(texts.values()), "error": pa.array(errors, pa.string())}
    return pa.table({**columns, "retry": [text is None for text in texts.values()]})


def test_salvage_leaves_rows_of_an_earlier_version(tmp_path: Path) -> None:
    stage = Rewritten()
    table = Table(Folder.at(tmp_path), table_schema(stage.writes))

    Store(table, table.next_writer(), {})(captions({1: "<think>a dog</think>", 2: "<think>a cat</think>"}))
    rescue = RowRescue(task_of(stage, Store(table, table.next_writer(), {})))
    lost = pa.table({"id": [1, 2, 3]})
    Journal(table, lost["id"], {}).append(captions({2: "a cat"}))  # by the worker that died
    left, receipts = rescue.salvage([lost])
    assert [block["id"].to_pylist() for block in left] == [[1, 3]]
    assert [done["rows"].to_pylist() for done in receipts] == [[1]]


def test_error_of_a_dead_worker_does_not_hide_the_next_answer(tmp_path: Path) -> None:
    stage = Rewritten()
    table = Table(Folder.at(tmp_path), table_schema(stage.writes))
    store = Store(table, table.next_writer(), {})
    store(captions({9: "a bird"}))  # another part of this job
    lost = pa.table({"id": [1, 2]})
    Journal(table, lost["id"], {}).append(captions({1: "a dog", 2: None}))  # by the worker that died
    (left,), _ = RowRescue(task_of(stage, store)).salvage([lost])
    assert left["id"].to_pylist() == [2]
    store(captions({2: "a cat"}))
    rows = table.scan(["id", "caption", "error"]).sort("id").collect().rows()
    assert rows == [(1, "a dog", None), (2, "a cat", None), (9, "a bird", None)]


def test_lengths_of_a_lost_block_are_not_those_of_earlier_jobs(tmp_path: Path) -> None:
    """An earlier job read other bytes under the same ids: those of another download."""
    stage, contents = AspectRatio(), contents_table(Folder.at(tmp_path))
    table = Table(Folder.at(tmp_path / "facts"), table_schema(stage.writes))
    contents.append(content_rows([1, 2], [(10, b"a"), (11, b"b")]), contents.next_writer(), {})
    store = Store(contents, contents.next_writer(), {})
    rescue = RowRescue(task_of(stage, Store(table, table.next_writer(), {}), store))
    contents.append(content_rows([2, 4], [(20, b"c"), None]), store.writer, {})
    lost = [pa.table({"id": [4, 2, 1], LENGTH: pa.nulls(3, pa.int64())}), pa.table({"id": [3], LENGTH: [5]})]
    left, _ = rescue.salvage(lost)
    assert [block[LENGTH].to_pylist() for block in left] == [[None, 20, None], [5]]
    assert [block["id"].to_pylist() for block in left] == [[4, 2, 1], [3]]


def test_salvaged_files_of_the_index_are_taken_not_rows(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    images = make_images(tmp_path / "images", 5)
    (tmp_path / "pool").mkdir()
    with tarfile.open(tmp_path / "pool" / "a.tar", "w") as tar:
        tar.add(images, arcname=".")
    pool = parse_pool({"tars": str(tmp_path / "pool" / "*.tar")})
    listing = pool.listing(leave_out=Folder.at(str(tmp_path / "run")))
    table = index_table(Folder.at(str(tmp_path / "run")))
    store = Store(table, table.next_writer(), {})
    read_chunk(listing.shards, pool, listing.root, store)
    _, (receipt,) = ShardRescue(pool, store).salvage([listing.shards])
    tally = Tally.of(receipt)
    assert (tally.rows, tally.taken) == (5, 1)


def test_salvage_when_the_part_is_stored_returns_its_receipt(tmp_path: Path) -> None:
    stage = AspectRatio()
    table = Table(Folder.at(tmp_path), table_schema(stage.writes))
    store = Store(table, table.next_writer(), {})
    rescue = RowRescue(task_of(stage, store))
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
