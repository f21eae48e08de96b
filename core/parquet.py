"""Parquet files that somebody else wrote: what is read of them is data of plain types, and as much as memory holds.

- A column may have an extension type, whose values run code when they become Python objects (those that `ray.data`
  registers unpickle them). Types are looked at before values.
- Some hundred bytes can stand for gigabytes. Pages are looked at before they are unpacked, and rows are read as few at
  a time as the worst case allows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.arrow_types import check_plain, common_batch, common_schema, is_bytes, is_list, is_octet, is_text
from core.errors import BadSampleError
from core.parquet_pages import Chunk, Page, honest, longest_value, pages

MAX_CELL = 256 << 20
"""Bytes of one value, unless a setting says otherwise; no photograph is so large."""

_AT_ONCE = 64 << 20  # bytes that the rows of one batch may take in the worst case, if they are more than one
_USUAL_RATIO = 8  # a page of more than MAX_CELL bytes may be so many times as long as what is stored of it
_BUFFER = 8 << 20  # bytes; one read
_LONGEST_FOOTER = 16 << 20  # bytes; in memory it takes up to forty times as much
_ROWS_ANYWAY = 100_000  # rows that a file may have, be it shorter than one byte per row
_MOST_TEXT, _TEXT_RATIO = 256 << 20, 100  # bytes, and how many bytes a byte of a file with more text may stand for
_ENTRIES, _LISTS = 64, 1 << 30  # of lists, per row on average, and the bytes that they can take in a row group
_OCTET, _OCTETS = 9, 1 << 28  # bytes that an entry of a list of bytes takes while it is read, entries in a row group

BAD_PARQUET = (pa.ArrowException, ValueError, LookupError, MemoryError, OSError)
"""What reading a damaged file raises."""


class BombError(BadSampleError):
    """A part of a file takes far more memory than its length in the file; the text begins with `decompression bomb`.

    Attributes:
        group: The number of the row group that is not read, if it is only that.
    """

    group: int | None = None


class Parquet:
    """A Parquet file to read from.

    Attributes:
        schema: Its columns.
        row_groups: The rows of each row group.
        footer: What a later `Parquet` of the same file need not read again.
        most_text: Bytes that all its texts may take together where they are kept.
    """

    def __init__(self, file: Any, max_cell: int = MAX_CELL, footer: pq.FileMetaData | None = None) -> None:
        """Read the footer.

        Args:
            file: Seekable, open; a Python or an Arrow file.
            max_cell: A page may be unpacked to so many bytes, whatever is stored of it.
            footer: Of this file, if it has been read.

        Raises:
            BadSampleError: It claims more than a file of its length can hold.
            pa.ArrowException, OSError: It is damaged, or the disk is.
        """
        self._file, self._max_cell = file, max_cell
        self._length = _length(file)
        self._parquet = _opened(file, footer)
        self.footer: pq.FileMetaData = self._parquet.metadata
        self.row_groups = [self.footer.row_group(number).num_rows for number in range(self.footer.num_row_groups)]
        rows = max(self.footer.num_rows, sum(self.row_groups))
        if rows > max(self._length, _ROWS_ANYWAY):
            raise BadSampleError(f"claims {rows:,} rows in {self._length:,} bytes")
        self.schema = common_schema(self._parquet.schema_arrow)
        self.most_text = max(_MOST_TEXT, _TEXT_RATIO * self._length)
        self._leaves: dict[tuple[str, ...], list[_Leaf]] = {}
        self._arrived: pa.Schema | None = None

    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows, a few at a time.

        Args:
            columns: Names, or `struct.field` for a part of one. Those that the file lacks are left out.
            rows: At most so many in a batch; less where they could take much memory.
            groups: Numbers of row groups; default all.

        Raises:
            BombError: A page of a row group would take too much memory; the rows of those before it have come.
            BadSampleError: A column's type is not plain.
            pa.ArrowException, OSError: The file is damaged, or the disk is.
        """
        leaves = self._leaves_of(columns)
        for run, most in self._runs(range(len(self.row_groups)) if groups is None else groups, leaves, rows):
            for batch in _bounded(self._parquet.iter_batches(most, row_groups=run, columns=list(columns))):
                batch = common_batch(batch)
                if batch.schema != self._arrived:  # what has come, after what was announced
                    check_plain(batch.schema, batch.schema.names)
                    self._arrived = batch.schema
                yield batch

    def _runs(self, groups: Sequence[int], leaves: list[_Leaf], rows: int) -> Iterator[tuple[list[int], int]]:
        """Row groups to be read at once, since each has few rows; and how many of their rows a batch may have."""
        run: list[int] = []
        most = rows
        for group in groups:
            try:
                most = min([most, *(self._most_rows(group, leaf, rows) for leaf in leaves)])
            except BombError as error:
                if run:
                    yield run, most
                error.group = group
                raise
            run.append(group)
            if sum([self.row_groups[number] for number in run]) >= most:
                yield run, most
                run, most = [], rows
        if run:
            yield run, most

    def group(self, number: int, columns: Sequence[str], most: int) -> pa.Table:
        """A whole row group.

        Raises:
            BombError: It takes more than `most` bytes, or a page of it does.
            BadSampleError, pa.ArrowException, OSError: As `batches`.
        """
        size, batches = 0, []
        for batch in self.batches(columns, self.row_groups[number] or 1, [number]):
            batches.append(batch)
            size += batch.nbytes
            if size > most:
                raise BombError(f"decompression bomb: row group {number} takes more than {most:,} bytes")
        return pa.Table.from_batches(batches) if batches else self.schema.empty_table()

    def _leaves_of(self, columns: Sequence[str]) -> list[_Leaf]:
        """The leaves of columns that are plain, and whose pages lie in the file."""
        key = tuple(columns)
        if key not in self._leaves:
            check_plain(self.schema, columns)
            self._check_places(columns)
            self._leaves[key] = _leaves(self._parquet, self.schema, columns)
        return self._leaves[key]

    def _check_places(self, columns: Sequence[str]) -> None:
        """Look whether the pages of columns lie in the file, unencrypted.

        pyarrow's Python objects end the process if they do not. Its reader raises an error, here before it reads.
        """
        groups = range(len(self.row_groups))
        if any(self.footer.row_group(group).num_columns != self.footer.num_columns for group in groups):
            raise BadSampleError("the footer is damaged: a row group lacks columns")
        file = pq.ParquetFile(_Shut(self._length), metadata=self.footer, arrow_extensions_enabled=False)
        try:
            next(file.iter_batches(1, row_groups=groups, columns=list(columns)), None)
        except _ShutError as error:
            error.__traceback__ = None  # it leads here, and pyarrow keeps the error: neither would ever be freed

    def _chunk(self, group: int, leaf: _Leaf) -> Chunk:
        about = self.footer.row_group(group).column(leaf.number)
        first, dictionary = about.data_page_offset, about.dictionary_page_offset
        start = dictionary if dictionary and 0 < dictionary < first else first
        return Chunk(start, start + about.total_compressed_size, about.compression)

    def _most_rows(self, group: int, leaf: _Leaf, rows: int) -> int:
        """How many rows, up to `rows`, can be in memory at once, whatever is in them."""
        chunk = self._chunk(group, leaf)
        all_rows: int = max(1, self.row_groups[group])
        longest: int = 1 if leaf.width_is_free else max(1, self._parquet.schema.column(leaf.number).length)
        average, entries, plain, stored, repeats = 1, 0, 0, 0, 0
        for page in pages(self._file, chunk):
            if page.unpacked > max(self._max_cell, _USUAL_RATIO * page.stored):
                raise BombError(
                    f"decompression bomb: {page.stored:,} bytes of column {leaf.path!r} unpack to {page.unpacked:,}, "
                    f"more than {self._max_cell:,}"
                )
            stored += page.stored
            if not page.dictionary:
                entries += page.values
                plain += page.unpacked
                repeats += page.values if page.repeats or not leaf.width_is_free else 0
                average = max(
                    average, -(-page.unpacked // max(1, min(page.values, entries if leaf.repeated else all_rows)))
                )
            if leaf.text and page.counted:
                self._check_count(page, chunk.codec, leaf, group)
            if leaf.text and (page.dictionary or page.delta) and page.unpacked > longest:
                few = _AT_ONCE // page.unpacked < rows // 8  # then it pays to look how long its values really are
                scan = page.dictionary and (few or leaf.repeated)
                known = longest_value(self._file, page, chunk.codec, leaf.repeated) if scan else page.unpacked
                longest = max(longest, known)
        if not leaf.repeated:
            return max(1, _AT_ONCE // max(longest, average if leaf.text else 1))
        most_entries = _ENTRIES * all_rows + _ROWS_ANYWAY
        if leaf.octets:  # of an image, which is compressed already
            most_entries = max(most_entries, min(2 * stored, _OCTETS))
        if entries > most_entries or repeats * longest > max(_LISTS, _USUAL_RATIO * stored):
            raise BombError(f"decompression bomb: column {leaf.path!r} has {entries:,} list entries")
        if plain > max(_MOST_TEXT, _USUAL_RATIO * stored):
            raise BombError(f"decompression bomb: the lists of column {leaf.path!r} unpack to {plain:,} bytes")
        if not (leaf.text or leaf.octets):
            return rows
        average = max(1, _OCTET * entries if leaf.octets else plain + longest * repeats) // all_rows
        return max(1, _AT_ONCE // max(1, average))

    def _check_count(self, page: Page, codec: str, leaf: _Leaf, group: int) -> None:
        column = self._parquet.schema.column(leaf.number)
        levels = (column.max_definition_level > 0) + (column.max_repetition_level > 0)
        too_many = not leaf.repeated and page.values > self.row_groups[group]
        if too_many or not honest(self._file, page, codec, levels):
            raise BadSampleError(f"column {leaf.path!r} is damaged: a page of it claims more values than it holds")


class _Leaf:
    """A column as Parquet stores it: a part of a struct and the entries of a list are columns of their own."""

    def __init__(self, number: int, path: str, type_: pa.DataType, repeated: bool) -> None:
        self.number, self.path, self.repeated = number, path, repeated
        self.text = not pa.types.is_primitive(type_)
        self.octets = repeated and is_octet(type_)
        self.width_is_free = (
            not self.text or is_text(type_) or (is_bytes(type_) and not pa.types.is_fixed_size_binary(type_))
        )


def _leaves(parquet: pq.ParquetFile, schema: pa.Schema, columns: Sequence[str]) -> list[_Leaf]:
    """Those of some columns. `parquet.schema` is not asked: it would keep the whole footer in memory."""
    paths = [".".join(path) for path in parquet.reader.column_paths]
    types = [leaf for field in schema for leaf in _leaf_types(field.type, False)]
    if len(types) != len(paths):
        raise BadSampleError("the schema is damaged")
    return [
        _Leaf(number, path, *types[number])
        for number, path in enumerate(paths)
        if any(f"{path}.".startswith(f"{column}.") for column in columns)
    ]


def _leaf_types(type_: pa.DataType, repeated: bool) -> Iterator[tuple[pa.DataType, bool]]:
    """The types of a column's leaves in the order of the file, and whether they are in a list."""
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


def _length(file: Any) -> int:
    """The length of the file, if its footer is not too long."""
    length: int = file.seek(0, 2)
    if length >= 12:
        file.seek(length - 8)
        size = int.from_bytes(file.read(8)[:4], "little")
        if _LONGEST_FOOTER < size < length:
            raise BadSampleError(f"has a footer of {size:,} bytes, more than {_LONGEST_FOOTER:,}")
    file.seek(0)
    return length


class _ShutError(OSError):
    """Somebody reads a file that is not to be read."""


class _Shut(io.RawIOBase):
    """A file of some length whose bytes nobody may read."""

    def __init__(self, length: int) -> None:
        self._length = self._at = 0
        self._length = length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        raise _ShutError("it was only to be looked at")


def _bounded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except pa.ArrowNotImplementedError as error:
        if "chunked array" not in str(error):  # what pyarrow says of cells of a struct that take more than 2 GiB
            raise
        raise BombError("decompression bomb: its cells take more than 2 GiB at once") from error


def _opened(file: Any, footer: pq.FileMetaData | None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            file,
            metadata=footer,
            arrow_extensions_enabled=False,
            buffer_size=_BUFFER,
            pre_buffer=False,  # it would hold whole row groups, however few rows are asked for
            page_checksum_verification=True,  # where a file has any, as our own shards have
        )
    except BAD_PARQUET:
        raise
    except Exception as error:  # an extension type's own code looks at what the footer says of it
        raise BadSampleError(f"a column's type is damaged: {type(error).__name__} {error}") from error
