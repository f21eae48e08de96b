"""Read encoded images from Parquet cells, in the forms that public data sets use.

- bytes of any Arrow type, or `struct{bytes, path}`; the path is a label and is never opened;
- a list of one of these that holds one image;
- a list of 8-bit numbers, which are the image's bytes;
- base64, or a data URI with base64, as text or as bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from core.arrow_types import check_names, check_plain, is_bytes, is_list, is_octet, is_text, type_name
from core.image_header import BadImageError
from pipeline.pools.rows import note_names

_ACCEPTED = "bytes, struct{bytes, path}, a list with one of these, list<uint8>, or base64 text"
_NAMES = re.compile(r"(image|img|photo|picture|jpe?g|png|webp)s?([_.-]?(bytes|data|content|base64|b64))?|base64|b64")
"""Names of image columns. Columns with other names that hold base64 or lists of numbers must be named in the pool."""
CONTAINERS = re.compile(r"bytes|bin|binary|blob|buffer|content|contents|data|encoded|raw|raw_bytes|file_bytes|value")
"""Usual names for the image's bytes. Beside them, a text called like an image is likely to be its path."""
_SHORTEST = 64  # bytes; digests and UUIDs are not longer, images are
_SHOWN = 12  # columns that an error lists
_BASE64 = re.compile(rb"\s*(?:(?i:data:[^,]{0,200};base64),)?([A-Za-z0-9+/_=\s-]+)")
_NO_IMAGE = re.compile(
    rb"(?:(?i:data:[^,]{0,200};base64),)?[A-Za-z0-9+/_=-]+"
)  # plain PNM has white space near its start
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def image_column(schema: pa.Schema, image: str | None) -> str:
    """Return the name of the image column: `image` if it is given, else the only column that can hold images.

    Raises:
        BadImageError: No column, or more than one, can hold the image, or `image` is missing or of another type.
    """
    if image is None:
        candidates = image_columns(schema)
        if len(candidates) == 1:
            check_names(schema, candidates)
            return candidates[0]
        if candidates:
            names = f"{len(candidates)} columns ({', '.join(candidates)})"
            raise BadImageError(f"{names} can hold the image; name one as `image` in the pool")
        check_plain(schema, schema.names)  # name a type that cannot be read in the error
        raise BadImageError(f"no column can hold the image ({_types(schema)}); accepted: {_ACCEPTED}")
    if image not in schema.names:
        raise BadImageError(f"no column {image!r} (there are {', '.join(schema.names)})")
    check_names(schema, [image])
    type_ = schema.field(image).type
    if not (is_image(_entry(type_)) or may_encode(type_)):
        raise BadImageError(f"column {image!r} is {type_name(type_)}; accepted: {_ACCEPTED}")
    return image


def image_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that can hold the encoded image, those that are called like an image first.

    The plainest form that occurs in the schema counts. If none of its columns is called like an image, a column of any
    other form that is called so counts instead: the plainest column may be a thumbnail, a mask or a digest.
    """
    plainest = _plainest(schema)
    named = [name for name in plainest if _is_named(name)]
    if named:
        return named + [name for name in plainest if name not in named]
    lists = [f.name for f in schema if _is_named(f.name) and (is_image(_entry(f.type)) or _is_octets(f.type))]
    texts = [f.name for f in schema if _is_named(f.name) and may_encode(f.type) and not _is_octets(f.type)]
    if any(CONTAINERS.fullmatch(name.lower()) for name in plainest):
        texts = []
    return [name for name in lists if not _is_digest(_entry(schema.field(name).type))] or texts or plainest


def _plainest(schema: pa.Schema) -> list[str]:
    types = {field.name: field.type for field in schema}
    # Text may be stored as bytes, so columns with names of text are the last choice.
    others = [name for name in types if not note_names([name])]
    plain = [name for name, type_ in types.items() if is_image(type_) and not _is_fixed(type_)]
    if plain:
        return [name for name in plain if name in others] or plain
    other = [n for n in others if is_image(_entry(types[n])) and not _is_digest(_entry(types[n]))]
    return other or [n for n in types if may_encode(types[n]) and _is_named(n)]


def is_image(type_: pa.DataType) -> bool:
    """Return whether a type is bytes, or a struct whose field `bytes` is bytes."""
    type_ = _values(type_)
    if pa.types.is_struct(type_):
        return any(f.name == "bytes" and not pa.types.is_struct(f.type) and is_image(f.type) for f in type_.fields)
    return is_bytes(type_)


def may_encode(type_: pa.DataType) -> bool:
    """Return whether a type is text, or a list of texts or 8-bit numbers: only its values show if it holds images."""
    return _is_octets(type_) or is_text(_values(_entry(type_)))


def image_leaves(schema: pa.Schema, column: str, parts: Sequence[str] = ("bytes", "path")) -> list[str]:
    """Return the leaf columns to read: of a struct only its fields in `parts`, else the column itself."""
    type_ = schema.field(schema.names.index(column)).type
    if not pa.types.is_struct(type_):
        return [column]
    return [f"{column}.{field.name}" for field in type_.fields if field.name in parts]


def octets_as_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with lists of 8-bit numbers as bytes. A list that contains a null becomes null."""
    for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        if _is_octets(column.type):
            batch = batch.set_column(number, name, _joined(column))
    return batch


