"""Plan a job: the rows that a stage must compute, and where its workers find the columns that it reads.

The driver sends ids and numbers. Texts, lists, embeddings and images do not pass through it: it sends only the position
of each row's part in its table, and the workers read the part. So the driver holds some tens of bytes per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from core.stages import IMAGE_INPUTS
from manifests.contents import CONTENTS, contents_table, seen_lengths
from manifests.run import Run, stage_folder
from manifests.tables import Table
from pipeline.execution.inputs import NO_PART, Inputs, Source
from pipeline.pools import Pool
from pipeline.pools.images import PLACE
from pipeline.pools.reader import Images
from pipeline.recipe import Step, of_pool, via_driver


@dataclass(frozen=True)
class Columns:
    """Columns that a job reads.

    Attributes:
        names: Their names: columns of tables, `pool.X`, and the inputs of an `ImageStage`.
        tables: The tables of earlier stages that store them, by column; the index stores the others.
        fields: Their fields, by column.
    """

    names: Sequence[str]
    tables: Mapping[str, str]
    fields: Mapping[str, pa.Field]

    @property
    def has_images(self) -> bool:
        return not set(IMAGE_INPUTS).isdisjoint(self.names)

    @property
    def from_pool(self) -> list[str]:
        """The X of each column `pool.X`."""
        return [name for column in self.names if (name := of_pool(column))]

    @property
    def by_table(self) -> dict[str, list[str]]:
        """The columns of tables, by table; "" is the index."""
        grouped: dict[str, list[str]] = {}
        for column in self.names:
            if column != "id" and column not in IMAGE_INPUTS and not of_pool(column):
                grouped.setdefault(self.tables.get(column, ""), []).append(column)
        return grouped


def columns_of(step: Step) -> Columns:
    """Return the columns that a step's stage reads."""
    return Columns(names=step.stage.reads, tables=step.inputs, fields=step.fields)


def unstored(table: Table, alive: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `alive` (column `id`) that have no facts in `table`, or can be retried."""
    stored = table.scan(["id", "retry"]).filter(~pl.col("retry")).select("id")
    return alive.lazy().select("id").join(stored, on="id", how="anti").collect(engine="streaming")


def plan(
    run: Run, pool: Pool, columns: Columns, ids: pl.DataFrame, send_numbers: bool = True
) -> tuple[pl.DataFrame, Inputs]:
    """Plan the rows of a job with the numbers that the driver sends, and how workers read the other columns.

    Args:
        run: The run.
        pool: Its pool.
        columns: The columns that the job reads.
        ids: The rows, column `id`.
        send_numbers: Whether the driver sends numbers; otherwise the workers read them too.

    Returns:
        The rows, and the inputs that add the other columns. The rows are sorted by id or, if workers read tables, in
        the order of the pool, so that neighbouring rows are read together.
    """
    sent, read = _divide(columns, send_numbers)
    rows = ids.lazy().select("id")
    for table, names in sent.items():
        rows = rows.join(stored_table(run, table).scan(["id", *names]), on="id", how="left")
    sources = []
    for number, (table, names) in enumerate(read.items()):
        rows, source = _located(rows, stored_table(run, table), names, f"part_{number}")
        sources.append(source)
    images = Images(pool, pool.root()) if columns.has_images or columns.from_pool else None
    if columns.has_images:
        rows = rows.join(seen_lengths(run.folder), on="id", how="left")
    ordered = _in_pool_order(run, rows) if sources else rows.sort("id")
    return ordered.collect(engine="streaming"), Inputs(sources=sources, from_pool=columns.from_pool, images=images)


def _divide(columns: Columns, send_numbers: bool) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the columns that the driver sends, and those that the workers read, both by table."""
    sent: dict[str, list[str]] = {}
    read: dict[str, list[str]] = {}
    for table, names in columns.by_table.items():
        for name in names:
            by = sent if send_numbers and via_driver(columns.fields[name]) else read
            by.setdefault(table, []).append(name)
    if columns.has_images or columns.from_pool:
        position = PLACE if columns.has_images else ("shard", "offset")
        read[""] = list(dict.fromkeys([*read.get("", []), *position]))
    return sent, read


def _located(rows: pl.LazyFrame, table: Table, columns: Sequence[str], position: str) -> tuple[pl.LazyFrame, Source]:
    """Return the rows with the position of each row's part as the column `position`, and the source that reads it."""
    places, parts = table.locate()
    part = places.select("id", pl.col("part").cast(pl.Int32).alias(position))
    located = rows.join(part, on="id", how="left").with_columns(pl.col(position).fill_null(NO_PART))
    return located, Source(table=table, names=parts, columns=columns, position=position)


def _in_pool_order(run: Run, rows: pl.LazyFrame) -> pl.LazyFrame:
    places, _ = run.index.locate()
    order = places.select("id").with_row_index("in_pool")
    return rows.join(order, on="id", how="left").sort("in_pool").drop("in_pool")


def stored_table(run: Run, source: str) -> Table:
    """Return the table named `source`; "" is the index."""
    if source == CONTENTS:
        return contents_table(run.folder)
    return Table.stored(stage_folder(run.folder, source)) if source else run.index
