"""How workers add the columns that a stage reads to the rows of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadSampleError, UserError
from manifests.embeddings import is_embedding
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.pools.reader import Images

_URL = "pool:url"
POOL_ADDRESS = {name: name.removeprefix("pool:") for name in ("pool:shard", "pool:offset", "pool:shard_bytes", _URL)}
"""Columns of a block that say where a row's columns `pool.X` are, and its URL, each with its name in the index."""

NO_PART = -1
"""Number of the part of a row that the table lacks."""


@dataclass(frozen=True)
class Source:
    """Columns of one table that workers read themselves.

    Attributes:
        table: The table.
        names: Names of its parts when the job was planned.
        columns: The columns to read: the name in the block, and the name in the table.
        part_column: The column of a block with the number of each row's part, an index into `names`; or `NO_PART`.
    """

    table: Table
    names: Sequence[str]
    columns: Mapping[str, str]
    part_column: str

    def read(self, block: pa.Table) -> pa.Table:
        """Return the columns for the ids of a block, in its order; nulls for ids that the table lacks."""
        ids, parts = block["id"].to_numpy(), block[self.part_column].to_numpy()
        fields = self._fields()
        vectors = {field.name: _Vectors(field, len(ids)) for field in fields if is_embedding(field)}
        others = [name for name in self.columns if name not in vectors]
        tables, order = [], []
        for rows, rows_of_part in self._by_part(ids, parts):
            for name, gathered in vectors.items():
                gathered.put(rows, rows_of_part[name])
            tables.append(rows_of_part.select(others))
            order.append(rows)
        joined = pa.concat_tables(tables).take(np.argsort(np.concatenate(order)))
        values = [vectors[name].array() if name in vectors else joined[name] for name in self.columns]
        return pa.table(values, schema=pa.schema(fields))

    def _by_part(
        self, ids: npt.NDArray[np.int64], parts: npt.NDArray[np.int32]
    ) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
        """Yield the numbers of the rows that are in one part, or in none, and their columns."""
        fields = self._fields()
        rows_of = {number: np.flatnonzero(parts == number) for number in np.unique(parts).tolist()}
        if (missing := rows_of.pop(NO_PART, None)) is not None:
            yield missing, pa.table([pa.nulls(len(missing), field.type) for field in fields], schema=pa.schema(fields))
        by_name = {self.names[number]: rows for number, rows in rows_of.items()}
        for name, stored in self.table.read_each(by_name, ["id", *self.columns.values()]):
            rows, stored_ids = by_name[name], stored["id"].to_numpy()
            by_id = np.argsort(stored_ids)
            found = stored.take(by_id[np.searchsorted(stored_ids, ids[rows], sorter=by_id)])
            yield rows, pa.table(found.columns[1:], schema=pa.schema(fields))

    def _fields(self) -> list[pa.Field]:
        return [self.table.schema.field(stored).with_name(name) for name, stored in self.columns.items()]


class _Vectors:
    """Embeddings gathered in row order. Arrow's `concat_tables` and `take` would hold each in memory three times."""

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
    """How a worker adds the columns that a stage reads to a block of ids.

    Attributes:
        sources: Tables with columns that the driver does not send.
        from_pool: The X of columns `pool.X`.
        pool: The pool, if the stage reads its images or columns.
        images: The images, if the stage reads them: those of the pool, or downloaded ones.
    """

    sources: Sequence[Source] = ()
    from_pool: Sequence[str] = ()
    pool: Images | None = None
    images: Images | None = None

    def complete(self, block: pa.Table) -> pa.Table:
        """Return the block with all columns that the driver did not send, except the image.

        Raises:
            UserError: Files of the pool cannot be read, or disagree on a column's type.
        """
        block = self._stored(block)
        if not self.from_pool:
            return block
        rows, tables = zip(*self._pool_columns(block), strict=True)
        try:
            joined = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise UserError(f"the pool's columns cannot be read: {' '.join(str(error).split())}") from error
        return self._with_pool(block, joined.take(np.argsort(np.concatenate(rows))))

    def complete_by_type(self, block: pa.Table) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
        """Yield `complete` of the block in parts, with their row numbers.

        Files of a pool may disagree on a column's type; in each part the columns of the pool have one type.

        Raises:
            UserError: Files of the pool cannot be read.
        """
        block = self._stored(block)
        if not self.from_pool:
            yield np.arange(block.num_rows), block
            return
        parts: dict[tuple[str, ...], list[tuple[npt.NDArray[np.int64], pa.Table]]] = {}
        for rows, table in self._pool_columns(block):
            parts.setdefault(tuple(map(str, table.schema.types)), []).append((rows, table))
        for part in parts.values():
            rows = np.concatenate([rows for rows, _ in part])
            yield rows, self._with_pool(block.take(rows), pa.concat_tables([table for _, table in part]))

    def _stored(self, block: pa.Table) -> pa.Table:
        for source in self.sources:
            read = source.read(block)
            for field, values in zip(read.schema, read.columns, strict=True):  # a field stores its encoder's name
                block = block.append_column(field, values)
        return block

    def _with_pool(self, block: pa.Table, read: pa.Table) -> pa.Table:
        for name, values in zip(self.from_pool, read.columns, strict=True):
            block = block.append_column(f"pool.{name}", values)
        return block

    def _pool_columns(self, block: pa.Table) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
        """Yield the columns of each of the pool's shards, with their row numbers in the block."""
        images = self.pool
        assert images is not None
        shards, offsets, lengths = (block[name].to_numpy(zero_copy_only=False) for name in POOL_ADDRESS if name != _URL)
        for shard in dict.fromkeys(shards):
            rows = np.flatnonzero(shards == shard)
            try:
                _refuse_changed(images.root, shard, lengths[rows[0]])
                table, urls = images.pool.columns_and_urls(images.root, shard, self.from_pool, offsets[rows])
                if urls is not None:
                    _refuse_moved(shard, urls, block[_URL].take(pa.array(rows)))
                yield rows, table
            except (BadSampleError, OSError, pa.ArrowException) as error:  # it was readable when it was indexed
                raise UserError(f"the pool's columns cannot be read: {' '.join(str(error).split())}") from error


def _refuse_changed(root: Folder, shard: str, indexed: float) -> None:
    """Refuse a file whose length is not that of the index (NaN: unknown): its rows may have other numbers now."""
    length = root.filesystem.get_file_info(f"{root.path}/{shard}").size
    if length is not None and indexed == indexed and length != indexed:
        raise BadSampleError(
            f"{shard} has {length:,} bytes now, and had {indexed:,.0f} when it was indexed: index the pool again"
        )


def _refuse_moved(shard: str, urls: pa.Array, indexed: pa.ChunkedArray) -> None:
    """Refuse a file in which rows have other URLs than in the index: it was written anew with the same length."""
    same = pc.fill_null(pc.equal(urls, indexed.cast(urls.type)), False)
    moved = pc.sum(pc.and_(pc.invert(same), pc.is_valid(indexed))).as_py()
    if moved:
        raise BadSampleError(
            f"{shard} has other rows at the same length ({moved:,} of {len(urls):,} URLs differ): restore it, or give "
            "it another length (a text by an empty line at its end) and index the pool again"
        )
