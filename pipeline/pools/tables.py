"""Pools of Parquet files: columns that stages can read, and the check of the first file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.arrow_types import check_names, type_name
from core.errors import BadSampleError, UserError
from core.parquet import BAD_PARQUET, BombError, Parquet
from manifests.storage import Folder
from pipeline.pools.globs import GlobPool
from pipeline.pools.listing import Listing, Shard, shards_of
from pipeline.pools.look import Look
from pipeline.pools.parquet_rows import holds_text
from pipeline.pools.rows import NOTES, alt_text_line, matching

ROWS_AT_ONCE = 8192
_SHARDS = 64  # Parquet files that are searched for one with rows

_LOOKED_AT = 8  # Parquet files that are opened to recognise a pool

TABLES = (".parquet", ".parquet.gz", ".pq", ".parq", ".arrow", ".feather")
"""Endings of files that may be meant as Parquet files."""


class TablePool(GlobPool):
    """A glob of Parquet files.

    Attributes:
        id: Name of the integer column that identifies the image in the whole pool.
        alt_text: The column with the alt text, if it has none of the usual names (`rows.NOTES`).
    """

    has_columns: ClassVar = True
    ending: ClassVar[str | tuple[str, ...]] = ".parquet"
    like_shards: ClassVar[tuple[str, ...]] = TABLES

    id: str | None = None
    alt_text: str | None = None

    def id_column(self) -> str | None:
        return self.id

    def columns(self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
        return columns_at(root, shard, names, rows)

    def column_names(self, root: Folder, shard: str) -> Sequence[str] | None:
        schema, _ = schema_of_parquet(root, shard)
        return None if schema is None else schema.names


def check_first_table(
    listing: Listing,
    kind: str,
    sources: Callable[[str, pa.Schema], tuple[Mapping[str, Sequence[str]], str]],
    table_of: Callable[[Shard], str] = lambda shard: shard.path,
    schema_of: Callable[[Folder, str], tuple[pa.Schema | None, int]] | None = None,
) -> Listing:
    """Return the listing with the sources of image and alt text in its first file; empty if it is damaged.

    A file without rows is passed over, unless the pool has no other.

    Args:
        listing: The shards.
        kind: The kind of the pool, for errors.
        sources: Returns, for the path and schema of a file, its metadata columns by the index column that they fill,
            and where its images are, as a line for the log.
        table_of: Returns the path of a shard's file.
        schema_of: Returns the schema of a file and how many rows it has; None and 0 if it is damaged, which indexing
            reports later. Default: of a Parquet file.

    Raises:
        UserError: `sources` raised a BadSampleError.
    """
    path, schema = _first_with_rows(listing, table_of, schema_of or schema_of_parquet)
    if schema is None:
        return listing
    try:
        notes, image = sources(path, schema)
    except BadSampleError as error:
        raise UserError(f"{kind}: {path}: {error}") from error
    names = notes.get("alt_text", [])
    alt_text = alt_text_line([f"the column {name!r}" for name in names], path, [] if names else _no_texts(schema))
    return replace(listing, alt_text=alt_text, image=image)


def _first_with_rows(
    listing: Listing,
    table_of: Callable[[Shard], str],
    schema_of: Callable[[Folder, str], tuple[pa.Schema | None, int]],
) -> tuple[str, pa.Schema | None]:
    """Return path and schema of the first file that has rows, else of the first; None if it is damaged."""
    first = None
    for shard in shards_of(listing.shards.slice(0, _SHARDS)):
        path = table_of(shard)
        schema, rows = (None, 0) if shard.problem else schema_of(listing.root, path)
        if rows or (schema is None and first is None):
            return path, schema
        first = first or (path, schema)
    assert first is not None
    return first


def first_table(look: Look, names: Sequence[str]) -> tuple[str, pa.Schema] | None:
    """Return name and schema of the first readable Parquet file with rows among some of `names`, or None."""
    for name in names[:_LOOKED_AT]:
        try:
            with look.open(name) as file:
                parquet = Parquet(file)
                if sum(parquet.row_groups):
                    return name, parquet.schema
        except BAD_PARQUET:
            continue
    return None


def schema_of_parquet(root: Folder, path: str) -> tuple[pa.Schema | None, int]:
    """Return schema and number of rows of a Parquet file; None and 0 if it is damaged, which indexing reports later."""
    try:
        with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
            parquet = Parquet(file)
            return parquet.schema, sum(parquet.row_groups)
    except BAD_PARQUET:
        return None, 0


def _no_texts(schema: pa.Schema) -> list[str]:
    """Describe the columns that have a name of alt text but do not hold text."""
    names = matching(schema.names, NOTES["alt_text"])
    types = {field.name: field.type for field in schema if not holds_text(field.type)}
    return [f"the column {name!r} is {type_name(types[name])}, not text" for name in names if name in types]


def columns_at(
    root: Folder,
    path: str,
    names: Sequence[str],
    rows: npt.NDArray[np.int64],
    also: Callable[[pa.Schema], Sequence[str]] = lambda schema: (),
) -> pa.Table:
    """Read some columns of one of the pool's Parquet files at the given rows.

    Only the row groups with those rows, and only these columns, are read.

    Args:
        root: The folder that `path` is relative to.
        path: The file.
        names: The columns; one that is missing from the file is returned as nulls.
        rows: Row numbers, in any order; they may repeat.
        also: Returns, for the file's schema, the names of more columns to read: the last ones of the table.

    Returns:
        A table with the columns in the order of `names` and the rows in the order of `rows`.

    Raises:
        BadSampleError: The file is damaged, or has fewer rows.
        OSError: Disk or network failure, or a damaged page: Arrow does not distinguish them.
    """
    with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
        try:
            parquet = Parquet(file)
            return _at_rows(parquet, [*names, *also(parquet.schema)], rows)
        except BAD_PARQUET as error:
            kind = OSError if isinstance(error, OSError) else BadSampleError
            raise kind(f"{path}: {' '.join(str(error).split())[:300]}") from error


def _at_rows(parquet: Parquet, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    ends = np.cumsum(np.array(parquet.row_groups, np.int64))
    if rows.size and not 0 <= rows.min() <= rows.max() < ends[-1]:
        raise BadSampleError(f"has {ends[-1]:,} rows, and row {rows.max():,} is asked for; index the pool again")
    check_names(parquet.schema, names)
    columns = [name for name in dict.fromkeys(names) if parquet.schema.get_field_index(name) >= 0]
    if not rows.size or not columns:
        return pa.table([pa.nulls(rows.size)] * len(names), names=list(names))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    pieces, size = [], 0
    for group in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
        start = int(ends[group]) - parquet.row_groups[group]
        for batch in parquet.batches(columns, ROWS_AT_ONCE, [group]):
            here = slice(*np.searchsorted(ordered, [start, start + batch.num_rows]))
            places = pa.array(ordered[here] - start)
            pieces.append(pa.table([without_dictionary(batch[name].take(places)) for name in columns], names=columns))
            start += batch.num_rows
            size += pieces[-1].nbytes
            if size > parquet.most_text:
                raise BombError(f"decompression bomb: {rows.size:,} rows of more than {parquet.most_text:,} bytes")
    joined = pa.concat_tables(pieces, promote_options="permissive").take(pa.array(np.argsort(order)))
    return pa.table([joined[n] if n in columns else pa.nulls(rows.size) for n in names], names=list(names))


def without_dictionary(column: pa.Array) -> pa.Array:
    """Decode a dictionary column, so that tables of different batches can be concatenated."""
    return column.dictionary.take(column.indices) if pa.types.is_dictionary(column.type) else column
