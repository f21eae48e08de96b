"""Support for stages that compare the rows of a group: find changed groups, and cut blocks of whole groups."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from core.stages import GroupedStage
from manifests.part_files import writer_of
from manifests.verdict import StoredStage, stale_references
from pipeline.recipe import Step


def group_column(step: Step) -> str | None:
    """Return the column whose values define the groups; None for a stage that computes each row by itself."""
    return step.stage.group_by if isinstance(step.stage, GroupedStage) else None


def changed_groups(alive: pl.DataFrame, new: pl.DataFrame, stored: StoredStage, groups: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of every group that must be compared again.

    A group has changed in three cases: it has a new row; a row is alive again that was not when the others were
    compared; or a rule drops a row because of another row (see `reference_column`) that is not alive any more. Any
    other row that is not alive any more changes no verdict: the remaining rows are not near-duplicates of it.

    Args:
        alive: The rows that reach the stage, column `id`, sorted.
        new: Rows of `alive` that have no facts.
        stored: The stage, with its rules.
        groups: Columns `id` and the group of each id.

    Returns:
        Column `id`.
    """
    changed = pl.concat([new, stale_references(alive, stored), partially_computed(alive, stored, groups)])
    names = groups.join(changed, on="id", how="semi").drop("id").unique()
    members = groups.join(alive, on="id", how="semi").join(names, on=names.columns, how="semi", nulls_equal=True)
    return members.select("id").sort("id")


def partially_computed(alive: pl.DataFrame, stored: StoredStage, groups: pl.DataFrame) -> pl.DataFrame:
    """Return one row of each group that several jobs computed, so not all its rows were compared; column `id`."""
    where, parts = stored.table.locate()
    writers = [writer_of(part) for part in parts]
    if len(set(writers)) < 2:
        return alive.select("id").head(0)
    written = pl.LazyFrame(
        {"part": range(len(parts)), "writer": writers},
        schema={"part": pl.UInt32, "writer": pl.Enum(sorted(set(writers)))},
    )
    name = next(column for column in groups.columns if column != "id")
    rows = where.join(alive.lazy(), on="id", how="semi").join(groups.lazy(), on="id").join(written, on="part")
    several = rows.group_by(name).agg(pl.col("id").first(), pl.col("writer").n_unique()).filter(pl.col("writer") > 1)
    return several.select("id").collect(engine="streaming")


def cut(rows: pl.DataFrame, size: int, groups: pl.DataFrame | None = None) -> Iterator[pl.DataFrame]:
    """Cut `rows` into blocks of `size` rows or, given the group of each id, into blocks of whole groups.

    A group is in the block in which its first row falls, so a block of groups can have fewer or more than `size` rows.
    """
    if groups is None:
        yield from rows.iter_slices(size)
        return
    named = groups.select("id", pl.exclude("id").alias("_group"))
    keyed = rows.join(named, on="id", how="left", maintain_order="left")
    sizes = keyed.group_by("_group").len().sort("_group")
    block = ((pl.col("len").cum_sum() - pl.col("len")) // size).alias("_block")
    placed = keyed.join(sizes.select("_group", block), on="_group", how="left", nulls_equal=True, maintain_order="left")
    yield from placed.drop("_group").partition_by("_block", maintain_order=True, include_key=False)
