"""Make index rows from Parquet files with an image column: one for each of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import pyarrow as pa

from core.arrow_types import check_plain, is_bytes, is_list, is_text, type_name
from core.errors import BadSampleError
from core.image_header import BadImageError
from core.parquet import BAD_PARQUET, MAX_CELL, BombError, Parquet
from pipeline.pools.cells import cell_bytes, cell_path, image_leaves, octets_as_bytes
from pipeline.pools.medium import IMAGES, Medium
from pipeline.pools.rows import NOTES, TEXT_LIMIT, Row, note_names, notes_of

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class ImageColumns:
    """The columns that are read from a Parquet file.

    Attributes:
        image: The column with the encoded image.
        leaves: Its leaf columns that are read: of a struct only `bytes` and `path`.
        id: The column with the source's own id, or None.
        notes: Metadata columns, by the index column that they fill.
    """

    image: str
    leaves: Sequence[str]
    id: str | None
    notes: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls, schema: pa.Schema, image: str | None, id_: str | None, alt_text: str | None, medium: Medium = IMAGES
    ) -> ImageColumns:
        """Choose the columns by the pool's settings.

        Raises:
            BadSampleError: A required column is missing or cannot be read.
        """
        column = medium.column(schema, image)
        id_ = None if id_ is None else id_column(schema, id_)
        columns = cls(column, image_leaves(schema, column), id_, note_columns(schema, alt_text, column))
        check_plain(schema, columns.read)
        return columns

    @property
    def read(self) -> list[str]:
        names = [*self.leaves, *(name for theirs in self.notes.values() for name in theirs)]
        return list(dict.fromkeys([*names, self.id] if self.id else names))


def parquet_rows(
    file: Any,
    image: str | None,
    id_: str | None,
    alt_text: str | None = None,
    max_cell: int = MAX_CELL,
    medium: Medium = IMAGES,
) -> Iterator[Row]:
    """Yield one index row per row. A damaged or empty file gets a row with key "" that says what is wrong."""
    number = text = 0
    try:
        parquet = Parquet(file, max_cell)
        try:
            columns = ImageColumns.of(parquet.schema, image, id_, alt_text, medium)
        except BadSampleError as error:
            yield {"key": "", "error": unread(error, parquet)}
            return
        for source in bounded_rows(parquet, columns.read):
            row = index_row(source, columns, number, max_cell, medium)
            text += len(row["key"]) + sum([len(row.get(name) or "") for name in NOTES])
            if text > parquet.most_text:
                raise BombError(f"decompression bomb: {text:,} bytes of text in {number + 1:,} rows")
            yield row
            number += 1
        if not number:
            yield {"key": "", "error": f"no {medium.noun}s: a Parquet file without rows"}
    except BAD_PARQUET as error:
        yield {"key": "", "error": f"broken Parquet: {damage(error)}; {number:,} rows were read before it"}


def unread(error: BadSampleError, parquet: Parquet) -> str:
    """Return the error of a file that is not damaged, but lacks a column that is needed."""
    return f"unread Parquet: {error}; none of its {sum(parquet.row_groups):,} rows were read"


def bounded_rows(parquet: Parquet, columns: Sequence[str]) -> Iterator[Row | BombError]:
    """Yield the rows of a file. Each row of a row group that needs too much memory is its `BombError` instead."""
    groups = range(len(parquet.row_groups))
    while groups:
        try:
            for batch in parquet.batches(columns, ROWS_AT_ONCE, groups):
                yield from plain_rows(batch)
            return
        except BombError as error:
            if error.group is None:
                raise
            yield from repeat(error, parquet.row_groups[error.group])
            groups = groups[error.group - groups.start + 1 :]


def damage(error: Exception) -> str:
    """Return what is wrong with the bytes. I/O errors are raised again; they have an errno, unlike Arrow's OSErrors."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return " ".join(str(error).split())[:300] or type(error).__name__


