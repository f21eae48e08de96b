"""What a stage has still to compute, and where its workers find the columns that it reads.

Numbers ride along with the ids. Texts, lists, embeddings and images do not pass the driver: it says in which part of
which table a row lies, and the workers read it there. So the driver holds some tens of bytes a row, whatever a stage
reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from core.errors import BadSampleError, UserError
from manifests.contents import CONTENTS, contents_table, seen_lengths
from manifests.embeddings import is_embedding
from manifests.run import Run, stage_folder
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.pool.images import PLACE, Images
from pipeline.pool.listing import root_of
from pipeline.pool.urls import pool_columns
from pipeline.recipe import OF_IMAGE, Recipe, Step, looks, of_pool, rides_along

_NOWHERE = -1  # in place of a part's position


@dataclass(frozen=True)
class Source:
    """Columns that workers read themselves.

    Attributes:
        table: The table they are in.
        names: Its parts, when the job was planned.
        columns: What is read.
        position: The column of a block that says in which part each row lies.
    """

    table: Table
    names: Sequence[str]
    columns: Sequence[str]
    position: str

    def read(self, block: pa.Table) -> pa.Table:
        """The columns for the ids of a block, in its order; nulls where the table has no row."""
        ids, parts = block["id"].to_numpy(), block[self.position].to_numpy()
        fields = [self.table.schema.field(name) for name in self.columns]
        vectors = {field.name: _Vectors(field, len(ids)) for field in fields if is_embedding(field)}
        others = [name for name in self.columns if name not in vectors]
        tables, order = [], []
        for part in np.unique(parts):
            rows = np.flatnonzero(parts == part)
            found = self._rows(part, ids[rows])
            for name, gathered in vectors.items():
                gathered.put(rows, found[name])
            tables.append(found.select(others))
            order.append(rows)
        joined = pa.concat_tables(tables).take(np.argsort(np.concatenate(order)))
        values = [vectors[name].array() if name in vectors else joined[name] for name in self.columns]
        return pa.table(values, schema=pa.schema(fields))

    def _rows(self, part: int, ids: npt.NDArray[np.int64]) -> pa.Table:
        """The columns of some rows that are all in one part, or in none."""
        if part == _NOWHERE:
            fields = [self.table.schema.field(name) for name in self.columns]
            return pa.table([pa.nulls(len(ids), field.type) for field in fields], schema=pa.schema(fields))
        stored = self.table.read(self.names[part], ["id", *self.columns])
        there = stored["id"].to_numpy()
        by_id = np.argsort(there)
        return stored.take(by_id[np.searchsorted(there, ids, sorter=by_id)])


class _Vectors:
    """Embeddings gathered into their places. Arrow's own way would have each of them in memory three times."""

    def __init__(self, field: pa.Field, rows: int) -> None:
        self._type = field.type
        self._values = np.zeros((rows, field.type.list_size), field.type.value_type.to_pandas_dtype())
        self._missing = np.zeros(rows, bool)

    def put(self, rows: npt.NDArray[np.int64], vectors: pa.ChunkedArray) -> None:
        array = vectors.combine_chunks()
        self._values[rows] = array.values.to_numpy(zero_copy_only=False).reshape(len(rows), -1)
        self._missing[rows] = array.is_null().to_numpy(zero_copy_only=False)

    def array(self) -> pa.Array:
        values = pa.array(self._values.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, type=self._type, mask=pa.array(self._missing))


