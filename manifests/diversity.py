"""Measure the groups of a column: their number and sizes, and the diversity before and after the rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import UserError, suggest
from manifests.groups import effective_number
from manifests.run import Run
from manifests.verdict import Verdict, valid_ids


@dataclass(frozen=True)
class Spread:
    """How rows are spread over groups. All values are 0 without rows. By a list, a row counts in several groups.

    Attributes:
        rows: Number of rows.
        groups: Number of groups with at least one row.
        effective: How many groups of equal size would be as diverse: exp(entropy), 1 to `groups`.
        smallest, median, largest: Rows per group.
        largest_share: Fraction of the rows in the largest group, 0 to 1.
        top_share: Fraction of the rows in the largest hundredth of the groups (at least one group), 0 to 1.
    """

    rows: int
    groups: int
    effective: float
    smallest: int
    median: float
    largest: int
    largest_share: float
    top_share: float


@dataclass(frozen=True)
class Diversity:
    """The groups of one column, before and after the rules.

    Attributes:
        column: Name of the column.
        reached: Spread of the rows that reach the stage that writes the column.
        kept: Spread of those of these rows that the whole recipe keeps.
        sizes: Rows per group: columns `group`, `reached`, `kept`, largest group first.
    """

    column: str
    reached: Spread
    kept: Spread
    sizes: pl.DataFrame

    def as_json(self) -> dict[str, object]:
        values: dict[str, object] = {"column": self.column, "reached": asdict(self.reached), "kept": asdict(self.kept)}
        return values | {"sizes": self.sizes.to_dicts()}


def diversity(run: Run, column: str, verdict: Verdict | None = None) -> Diversity:
    """Count the rows per group of a stored column, for the rows that reach its stage and for those that are kept.

    Args:
        run: The run.
        column: The column.
        verdict: The result of `run.verdict()`, if it is computed already.

    Raises:
        UserError: No stage writes the column, or its values cannot make groups.
    """
    before, values = _values(run, column)
    kept = (verdict or run.verdict()).alive
    counted = (
        values.join(before, on="id", how="semi")
        .join(kept.with_columns(pl.lit(1).alias("kept")), on="id", how="left")
        .group_by(column)
        .agg(pl.len().cast(pl.Int64).alias("reached"), pl.col("kept").sum().cast(pl.Int64))
        .sort(["reached", column], descending=[True, False])
        .rename({column: "group"})
    )
    return Diversity(column, spread(counted["reached"].to_numpy()), spread(counted["kept"].to_numpy()), counted)


def spread(sizes: npt.NDArray[np.int64]) -> Spread:
    """Summarise the rows per group. Groups without rows are ignored."""
    filled = np.sort(sizes[sizes > 0])[::-1]
    if not len(filled):
        return Spread(0, 0, 0.0, 0, 0.0, 0, 0.0, 0.0)
    rows = int(filled.sum())
    top = int(filled[: max(1, len(filled) // 100)].sum())
    largest, smallest = int(filled[0]), int(filled[-1])
    effective = effective_number(filled)
    return Spread(rows, len(filled), effective, smallest, float(np.median(filled)), largest, largest / rows, top / rows)


def _values(run: Run, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the ids that reach the column's stage, and the stored values: `id` and the column, without nulls.

    Each value of a list has a row of its own.
    """
    if column in ("id", "error", "retry"):
        raise UserError(f"{column} makes no groups; name a column such as cluster, label, host or shard")
    stages = run.stages
    number = next((i for i, s in enumerate(stages) if column in s.table.writes.names), None)
    if number is None and column not in run.index.schema.names:
        valid = [name for s in stages for name in s.table.writes.names]
        raise UserError(f"{run.url} has no column {column!r}{suggest(column, [*valid, *run.index.schema.names])}")
    table = run.index if number is None else stages[number].table
    kind = table.scan([column]).collect_schema()[column]
    value = kind.inner if isinstance(kind, pl.List) else kind
    if not (value.is_integer() or value in (pl.String, pl.Boolean)):
        raise UserError(f"{column} is {kind}; groups are made by texts, integers or booleans")
    before = valid_ids(run.index) if number is None else run.verdict(before=number).alive
    stored = table.scan(["id", column, "error"]).filter(pl.col("error").is_null() & pl.col(column).is_not_null())
    values = stored.select("id", column).collect(engine="streaming")
    if isinstance(kind, pl.List):
        values = values.with_columns(pl.col(column).list.unique()).explode(column).drop_nulls()
    return before, values
