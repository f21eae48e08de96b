"""The job that writes shards: few images in local workers, which start sooner than Ray's, others in Ray's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import polars as pl
import pyarrow as pa

from core.cluster import is_without_ray
from core.cpus import count_cpus
from pipeline.execution.blocks import Blocks
from pipeline.execution.inputs import Inputs
from pipeline.execution.job_result import JobStats, LocalResult
from pipeline.execution.local_workers import ROWS, LocalWorkers, is_importable, ready
from pipeline.execution.progress import Progress
from pipeline.execution.ray_job import run_job

if TYPE_CHECKING:
    from ray.data import Dataset

NUMBER, POSITION = "shard:number", "shard:position"
"""Columns of a block: the shard of a row, and its position there. A stage may have a column `number` of its own."""

_MOST_BLOCKS = 256  # tasks of a publication: 100 million images in shards of 5,000 are 79 shards, 395,000 rows, each


class BlockWriter(Protocol):
    """Writes the shards of a block."""

    @property
    def inputs(self) -> Inputs: ...

    def write(self, block: pa.Table) -> pa.Table:
        """Write the missing shards of a block; return a receipt."""
        ...

    def job(self, dataset: Dataset, alone: bool = False) -> Dataset:
        """Return the Ray Data job that writes the shards of blocks."""
        ...


@dataclass(frozen=True)
class ShardBlocks(Blocks):
    """The blocks of a publication: up to 16 whole shards, so that the stage tables are not read again for each shard.

    In large publications more: each task reads all tables (see `plan_shuffled`), so the number of tasks is bounded.

    Attributes:
        rows: The planned rows, with the number of their shard and their position in it.
        shards: The numbers of the shards, sorted.
    """

    rows: pl.DataFrame
    shards: pl.Series

    @classmethod
    def of(cls, rows: pl.DataFrame, missing: pl.DataFrame) -> Self:
        """Return the blocks of planned rows.

        Args:
            rows: The rows.
            missing: Columns `id`, `number` (of the shard) and `position_in_shard`.
        """
        places = missing.rename({"number": NUMBER, "position_in_shard": POSITION})
        positioned = rows.join(places, on="id", how="inner", maintain_order="left")
        return cls(positioned, missing["number"].unique().sort())

    @property
    def _per_block(self) -> int:
        shards = len(self.shards)
        return max(min(16, math.ceil(shards / 64)), math.ceil(shards / _MOST_BLOCKS))

    def __len__(self) -> int:
        return math.ceil(len(self.shards) / max(self._per_block, 1))

    def cut(self, number: int) -> pa.Table:
        shards = self.shards.slice(number * self._per_block, self._per_block)
        block = self.rows.filter(pl.col(NUMBER).is_in(shards.implode()))
        return block.to_arrow(compat_level=pl.CompatLevel.oldest())


def write_blocks(blocks: Sequence[pa.Table], writer: BlockWriter, rows: int) -> JobStats:
    """Write the shards of blocks with so many rows together.

    A block that ended its local worker is given to Ray: of its shards those are written that are not there.

    Raises:
        UserError: See `run_job`, or an image cannot be read now.
    """
    done = LocalResult(untried=blocks)
    with Progress("publish", rows) as progress:
        if rows <= ROWS and is_importable(type(writer.inputs.pool)) and is_without_ray():
            with LocalWorkers() as local:
                done = local.run(blocks, ready(writer.write), count_cpus(), progress)
            done = replace(done, untried=[*done.untried, *done.lost], lost=[])
        return run_job(done.untried, writer.job, before=done, observe=progress)
