"""Rescue blocks that kill their worker: divide them until one row remains, then store that row as an error.

A block of a stage is divided into ever smaller blocks of rows, or of whole groups if the stage compares rows. A chunk
of the index is divided into shards. What cannot be divided becomes errors, and the run continues (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from manifests.journal import recover
from pipeline.execution.content_check import with_seen_lengths
from pipeline.execution.grouping import cut
from pipeline.execution.part_writer import Store
from pipeline.execution.receipts import receipt
from pipeline.execution.stage_task import StageTask, failed_rows
from pipeline.pools import Pool
from pipeline.pools.images import Failure

_PIECES = 16  # per block; more pieces store more small parts, fewer pieces start (and kill) more workers


@dataclass(frozen=True)
class RowRescue:
    """Rescue for the rows of a stage.

    Attributes:
        part: Computes the parts of the stage.
        groups: The group of each id, for a stage that compares rows: a group is not divided.
    """

    part: StageTask
    groups: pl.DataFrame | None = None

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Store the rows that the journals hold; return the rest of the blocks, and the receipts."""
        journaled = self.part.stage.journaled
        if self.part.contents:  # images that the dead workers read count as read
            contents = self.part.contents.table
            if journaled:
                recover(contents)
            lost = [with_seen_lengths(block, contents) for block in lost]
        if not journaled:
            return lost, []
        table = self.part.store.table
        recover(table)
        ids = pl.LazyFrame({"id": pl.concat([_ids(block) for block in lost])})
        stored = table.scan(["id", "error", "retry"]).filter(~pl.col("retry")).join(ids, on="id", how="semi").collect()
        left = [block.filter(pa.array(~_ids(block).is_in(stored["id"].implode()))) for block in lost]
        receipts = [receipt(stored.height, stored["error"].count())] if stored.height else []
        return [block for block in left if block.num_rows], receipts

    def divide(self, block: pa.Table) -> list[pa.Table]:
        if self.groups is None:
            return _pieces(block)
        frame = pl.DataFrame(block)
        parts = list(cut(frame, max(1, -(-frame.height // _PIECES)), self.groups.join(frame, on="id", how="semi")))
        return [part.to_arrow(compat_level=pl.CompatLevel.oldest()) for part in parts]

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        store = self.part.store
        known = replace(
            store, provenance={**store.table.provenance(), **store.provenance}
        )  # with the weights of the parts that are stored
        return known(failed_rows(self.part.stage, block["id"], [failure] * block.num_rows))


@dataclass(frozen=True)
class ShardRescue:
    """Rescue for the shards of the index. A shard that kills its reader gets a single row, about the shard."""

    pool: Pool
    store: Store

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        return lost, []

    def divide(self, block: pa.Table) -> list[pa.Table]:
        return _pieces(block)

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        return self.store(self.pool.unread(block, failure.error, failure.retry))


def _pieces(block: pa.Table) -> list[pa.Table]:
    size = -(-block.num_rows // _PIECES)
    return [block.slice(start, size) for start in range(0, block.num_rows, size)]


def _ids(block: pa.Table) -> pl.Series:
    return pl.Series("id", block["id"].to_numpy())
