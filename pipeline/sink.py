"""The end of every Ray Data job here: each block becomes one part of a table, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ray.data import Datasink
from ray.data.block import Block, BlockAccessor

from manifests.tables import Table


class TableSink(Datasink[tuple[int, int]]):  # type: ignore[misc]
    """Append blocks to a table.

    A write task that Ray runs a second time writes the same ids, hence the same part name, hence no row twice.

    Attributes:
        rows: Rows written, once the job has ended.
        errors: Those among them with an error.
    """

    def __init__(self, table: Table, provenance: Mapping[str, object]) -> None:
        self._table, self._provenance = table, provenance
        self._writer = table.next_writer()
        self.rows = self.errors = 0

    def write(self, blocks: Iterable[Block], ctx: Any) -> tuple[int, int]:
        rows = errors = 0
        for block in blocks:
            part = BlockAccessor.for_block(block).to_arrow()
            if part.num_rows:
                self._table.append(part, self._writer, self._provenance)
                rows += part.num_rows
                errors += part.num_rows - part["error"].null_count
        return rows, errors

    def on_write_complete(self, write_result: Any) -> None:
        self.rows = sum(rows for rows, _ in write_result.write_returns)
        self.errors = sum(errors for _, errors in write_result.write_returns)

    def get_name(self) -> str:
        return "Store"
