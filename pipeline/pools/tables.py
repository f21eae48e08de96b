"""Pools of Parquet files, whose columns stages can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.storage import Folder
from pipeline.pools.globs import GlobPool
from pipeline.pools.table_columns import columns_at

TABLES = (".parquet", ".parquet.gz", ".pq", ".parq", ".arrow", ".feather")
"""Endings of files that may be meant as Parquet files."""


class TablePool(GlobPool):
    """A glob of Parquet files.

    Attributes:
        id: Name of the integer column that identifies the image in the whole pool.
        alt_text: The column with the alt text, if it has none of the usual names (`rows.NOTES`).
    """

    has_columns: ClassVar = True
    ending: ClassVar = ".parquet"
    like_shards: ClassVar[tuple[str, ...]] = TABLES

    id: str | None = None
    alt_text: str | None = None

    def id_column(self) -> str | None:
        return self.id

    def columns(self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
        return columns_at(root, shard, names, rows)
