"""The manifest: one row per image, with the columns of the index and of all stages, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl
import pyarrow as pa

from core.errors import UserError, suggest
from manifests.schemas import is_bulky
from manifests.tables import Table
from manifests.verdict import ERROR, FIRST_RULE, PENDING, StoredStage, Verdict

VERDICT = ("status", "drop_stage", "drop_reason")
"""The columns of the verdict."""

_NUMBERS = ("stage", "cause")  # where and why a row left, as the verdict has it


def manifest_schema(index: Table, stages: Sequence[StoredStage]) -> pl.Schema:
    """Return the columns of the manifest with their types."""
    fields = [field for field in index.schema if field.name != "retry"]
    fields += [field for stage in stages for field in stage.table.writes if not is_bulky(field)]
    stored = pl.DataFrame(pa.schema(fields).empty_table()).schema
    return pl.Schema({**stored, **dict.fromkeys(VERDICT, pl.String())})


def reads_verdict(columns: Iterable[str] | None) -> bool:
    """Return whether the manifest needs the verdict for `columns` (None: all)."""
    return columns is None or not set(VERDICT).isdisjoint(columns)


def manifest(
    index: Table,
    stages: Sequence[StoredStage],
    verdict: Verdict | None,
    columns: Sequence[str] | None = None,
    ids: pl.DataFrame | None = None,
) -> pl.LazyFrame:
    """Join the tables of a run to its manifest, sorted by id.

    Args:
        index: The index.
        stages: The stages.
        verdict: Where every row ended; None if no column of it is wanted.
        columns: The columns; None: all. Other columns are not read.
        ids: The rows, column `id`; None: all.

    Raises:
        UserError: There is no such column.
    """
    names = list(manifest_schema(index, stages))
    wanted = names if columns is None else list(dict.fromkeys(["id", *columns]))
    for name in wanted:
        if name not in names:
            raise UserError(f"no column {name!r}{suggest(name, names)}")
    with_reasons = "drop_reason" in wanted
    needed = {*wanted, *(rule.column for stage in stages for rule in stage.rules if with_reasons)}
    needed |= {"error"} if with_reasons else set()
    own = [name for name in index.schema.names if name in needed]
    frame = _of(index.scan(own), ids).sort("id")
    if verdict is not None:
        frame = _merge(frame, _of(verdict.left.lazy().select("id", *_NUMBERS), ids))
    reasons = [pl.when(_left(0, ERROR)).then(pl.col("error"))] if with_reasons else []
    for number, stage in enumerate(stages, start=1):
        written = [field.name for field in stage.table.writes if field.name in needed and not is_bulky(field)]
        failure = f"_error_{number}"
        error = [pl.col("error").alias(failure)] if with_reasons else []
        if written or error:
            scan = stage.table.scan(["id", *written, *(["error"] if error else [])])
            frame = _merge(frame, _of(scan.select("id", *written, *error), ids))
        if with_reasons:
            reasons.append(pl.when(_left(number, ERROR)).then(pl.col(failure)))
            for position, rule in enumerate(stage.rules):
                reasons.append(pl.when(_left(number, FIRST_RULE + position)).then(rule.reason()))
    if verdict is None:
        return frame.select(wanted)
    places = dict(enumerate(["index", *(stage.name for stage in stages)]))
    pending = pl.when(pl.col("cause") == PENDING).then(pl.lit("not computed yet"))
    return frame.with_columns(
        _status().alias("status"),
        pl.col("stage").replace_strict(places, return_dtype=pl.String).alias("drop_stage"),
        pl.coalesce(*reasons, pending).alias("drop_reason"),
    ).select(wanted)


def _status() -> pl.Expr:
    cause = pl.col("cause")
    return (
        pl.when(cause.is_null())
        .then(pl.lit("kept"))
        .when(cause == ERROR)
        .then(pl.lit("error"))
        .when(cause == PENDING)
        .then(pl.lit("pending"))
        .otherwise(pl.lit("dropped"))
    )


def _left(stage: int, cause: int) -> pl.Expr:
    return (pl.col("stage") == stage) & (pl.col("cause") == cause)


def _of(frame: pl.LazyFrame, ids: pl.DataFrame | None) -> pl.LazyFrame:
    return frame if ids is None else frame.filter(pl.col("id").is_in(ids["id"].implode()))


def _merge(frame: pl.LazyFrame, facts: pl.LazyFrame) -> pl.LazyFrame:
    """Left join on the id. The left frame must be sorted by id (see `verdict.facts`)."""
    return frame.join_asof(facts.sort("id"), on="id", tolerance=0)