def plain_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Yield the rows of a batch. Texts that are not UTF-8 are returned as bytes."""
    batch = octets_as_bytes(batch)
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            yield {name: value_of(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def value_of(scalar: pa.Scalar) -> Any:
    """Return a value as a Python object; a text that is not UTF-8 as bytes."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if pa.types.is_struct(scalar.type):  # an image with a path
            return {"bytes": value_of(scalar["bytes"])}
        if pa.types.is_dictionary(scalar.type):
            return value_of(scalar.value)
        return [value_of(entry) for entry in scalar] if is_list(scalar.type) else scalar.as_buffer().to_pybytes()


def id_column(schema: pa.Schema, id_: str) -> str:
    """Return `id_`, the column with the source's own id, after checking it.

    Raises:
        BadImageError: The column is missing, or does not hold integers.
    """
    if not any(f.name == id_ and pa.types.is_integer(f.type) for f in schema):
        types = [type_name(f.type) for f in schema if f.name == id_]
        names = f"it is {types[0]}" if types else f"there are {', '.join(schema.names)}"
        raise BadImageError(f"no integer column {id_!r} ({names})")
    return id_


def note_columns(schema: pa.Schema, alt_text: str | None = None, image: str | None = None) -> dict[str, list[str]]:
    """Return the text columns with metadata of the image, by the index column that they fill.

    Args:
        schema: The file's schema.
        alt_text: The column with the alt text; default the names in `NOTES`.
        image: The image column, which is not read as text.

    Raises:
        BadImageError: The column `alt_text` is missing, or does not hold text.
    """
    texts = [f.name for f in schema if f.name != image and holds_text(f.type, f.name.lower() != "sha256")]
    names = note_names(texts, alt_text)
    if alt_text is not None and "alt_text" not in names:
        types = [type_name(f.type) for f in schema if f.name.lower() == alt_text.lower()]
        if not types:
            raise BadImageError(f"alt_text: no column {alt_text!r} (there are {', '.join(schema.names)})")
        raise BadImageError(f"alt_text: column {alt_text!r} is {types[0]}, not text")
    return names


def holds_text(type_: pa.DataType, as_bytes: bool = True) -> bool:
    """Return whether a type is text, dictionary-encoded text or a list of texts.

    With `as_bytes` text may be stored as bytes, as Spark and Hive may do. For digests, bytes may be raw: leave it off.
    """
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if is_list(type_):
        return holds_text(type_.value_type, as_bytes)
    return is_text(type_) or (as_bytes and is_bytes(type_) and not pa.types.is_fixed_size_binary(type_))


def index_row(
    source: Row | BombError, columns: ImageColumns, number: int, max_cell: int, medium: Medium = IMAGES
) -> Row:
    """Return the index row for a row of the file."""
    if isinstance(source, BombError):
        return {"key": str(number), "offset": number, "error": str(source)}
    cell, id_ = source[columns.image], None if columns.id is None else source[columns.id]
    path = cell_path(cell)
    path = path if path is not None and len(path) <= TEXT_LIMIT else None
    row: Row = {"key": path or str(number), "offset": number, **notes_of(source, columns.notes)}
    if path:
        row["identity"] = str(number)  # paths may repeat between rows
    if id_ is not None and id_ < 1 << 63:
        row["id"] = id_
    if columns.id is not None and "id" not in row:
        return row | {"error": f"bad id: {id_} in the column {columns.id!r}"}
    return row | measured_cell(cell, max_cell, medium)


def measured_cell(cell: Any, max_cell: int, medium: Medium = IMAGES) -> Row:
    """Return what a cell's image or film measures. An empty cell, or one above `max_cell` bytes, gives an error."""
    try:
        data = cell_bytes(cell, max_cell)
    except BadImageError as error:
        return {"error": str(error)}
    if data is None:
        path = cell_path(cell)
        where = f", and its path {path[:200]!r} is a label that is not followed" if path else ""
        return {"error": f"null {medium.noun}: the cell holds no bytes{where}"}
    if len(data) > max_cell:
        return {"bytes": len(data), "error": f"too long: {len(data):,} bytes, max_image_bytes is {max_cell:,}"}
    return medium.measure(data)
