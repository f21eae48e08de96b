"""Stages that compare the rows of a group: which groups have changed, and parts that hold whole groups."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from core.stages import GroupedStage
from manifests.tables import writer_of
from manifests.verdict import StoredStage, stale_references
from pipeline.recipe import Step


def groups_of(step: Step) -> str | None:
    """The column whose values make the groups; None for a stage that looks at each row by itself."""
    return step.stage.group_by if isinstance(step.stage, GroupedStage) else None


def changed_groups(alive: pl.DataFrame, new: pl.DataFrame, stored: StoredStage, groups: pl.DataFrame) -> pl.DataFrame:
    """The rows of every group that has to be compared again.

    A group has changed if a row is new to it, if a row has come back that was gone when the others were compared, or if
    a rule drops a row because of another one (see `reference_column`) that is gone now. A row that left otherwise
    changes no verdict: the rows that stayed were unlike it.

    Args:
        alive: The rows that reach the stage, column `id`, sorted.
        new: Those of them that have no facts.
        stored: The stage, with its rules.
        groups: Columns `id` and the group's.

    Returns:
        Column `id`.
    """
    changed = pl.concat([new, stale_references(alive, stored), partially_computed(alive, stored, groups)])
    names = groups.join(changed, on="id", how="semi").drop("id").unique()
    members = groups.join(alive, on="id", how="semi").join(names, on=names.columns, how="semi", nulls_equal=True)
    return members.select("id").sort("id")


def partially_computed(alive: pl.DataFrame, stored: StoredStage, groups: pl.DataFrame) -> pl.DataFrame:
    """A row of every group whose rows were not all compared by one job, and so not with each other; column `id`."""
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
    """`rows` in blocks of `size`; or, given the group of each id, in blocks of whole groups of at least `size` rows."""
    if groups is None:
        yield from rows.iter_slices(size)
        return
    named = groups.select("id", pl.exclude("id").alias("_group"))
    keyed = rows.join(named, on="id", how="left", maintain_order="left")
    sizes = keyed.group_by("_group").len().sort("_group")
    block = ((pl.col("len").cum_sum() - pl.col("len")) // size).alias("_block")
    placed = keyed.join(sizes.select("_group", block), on="_group", how="left", nulls_equal=True, maintain_order="left")
    yield from placed.drop("_group").partition_by("_block", maintain_order=True, include_key=False)
