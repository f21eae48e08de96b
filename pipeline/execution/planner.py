"""Plan a job: the rows that a stage must compute, and where its workers find the columns that it reads.

The driver sends ids and columns of numbers. Texts, lists, embeddings and images do not pass through it. For these it
sends which part of the table holds the row, and the workers read the part. So it holds some tens of bytes per row.

Rows that are shuffled afterwards, as by `publish`, are an exception, as each block has rows of every part. Small tables
are read once, by the driver. Of large ones it sends nothing, and the workers of each block read every part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from core.stages import IMAGE_INPUTS
from manifests.contents import CONTENTS, LENGTH, SHA256, contents_table, seen_lengths
from manifests.run import Run, stage_folder
from manifests.tables import Table
from pipeline.execution.inputs import NO_PART, POOL_ADDRESS, Inputs, Source
from pipeline.pools.images import IMAGE_ADDRESS
from pipeline.pools.reader import Images
from pipeline.pools.registry import pool_of
from pipeline.recipe import Recipe, Step, pool_column, via_driver
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.download.stage import Download
from pipeline.stages.download.storage import images_folder, refuse_elsewhere

_SMALL = 64 << 20
"""Bytes of all files of the tables that the driver reads for shuffled rows: some 150,000 images with two captions."""


@dataclass(frozen=True)
class Columns:
    """Columns that a job reads.

    Attributes:
        names: Their names: columns of tables, `pool.X`, and the inputs of an `ImageStage`.
        tables: The tables of earlier stages that store them, by column; the index stores the others.
        fields: Their Arrow fields, by column.
        stored: The name in its table of each column that has another name there.
        downloaded: The table of the stage that downloaded the images; empty: they are in the pool.
    """

    names: Sequence[str]
    tables: Mapping[str, str]
    fields: Mapping[str, pa.Field]
    stored: Mapping[str, str] = field(default_factory=dict)
    downloaded: str = ""

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
    return Columns(
        names=step.stage.reads,
        tables=step.inputs,
        fields=step.fields,
        stored=step.stored,
        downloaded=step.downloaded,
    )


def unstored(table: Table, alive: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `alive` (column `id`) that have no facts in `table`, or can be retried."""
    stored = table.scan(["id", "retry"]).filter(~pl.col("retry")).select("id")
    return alive.lazy().select("id").join(stored, on="id", how="anti").collect(engine="streaming")


def plan(
    run: Run, recipe: Recipe, columns: Columns, ids: pl.DataFrame, shuffled: bool = False
) -> tuple[pl.DataFrame, Inputs]:
    """Return the rows of a job with the columns that the driver sends, and the inputs that add the other columns.

    The rows are sorted by id. If workers read tables, they are in the order of the images, so that neighbours are read
    together.

    Args:
        run: The run.
        recipe: Its recipe.
        columns: The columns that the job reads.
        ids: The rows, column `id`.
        shuffled: Whether the rows are shuffled afterwards, so that each block has rows of every part.
    """
    sent, read = _divide(columns, send_numbers=not shuffled)
    if shuffled:
        sent, read = _small(run, read)
    rows = ids.lazy().select("id")
    for table, names in sent.items():
        stored = {theirs: ours for ours, theirs in names.items()}
        rows = rows.join(stored_table(run, table).scan(["id", *stored]).rename(stored), on="id", how="left")
    sources = []
    for number, (table, names) in enumerate(read.items()):
        rows, source = _with_parts(rows, stored_table(run, table), names, f"part:{number}")
        sources.append(source)
    pool = pool_images(recipe) if columns.has_images or columns.from_pool else None
    images = downloaded_images(run, recipe) if columns.downloaded else pool
    if columns.has_images:
        rows = rows.join(_seen_lengths(run, columns), on="id", how="left")
    ordered = _in_order(run, columns, rows) if sources else rows.sort("id")
    inputs = Inputs(sources=sources, from_pool=columns.from_pool, pool=pool, images=images)
    return ordered.collect(engine="streaming"), inputs


