"""Check the types of foreign Arrow columns: which are plain data, and which may run code when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from core.errors import BadSampleError


def check_plain(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that columns (names, or `struct.field`) have plain data types.

    Raises:
        BadSampleError: A column has another type; the text names both.
    """
    for field in schema:
        for path, type_ in _not_plain(field, field.name):
            if any(_overlap(path, column) for column in columns):
                raise BadSampleError(
                    f"column {path!r} is of the type {type_}, whose values may run code: not read; "
                    "write it as numbers, text or bytes"
                )


def check_names(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that columns are no two of one name, as Arrow finds neither by it.

    Raises:
        BadSampleError: Several columns have one of these names.
    """
    for name in columns:
        if schema.names.count(name) > 1:
            raise BadSampleError(f"{schema.names.count(name)} columns are called {name!r}")


def _not_plain(field: pa.Field, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and type of each part of a column that is not plain data."""
    type_ = field.type
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = type_.value_type
    if name := (field.metadata or {}).get(b"ARROW:extension:name"):  # an extension type that is not registered
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


def common_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema that `common_batch` gives a batch of `schema`."""
    return pa.schema([f.with_type(_common(f.type)) for f in schema], schema.metadata)


def common_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cast a batch to types that every Arrow function supports: no views, and JSON as text."""
    schema = common_schema(batch.schema)
    if schema.types == batch.schema.types:
        return batch
    stored = [column.storage if _is_json(column.type) else column for column in batch.columns]
    columns = [column.cast(type_) for column, type_ in zip(stored, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _common(type_: pa.DataType) -> pa.DataType:
    if _is_json(type_):
        return _common(type_.storage_type)
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.large_binary()
    if pa.types.is_dictionary(type_) and (common := _common(type_.value_type)) != type_.value_type:
        return common
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_common(field.type)) for field in type_.fields])
    if is_list(type_) and (common := _common(type_.value_type)) != type_.value_type:
        return pa.large_list(type_.value_field.with_type(common))
    return type_


def _is_json(type_: pa.DataType) -> bool:
    """Return whether a type is Arrow's own type of JSON texts."""
    return isinstance(type_, pa.JsonType) and is_text(type_.storage_type)


def is_number(type_: pa.DataType) -> bool:
    """Return whether a type holds numbers, booleans, times, or only nulls."""
    return bool(pa.types.is_primitive(type_) or pa.types.is_decimal(type_) or pa.types.is_null(type_))


def is_amount(type_: pa.DataType) -> bool:
    """Return whether a type holds integers, floats or decimals."""
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def is_list(type_: pa.DataType) -> bool:
    """Return whether a type is a list of any kind."""
    is_ = pa.types
    lists = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(kind(type_) for kind in lists)


def is_bytes(type_: pa.DataType) -> bool:
    is_ = pa.types
    kinds = (is_.is_binary, is_.is_large_binary, is_.is_fixed_size_binary, is_.is_binary_view)
    return any(kind(type_) for kind in kinds)


def is_octet(type_: pa.DataType) -> bool:
    """Return whether a type holds 8-bit integers; a list of them may represent bytes."""
    return bool(pa.types.is_uint8(type_) or pa.types.is_int8(type_))


def type_name(type_: pa.DataType) -> str:
    """Return a type as one line for a message, at most 120 characters long."""
    name = " ".join(str(type_).split())
    return name if len(name) <= 120 else f"{name[:119]}…"


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _overlap(path: str, column: str) -> bool:
    """Return whether one path lies inside the other, or both are the same."""
    return f"{path}.".startswith(f"{column}.") or f"{column}.".startswith(f"{path}.")