@dataclass(frozen=True)
class Inputs:
    """How a worker completes a block of ids to what a stage reads.

    Attributes:
        sources: Tables that hold columns which do not ride along.
        from_pool: Columns of the pool's own Parquet files.
        root: What the pool's shard paths are relative to.
        images: The images of the pool, if the stage reads them.
    """

    sources: Sequence[Source] = ()
    from_pool: Sequence[str] = ()
    root: Folder | None = None
    images: Images | None = None

    def complete(self, block: pa.Table) -> pa.Table:
        """The block with the columns that did not ride along, all but the image."""
        for source in self.sources:
            read = source.read(block)
            for field, values in zip(read.schema, read.columns, strict=True):  # a field says which encoder's it is
                block = block.append_column(field, values)
        if self.from_pool and self.root is not None:
            for name, values in zip(self.from_pool, self._pool_columns(block, self.root).columns, strict=True):
                block = block.append_column(f"pool.{name}", values)
        return block

    def _pool_columns(self, block: pa.Table, root: Folder) -> pa.Table:
        shards, offsets = block["shard"].to_numpy(zero_copy_only=False), block["offset"].to_numpy()
        tables, order = [], []
        try:
            for shard in dict.fromkeys(shards):
                rows = np.flatnonzero(shards == shard)
                tables.append(pool_columns(root, shard, self.from_pool, offsets[rows]))
                order.append(rows)
            joined = pa.concat_tables(tables, promote_options="permissive")
        except (BadSampleError, OSError, pa.ArrowException) as error:
            # They were fine when they were indexed, or their shards disagree on a column's type.
            raise UserError(f"the pool's columns cannot be read: {' '.join(str(error).split())}") from error
        return joined.take(np.argsort(np.concatenate(order)))


def unstored(table: Table, alive: pl.DataFrame) -> pl.DataFrame:
    """The rows of `alive` (column `id`) that have no facts in `table`, or are worth another try."""
    stored = table.scan(["id", "retry"]).filter(~pl.col("retry")).select("id")
    return alive.lazy().select("id").join(stored, on="id", how="anti").collect(engine="streaming")


def plan(run: Run, recipe: Recipe, step: Step, ids: pl.DataFrame, carry: bool = True) -> tuple[pl.DataFrame, Inputs]:
    """The rows of `ids` (column `id`) with what rides along, and how workers complete them.

    Without `carry` nothing rides along.

    They come in the order of their ids, or, where workers read by themselves, in that of the pool, so that what lies
    together is read together.
    """
    rows = ids.lazy().select("id")
    carried: dict[str, list[str]] = {}
    read: dict[str, list[str]] = {}
    for column in step.stage.reads:
        if column not in ("id", *OF_IMAGE) and not of_pool(column):
            way = carried if carry and rides_along(step.fields[column]) else read
            way.setdefault(step.inputs.get(column, ""), []).append(column)
    from_pool = [name for column in step.stage.reads if (name := of_pool(column))]
    if looks(step.stage) or from_pool:
        where = PLACE if looks(step.stage) else ("shard", "offset")
        read[""] = list(dict.fromkeys([*read.get("", []), *where]))
    for source, columns in carried.items():
        facts = stored_table(run, source)
        rows = rows.join(facts.scan(["id", *columns]), on="id", how="left")
    sources = []
    for number, (source, columns) in enumerate(read.items()):
        facts, position = stored_table(run, source), f"part_{number}"
        where_, names = facts.locate()
        place = where_.select("id", pl.col("part").cast(pl.Int32).alias(position))
        rows = rows.join(place, on="id", how="left").with_columns(pl.col(position).fill_null(_NOWHERE))
        sources.append(Source(facts, names, columns, position))
    root = root_of(recipe.pool) if looks(step.stage) or from_pool else None
    images = Images(recipe.pool, root) if root and looks(step.stage) else None
    if images:
        rows = rows.join(seen_lengths(run.folder), on="id", how="left")
    ordered = _in_pool_order(run, rows) if sources else rows.sort("id")
    return ordered.collect(engine="streaming"), Inputs(sources, from_pool, root, images)


def _in_pool_order(run: Run, rows: pl.LazyFrame) -> pl.LazyFrame:
    place, _ = run.index.locate()
    order = place.select("id").with_row_index("in_pool")
    return rows.join(order, on="id", how="left").sort("in_pool").drop("in_pool")


def stored_table(run: Run, source: str) -> Table:
    """The table called `source`; "" is the index."""
    if source == CONTENTS:
        return contents_table(run.folder)
    return Table.stored(stage_folder(run.folder, source)) if source else run.index
