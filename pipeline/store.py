"""The end of every job: a worker stores each part as soon as it is computed, and hands on only a receipt.

Storing in an operator of its own (a Ray Data sink) would let the workers run far ahead of what is stored: tens of
parts, in our trials, that a crash throws away. Here a crash costs a worker the one part it is at. See
docs/decisions.md.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from manifests.tables import Table

_WORKER = uuid.uuid4().hex


@dataclass(frozen=True)
class Store:
    """Where a job's parts go.

    A task that Ray runs a second time stores the same ids, hence the same part name, hence no row twice.

    Attributes:
        table: The table.
        writer: The job, from `Table.next_writer`.
        made_by: The provenance of its rows.
    """

    table: Table
    writer: str
    made_by: Mapping[str, object]

    def knowing(self, more: Mapping[str, object]) -> Self:
        """The same store with more provenance, known only where the work is done."""
        return replace(self, made_by={**self.made_by, **more})

    def __call__(self, part: pa.Table, begin: float | None = None, busy: float | None = None) -> pa.Table:
        """Store one part.

        Args:
            part: Its rows.
            begin: When the work on it began, by the worker's clock, seconds.
            busy: Seconds in which the model ran, where that is told apart from waiting for images.

        Returns:
            The receipt, one row: `rows`, `errors`, the `worker`, `begin` and `end` by its clock, and `busy`.
        """
        self.table.append(part, self.writer, self.made_by)
        return receipt(part.num_rows, part.num_rows - part["error"].null_count, begin, busy)


def receipt(rows: int, errors: int, begin: float | None = None, busy: float | None = None) -> pa.Table:
    """What a task hands on: one row, with the columns that `Store.__call__` names."""
    end = time.time()
    told = {
        "rows": [rows],
        "errors": [errors],
        "worker": [_WORKER],
        "begin": [end if begin is None else begin],
        "end": [end],
        "busy": pa.array([busy], pa.float64()),
    }
    return pa.table(told)
