"""Read encoded images from the pool. Images that are close together share one read."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import BadSampleError
from core.parquet import BAD_PARQUET, Parquet
from manifests.storage import Folder, LinkError
from pipeline.pools.cells import cell_bytes, image_column, image_leaves, octets_as_bytes
from pipeline.pools.img2dataset import downloaded_column
from pipeline.pools.listing import Pool

PLACE = ("shard", "key", "offset", "bytes")
"""The columns of the index that say where an image is."""

_GAP = 256 << 10  # bytes; reading over such a gap is faster than another request
_SPAN = 8 << 20  # bytes of one read; held in memory until its images are decoded
_CELLS = 128 << 20  # bytes of cells per read of a row group; the next read starts at the row group's start again
_ROWS_AT_ONCE = 64
_FOOTERS = 4  # footers that are cached; several threads may read different shards
_LOCK = Lock()


class Failure(NamedTuple):
    """Why a row has no result, whether it can be retried, and whether its file was deleted from a folder of others."""

    error: str
    retry: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Group:
    """Images that are read together.

    Attributes:
        shard: The file that holds them.
        row_group: Number of the row group in a Parquet file.
        rows: Their row numbers in the requested table.
        keys, offsets, lengths: Values from the index; a length is 0 where the index has none.
    """

    shard: str
    row_group: int = 0
    rows: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.offsets[-1] + self.lengths[-1]


@dataclass(frozen=True)
class Images:
    """The images of a pool.

    Attributes:
        pool: The settings of the pool.
        root: The folder that shard paths are relative to.
    """

    pool: Pool
    root: Folder

    @cached_property
    def _pool_kind(self) -> str:
        return self.pool.kind

    @cached_property
    def _footers(self) -> dict[tuple[str, int, int], pq.FileMetaData]:
        return {}

    def groups(self, rows: pa.Table) -> Iterator[Group]:
        """Yield groups of rows that are read together.

        `rows` has the columns `PLACE`; the rows of a shard must be adjacent and in the shard's order.
        """
        group: Group | None = None
        ends: Sequence[int] | None = ()
        for row, (shard, key, offset, length) in enumerate(zip(*(rows[n].to_pylist() for n in PLACE), strict=True)):
            if group is None or shard != group.shard:
                ends = self._row_group_ends(shard)
            number = -1 if ends is None else bisect_right(ends, offset)
            if group is None or not self._joins(group, shard, number, offset, length):
                if group is not None:
                    yield group
                group = Group(shard, number)
            group.rows.append(row)
            group.keys.append(key)
            group.offsets.append(offset)
            group.lengths.append(length or 0)
        if group is not None:
            yield group

    def read(self, group: Group) -> list[bytes | Failure]:
        """Return the encoded image, or a `Failure`, for each row of a group."""
        try:
            kind = self._kind(group.shard)
            if kind == "tar":
                return self._members(group)
            if kind == "parquet":
                return self._cells(group)
            inside = f"{group.shard}/{group.keys[0]}" if self.pool.kind == "img2dataset" else group.shard
            return [self._file(inside)]
        except FileNotFoundError as error:
            deleted = kind == "file" and self._has_neighbours(inside)
            return [Failure(f"unreadable: {error}", retry=True, deleted=deleted)] * len(group.rows)
        except LinkError as error:
            return [Failure(str(error))]
        except BAD_PARQUET as error:  # includes OSError of the disk or the network, which can be retried
            text = " ".join(str(error).split())[:300] or type(error).__name__
            return [Failure(f"unreadable: {text}", isinstance(error, OSError))] * len(group.rows)

    def _file(self, path: str) -> bytes:
        if not self.root.local or self.pool.follow_links:
            return self.root.read(path)
        with self.root.open_inside(path) as file:  # it may have become a link since it was indexed
            return file.read()

    def _has_neighbours(self, path: str) -> bool:
        """Return whether the folder of a missing file holds others; the folder of an unmounted disk is empty."""
        folder = f"{self.root.path}/{path}".rpartition("/")[0]
        if not self.root.local:
            return bool(self.root.filesystem.get_file_info(folder).type == pafs.FileType.Directory)
        try:
            with os.scandir(folder) as entries:
                return any(True for _ in entries)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _kind(self, shard: str) -> str:
        """Return `tar`, `parquet` or `file`, by the pool's kind as in the index: a glob may match any ending."""
        kind = self._pool_kind
        if kind == "img2dataset":
            ending = shard.rpartition(".")[2]
            return ending if ending in ("tar", "parquet") else "file"
        return {"tars": "tar", "parquet": "parquet"}.get(kind, "file")

    def _joins(self, group: Group, shard: str, number: int, offset: int, length: int | None) -> bool:
        kind = self._kind(shard)
        if shard != group.shard or number != group.row_group or kind == "file":
            return False
        if kind == "parquet":
            return sum(group.lengths) + (length or 0) <= _CELLS
        return 0 <= offset - group.end <= _GAP and offset + (length or 0) - group.offsets[0] <= _SPAN

    def _row_group_ends(self, shard: str) -> list[int] | None:
        """Return the end row (exclusive) of each row group of a Parquet shard; [] for others, None if unreadable."""
        if self._kind(shard) != "parquet":
            return []
        try:
            with self.root.filesystem.open_input_file(f"{self.root.path}/{shard}") as file:
                return list(accumulate(self._parquet(shard, file).row_groups))
        except BAD_PARQUET:  # `_cells` reports it for each row
            return None

    def _parquet(self, shard: str, file: pa.NativeFile) -> Parquet:
        """Open a Parquet shard. Its footer is cached until the file changes."""
        info = self.root.filesystem.get_file_info(f"{self.root.path}/{shard}")
        version = (shard, info.size, info.mtime_ns)
        parquet = Parquet(file, self.pool.max_cell, self._footers.get(version))
        with _LOCK:
            self._footers[version] = parquet.footer
            while len(self._footers) > _FOOTERS:
                del self._footers[next(iter(self._footers))]
        return parquet

    def _members(self, group: Group) -> list[bytes | Failure]:
        with self.root.filesystem.open_input_file(f"{self.root.path}/{group.shard}") as file:
            start = group.offsets[0]
            span = memoryview(file.read_at(group.end - start, start))
        images: list[bytes | Failure] = []
        for offset, length in zip(group.offsets, group.lengths, strict=True):
            data = bytes(span[offset - start : offset - start + length])
            missing = f"cut off: {len(data):,} of {length:,} bytes are there"
            images.append(data if len(data) == length else Failure(missing))
        return images

    def _cells(self, group: Group) -> list[bytes | Failure]:
        with self.root.filesystem.open_input_file(f"{self.root.path}/{group.shard}") as file:
            parquet = self._parquet(group.shard, file)
            if not 0 <= group.row_group < len(parquet.row_groups):  # the footer could not be read before
                raise OSError("the file could not be read, or it has changed")
            start = sum(parquet.row_groups[: group.row_group])
            cells: dict[int, bytes | None] = {}
            for offset, cell in self._wanted(parquet, group, {offset - start for offset in group.offsets}):
                cells[start + offset] = cell_bytes(cell, self.pool.max_cell)
        images: list[bytes | Failure] = []
        for offset in group.offsets:
            data = cells[offset]
            images.append(Failure("null image: the cell holds no bytes") if data is None else data)
        return images

    def _wanted(self, parquet: Parquet, group: Group, rows: set[int]) -> Iterator[tuple[int, Any]]:
        """Yield the wanted cells of a row group with their row numbers. Only these become Python objects."""
        of_downloads = downloaded_column(parquet.schema) if self._pool_kind == "img2dataset" else None
        column = of_downloads or image_column(parquet.schema, self.pool.image)
        leaves = image_leaves(parquet.schema, column, ("bytes",))
        last, start = max(rows), 0
        for batch in parquet.batches(leaves, _ROWS_AT_ONCE, [group.row_group]):
            here = [row for row in range(start, start + batch.num_rows) if row in rows]
            cells = octets_as_bytes(batch)[column]
            for row in here:
                yield row, cells[row - start].as_py()
            start += batch.num_rows
            if start > last:
                return
        raise BadSampleError(f"row {last:,} of its row group is not there any more")
