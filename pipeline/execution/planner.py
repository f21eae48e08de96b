"""Plan a job: the rows that a stage must compute, and where its workers find the columns that it reads.

The driver sends ids and columns of numbers. Texts, lists, embeddings and images do not pass through it. For these it
sends which part of the table holds the row, and the workers read the part. So it holds some tens of bytes per row.
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
from pipeline.pools.images import IMAGE_ADDRESS
from pipeline.pools.reader import Images
from pipeline.recipe import Step, pool_column, via_driver


@dataclass(frozen=True)
class Columns:
    """Columns that a job reads.

    Attributes:
        names: Their names: columns of tables, `pool.X`, and the inputs of an `ImageStage`.
        tables: The tables of earlier stages that store them, by column; the index stores the others.
        fields: Their Arrow fields, by column.
    """

    names: Sequence[str]
    tables: Mapping[str, str]
    fields: Mapping[str, pa.Field]

    @property
    def has_images(self) -> bool:
        """Whether the job reads images."""
        return not set(IMAGE_INPUTS).isdisjoint(self.names)

    @property
    def from_pool(self) -> list[str]:
        """The X of each column `pool.X`."""
        return [name for column in self.names if (name := pool_column(column))]

    @property
    def by_table(self) -> dict[str, list[str]]:
        """The columns of tables, by table; "" is the index."""
        grouped: dict[str, list[str]] = {}
        for column in self.names:
            if column != "id" and column not in IMAGE_INPUTS and not pool_column(column):
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
    """Return the rows of a job with the columns that the driver sends, and the inputs that add the other columns.

    The rows are sorted by id. If workers read tables, they are in the order of the pool, so that neighbours are read
    together.

    Args:
        run: The run.
        pool: Its pool.
        columns: The columns that the job reads.
        ids: The rows, column `id`.
        send_numbers: Whether the driver sends columns of numbers; otherwise the workers read them too.
    """
    sent, read = _divide(columns, send_numbers)
    rows = ids.lazy().select("id")
    for table, names in sent.items():
        rows = rows.join(stored_table(run, table).scan(["id", *names]), on="id", how="left")
    sources = []
    for number, (table, names) in enumerate(read.items()):
        rows, source = _with_parts(rows, stored_table(run, table), names, f"part:{number}")
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
            by_table = sent if send_numbers and via_driver(columns.fields[name]) else read
            by_table.setdefault(table, []).append(name)
    if columns.has_images or columns.from_pool:
        address = IMAGE_ADDRESS if columns.has_images else ("shard", "offset")
        length = ("shard_bytes",) if columns.from_pool else ()
        read[""] = list(dict.fromkeys([*read.get("", []), *address, *length]))
    return sent, read


def _with_parts(rows: pl.LazyFrame, table: Table, columns: Sequence[str], number: str) -> tuple[pl.LazyFrame, Source]:
    """Return the rows with the number of each row's part as a column named `number`, and the source that reads it."""
    ids, names = table.locate()
    part_numbers = ids.select("id", pl.col("part").cast(pl.Int32).alias(number))
    with_parts = rows.join(part_numbers, on="id", how="left").with_columns(pl.col(number).fill_null(NO_PART))
    return with_parts, Source(table=table, names=names, columns=columns, part_column=number)


def _in_pool_order(run: Run, rows: pl.LazyFrame) -> pl.LazyFrame:
    ids, _ = run.index.locate()
    order = ids.select("id").with_row_index("in_pool")
    return rows.join(order, on="id", how="left").sort("in_pool").drop("in_pool")


def stored_table(run: Run, name: str) -> Table:
    """Return the table with this name; "" is the index."""
    if name == CONTENTS:
        return contents_table(run.folder)
    return Table.stored(stage_folder(run.folder, name)) if name else run.index
