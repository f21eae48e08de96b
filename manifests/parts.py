"""Parquet files that we write and read ourselves, with checksums: the parts of tables, lists, what stages are fitted to.

Each call says which columns it needs. Of those, locally, the checksums are compared once per process before polars
reads them. From an object store every byte would be read twice that way: there only the footers are compared, and
pyarrow checks the pages while it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.checksums import LAYOUT, UNREADABLE, DamagedError, Footer, check, seal
from manifests.storage import Folder

VERSION = 2
"""Of the files' layout: 1 had no checksums."""

_FILES_AT_ONCE = 16


def to_bytes(rows: pa.Table, dictionary: Sequence[str] | bool = True) -> bytes:
    """A sealed Parquet file.

    Args:
        rows: What is in it; their schema's metadata goes into the file.
        dictionary: The columns whose values repeat.
    """
    sink = pa.BufferOutputStream()
    stamped = rows.replace_schema_metadata({**(rows.schema.metadata or {}), LAYOUT: str(VERSION).encode()})
    pq.write_table(stamped, sink, compression="zstd", use_dictionary=dictionary, write_page_checksum=True)
    return seal(sink.getvalue())


def footer_of(folder: Folder, info: pafs.FileInfo, remedy: str, columns: Sequence[str] = ()) -> Footer:
    """What a part's footer says, its checksum and those of some columns compared.

    Raises:
        UserError: The part is damaged, or of a later version than this one reads. `remedy` says what to do then.
    """
    try:
        footer = check(folder.filesystem, info, columns if folder.local else ())
    except DamagedError as error:
        raise damaged(info.path, error, remedy) from error
    version = int((footer.schema.metadata or {}).get(LAYOUT, b"1"))
    if version > VERSION:
        raise UserError(f"{info.path}: written by a newer version of vl3syn (layout {version}); use that version")
    return footer


def damaged(path: str, error: Exception, remedy: str) -> UserError:
    return UserError(f"{path}: the file is damaged ({' '.join(str(error).split())}); {remedy}")


def check_parts(folder: Folder, infos: Sequence[pafs.FileInfo], schema: pa.Schema, needs: str, remedy: str) -> None:
    """Compare checksums and types before polars scans the columns of `schema`. A column that a part lacks is null there.

    Raises:
        UserError: A part is damaged, has another type in a column, or lacks the column `needs`.
    """

    def check_part(info: pafs.FileInfo) -> None:
        stored = footer_of(folder, info, remedy, schema.names).schema
        if needs not in stored.names:
            raise UserError(f"{info.path}: no part of this table: it has no column {needs}; move it away")
        for field in schema:
            if field.name in stored.names and stored.field(field.name).type != field.type:
                raise UserError(
                    f"{info.path}: column {field.name} is {stored.field(field.name).type} where {field.type} is read: "
                    f"another version wrote it; use that version, or {remedy}"
                )

    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:
        list(threads.map(check_part, infos))


def scan_parts(
    folder: Folder,
    infos: Sequence[pafs.FileInfo],
    schema: pa.Schema,
    remedy: str,
    needs: str = "id",
    name_column: str | None = None,
) -> pl.LazyFrame:
    """The columns of `schema` of some parts, in this order, as one lazy frame; each row's part in `name_column`.

    Raises:
        UserError: As `check_parts`.
    """
    check_parts(folder, infos, schema, needs, remedy)
    return _scan(folder, [info.path for info in infos], schema, name_column)


def _scan(folder: Folder, paths: Sequence[str], schema: pa.Schema, name_column: str | None) -> pl.LazyFrame:
    if folder.local:
        types: Mapping[str, pl.DataType] = pl.DataFrame(schema.empty_table()).schema
        frame = pl.scan_parquet(
            list(paths),
            glob=False,
            schema=dict(types),
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths=name_column,
        )
        short = [] if name_column is None else [pl.col(name_column).str.slice(len(folder.path) + 1)]
        return frame.with_columns(short)
    if name_column is None:
        options = pads.ParquetFragmentScanOptions(page_checksum_verification=True)
        layout = pads.ParquetFileFormat(default_fragment_scan_options=options)
        return pl.scan_pyarrow_dataset(
            pads.dataset(list(paths), schema=schema, filesystem=folder.filesystem, format=layout)
        )
    named = (
        _scan(folder, [p], schema, None).with_columns(pl.lit(folder.relative(p)).alias(name_column)) for p in paths
    )
    return pl.concat(named)


def read_part(folder: Folder, name: str, schema: pa.Schema, remedy: str) -> pa.Table:
    """The columns of `schema` of one part; those that it lacks are null.

    Raises:
        UserError: The part is damaged, or has another type in a column.
    """
    path = f"{folder.path}/{name}"
    info = folder.filesystem.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise FileNotFoundError(f"{path}: the file has gone")
    check_parts(folder, [info], schema, schema.names[0], remedy)
    stored = footer_of(folder, info, remedy).schema.names
    with folder.filesystem.open_input_file(path) as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            read = parquet.read(columns=[n for n in schema.names if n in stored])
        except UNREADABLE as error:
            folder.read(name)  # if the disk or the network failed, this says so
            raise damaged(path, error, remedy) from error
    columns = [read[f.name] if f.name in stored else pa.nulls(read.num_rows, f.type) for f in schema]
    return pa.table(columns, schema=schema.remove_metadata())
