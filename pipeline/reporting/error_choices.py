"""Choose one failed image for each kind of error of the index and of each stage."""

from __future__ import annotations

import polars as pl

from manifests.funnel import NUMBER
from manifests.tables import Table
from manifests.verdict import ERROR
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen

KINDS = 12
"""Kinds of errors of a stage that have an example, the most frequent ones."""


def error_choices(seen: Seen) -> list[ChoiceGroup]:
    """Return a group for the index and for each stage that failed on images: one gallery with an image per error."""
    tables = {"index": seen.run.index, **{stage.name: stage.table for stage in seen.run.stages}}
    groups = []
    for number, (name, table) in enumerate(tables.items()):
        kinds = _kinds(seen, number, table)
        if kinds.height:
            labels = {id_: f"{count:,} × {kind}" for kind, count, id_ in kinds.head(KINDS).iter_rows()}
            note = f"Failed: {kinds['count'].sum():,}; one example of each kind of error."
            groups.append(ChoiceGroup(name, [Choice("", list(labels), labels=labels)], note, stage=name))
    return groups


def _kinds(seen: Seen, number: int, table: Table) -> pl.DataFrame:
    """Return `kind` (the text before its first colon, `…` for numbers), `count` and `id` of an example."""
    left = seen.verdict.left.lazy().filter((pl.col("stage") == number) & (pl.col("cause") == ERROR))
    stored = table.scan(["id", "error"]).filter(pl.col("error").is_not_null())
    kind = pl.col("error").str.split(":").list.first().str.replace_all(NUMBER, "…").alias("kind")
    rows = stored.join(left, on="id", how="semi").select("id", kind)
    kinds = rows.group_by("kind").agg(pl.len().alias("count"), pl.col("id").min())
    return kinds.sort("count", "kind", descending=[True, False]).collect(engine="streaming")
