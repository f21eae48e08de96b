"""The leaf columns of a Parquet file: it stores the fields of a struct and the entries of a list separately."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from core.arrow_types import is_bytes, is_list, is_octet, is_text
from core.errors import BadSampleError


class Leaf:
    """A leaf column as Parquet stores it: the fields of a struct and the entries of a list are separate columns.

    Attributes:
        number: Number of the column in the file.
        path: Its name, with dots.
        repeated: Whether it is in a list, so that a row may have many values.
        text: Whether its type is not primitive, as of texts and bytes.
        octets: Whether it holds lists of 8-bit integers, which may be bytes.
        fixed_length: Whether the schema declares a length of its values, of any size.
    """

    def __init__(self, number: int, path: str, type_: pa.DataType, repeated: bool) -> None:
        self.number, self.path, self.repeated = number, path, repeated
        self.text = not pa.types.is_primitive(type_)
        self.octets = repeated and is_octet(type_)
        varies = is_text(type_) or (is_bytes(type_) and not pa.types.is_fixed_size_binary(type_))
        self.fixed_length = self.text and not varies


def leaves_of(parquet: pq.ParquetFile, schema: pa.Schema, columns: Sequence[str]) -> list[Leaf]:
    """Return the leaves of `columns`. `parquet.schema` is not used, as it keeps the whole footer in memory."""
    paths = [".".join(path) for path in parquet.reader.column_paths]
    types = [leaf for field in schema for leaf in _leaf_types(field.type, False)]
    if len(types) != len(paths):
        raise BadSampleError("the schema is damaged")
    return [
        Leaf(number, path, *types[number])
        for number, path in enumerate(paths)
        if any(f"{path}.".startswith(f"{column}.") for column in columns)
    ]


def _leaf_types(type_: pa.DataType, repeated: bool) -> Iterator[tuple[pa.DataType, bool]]:
    """Yield the type of each leaf of a column in file order, and whether the leaf is inside a list."""
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        yield from _leaf_types(type_.value_type, repeated)
    elif pa.types.is_struct(type_):
        for part in type_.fields:
            yield from _leaf_types(part.type, repeated)
    elif pa.types.is_map(type_):
        yield from _leaf_types(type_.key_type, True)
        yield from _leaf_types(type_.item_type, True)
    elif is_list(type_):
        yield from _leaf_types(type_.value_type, True)
    else:
        yield type_, repeated
