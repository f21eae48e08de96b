"""Compare a shard with its list, by one small read: whether it is whole, and has the images that it must have."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import polars as pl
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
        left_out: Number of those that may not be in it: left out when it was written, or just being removed.
        smallest, largest: Smallest and largest id of the listed images; None without images.
    """

    listed: int = 0
    left_out: int = 0
    smallest: int | None = None
    largest: int | None = None


def expected_by_number(listed: pl.DataFrame, left_out: Collection[int]) -> dict[int, Expected]:
    """Return the contents of shards by their number. A number without images is not in it.

    Args:
        listed: The images that may be in shards, columns `id` and `number`.
        left_out: Those that may be missing.
    """
    missing = pl.col("id").is_in(sorted(left_out)).sum()
    of_number = listed.group_by("number").agg(
        pl.len(), missing.alias("left_out"), pl.min("id"), pl.max("id").alias("max")
    )
    return {number: Expected(*row) for number, *row in of_number.iter_rows()}


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