def _seen_lengths(run: Run, columns: Columns) -> pl.LazyFrame:
    """Return `seen_lengths`, without those of another download, with other settings, of the same URLs."""
    if not columns.downloaded:
        return seen_lengths(run.folder)
    digest = DESCRIBED["sha256"]
    now = stored_table(run, columns.downloaded).scan(["id", digest])
    seen = contents_table(run.folder).scan(["id", LENGTH, SHA256]).drop_nulls().join(now, on="id")
    return seen.filter(pl.col(SHA256).bin.encode("hex") == pl.col(digest)).select("id", LENGTH)


def pool_images(recipe: Recipe) -> Images:
    """Return the images of the recipe's pool, without reading it."""
    return Images(recipe.pool, recipe.pool.root())


def downloaded_images(run: Run, recipe: Recipe) -> Images:
    """Return the images that the recipe's stage `download` has stored.

    Raises:
        UserError: Their folder has none of them.
    """
    step = recipe.download
    assert step is not None
    assert isinstance(step.stage, Download)
    folder = images_folder(step.stage.images, run.folder)
    refuse_elsewhere(folder, stored_table(run, step.table))
    return Images(pool_of(tars=f"{folder.path}/*.tar"), folder)


def _divide(columns: Columns, send_numbers: bool) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the columns that the driver sends, and those that the workers read.

    Both by table: the name of each column, and its name in the table.
    """
    sent: dict[str, dict[str, str]] = {}
    read: dict[str, dict[str, str]] = {}
    for table, names in columns.by_table.items():
        for name in names:
            by_table = sent if send_numbers and via_driver(columns.fields[name]) else read
            by_table.setdefault(table, {})[name] = columns.stored.get(name, name)
    if columns.has_images:
        for name in IMAGE_ADDRESS:
            described = DESCRIBED.get(name) if columns.downloaded else None
            read.setdefault(columns.downloaded if described else "", {})[name] = described or name
    if columns.from_pool:
        read.setdefault("", {}).update(POOL_ADDRESS)
    return sent, read


def _small(
    run: Run, columns: Mapping[str, dict[str, str]]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Divide tables with their columns into those that the driver sends whole, and those that the workers read."""
    tables = {name: stored_table(run, name) for name in columns}
    if sum(file.size for table in tables.values() for file in table.list_files().files) > _SMALL:
        return {}, dict(columns)
    sent = {
        name: names
        for name, names in columns.items()
        if all(_is_plain(tables[name].schema.field(stored).type) for stored in names.values())
    }
    return sent, {name: names for name, names in columns.items() if name not in sent}


def _is_plain(type_: pa.DataType) -> bool:
    """Return whether values keep their type on their way through polars, except that texts and bytes become large."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_binary)
    return any(is_kind(type_) for is_kind in kinds)


def _with_parts(
    rows: pl.LazyFrame, table: Table, columns: Mapping[str, str], number: str
) -> tuple[pl.LazyFrame, Source]:
    """Return the rows with the number of each row's part as a column named `number`, and the source that reads it."""
    ids, names = table.locate()
    part_numbers = ids.select("id", pl.col("part").cast(pl.Int32).alias(number))
    with_parts = rows.join(part_numbers, on="id", how="left").with_columns(pl.col(number).fill_null(NO_PART))
    return with_parts, Source(table=table, names=names, columns=columns, part_column=number)


def _in_order(run: Run, columns: Columns, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Sort rows as the images lie in the pool, or in the tars of downloaded images."""
    if columns.has_images and columns.downloaded:
        table = stored_table(run, columns.downloaded)
        offsets = table.scan(["id", DESCRIBED["offset"]])
        ids = table.locate()[0].join(offsets, on="id").sort("part", DESCRIBED["offset"])
    else:
        ids, _ = run.index.locate()
    order = ids.select("id").with_row_index("in_order")
    return rows.join(order, on="id", how="left").sort("in_order").drop("in_order")


def stored_table(run: Run, name: str) -> Table:
    """Return the table with this name; "" is the index."""
    if name == CONTENTS:
        return contents_table(run.folder)
    return Table.stored(stage_folder(run.folder, name)) if name else run.index
