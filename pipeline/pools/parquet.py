"""Pools of Parquet files with an image column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, islice
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import BadSampleError
from core.image_header import BadImageError
from core.parquet import BAD_PARQUET, Parquet
from manifests.storage import Folder
from pipeline.pools.cells import cell_bytes, image_column, image_columns, image_leaves, may_encode, octets_as_bytes
from pipeline.pools.film_cells import film_columns
from pipeline.pools.images import Failure, Group
from pipeline.pools.listing import Listing, Shard
from pipeline.pools.look import Look
from pipeline.pools.parquet_rows import ROWS_AT_ONCE, ImageColumns, parquet_rows
from pipeline.pools.rows import NOTES, Row, matching, on_disk
from pipeline.pools.tables import TABLES, TablePool, check_first_table, first_table

_CELLS = 128 << 20  # bytes of cells per read of a row group; the next read starts at the row group's start again
_FOOTERS = 4  # footers that are cached; several threads may read different shards
_ROWS = 16  # rows, one of which must hold an image if the column's type does not show that it holds images


class Footers:
    """A cache of the footers of Parquet files. A copy in another process starts empty."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._footers: dict[tuple[str, int, int], pq.FileMetaData] = {}

    def __reduce__(self) -> tuple[type[Footers], tuple[()]]:
        return Footers, ()

    def open(self, root: Folder, path: str, file: pa.NativeFile, max_cell: int) -> Parquet:
        """Open a Parquet file. Its footer is cached until the file changes."""
        info = root.filesystem.get_file_info(f"{root.path}/{path}")
        version = (path, info.size, info.mtime_ns)
        parquet = Parquet(file, max_cell, self._footers.get(version))
        with self._lock:
            self._footers[version] = parquet.footer
            while len(self._footers) > _FOOTERS:
                del self._footers[next(iter(self._footers))]
        return parquet


class ParquetImages(TablePool):
    """A glob of Parquet files with an image column, such as binary or struct{bytes, path}.

    Attributes:
        image: Name of the image column, needed where the schema does not make it clear.
    """

    image: str | None = None

    @cached_property
    def footers(self) -> Footers:
        return Footers()

    def recognises(self, look: Look) -> str:
        names = look.ending(self.ending if look.is_folder else TABLES)
        first = first_table(look, names)
        if first is None or not self.has_image(look, *first):
            return ""
        return f"Parquet files with images ({look.summary(names)})"

    def has_image(self, look: Look, name: str, schema: pa.Schema) -> bool:
        """Return whether a column of a file holds images.

        Bytes beside a column of URLs may be digests, and texts may be anything. Then the first rows decide.
        """
        films = film_columns(schema)
        columns = [self.image] if self.image and self.image in schema.names else image_columns(schema)
        columns = [column for column in columns if column not in films or column == self.image]
        in_doubt = matching(schema.names, NOTES["url"]) or any(may_encode(schema.field(c).type) for c in columns)
        return bool(columns) and not (in_doubt and all(self._first_error(look, name, column) for column in columns))

    def _first_error(self, look: Look, name: str, column: str) -> bool:
        with look.open(name) as file:
            return all(row.get("error") for row in islice(parquet_rows(file, column, None, None, self.max_cell), _ROWS))

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        with on_disk(root, shard.path) as file:
            yield from parquet_rows(file, self.image, self.id, self.alt_text, self.max_cell)

    def joins(self, group: Group, offset: int, length: int) -> bool:
        return sum(group.lengths) + length <= _CELLS

    def section_ends(self, root: Folder, shard: str) -> Sequence[int] | None:
        """Return the number of the row after each row group."""
        try:
            with root.filesystem.open_input_file(f"{root.path}/{shard}") as file:
                return list(accumulate(self.footers.open(root, shard, file, self.max_cell).row_groups))
        except BAD_PARQUET:  # `read_images` reports it for each row
            return None

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        with root.filesystem.open_input_file(f"{root.path}/{group.shard}") as file:
            parquet = self.footers.open(root, group.shard, file, self.max_cell)
            if not 0 <= group.section < len(parquet.row_groups):  # the footer could not be read before
                raise OSError("the file could not be read, or it has changed")
            column = self.image_column(parquet.schema)
            start = sum(parquet.row_groups[: group.section])
            cells: dict[int, bytes | None] = {}
            for offset, cell in wanted_cells(
                parquet, column, group.section, {offset - start for offset in group.offsets}
            ):
                cells[start + offset] = cell_bytes(cell, self.max_cell)
        null = Failure("null image: the cell holds no bytes")
        return [null if (data := cells[offset]) is None else data for offset in group.offsets]

    def image_column(self, schema: pa.Schema) -> str:
        """Return the column with the images.

        Raises:
            BadImageError: There is no such column.
        """
        return image_column(schema, self.image)

    def check_first(self, listing: Listing) -> Listing:
        def sources(path: str, schema: pa.Schema) -> tuple[Mapping[str, Sequence[str]], str]:
            notes = ImageColumns.of(schema, self.image, self.id, self.alt_text).notes
            return notes, self._image_source(listing.root, path, schema)

        return check_first_table(listing, self.kind, sources)

    def _image_source(self, root: Folder, path: str, schema: pa.Schema) -> str:
        """Return where the images are read from, as a line for the log.

        If the column's type does not show that it holds images, one of the first rows must hold one.

        Raises:
            BadImageError: There is no such column, or none of the first rows holds an image.
        """
        column = self.image_column(schema)
        if may_encode(schema.field(column).type):
            with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
                rows = list(islice(parquet_rows(file, column, self.id, self.alt_text, self.max_cell), _ROWS))
            if all(row.get("error") for row in rows):
                raise BadImageError(f"column {column!r} has no image in its first {len(rows)} rows: {rows[0]['error']}")
        return f"image from the column {column!r}"


def wanted_cells(parquet: Parquet, column: str, row_group: int, rows: set[int]) -> Iterator[tuple[int, Any]]:
    """Yield the wanted cells of a row group with their row numbers. Only these become Python objects."""
    last, start = max(rows), 0
    for batch in parquet.batches(image_leaves(parquet.schema, column, ("bytes",)), ROWS_AT_ONCE, [row_group]):
        here = [row for row in range(start, start + batch.num_rows) if row in rows]
        cells = octets_as_bytes(batch)[column]
        for row in here:
            yield row, cells[row - start].as_py()
        start += batch.num_rows
        if start > last:
            return
    raise BadSampleError(f"row {last:,} of its row group is not there any more")