def cell_path(cell: Any) -> str | None:
    """Return the path in a cell of the image column, which is only a label; None without one."""
    cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
    path = cell.get("path") if isinstance(cell, dict) else None
    return path if isinstance(path, str) else None


def cell_bytes(cell: Any, most: int) -> bytes | None:
    """Return the encoded image in a cell of the image column; None if the cell is empty.

    Args:
        cell: A value of the column, after `octets_as_bytes`.
        most: Largest decoded length of base64, in bytes.

    Raises:
        BadImageError: The cell holds several images, text that is not base64, or base64 that is too long.
    """
    if isinstance(cell, list):
        if len(cell) > 1:
            raise BadImageError(f"several images: the cell holds {len(cell)}, one is read per row")
        cell = cell[0] if cell else None
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if cell is None:
        return None
    data = cell.encode("utf-8", "replace") if isinstance(cell, str) else cell
    if not isinstance(cell, str) and not _NO_IMAGE.fullmatch(data, 0, _SHORTEST):
        return data
    decoded = _decoded(data, most)
    if decoded is None and isinstance(cell, str):
        raise BadImageError(f"no image: the text {cell[:60]!r} is not base64; a path or URL is not followed")
    return data if decoded is None else decoded


def _decoded(data: bytes, most: int) -> bytes | None:
    """Decode base64; return None if `data` is not base64."""
    if not (match := _BASE64.fullmatch(data)):
        return None
    packed = b"".join(match[1].split()).rstrip(b"=").translate(_URL_SAFE)
    if len(packed) * 3 // 4 > most:
        raise BadImageError(f"too long: {len(packed) * 3 // 4:,} bytes, max_image_bytes is {most:,}")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        return None


def _values(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _entry(type_: pa.DataType) -> pa.DataType:
    """Return the type of a list's entries; any other type is returned unchanged."""
    return type_.value_type if is_list(type_) else type_


def _is_named(name: str) -> bool:
    return bool(_NAMES.fullmatch(name.lower()))


def _is_octets(type_: pa.DataType) -> bool:
    return (pa.types.is_list(type_) or pa.types.is_large_list(type_)) and is_octet(type_.value_type)


def _is_fixed(type_: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(_values(type_)))


def _is_digest(type_: pa.DataType) -> bool:
    return _is_fixed(type_) and bool(_values(type_).byte_width <= _SHORTEST)


def _joined(column: pa.Array) -> pa.Array:
    if column.values.null_count:
        values = [
            None if cell is None or None in cell else bytes(n & 0xFF for n in cell) for cell in column.to_pylist()
        ]
        return pa.array(values, pa.large_binary())
    bits, offsets = column.buffers()[:2]
    numbers = column.values  # a separate array: its offset into its buffer may be above 0
    type_ = pa.binary() if pa.types.is_list(column.type) else pa.large_binary()
    data = numbers.buffers()[1].slice(numbers.offset, len(numbers)) if len(numbers) else pa.py_buffer(b"")
    return pa.Array.from_buffers(type_, len(column), [bits, offsets, data], -1, column.offset)


def _types(schema: pa.Schema) -> str:
    shown = [f"{field.name}: {type_name(field.type)}" for field in list(schema)[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(schema) > _SHOWN else "")
