"""A planned job: its rows in order, some bytes for each, and the blocks that are cut from it one by one.

A run of a billion rows has a plan of ten gigabytes, so the blocks are not kept: each is cut when a worker takes it,
and again if its worker died.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from manifests.table_walk import walk
from manifests.tables import Table
from pipeline.execution.blocks import Blocks
from pipeline.execution.inputs import NO_PART
from pipeline.execution.seen import SeenLengths
from pipeline.execution.selection import Selection

Positions = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Numbers:
    """A column of numbers: the value of each position, and whether it is missing; None: no value is."""

    values: npt.NDArray[np.generic]
    missing: npt.NDArray[np.bool_] | None
    type: pa.DataType

    def take(self, positions: Positions) -> pa.Array:
        mask = None if self.missing is None else self.missing[positions]
        return pa.array(self.values[positions], self.type, mask=mask)


@dataclass(frozen=True)
class PartNumbers:
    """The number of the part that holds the row of each position; the largest number of the type if none does."""

    values: npt.NDArray[np.unsignedinteger]

    def take(self, positions: Positions) -> pa.Array:
        parts = self.values[positions]
        none = parts == np.iinfo(parts.dtype).max
        return pa.array(np.where(none, NO_PART, parts.astype(np.int32)), pa.int32())


def read_numbers(table: Table, names: Mapping[str, str], rows: Selection) -> dict[str, Numbers]:
    """Read columns of numbers from a table, by their names in the block."""
    types = {name: table.schema.field(stored).type for name, stored in names.items()}
    numbers = {name: np.zeros(len(rows.ids), type_.to_pandas_dtype()) for name, type_ in types.items()}
    missing = {name: np.ones(len(rows.ids), bool) for name in names}
    for _, part in walk(table, ["id", *names.values()])[1]:
        known, positions = rows.positions(part["id"])
        for name, stored in names.items():
            zero = numbers[name].dtype.type(0).item()  # integers with nulls would become floats
            values = part[stored] if pa.types.is_floating(types[name]) else part[stored].fill_null(zero)
            numbers[name][positions] = values.to_numpy()[known]
            missing[name][positions] = part[stored].is_null().to_numpy()[known]
    return {name: Numbers(numbers[name], of if of.any() else None, types[name]) for name, of in missing.items()}


def read_part_numbers(table: Table, rows: Selection) -> tuple[PartNumbers, list[str]]:
    """Read in which part of a table the rows are; return it with the names of the parts."""
    names, parts = walk(table, ["id"])
    dtype = np.min_scalar_type(len(names) + 1)
    numbers = np.full(len(rows.ids), np.iinfo(dtype).max, dtype)
    for number, part in parts:
        numbers[rows.positions(part["id"])[1]] = number
    return PartNumbers(numbers), names


def bytes_of(type_: pa.DataType) -> int:
    """Return the bytes of a number, and whether it is missing."""
    return int(np.dtype(type_.to_pandas_dtype()).itemsize) + 1


@dataclass(frozen=True)
class Plan:
    """The rows of a job in their order.

    Attributes:
        ids: The ids that are alive, sorted.
        order: The position in `ids` of each row of the job.
        columns: What the driver sends with the ids, for each position.
        seen: Finds the lengths of images that were read before, for a job that reads images.
    """

    ids: npt.NDArray[np.int64]
    order: Positions
    columns: Mapping[str, Numbers | PartNumbers] = field(default_factory=dict)
    seen: SeenLengths | None = None

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return the rows from `start` to `stop`: `id`, and the columns that the driver sends."""
        positions = self.order[start:stop]
        columns = {name: column.take(positions) for name, column in self.columns.items()}
        table = pa.table({"id": self.ids[positions], **columns})
        return self.seen.add_to(table) if self.seen else table

    def frame(self) -> pl.DataFrame:
        """Return all rows."""
        return pl.DataFrame(self.rows())


@dataclass(frozen=True)
class PlannedBlocks(Blocks):
    """The blocks of a planned job.

    Attributes:
        plan: The plan.
        ends: For each block, the number of rows up to its end.
    """

    plan: Plan
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.ends)

    def cut(self, number: int) -> pa.Table:
        return self.plan.rows(self.ends[number - 1] if number else 0, self.ends[number])
