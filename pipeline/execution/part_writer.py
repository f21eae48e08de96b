"""The end of every job: a worker stores each part as soon as it is computed, and hands on only a receipt.

Storing in an operator of its own (a Ray Data sink) would let the workers run far ahead of what is stored: tens of
parts, in our trials, that a crash throws away. Here a crash costs a worker the one part it is at. See
docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from manifests.tables import Table
from pipeline.execution.receipts import receipt


@dataclass(frozen=True)
class Store:
    """Where a job's parts go.

    A task that Ray runs a second time stores the same ids, hence the same part name, hence no row twice.

    Attributes:
        table: The table.
        writer: The job, from `Table.next_writer`.
        provenance: Of its rows.
    """

    table: Table
    writer: str
    provenance: Mapping[str, object]

    def knowing(self, more: Mapping[str, object]) -> Self:
        """The same store with more provenance, known only where the work is done."""
        return replace(self, provenance={**self.provenance, **more})

    def __call__(self, part: pa.Table, begin: float | None = None, busy: float | None = None) -> pa.Table:
        """Store the rows of one part; its receipt, for which `begin` and `busy` are."""
        self.table.append(part, self.writer, self.provenance)
        return receipt(part.num_rows, part.num_rows - part["error"].null_count, begin, busy)
