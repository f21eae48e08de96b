"""Support for stages that compare the rows of a group: find changed groups, and cut blocks of whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.stages import GroupedStage
from manifests.part_files import writer_of
from manifests.table_walk import walk
from manifests.tables import Table
from manifests.verdict import StoredStage, stale_references
from pipeline.execution.plan import Plan, PlannedBlocks, Positions
from pipeline.execution.selection import Selection
from pipeline.recipe import Step

_ROWS = 1 << 18  # that are sorted by their block at a time


@dataclass(frozen=True)
class Groups:
    """The group of each row that is alive.

    Attributes:
        numbers: The number of the group of each position of a `Selection`. Groups are numbered by their value, null
            first. Rows that the table lacks have the last number, `count`.
        count: The number of groups.
    """

    numbers: npt.NDArray[np.unsignedinteger]
    count: int

    @classmethod
    def read(cls, table: Table, column: str, alive: Selection) -> Groups:
        """Read the groups from a column of a table."""
        numbers = np.full(len(alive.ids), -1, np.int32)
        of_value: dict[Any, int] = {}
        for _, part in walk(table, ["id", column])[1]:
            rows, positions = alive.positions(part["id"])
            encoded = part[column].take(pa.array(rows)).combine_chunks().dictionary_encode("encode")
            of_part = [of_value.setdefault(value, len(of_value)) for value in encoded.dictionary.to_pylist()]
            numbers[positions] = np.array(of_part, np.int32)[encoded.indices.to_numpy()]
        values = list(of_value)
        in_order = sorted(range(len(values)), key=lambda number: (values[number] is not None, values[number]))
        ranks = np.empty(len(values) + 1, np.min_scalar_type(len(values)))
        ranks[in_order] = np.arange(len(values))
        ranks[-1] = len(values)
        return cls(ranks[numbers], len(values))

    def members(self, of: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which rows are in one of these groups."""
        rows: npt.NDArray[np.bool_] = np.append(of, False)[self.numbers]
        return rows

    def groups_of(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which groups have some of these rows: positions, or whether each is one."""
        of = np.zeros(self.count + 1, bool)
        of[self.numbers[rows]] = True
        return of[:-1]


def group_column(step: Step) -> str | None:
    """Return the column whose values define the groups; None for a stage that computes each row by itself."""
    return step.stage.group_by if isinstance(step.stage, GroupedStage) else None


def changed_groups(new: Selection, stored: StoredStage, groups: Groups) -> Selection:
    """Return the rows of every group that must be compared again.

    A group has changed in three cases: it has a new row; a row is alive again that was not when the others were
    compared; or a rule drops a row because of another row (see `reference_column`) that is not alive any more. Any
    other row that is not alive any more changes no verdict: the remaining rows are not near-duplicates of it.

    Args:
        new: The rows that reach the stage; those that have no facts are selected.
        stored: The stage, with its rules.
        groups: The group of each row.
    """
    stale = stale_references(new.alive(), stored)
    changed = groups.groups_of(new.chosen) | partially_computed(new, stored.table, groups)
    changed |= groups.groups_of(new.positions(pa.chunked_array([stale["id"].to_arrow()]))[1])
    return replace(new, chosen=groups.members(changed))


def partially_computed(alive: Selection, table: Table, groups: Groups) -> npt.NDArray[np.bool_]:
    """Return which groups were computed by several jobs, so that not all their rows were compared."""
    names, parts = walk(table, ["id"])
    numbers = {writer: number for number, writer in enumerate(dict.fromkeys(map(writer_of, names)), start=1)}
    several, first = np.zeros(groups.count + 1, bool), np.zeros(groups.count + 1, np.int32)
    for part, rows in parts if len(numbers) > 1 else ():
        of_part, writer = np.unique(groups.numbers[alive.positions(rows["id"])[1]]), numbers[writer_of(names[part])]
        several[of_part] |= (first[of_part] != 0) & (first[of_part] != writer)
        first[of_part] = writer
    return several[:-1]


def cut(plan: Plan, size: int, groups: Groups | None = None) -> PlannedBlocks:
    """Cut a plan into blocks of `size` rows or, given the groups, into blocks of whole groups.

    A group is in the block in which its first row falls, so a block of groups can have fewer or more than `size` rows.
    """
    if groups is None:
        return PlannedBlocks(plan, [min(start + size, len(plan)) for start in range(0, len(plan), size)])
    order, ends = sort_by_block(plan.order, size, groups)
    return PlannedBlocks(replace(plan, order=order), ends)


def sort_by_block(order: Positions, size: int, groups: Groups) -> tuple[Positions, Sequence[int]]:
    """Sort positions by the block that their groups fall in; in a block they keep their order.

    Returns:
        The positions, and for each block their number up to its end.
    """
    sizes = np.zeros(groups.count + 1, np.int64)
    for start in range(0, len(order), _ROWS):
        sizes += np.bincount(groups.numbers[order[start : start + _ROWS]], minlength=len(sizes))
    block = (np.cumsum(sizes) - sizes) // size
    rows = np.bincount(block, sizes).astype(np.int64)
    in_blocks, nexts = np.empty_like(order), np.cumsum(rows) - rows
    for start in range(0, len(order), _ROWS):
        positions = order[start : start + _ROWS]
        blocks = block[groups.numbers[positions]]
        by_block = np.argsort(blocks, kind="stable")
        several = blocks[by_block]
        places = np.arange(len(several)) - np.searchsorted(several, several) + nexts[several]
        in_blocks[places] = positions[by_block]
        nexts += np.bincount(several, minlength=len(nexts))
    return in_blocks, np.cumsum(rows[rows > 0]).tolist()
