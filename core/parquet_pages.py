"""Read the size of each page of a Parquet column from the page headers.

The sizes in the footer cannot be trusted: they are the writer's claim, and a value that a dictionary repeats counts
once. pyarrow allocates what a page header says, so the header is checked first. Format, in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from core.errors import BadSampleError

_DICTIONARY = 2  # PageType.DICTIONARY_PAGE
_DELTA_LENGTH, _DELTA = 6, 7  # Encoding.DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY
_DICTIONARIES = (2, 8)  # Encoding.PLAIN_DICTIONARY, RLE_DICTIONARY
_RLE = 3  # Encoding.RLE
_CODECS = {"SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd", "LZ4": "lz4_raw"}
_SCANNED, _FEW = 64 << 20, 1 << 20  # bytes and values up to which a dictionary is searched for its longest value
_WINDOW, _LONGEST = 8 << 10, 1 << 20  # bytes; a header takes tens of bytes, with statistics some thousands
_DEEPEST = 16


class Page(NamedTuple):
    """The header of one page.

    Attributes:
        start: Offset of the page's data in the file, in bytes.
        stored: Length of the data in the file, in bytes.
        unpacked: Length after decompression, in bytes.
        values: Number of values; every entry of a list counts.
        dictionary: Whether this is the dictionary page, whose values other pages refer to.
        encoding: Encoding of the values: its number in the format, or -1 if unknown.
        about: Fields of the header that is specific to the page type, by field number.
        second: Whether this is a data page of version 2.
    """

    start: int
    stored: int
    unpacked: int
    values: int
    dictionary: bool
    encoding: int
    about: dict[int, Any]
    second: bool

    @property
    def delta(self) -> bool:
        """Whether each value is stored as a prefix of the previous value and a suffix."""
        return self.encoding == _DELTA

    @property
    def repeats(self) -> bool:
        """Whether values may take more memory than the page: they repeat a dictionary entry or a previous value."""
        return self.delta or self.encoding in _DICTIONARIES

    @property
    def counted(self) -> bool:
        """Whether the data contain a second count of the values, which `counts_agree` checks."""
        return not self.dictionary and self.encoding in (_DELTA_LENGTH, _DELTA)


class Chunk(NamedTuple):
    """A column chunk: the pages of one column in one row group.

    Attributes:
        start, end: Offsets of the first byte and of the byte after the last.
        codec: The compression, by pyarrow's name.
    """

    start: int
    end: int
    codec: str


def pages(file: BinaryIO, chunk: Chunk) -> Iterator[Page]:
    """Yield the pages of a column chunk in the order in which pyarrow reads them, up to the first damaged header.

    pyarrow stops at a damaged header, too.
    """
    position, end, _ = chunk
    data, base, size = b"", position, _WINDOW
    while position < end:
        try:
            fields, length = _struct(data, position - base, 0)
        except (IndexError, struct.error):  # the header extends beyond the window
            if data and base == position:
                if len(data) < size or size >= _LONGEST:
                    return
                size *= 16
            file.seek(position)
            data, base = file.read(size), position
            if not data:
                return
            continue
        except ValueError:
            return
        position, size = base + length, _WINDOW
        stored, unpacked = fields.get(3), fields.get(2)
        if not (isinstance(stored, int) and isinstance(unpacked, int) and stored >= 0 and unpacked >= 0):
            return
        about: dict[int, Any] = next((fields[id_] for id_ in (5, 7, 8) if isinstance(fields.get(id_), dict)), {})
        values, encoding = about.get(1), about.get(4 if 8 in fields else 2)
        yield Page(
            position,
            stored,
            unpacked,
            values if isinstance(values, int) else 0,
            fields.get(1) == _DICTIONARY,
            encoding if isinstance(encoding, int) else -1,
            about,
            8 in fields,
        )
        position += stored


def longest_value(file: BinaryIO, page: Page, codec: str, large: bool) -> int:
    """Return the length in bytes of the longest value in a dictionary page of texts or bytes.

    A dictionary of more than 64 MiB is not searched, unless `large` is true and it has at most 2**20 values. For a
    dictionary that is not searched, or is damaged, the length of the whole page is returned.
    """
    if page.unpacked > _SCANNED and not (large and page.values <= _FEW):
        return page.unpacked
    try:
        view = memoryview(_unpacked(file, page, codec))
    except (pa.ArrowException, OSError, ValueError):  # damaged: reading the page raises the error
        return page.unpacked
    longest = at = 0
    length_at = struct.Struct("<I").unpack_from
    for _ in range(page.values):
        if at + 4 > len(view):
            break
        (length,) = length_at(view, at)
        longest = max(longest, length)
        at += 4 + length
    return min(longest, page.unpacked)


def counts_agree(file: BinaryIO, page: Page, codec: str, levels: int) -> bool:
    """Return whether the data of a delta-encoded page claim no more values than its header does.

    pyarrow allocates memory for the count in the data.

    Args:
        file: The Parquet file.
        page: A page that is `counted`.
        codec: The compression of its chunk.
        levels: Number of level blocks (repetition, definition) before the values, 0 to 2.
    """
    try:
        data, at = _unpacked(file, page, codec), 0
        for id_ in (3, 4)[: 0 if page.second else levels]:  # each block is its length, then that many bytes
            if page.about.get(id_) != _RLE:
                return False
            at += 4 + int.from_bytes(data[at : at + 4], "little")
        for _ in range(page.encoding - _DELTA_LENGTH + 1):  # lengths; DELTA_BYTE_ARRAY has those of the prefixes, too
            if at >= len(data):
                return True
            at = _behind_numbers(data, at, page.values)
    except (IndexError, ArithmeticError, ValueError, TypeError, pa.ArrowException, OSError):
        return False
    return True


def _behind_numbers(data: bytes, at: int, most: int) -> int:
    """Return the offset after a run of numbers in DELTA_BINARY_PACKED.

    Raises:
        BadSampleError: The run claims more than `most` numbers.
    """
    block, at = _unsigned(data, at)
    parts, at = _unsigned(data, at)
    count, at = _unsigned(data, at)
    _, at = _unsigned(data, at)
    if count > most:
        raise BadSampleError(f"{count:,} values")
    count -= 1
    while count > 0:
        _, at = _unsigned(data, at)
        widths = data[at : at + parts]
        at += parts
        for width in widths[: -(-count // (block // parts))]:
            at += width * (block // parts) // 8
        count -= block
    return at


def _unpacked(file: BinaryIO, page: Page, codec: str) -> bytes:
    """Return the decompressed data of a page, without the levels of a version 2 page, which are never compressed."""
    file.seek(page.start)
    data = file.read(page.stored)
    levels = page.about.get(5, 0) + page.about.get(6, 0) if page.second else 0
    data = data[levels:] if levels else data
    if codec == "UNCOMPRESSED" or (page.second and page.about.get(7) is False):
        return data
    if codec not in _CODECS:
        raise BadSampleError(f"compressed by {codec}")
    unpacked: bytes = pa.decompress(data, page.unpacked - levels, _CODECS[codec], asbytes=True)
    return unpacked


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Parse a Thrift struct. Return its fields by number, and the offset after it."""
    if depth > _DEEPEST:
        raise BadSampleError("too deep")
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
    raise BadSampleError(f"field of type {kind}")


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
    raise BadSampleError("a number of more than 64 bits")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at
