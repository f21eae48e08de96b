"""Check the first Parquet file of a pool before anything is written; find the columns with image and alt text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from core.arrow_types import type_name
from core.errors import BadSampleError, UserError
from core.parquet import BAD_PARQUET, Parquet
from pipeline.pools.listing import Listing, Shard, shards_of
from pipeline.pools.parquet_rows import holds_text
from pipeline.pools.rows import NOTES, alt_text_line, matching

_SHARDS = 64  # Parquet files that are searched for one with rows


def check_first_table(
    listing: Listing,
    kind: str,
    sources: Callable[[str, pa.Schema], tuple[Mapping[str, Sequence[str]], str]],
    table_of: Callable[[Shard], str] = lambda shard: shard.path,
) -> Listing:
    """Return the listing with the sources of image and alt text in its first Parquet file; empty if it is damaged.

    A Parquet file without rows is passed over, unless the pool has no other.

    Args:
        listing: The shards.
        kind: The kind of the pool, for errors.
        sources: Returns, for the path and schema of a file, its metadata columns by the index column that they fill,
            and where its images are, as a line for the log.
        table_of: Returns the path of a shard's Parquet file.

    Raises:
        UserError: `sources` raised a BadSampleError.
    """
    path, schema = _first_with_rows(listing, table_of)
    if schema is None:
        return listing
    try:
        notes, image = sources(path, schema)
    except BadSampleError as error:
        raise UserError(f"{kind}: {path}: {error}") from error
    names = notes.get("alt_text", [])
    alt_text = alt_text_line([f"the column {name!r}" for name in names], path, [] if names else _no_texts(schema))
    return replace(listing, alt_text=alt_text, image=image)


def _first_with_rows(listing: Listing, table_of: Callable[[Shard], str]) -> tuple[str, pa.Schema | None]:
    """Return path and schema of the first Parquet file that has rows, else of the first; None if it is damaged."""
    first = None
    for shard in shards_of(listing.shards.slice(0, _SHARDS)):
        path = table_of(shard)
        schema, rows = (None, 0) if shard.problem else _schema(listing, path)
        if rows or (schema is None and first is None):
            return path, schema
        first = first or (path, schema)
    assert first is not None
    return first


def _schema(listing: Listing, path: str) -> tuple[pa.Schema | None, int]:
    """Return schema and number of rows of a Parquet file; None and 0 if it is damaged, which indexing reports later."""
    try:
        with listing.root.filesystem.open_input_file(f"{listing.root.path}/{path}") as file:
            parquet = Parquet(file)
            return parquet.schema, sum(parquet.row_groups)
    except BAD_PARQUET:
        return None, 0


def _no_texts(schema: pa.Schema) -> list[str]:
    """Describe the columns that have a name of alt text but do not hold text."""
    names = matching(schema.names, NOTES["alt_text"])
    types = {field.name: field.type for field in schema if not holds_text(field.type)}
    return [f"the column {name!r} is {type_name(types[name])}, not text" for name in names if name in types]
