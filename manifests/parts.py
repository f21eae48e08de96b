"""Read and write our own Parquet files, with checksums: parts of tables, lists, fitted artifacts.

Each call names the columns it needs. In a local folder, the checksums of these columns are compared once per process,
before polars reads them. From an object store this would read every byte twice. There, only the footers are compared
first, and pyarrow checks the pages while it reads them.
"""

from __future__ import annotations

import os
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

VERSION, COMPACTED_VERSION = 2, 3
"""Versions of the file layout: of a file with one part, and of a file with many. Version 1 had no checksums."""

_REQUESTS = 16
"""Number of requests to an object store at the same time."""

_NAME = b"vl3syn.part"
"""Metadata key of a file's name, without the folder. Files of earlier versions lack it."""


def to_bytes(rows: pa.Table, dictionary: Sequence[str] | bool = True, name: str = "", version: int = VERSION) -> bytes:
    """Return the bytes of a Parquet file with a seal of checksums.

    Args:
        rows: The content. Their schema's metadata goes into the file.
        dictionary: The columns to encode with a dictionary, because their values repeat; true: all.
        name: The name of the file. Readers refuse it under another name. Empty: any name is accepted.
        version: The version of the layout.
    """
    sink = pa.BufferOutputStream()
    named = {_NAME: name.encode()} if name else {}
    stamped = rows.replace_schema_metadata({**(rows.schema.metadata or {}), LAYOUT: str(version).encode(), **named})
    pq.write_table(stamped, sink, compression="zstd", use_dictionary=dictionary, write_page_checksum=True)
    return seal(sink.getvalue())


def footer_of(folder: Folder, info: pafs.FileInfo, remedy: str, columns: Sequence[str] = ()) -> Footer:
    """Read a part's footer. Compare its checksum and, in a local folder, those of `columns`.

    Raises:
        UserError: The part is damaged (`remedy` says what to do), was written under another name, or comes from a newer
            version of vl3syn.
    """
    try:
        footer = check(folder.filesystem, info, columns if folder.local else ())
    except DamagedError as error:
        raise damaged(info.path, error, remedy) from error
    metadata = footer.schema.metadata or {}
    name = metadata.get(_NAME, b"").decode(errors="replace")
    if name not in ("", info.base_name):
        raise UserError(f"{info.path}: a copy of {name}, or that file under another name; move it away, or rename it")
    version = int(metadata.get(LAYOUT, b"1"))
    if version > COMPACTED_VERSION:
        raise UserError(f"{info.path}: written by a newer version of vl3syn (layout {version}); use that version")
    return footer


def damaged(path: str, error: Exception, remedy: str) -> UserError:
    return UserError(f"{path}: the file is damaged ({' '.join(str(error).split())}); {remedy}")


def check_parts(folder: Folder, infos: Sequence[pafs.FileInfo], schema: pa.Schema, needs: str, remedy: str) -> None:
    """Compare checksums and types of the columns of `schema` before polars scans them. A part may lack columns.

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

    if len(infos) == 1:
        check_part(infos[0])
        return
    with ThreadPoolExecutor(min(len(infos), os.cpu_count() or 1) if folder.local else _REQUESTS) as threads:
        list(threads.map(check_part, infos))


def scan_parts(
    folder: Folder, infos: Sequence[pafs.FileInfo], schema: pa.Schema, remedy: str, needs: str = "id"
) -> pl.LazyFrame:
    """Return the columns of `schema` from some files, in the given order, as one lazy frame.

    Columns that a file lacks are null.

    Raises:
        UserError: As in `check_parts`.
    """
    check_parts(folder, infos, schema, needs, remedy)
    paths = [info.path for info in infos]
    if folder.local:
        types: Mapping[str, pl.DataType] = pl.DataFrame(schema.empty_table()).schema
        return pl.scan_parquet(paths, glob=False, schema=dict(types), missing_columns="insert", extra_columns="ignore")
    options = pads.ParquetFragmentScanOptions(page_checksum_verification=True)
    layout = pads.ParquetFileFormat(default_fragment_scan_options=options)
    return pl.scan_pyarrow_dataset(pads.dataset(paths, schema=schema, filesystem=folder.filesystem, format=layout))


def read_part(folder: Folder, name: str, remedy: str, schema: pa.Schema | None = None) -> pa.Table:
    """Read the columns of `schema` from one part, or all its columns with its metadata.

    Columns that the part lacks are null, except the first one, which is required.

    Raises:
        UserError: The part is damaged, has another type in a column, or lacks the first column of `schema`.
        FileNotFoundError: There is no such part.
    """
    path = f"{folder.path}/{name}"
    info = folder.filesystem.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise FileNotFoundError(f"{path}: the file has gone")
    stored = footer_of(folder, info, remedy).schema
    wanted = stored if schema is None else schema
    check_parts(folder, [info], wanted, wanted.names[0], remedy)
    with folder.filesystem.open_input_file(path) as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            # A worker has one core, and for a small part threads take longer than the work.
            read = parquet.read(columns=[n for n in wanted.names if n in stored.names], use_threads=False)
        except UNREADABLE as error:
            folder.read(name)  # raises if the disk or the network failed, and not the file
            raise damaged(path, error, remedy) from error
    columns = [read[f.name] if f.name in stored.names else pa.nulls(read.num_rows, f.type) for f in wanted]
    return pa.table(columns, schema=wanted)
