"""How large the pages of a Parquet column are, by their own headers.

A footer cannot be trusted with that: its sizes are the writer's claim, and a value that a dictionary repeats counts
once. pyarrow allocates what a page's header says, so the header is looked at first. Where pages lie is read here too:
pyarrow's Python objects for that end the process if a footer contradicts itself.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift, in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

_DICTIONARY = 2  # PageType.DICTIONARY_PAGE
_DELTA_BYTE_ARRAY = 7  # Encoding.DELTA_BYTE_ARRAY
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_SCANNED = 64 << 20  # bytes of a dictionary that are looked through for its longest value
_FIRST, _LONGEST = 256, 1 << 20  # bytes; a header has some tens, with statistics some thousands
_DEEPEST = 16


class Page(NamedTuple):
    """One page.

    Attributes:
        start: Where its data begin in the file, bytes.
        stored: Its length in the file, bytes.
        unpacked: What it is decompressed to, bytes.
        values: How many it holds; those of a list all count.
        dictionary: Whether it is the dictionary, whose values other pages repeat.
        delta: Whether a value is a part of the value before it and a rest.
    """

    start: int
    stored: int
    unpacked: int
    values: int
    dictionary: bool
    delta: bool


class Chunk(NamedTuple):
    """Where the pages of one column of one row group lie.

    Attributes:
        start, end: The first byte, and the byte behind the last.
        codec: By which they are compressed, as the format numbers it.
    """

    start: int
    end: int
    codec: int


@lru_cache(maxsize=2)  # a file is opened anew for each row group that is read of it
def column_chunks(footer: bytes) -> tuple[tuple[Chunk, ...], ...]:
    """The chunks of each row group, in the order of the columns.

    Args:
        footer: Of the file, without its length and the mark behind it.

    Raises:
        ValueError: It is damaged.
    """
    try:
        fields, _ = _struct(footer, 0, 0)
        return tuple(tuple(_chunk(column[3]) for column in group[1]) for group in fields.get(4, ()))
    except (IndexError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"the footer is damaged: {error}") from error


def _chunk(about: dict[int, Any]) -> Chunk:
    first, dictionary = about[9], about.get(11, 0)
    start = dictionary if 0 < dictionary < first else first
    return Chunk(start, start + about[7], about[4])


def pages(file: BinaryIO, chunk: Chunk) -> Iterator[Page]:
    """The pages of a column chunk, as pyarrow will meet them. It ends at a damaged header, as pyarrow does."""
    position, end, _ = chunk
    while position < end:
        header = _header(file, position)
        if header is None:
            return
        fields, length = header
        stored, unpacked = fields.get(3), fields.get(2)
        if not (isinstance(stored, int) and isinstance(unpacked, int) and stored >= 0 and unpacked >= 0):
            return
        about: dict[int, Any] = next((fields[id_] for id_ in (5, 7, 8) if isinstance(fields.get(id_), dict)), {})
        dictionary = fields.get(1) == _DICTIONARY
        delta = about.get(4 if 8 in fields else 2) == _DELTA_BYTE_ARRAY
        yield Page(position + length, stored, unpacked, int(about.get(1) or 0), dictionary, delta)
        position += length + stored


def longest_value(file: BinaryIO, page: Page, codec: int) -> int:
    """Bytes of the longest value of a dictionary of texts or bytes; of one that is not looked through, all it has."""
    if page.unpacked > _SCANNED or (codec and codec not in _CODECS):
        return page.unpacked
    file.seek(page.start)
    data = file.read(page.stored)
    if codec:
        try:
            data = pa.decompress(data, page.unpacked, _CODECS[codec], asbytes=False)
        except (pa.ArrowException, OSError, ValueError):  # damaged, as its reader will say
            return page.unpacked
    view, longest, at = memoryview(data), 0, 0
    length_at = struct.Struct("<I").unpack_from
    for _ in range(page.values):
        if at + 4 > len(view):
            break
        (length,) = length_at(view, at)
        longest = max(longest, length)
        at += 4 + length
    return min(longest, page.unpacked)


def _header(file: BinaryIO, position: int) -> tuple[dict[int, Any], int] | None:
    """A page's header by field number, and its length; None if it is damaged."""
    size = _FIRST
    while True:
        file.seek(position)
        data = file.read(size)
        try:
            return _struct(data, 0, 0)
        except (IndexError, struct.error):
            if len(data) < size or size >= _LONGEST:
                return None
            size *= 16
        except ValueError:
            return None


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by number, and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("too deep")
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _signed(data, at)
        fields[number], at = _value(data, at, kind & 15, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _signed(data, at)
    if kind == 7:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 8:
        length, at = _unsigned(data, at)
        if at + length > len(data):
            raise IndexError
        return None, at + length
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"field of type {kind}")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    size, kind = data[at] >> 4, data[at] & 15
    at += 1
    if size == 15:
        size, at = _unsigned(data, at)
    values = []
    for _ in range(size):
        value, at = _value(data, at, 3 if kind in (1, 2) else kind, depth)
        values.append(value)
    return values, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at
