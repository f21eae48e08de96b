"""Compare a shard with its list, by one small read: whether it is whole, and has the images that it must have."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.checksums import UNREADABLE, DamagedError
from manifests.storage import Folder

_BLOCK, _END = 512, 1024  # bytes: a tar is whole blocks, the last two of them zeros


class Expected(NamedTuple):
    """The contents of a shard by its list.

    Attributes:
        listed: Number of listed images.
        left_out: Number of those that are not in it: left out when it was written, or removed since.
        smallest, largest: Smallest and largest id of the listed images.
    """

    listed: int
    left_out: int
    smallest: int
    largest: int


def check_shard(out: Folder, file: pafs.FileInfo, expected: Expected) -> None:
    """Compare a shard with its list.

    Raises:
        UserError: It is damaged, or has other images.
    """
    with out.filesystem.open_input_file(file.path) as opened:
        try:
            if file.path.endswith(".parquet"):
                _check_footer(pq.ParquetFile(opened).metadata, expected)
            else:
                _check_tar(opened, file.size)
        except UNREADABLE as error:
            opened.seek(0)
            opened.read(1)  # if the disk or the network failed, this raises
            problem = " ".join(str(error).split())
            raise UserError(
                f"{file.path}: the shard is damaged ({problem}); delete it and publish again: it is written again"
            ) from error


def _check_footer(footer: pq.FileMetaData, expected: Expected) -> None:
    """Compare a shard's footer with its list."""
    published = expected.listed - expected.left_out
    if not published <= footer.num_rows <= expected.listed:
        raise DamagedError(f"it has {footer.num_rows:,} images, and its list {published:,}")
    groups = [footer.row_group(number).column(0) for number in range(footer.num_row_groups)]
    ids = [group.statistics for group in groups if group.path_in_schema == "id" and group.is_stats_set]
    bounds = expected.smallest, expected.largest
    if not expected.left_out and ids and (min(s.min for s in ids), max(s.max for s in ids)) != bounds:
        raise DamagedError("it has other images than its list")


def _check_tar(file: pa.NativeFile, size: int) -> None:
    if size < _END or size % _BLOCK or file.read_at(_END, size - _END).strip(b"\0"):
        raise DamagedError("it is cut off")
