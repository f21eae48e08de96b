"""Rescue blocks that kill their worker: divide them into ever smaller blocks, and store as errors what is left.

A worker may have stored its block before it died. Such a block is not computed again: its rows would be there twice.

A block of a stage is divided down to single rows, or to whole groups if the stage compares rows. A block of the index
job is divided down to single shards. What cannot be divided becomes errors, and the run continues (docs/decisions.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from manifests.journal import recover
from manifests.part_files import writer_of
from pipeline.execution.content_check import with_seen_lengths
from pipeline.execution.grouping import Groups, sort_by_block
from pipeline.execution.part_writer import Store
from pipeline.execution.reasons import count_reasons
from pipeline.execution.receipts import receipt, with_taken
from pipeline.execution.selection import Selection
from pipeline.execution.stage_task import StageTask, failed_rows
from pipeline.pools import Pool
from pipeline.pools.images import Failure
from pipeline.stages.registry import outdated

_PIECES = 16  # per block; with more there are more small parts, with fewer more workers start and die


@dataclass(frozen=True)
class RowRescue:
    """Rescue for the rows of a stage.

    Attributes:
        task: The description of the stage's job.
        groups_of: Returns the group of each of some ids (column `id`, sorted), for a stage that compares rows: a group
            is not divided.
    """

    task: StageTask
    groups_of: Callable[[pl.DataFrame], Groups] | None = None

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Store the rows that the journals hold; return the blocks that are not stored, and the receipts."""
        store, stage = self.task.store, self.task.stage
        parts = set(store.table.parts())
        stored_as = [store.name_of(block["id"]) for block in lost]
        whole = [done for _, done in store.receipts_of(parts.intersection(stored_as))]
        lost = [block for block, part in zip(lost, stored_as, strict=True) if part not in parts]
        if not lost:
            return [], whole
        if self.task.contents:  # the dead workers may have read images since the job was planned
            if stage.journaled:
                recover(self.task.contents.table)
            lost = with_seen_lengths(lost, self.task.contents)
        if not stage.journaled:
            return lost, whole
        recover(store.table, stage.outdated, retried=False)
        ids = pl.LazyFrame({"id": pl.concat([_ids(block) for block in lost])})
        final = store.table.scan(["id", "error", "retry"]).filter(~pl.col("retry"))
        wrong = outdated(stage, store.table).lazy()  # they are in the job although they are stored
        stored = final.join(ids, on="id", how="semi").join(wrong, on="id", how="anti").collect()
        left = [block.filter(pa.array(~_ids(block).is_in(stored["id"].implode()))) for block in lost]
        errors = stored["error"].drop_nulls().to_list()
        receipts = [receipt(stored.height, len(errors), reasons=count_reasons(errors))] if stored.height else []
        return [block for block in left if block.num_rows], [*whole, *receipts]

    def divide(self, block: pa.Table) -> list[pa.Table]:
        if self.groups_of is None:
            return _pieces(block)
        ids = pl.DataFrame({"id": _ids(block).sort()})
        order = Selection.all_of(ids).positions(block["id"])[1].astype(np.uint32)
        in_pieces, ends = sort_by_block(order, _piece_size(block.num_rows), self.groups_of(ids))
        rows = np.argsort(order)[in_pieces]
        return [block.take(rows[start:end]) for start, end in pairwise([0, *ends])]

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        store = self.task.store
        # The driver has no loaded stage. What only a loaded stage knows, such as the weights, comes from stored parts.
        store = replace(store, provenance={**store.table.provenance(), **store.provenance})
        return store(failed_rows(self.task.stage, block["id"], [failure] * block.num_rows))


@dataclass(frozen=True)
class ShardRescue:
    """Rescue for the shards of the index. A shard that kills its worker gets a single row, with the error."""

    pool: Pool
    store: Store

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Return the blocks that are not stored, and the receipts of those that are."""
        table, writer = self.store.table, self.store.writer
        parts = [part for part in table.parts() if writer_of(part) == writer]
        blocks = {path: number for number, block in enumerate(lost) for path in block["path"].to_pylist()}
        stored: dict[int, str] = {}
        for part, rows in table.read_each(parts, ["shard"]):  # a part holds the rows of one block
            stored |= {blocks[path]: part for path in rows["shard"].unique().to_pylist() if path in blocks}
        left = [block for number, block in enumerate(lost) if number not in stored]
        taken = {part: lost[number].num_rows for number, part in stored.items()}
        return left, [with_taken(done, taken[part]) for part, done in self.store.receipts_of(taken)]

    def divide(self, block: pa.Table) -> list[pa.Table]:
        return _pieces(block)

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        return self.store(self.pool.error_rows(block, failure.error, failure.retry))


def _pieces(block: pa.Table) -> list[pa.Table]:
    size = _piece_size(block.num_rows)
    return [block.slice(start, size) for start in range(0, block.num_rows, size)]


def _piece_size(rows: int) -> int:
    return max(1, math.ceil(rows / _PIECES))


def _ids(block: pa.Table) -> pl.Series:
    return pl.Series("id", block["id"].to_numpy())
