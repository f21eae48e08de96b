"""Types of Arrow columns that somebody else wrote: which are plain data, and which may run code when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from core.errors import BadSampleError


def check_plain(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Look whether columns (names, or `struct.field`) hold nothing but data.

    Raises:
        BadSampleError: One does not; the text names it and its type.
    """
    for field in schema:
        for path, type_ in _not_plain(field, field.name):
            if any(_overlap(path, column) for column in columns):
                raise BadSampleError(
                    f"column {path!r} is of the type {type_}, whose values may run code: not read; "
                    "write it as numbers, text or bytes"
                )


def _not_plain(field: pa.Field, path: str) -> Iterator[tuple[str, str]]:
    """The parts of a column that are no plain data: their paths and types."""
    type_ = field.type
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = type_.value_type
    if name := (field.metadata or {}).get(b"ARROW:extension:name"):  # no program here has registered it
        yield path, f"extension<{name.decode(errors='replace')}>"
    elif pa.types.is_struct(type_):
        for part in type_.fields:
            yield from _not_plain(part, f"{path}.{part.name}")
    elif pa.types.is_map(type_):
        yield from _not_plain(type_.key_field, f"{path}.key")
        yield from _not_plain(type_.item_field, f"{path}.value")
    elif is_list(type_):
        yield from _not_plain(type_.value_field, f"{path}.element")
    elif not (is_number(type_) or is_text(type_) or is_bytes(type_)):
        yield path, type_name(type_)


def is_json(type_: pa.DataType) -> bool:
    """Whether it is Arrow's own type of JSON texts; they are read as the texts that they are stored as."""
    return isinstance(type_, pa.JsonType) and is_text(type_.storage_type)


def json_as_text(schema: pa.Schema) -> pa.Schema:
    fields = [pa.field(f.name, f.type.storage_type, f.nullable) if is_json(f.type) else f for f in schema]
    return pa.schema(fields, schema.metadata)


def is_number(type_: pa.DataType) -> bool:
    """Whether it is of numbers, truth values, times or nothing but nulls."""
    return bool(pa.types.is_primitive(type_) or pa.types.is_decimal(type_) or pa.types.is_null(type_))


def is_list(type_: pa.DataType) -> bool:
    """Whether it is a list of any kind."""
    is_ = pa.types
    lists = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(kind(type_) for kind in lists)


def is_bytes(type_: pa.DataType) -> bool:
    is_ = pa.types
    kinds = (is_.is_binary, is_.is_large_binary, is_.is_fixed_size_binary, is_.is_binary_view)
    return any(kind(type_) for kind in kinds)


def type_name(type_: pa.DataType) -> str:
    """A type in one line for a message, and not the whole of a long one."""
    name = " ".join(str(type_).split())
    return name if len(name) <= 120 else f"{name[:119]}…"


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _overlap(path: str, column: str) -> bool:
    """Whether one of two paths lies inside of the other, or they are the same."""
    return f"{path}.".startswith(f"{column}.") or f"{column}.".startswith(f"{path}.")
