"""Select rows of a run by a condition on the manifest, in an order or at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from core.errors import UserError, suggest
from manifests.manifest import reads_verdict
from manifests.priorities import priority
from manifests.run import Run
from manifests.verdict import Verdict
from manifests.where import parse_where


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted, and in which order.

    Attributes:
        where: An SQL expression over the columns of the manifest (`manifests/where.py`); None: all rows.
        sort: The column to sort by; rows without a value come last. None: by id.
        descending: Whether the largest value comes first.
        limit: Largest number of rows.
        seed: Seed of a random choice of `limit` rows, which are then sorted; None: the first `limit` rows.
    """

    where: str | None = None
    sort: str | None = None
    descending: bool = False
    limit: int = 100
    seed: int | None = None


@dataclass(frozen=True)
class Selected:
    """Selected rows.

    Attributes:
        ids: Column `id`, in order.
        fitting: Number of rows that fit the condition, also those beyond the limit.
        columns: The columns that the condition and the order read.
    """

    ids: pl.DataFrame
    fitting: int
    columns: tuple[str, ...]


def select(run: Run, selection: Selection, verdict: Verdict | None = None) -> Selected:
    """Return the rows of a selection. Memory: about 20 bytes per row that fits, and the columns that are read.

    Args:
        run: The run.
        selection: Which rows.
        verdict: The result of `run.verdict()`, if it is computed already.

    Raises:
        UserError: The condition is not valid, or there is no column to sort by, or none that has an order.
    """
    schema = run.manifest_schema
    condition = parse_where(selection.where, schema) if selection.where is not None else None
    if selection.sort is not None:
        _check_sortable(selection.sort, schema)
    read = sorted(condition.columns) if condition else []
    read += [selection.sort] if selection.sort and selection.sort not in read else []
    verdict = (verdict or run.verdict()) if reads_verdict(read) else None
    rows = run.manifest(read, verdict=verdict)
    wanted = list(dict.fromkeys(["id", *([selection.sort] if selection.sort else [])]))
    fitting = condition.filter(rows, wanted) if condition else rows.select(wanted).collect(engine="streaming")
    chosen = _in_order(_drawn(fitting, selection), selection)
    return Selected(chosen.head(selection.limit).select("id"), fitting.height, tuple(n for n in read if n != "id"))


def _check_sortable(name: str, schema: pl.Schema) -> None:
    if name not in schema:
        raise UserError(f"no column {name!r} to sort by{suggest(name, schema)}")
    if schema[name].is_nested():
        raise UserError(f"{name} holds {schema[name]}, which has no order: sort by another column")


def _drawn(rows: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return a random choice of `limit` rows, if there is a seed; else all rows."""
    if selection.seed is None or rows.height <= selection.limit:
        return rows
    order = priority(rows["id"].to_numpy(), selection.seed)
    return rows[np.argpartition(order, selection.limit - 1)[: selection.limit]]


def _in_order(rows: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    if selection.sort is None:
        return rows.sort("id")
    by = pl.col(selection.sort)
    by = by.fill_nan(None) if rows.schema[selection.sort].is_float() else by
    return rows.sort(by, "id", descending=[selection.descending, False], nulls_last=True)
