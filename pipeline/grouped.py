"""Stages that compare the rows of a group: which groups have changed, and parts that hold whole groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from manifests.verdict import FIRST_RULE, StoredStage, advance
from pipeline.recipe import Step


def groups_of(step: Step) -> str | None:
    """The column whose values make the groups; None for a stage that looks at each row by itself."""
    column: str | None = getattr(step.stage, "within", None)
    return column


def witness_of(step: Step) -> Mapping[str, str]:
    """For a column of such a stage that a rule may be about, the column with the id of the other row."""
    stage: Any = step.stage
    witness: Mapping[str, str] = stage.witness
    return witness


def changed_groups(
    alive: pl.DataFrame, new: pl.DataFrame, stored: StoredStage, groups: pl.DataFrame, witness: Mapping[str, str]
) -> pl.DataFrame:
    """The rows of every group that has to be compared again.

    A group has changed if a row is new to it; or if a rule drops a row because of another (its witness) that has left
    by now. A row that left otherwise changes no verdict: the rows that stayed were unlike it.

    Args:
        alive: The rows that reach the stage, column `id`, sorted.
        new: Those of them that have no facts.
        stored: The stage, with its rules.
        groups: Columns `id` and the group's.
        witness: For a column that a rule may be about, the column that names the other row.

    Returns:
        Column `id`.
    """
    changed = pl.concat([new, orphans(alive, stored, witness)])
    names = groups.join(changed, on="id", how="semi").drop("id").unique()
    members = groups.join(alive, on="id", how="semi").join(names, on=names.columns, how="semi", nulls_equal=True)
    return members.select("id").sort("id")


def orphans(alive: pl.DataFrame, stored: StoredStage, witness: Mapping[str, str]) -> pl.DataFrame:
    """The rows that a rule drops because of another that is not alive; column `id`."""
    left = advance(alive, stored).left
    found = [alive.select("id").head(0)]
    for position, rule in enumerate(stored.rules):
        if rule.column not in witness:
            continue
        dropped = left.filter(pl.col("cause") == FIRST_RULE + position).select("id")
        facts = stored.table.scan().select("id", pl.col(witness[rule.column]).alias("other"))
        seen = facts.filter(pl.col("other").is_not_null()).collect(engine="streaming")
        lonely = seen.join(dropped, on="id", how="semi").join(alive, left_on="other", right_on="id", how="anti")
        found.append(lonely.select("id"))
    return pl.concat(found).unique()


def cut(rows: pl.DataFrame, size: int, groups: str | None = None) -> Iterator[pl.DataFrame]:
    """`rows` in blocks of `size`; or, where a column makes groups, of whole groups with at least `size` rows in all."""
    if groups is None:
        yield from rows.iter_slices(size)
        return
    sizes = rows.group_by(groups).len().sort(groups)
    block = (pl.col("len").cum_sum() - pl.col("len")) // size
    numbers = sizes.select(groups, block.alias("_block"))
    placed = rows.join(numbers, on=groups, how="left", nulls_equal=True, maintain_order="left")
    yield from placed.partition_by("_block", maintain_order=True, include_key=False)
