"""Parquet files with an image column: binary, or struct{bytes, path} as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.image_header import BadImageError
from manifests.storage import Folder
from pipeline.pool.listing import Shard
from pipeline.pool.rows import NOTES, Row, known, measure, on_disk

ROWS_AT_ONCE = 64


def read_parquet(root: Folder, shard: Shard, image: str | None, id_: str | None) -> Iterator[Row]:
    """The rows of a Parquet file."""
    with on_disk(root, shard.path) as file:
        yield from parquet_rows(file, image, id_)


def parquet_rows(file: Any, image: str | None, id_: str | None) -> Iterator[Row]:
    """One row per row, and one with key "" that says where a damaged file breaks off."""
    number = 0
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        column = image_column(schema, image)
        wanted = [column, *(f.name for f in schema if f.name in NOTES and is_text(f.type))]
        if id_ is not None:
            wanted.append(id_column(schema, id_))
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted))):
            for told in plain_rows(batch):
                yield _cell(told, column, id_, number)
                number += 1
        if not number:
            yield {"key": "", "error": "no images: a Parquet file without rows"}
    except BAD_PARQUET as error:
        text = damage(error)
        yield {"key": "", "error": f"broken Parquet: {text}; {number:,} rows were read before it"}


BAD_PARQUET = (pa.ArrowException, ValueError, LookupError, MemoryError, OSError)


def damage(error: Exception) -> str:
    """What is wrong with the bytes. A disk's own error goes on: it has a number, unlike the OSErrors of Arrow."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return " ".join(str(error).split())[:300] or type(error).__name__


def plain_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch; one with a text that is not UTF-8 loses its texts, not its image."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            yield {name: _value(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return {"bytes": _value(scalar["bytes"])} if pa.types.is_struct(scalar.type) else None


def image_column(schema: pa.Schema, image: str | None) -> str:
    """The column with the encoded image: the one named, else the only one that can be it.

    Raises:
        BadImageError: There is none, or more than one.
    """
    if image is not None and image not in schema.names:
        raise BadImageError(f"no column {image!r} (there are {', '.join(schema.names)})")
    candidates = [f.name for f in schema if is_image(f.type) and image in (None, f.name)]
    if image is not None and not candidates:
        raise BadImageError(f"column {image!r} is {schema.field(image).type}, not binary or struct{{bytes, path}}")
    if len(candidates) != 1:
        found = f"{len(candidates)} columns ({', '.join(candidates)})" if candidates else "no column"
        raise BadImageError(f"{found} of binary or struct{{bytes, path}}; name the image column in the pool")
    return str(candidates[0])


def id_column(schema: pa.Schema, id_: str) -> str:
    """The column with the image's own id.

    Raises:
        BadImageError: It is not there, or holds no integers.
    """
    if not any(f.name == id_ and pa.types.is_integer(f.type) for f in schema):
        raise BadImageError(f"no integer column {id_!r} (there are {', '.join(schema.names)})")
    return id_


def is_image(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(f.name == "bytes" and not pa.types.is_struct(f.type) and is_image(f.type) for f in type_.fields)
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _cell(told: Row, column: str, id_: str | None, number: int) -> Row:
    cell = told[column]
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    path = path if isinstance(path, str) else None
    row: Row = {"key": path or str(number), "offset": number, **known(told)}
    if path:
        row["identity"] = str(number)  # paths may repeat between rows
    if id_ is not None and told[id_] is not None and told[id_] < 1 << 63:
        row["id"] = told[id_]
    if data is None:
        where = f", and its path {path!r} is a label that is not followed" if path else ""
        row["error"] = f"null image: the cell holds no bytes{where}"
    elif id_ is not None and "id" not in row:
        row["error"] = f"bad id: {told[id_]} in the column {id_!r}"
    else:
        row |= measure(data)
    return row
