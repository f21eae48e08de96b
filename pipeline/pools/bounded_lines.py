"""Lines of a foreign text, bare or packed by gzip or zstd, with bounds on what is unpacked and on what is held."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from core.errors import BadSampleError
from core.parquet import BombError
from pipeline.pools.texts import marked_encoding

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_LINE = 4 << 20  # characters
_ROW = 16 << 20  # characters
_BUFFER = 1 << 20  # bytes of one read


class BoundedLines:
    """The lines of a text, each with its end.

    Bytes that are not UTF-8 are lone surrogates in them (`surrogateescape`), so that each can be decoded by itself.

    Attributes:
        encoding: The encoding of the whole text, if a byte-order mark says another than UTF-8; else None.
        number: Number of the last line, from 1.
        taken: Characters of the lines since the caller set it to 0. Above 16 Mi reading ends.
        too_long: Whether a line since the caller set it to False had more than 4 Mi characters: it is given as "".
        ended: Whether the end was reached.
    """

    def __init__(self, file: BinaryIO | pa.NativeFile, most: int, newline: str = "") -> None:
        """Begin to read; a file that begins as gzip or zstd do is unpacked, whatever its name.

        Args:
            file: The file, at its beginning.
            most: Bytes that a packed file may unpack to.
            newline: The only end of a line; default `\\n`, `\\r` or `\\r\\n`.
        """
        packed = io.BufferedReader(_Raw(file), _BUFFER)
        start = packed.peek(4)
        codec = next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)
        stream = packed
        if codec:
            unpacked = pa.CompressedInputStream(pa.PythonFile(packed, "r"), codec)
            stream = io.BufferedReader(_Raw(unpacked, most), _BUFFER)
        marked = marked_encoding(stream.peek(4)) or "utf-8"
        self.encoding = None if marked.startswith("utf-8") else marked
        self._text = io.TextIOWrapper(stream, marked, "strict" if self.encoding else "surrogateescape", newline)
        self.number = self.taken = 0
        self.too_long = self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) == _LINE and line[-1] not in "\r\n":
            while (rest := self._text.readline(_LINE)) and rest[-1] not in "\r\n":
                pass
            self.too_long = True
            return ""
        self.taken += len(line)
        if self.taken > _ROW:
            raise BadSampleError(f"the row that ends after line {self.number:,} has more than {_ROW:,} characters")
        return line


class _Raw(io.RawIOBase):
    """A stream of Arrow or Python as a raw stream of Python.

    Raises:
        BombError: More than `most` bytes were read.
    """

    def __init__(self, source: BinaryIO | pa.NativeFile, most: int | None = None) -> None:
        self._source, self._most, self._read = source, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._read += len(data)
        if self._most is not None and self._read > self._most:
            raise BombError(f"decompression bomb: the list unpacks to more than {self._most:,} bytes")
        return len(data)
