"""Read foreign Parquet files safely: only plain types, and never more than fits into memory.

- A column may have an extension type whose values run code when they become Python objects (the types that `ray.data`
  registers unpickle them). So types are checked before values are read.
- A few hundred bytes can unpack to gigabytes. So page headers are checked before pages are unpacked, and the batch size
  is chosen for the worst case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from core.arrow_types import check_plain, common_batch, common_schema
from core.errors import BadSampleError
from core.parquet_leaves import Leaf, leaves_of
from core.parquet_pages import Chunk, Page, counts_agree, longest_value, pages
from core.unreadable_file import ReadAttemptError, UnreadableFile

MAX_CELL = 256 << 20
"""Default limit for one value, in bytes; no photograph is that large."""

_BATCH = 64 << 20  # bytes that a batch of several rows may take in the worst case
_BUFFER = 8 << 20  # bytes of one read
_MAX_FOOTER = 16 << 20  # bytes; in memory a footer takes up to 40 times as much

# Limits that any file may reach, and what a larger one may claim for each byte that it stores:
_ANY_ROWS = 100_000  # rows; then one row per byte of the file
_ANY_TEXT, _TEXT_RATIO = 256 << 20, 100  # bytes of text; then 100 bytes per byte of the file
_UNPACK_RATIO = 8  # bytes that a page above `max_cell`, or a column of lists, may unpack to per stored byte

_ENTRIES_PER_ROW = 64  # list entries per row on average
_ANY_LISTS = 1 << 30  # bytes that repeated values in the lists of a row group may take
_OCTET_BYTES = 9  # memory per entry of a list of bytes while it is read
_MAX_OCTETS = 1 << 28  # entries of lists of bytes in a row group

BAD_PARQUET = (pa.ArrowException, ValueError, LookupError, MemoryError, OSError)
"""Exceptions that reading a damaged file raises."""


@dataclass
class _ChunkSizes:
    """Sizes of a column in one row group.

    Attributes:
        longest: Bytes of the longest value that a page may repeat; at least 1.
        average: Bytes of a page per value, where this is largest; at least 1.
        entries: Number of values; every entry of a list counts.
        unpacked: Bytes of the data pages after decompression.
        stored: Bytes of all pages in the file.
        repeats: Number of values that may take more memory than in their page.
    """

    longest: int
    average: int = 1
    entries: int = 0
    unpacked: int = 0
    stored: int = 0
    repeats: int = 0


class BombError(BadSampleError):
    """A part of a file takes far more memory than its stored length; the text starts with `decompression bomb`.

    Attributes:
        group: Number of the refused row group, if only this group is affected.
    """

    group: int | None = None


class Parquet:
    """An open foreign Parquet file.

    Attributes:
        schema: The columns of the file, in the types of `common_schema`.
        row_groups: Number of rows in each row group.
        footer: The parsed footer. Pass it to a later `Parquet` of the same file to avoid reading it again.
        most_text: Limit for all texts of the file together, in bytes, for callers that keep them in memory.
    """

    def __init__(
        self, file: BinaryIO | pa.NativeFile, max_cell: int = MAX_CELL, footer: pq.FileMetaData | None = None
    ) -> None:
        """Read the footer.

        Args:
            file: An open, seekable Python or Arrow file.
            max_cell: Bytes that a page may unpack to, however few bytes are stored for it.
            footer: The footer of this file, if it was read before.

        Raises:
            BadSampleError: The footer claims more than a file of this length can hold.
            pa.ArrowException, OSError: The file or the disk is damaged.
        """
        self._file, self._max_cell = file, max_cell
        self._length = _length(file)
        self._parquet = _opened(file, footer)
        self.footer: pq.FileMetaData = self._parquet.metadata
        self.row_groups = [self.footer.row_group(number).num_rows for number in range(self.footer.num_row_groups)]
        rows = max(self.footer.num_rows, sum(self.row_groups))
        if rows > max(self._length, _ANY_ROWS):
            raise BadSampleError(f"claims {rows:,} rows in {self._length:,} bytes")
        self.schema = common_schema(self._parquet.schema_arrow)
        self.most_text = text_limit(self._length)
        self._leaves: dict[tuple[str, ...], list[Leaf]] = {}
        self._checked_schema: pa.Schema | None = None

    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in small batches.

        Args:
            columns: Column names, or `struct.field` for one field of a struct. Names that the file lacks are skipped.
            rows: Largest number of rows in a batch. Batches are smaller where rows could take much memory.
            groups: Numbers of the row groups to read; default all.

        Raises:
            BombError: A page would take too much memory. The rows of the row groups before it were yielded.
            BadSampleError: A column's type is not plain.
            pa.ArrowException, OSError: The file or the disk is damaged.
        """
        leaves = self._leaves_of(columns)
        checked = self._checked_codecs(range(len(self.row_groups)) if groups is None else groups, columns)
        for run, most in self._runs(checked, leaves, rows):
            for batch in _bounded(self._parquet.iter_batches(most, row_groups=run, columns=list(columns))):
                batch = common_batch(batch)
                if batch.schema != self._checked_schema:  # it may differ from the schema in the footer
                    check_plain(batch.schema, batch.schema.names)
                    self._checked_schema = batch.schema
                yield batch

    def _runs(self, groups: Iterable[int], leaves: list[Leaf], rows: int) -> Iterator[tuple[list[int], int]]:
        """Yield runs of row groups that are read together, and the batch size of each run.

        Row groups may have few rows, so a run ends when its rows fill a batch. The row groups before a refused one are
        yielded before its BombError.
        """
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
        """Read a whole row group.

        Raises:
            BombError: The row group takes more than `most` bytes, or one of its pages is refused.
            BadSampleError, pa.ArrowException, OSError: As in `batches`.
        """
        size, batches = 0, []
        for batch in self.batches(columns, self.row_groups[number] or 1, [number]):
            batches.append(batch)
            size += batch.nbytes
            if size > most:
                raise BombError(f"decompression bomb: row group {number} takes more than {most:,} bytes")
        return pa.Table.from_batches(batches) if batches else self.schema.empty_table()

    def _leaves_of(self, columns: Sequence[str]) -> list[Leaf]:
        """Return the leaves of `columns`, after checking that types are plain and that pages lie in the file."""
        key = tuple(columns)
        if key not in self._leaves:
            check_plain(self.schema, columns)
            self._check_page_offsets(columns)
            self._leaves[key] = leaves_of(self._parquet, self.schema, columns)
        return self._leaves[key]

    def _check_page_offsets(self, columns: Sequence[str]) -> None:
        """Check that the pages of `columns` lie in the file and are not encrypted.

        On a wrong offset, pyarrow's metadata objects abort the process, while its reader raises an error before it
        reads a byte. So the reader checks the offsets first, in a file that refuses to be read.
        """
        groups = range(len(self.row_groups))
        if any(self.footer.row_group(group).num_columns != self.footer.num_columns for group in groups):
            raise BadSampleError("the footer is damaged: a row group lacks columns")
        file = pq.ParquetFile(UnreadableFile(self._length), metadata=self.footer, arrow_extensions_enabled=False)
        _attempt(file, groups, columns)

    def _checked_codecs(self, groups: Iterable[int], columns: Sequence[str]) -> Iterator[int]:
        """Yield the row groups, each after a check that pyarrow knows its compression.

        On an unknown one, pyarrow's metadata objects abort the process as well. The reader raises an error: where it
        reads through a buffer, it looks at the compression of all columns of a row group before it reads a byte.
        """
        file = _opened(UnreadableFile(self._length), self.footer)
        for group in groups:
            _attempt(file, [group], columns)
            yield group

    def _chunk(self, group: int, leaf: Leaf) -> Chunk:
        metadata = self.footer.row_group(group).column(leaf.number)
        first, dictionary = metadata.data_page_offset, metadata.dictionary_page_offset
        start = dictionary if dictionary and 0 < dictionary < first else first
        return Chunk(start, start + metadata.total_compressed_size, metadata.compression)

    def _most_rows(self, group: int, leaf: Leaf, rows: int) -> int:
        """Return how many rows fit into memory at once, whatever their values; the result may exceed `rows`."""
        sizes = self._sizes(group, leaf, rows)
        if not leaf.repeated:
            return max(1, _BATCH // max(sizes.longest, sizes.average if leaf.text else 1))
        all_rows: int = max(1, self.row_groups[group])
        most_entries = _ENTRIES_PER_ROW * all_rows + _ANY_ROWS
        if leaf.octets:  # probably an encoded image, which hardly compresses further
            most_entries = max(most_entries, min(2 * sizes.stored, _MAX_OCTETS))
        unpack_limit = _UNPACK_RATIO * sizes.stored
        if sizes.entries > most_entries or sizes.repeats * sizes.longest > max(_ANY_LISTS, unpack_limit):
            raise BombError(f"decompression bomb: column {leaf.path!r} has {sizes.entries:,} list entries")
        if sizes.unpacked > max(_ANY_TEXT, unpack_limit):
            raise BombError(f"decompression bomb: the lists of column {leaf.path!r} unpack to {sizes.unpacked:,} bytes")
        if not (leaf.text or leaf.octets):
            return rows
        memory = _OCTET_BYTES * sizes.entries if leaf.octets else sizes.unpacked + sizes.longest * sizes.repeats
        return max(1, _BATCH // max(1, memory // all_rows))

    def _sizes(self, group: int, leaf: Leaf, rows: int) -> _ChunkSizes:
        """Return the sizes of a column in a row group, from its page headers. `rows` is the largest batch.

        Raises:
            BombError: A page would take too much memory.
            BadSampleError: A page claims more values than it holds.
        """
        chunk = self._chunk(group, leaf)
        all_rows: int = max(1, self.row_groups[group])
        length = self._parquet.schema.column(leaf.number).length if leaf.fixed_length else 1
        sizes = _ChunkSizes(longest=max(1, length))
        for page in pages(self._file, chunk):
            if page.unpacked > max(self._max_cell, _UNPACK_RATIO * page.stored):
                raise BombError(
                    f"decompression bomb: {page.stored:,} bytes of column {leaf.path!r} unpack to {page.unpacked:,}, "
                    f"more than {self._max_cell:,}"
                )
            sizes.stored += page.stored
            if not page.dictionary:
                sizes.entries += page.values
                sizes.unpacked += page.unpacked
                sizes.repeats += page.values if page.repeats or leaf.fixed_length else 0
                values = max(1, min(page.values, sizes.entries if leaf.repeated else all_rows))
                sizes.average = max(sizes.average, -(-page.unpacked // values))  # rounded up
            if leaf.text and page.counted:
                self._check_count(page, chunk.codec, leaf, group)
            if leaf.text and (page.dictionary or page.delta) and page.unpacked > sizes.longest:
                few = _BATCH // page.unpacked < rows // 8  # then measuring the values is worth its time
                scan = page.dictionary and (few or leaf.repeated)
                longest = longest_value(self._file, page, chunk.codec, leaf.repeated) if scan else page.unpacked
                sizes.longest = max(sizes.longest, longest)
        return sizes

    def _check_count(self, page: Page, codec: str, leaf: Leaf, group: int) -> None:
        column = self._parquet.schema.column(leaf.number)
        levels = (column.max_definition_level > 0) + (column.max_repetition_level > 0)
        too_many = not leaf.repeated and page.values > self.row_groups[group]
        if too_many or not counts_agree(self._file, page, codec, levels):
            raise BadSampleError(f"column {leaf.path!r} is damaged: a page of it claims more values than it holds")


def text_limit(length: int) -> int:
    """Return the limit for all texts of a file together, in bytes, from the file's length."""
    return max(_ANY_TEXT, _TEXT_RATIO * length)


def _length(file: BinaryIO | pa.NativeFile) -> int:
    """Return the length of the file in bytes. Raises BadSampleError if its footer is too long."""
    length: int = file.seek(0, 2)
    if length >= 12:
        file.seek(length - 8)
        size = int.from_bytes(file.read(8)[:4], "little")
        if _MAX_FOOTER < size < length:
            raise BadSampleError(f"has a footer of {size:,} bytes, more than {_MAX_FOOTER:,}")
    file.seek(0)
    return length


def _attempt(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str]) -> None:
    """Begin to read a file that refuses to be read: what its reader checks before is checked then."""
    try:
        next(file.iter_batches(1, row_groups=groups, columns=list(columns)), None)
    except ReadAttemptError as error:  # nothing is wrong
        error.__traceback__ = None  # pyarrow keeps the error, and the traceback would keep this frame in memory


def _bounded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except pa.ArrowNotImplementedError as error:
        if "chunked array" not in str(error):  # pyarrow's message for cells of a struct above 2 GiB
            raise
        raise BombError("decompression bomb: its cells take more than 2 GiB at once") from error


def _opened(file: BinaryIO | pa.NativeFile, footer: pq.FileMetaData | None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            file,
            metadata=footer,
            arrow_extensions_enabled=False,
            buffer_size=_BUFFER,
            pre_buffer=False,  # pre-buffering holds whole row groups in memory, even for a few rows
            page_checksum_verification=True,  # only where the file has checksums, as our own shards do
        )
    except BAD_PARQUET:
        raise
    except Exception as error:  # the code of an extension type parses its entry in the footer and may raise anything
        raise BadSampleError(f"a column's type is damaged: {type(error).__name__} {error}") from error
