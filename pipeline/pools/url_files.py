"""Read files of URLs for the index: Parquet files, and lists in text form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadSampleError
from core.parquet import BAD_PARQUET, BombError, Parquet, text_limit
from manifests.storage import Folder
from pipeline.pools.list_columns import index_batch, list_schema
from pipeline.pools.parquet_rows import damage, unread
from pipeline.pools.rows import on_disk
from pipeline.pools.tables import ROWS_AT_ONCE, TABLES
from pipeline.pools.text_lists import FORMS, ListRow, TextList, form_of
from pipeline.pools.url_rows import ROWS, UrlColumns, UrlSettings, url_rows

_NO_COLUMNS = UrlColumns({}, {}, None)


class _UnreadError(BadSampleError):
    """The file is not damaged, but lacks something that is needed; the text is the error of its row."""


def read_urls(root: Folder, path: str, settings: UrlSettings) -> tuple[pa.Table, str | None]:
    """Read a file of URLs; return its index rows, and an error if it is damaged or empty.

    Rows stay in columns: a file of URLs has millions of rows, too many for one dict each.

    Returns:
        A table with the columns `url_rows.ROWS`, one row per row of the file. And the error, or None.
    """
    form = form_of(path)
    tables, number, size, broken = [ROWS.empty_table()], 0, 0, None
    with on_disk(root, path) as file:
        length = file.seek(0, 2)
        file.seek(0)
        try:
            for table in _list_tables(file, form, length, settings) if form else _parquet_tables(file, settings):
                tables.append(table)
                number += table.num_rows
                size += table.nbytes
                if size > text_limit(length):
                    raise BombError(f"decompression bomb: {number:,} rows of {size:,} bytes")
        except _UnreadError as error:
            return ROWS.empty_table(), str(error)
        except BAD_PARQUET as error:
            broken = f"broken {form or 'Parquet'}: {damage(error)}; {number:,} rows were read before it"
            if not form and not path.lower().endswith(TABLES):
                broken += f" (a file that is not called *{' or *'.join(FORMS)} is read as Parquet)"
    if not number and broken is None:
        broken = f"no images: a {form or 'Parquet'} file without rows"
    return pa.concat_tables(tables), broken


def columns_of(form: str | None, schema: pa.Schema, settings: UrlSettings) -> UrlColumns:
    """Choose the columns of a file by the pool's settings. Plain text has no names of columns: it is all URLs.

    Raises:
        BadSampleError: A required column is missing or cannot be read.
    """
    return UrlColumns.of(schema, UrlSettings(id=settings.id) if form == "plain text" else settings)


def schema_of_list(root: Folder, path: str, id_: str | None) -> tuple[pa.Schema | None, int]:
    """Return the columns of a list in text form, as far as its first rows have them, and how many of these are usable.

    None and 0 if it is damaged or no list, which indexing reports later.
    """
    try:
        with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
            source = TextList(file, form_of(path) or "", file.size())
            rows = [row for row in next(source.batches()) if isinstance(row, dict)]
            known = bool(rows or source.names) and not _no_url(source.form, rows)
            return (list_schema(source.names, id_), len(rows)) if known else (None, 0)
    except BAD_PARQUET:
        return None, 0


def _parquet_tables(file: BinaryIO, settings: UrlSettings) -> Iterator[pa.Table]:
    parquet = Parquet(file)
    try:
        columns = UrlColumns.of(parquet.schema, settings)
    except BadSampleError as error:
        raise _UnreadError(unread(error, parquet)) from error
    number = 0
    for batch in parquet.batches(columns.read, ROWS_AT_ONCE):
        yield url_rows(batch, columns, number)
        number += batch.num_rows


def _list_tables(file: BinaryIO, form: str, length: int, settings: UrlSettings) -> Iterator[pa.Table]:
    source = TextList(file, form, length)
    number = 0
    for rows in source.batches():
        columns = _columns_of_list(source, rows, settings, first=not number)
        batch, errors = index_batch(rows, columns)
        table = url_rows(batch, columns, number, errors)
        if source.encoding:
            encoding = pc.if_else(pc.is_valid(table["url"]), source.encoding, None)
            table = table.set_column(ROWS.get_field_index("text_encoding"), ROWS.field("text_encoding"), encoding)
        yield table
        number += len(rows)


def _columns_of_list(source: TextList, rows: Sequence[ListRow], settings: UrlSettings, first: bool) -> UrlColumns:
    """Return the columns to read of these rows; keys of JSON Lines may come later than in the first row.

    Raises:
        _UnreadError: The list has no such columns.
    """
    good = [row for row in rows if isinstance(row, dict)]
    if rows and not good:
        return _NO_COLUMNS
    if first and (what := _no_url(source.form, good)):
        raise _UnreadError(f"unread {source.form}: {what}; it was not read")
    if not rows and not source.names:
        return _NO_COLUMNS
    try:
        return columns_of(source.form, list_schema(source.names, settings.id), settings)
    except BadSampleError as error:
        raise _UnreadError(f"unread {source.form}: {error}; none of its rows were read") from error


def _no_url(form: str, rows: Sequence[ListRow]) -> str | None:
    """Say that plain text does not begin with a URL, and so is no list of them; None: it is, or may be."""
    first = next((row["url"] for row in rows if isinstance(row, dict)), None) if form == "plain text" else None
    return None if first is None or "://" in first else f"its first line is no URL: {ascii(first)[:100]}"
