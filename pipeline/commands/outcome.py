"""Decide whether a command has failed: it has if every row failed, or if no image could be published."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import polars as pl

from core.errors import UserError
from manifests.funnel import Funnel
from manifests.run import Run
from pipeline.publishing.clips.publish import PublishedClips
from pipeline.publishing.publish import Published


def total_failure(run: Run, counted: Funnel, stages: Collection[str]) -> UserError | None:
    """Return an error for the first of `stages` at which every row that was computed failed; None if there is none.

    A stage that no row reached has not failed, nor has a stage whose rules drop every row.
    """
    tables = [run.index, *(stage.table for stage in run.stages)]
    for stage, table in zip(counted.stages, tables, strict=True):
        if stage.stage in stages and stage.errors and not stage.kept + stage.dropped:
            errors = table.scan(["error"]).drop_nulls().collect(engine="streaming")["error"]
            return UserError(f"{stage.stage}: {_all(stage.errors, 'row')} failed: {_commonest(errors)}")
    return None


def nothing_published(done: Published | PublishedClips) -> UserError | None:
    """Return an error if a publication is empty because every image or clip was left out, else None."""
    if done.rows or not done.left_out:
        return None
    what = _all(len(done.left_out), "clip" if isinstance(done, PublishedClips) else "image")
    return UserError(f"publish: {what} left out: {_commonest(done.left_out.values())}")


def _all(count: int, what: str) -> str:
    return f"the only {what}" if count == 1 else f"all {count:,} {what}s"


def _commonest(reasons: Iterable[str]) -> str:
    """Return the most frequent reason of the most frequent kind; the kind is the text before the first colon."""
    each = pl.DataFrame({"reason": list(reasons)}).with_columns(
        pl.col("reason").str.split(":").list.first().alias("kind")
    )
    counted = each.with_columns(pl.len().over("kind").alias("alike"), pl.len().over("reason").alias("same"))
    return str(counted.sort("alike", "same", "reason", descending=[True, True, False])["reason"][0])
