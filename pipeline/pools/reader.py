"""Read encoded images from a pool. Images that are close together share one read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from core.parquet import BAD_PARQUET
from manifests.storage import Folder, LinkError
from pipeline.pools.base import Pool
from pipeline.pools.images import IMAGE_ADDRESS, Failure, Group


@dataclass(frozen=True)
class Images:
    """The images of a pool.

    Attributes:
        pool: The pool.
        root: The folder that shard paths are relative to.
    """

    pool: Pool
    root: Folder

    def groups(self, rows: pa.Table) -> Iterator[Group]:
        """Yield groups of rows that are read together.

        `rows` has the columns `IMAGE_ADDRESS`; the rows of a shard must be adjacent and in the shard's order.
        """
        group: Group | None = None
        ends: Sequence[int] | None = ()
        addresses = zip(*(rows[name].to_pylist() for name in IMAGE_ADDRESS), strict=True)
        for row, (shard, key, offset, length) in enumerate(addresses):
            if group is None or shard != group.shard:
                ends = self.pool.section_ends(self.root, shard)
            section = -1 if ends is None else bisect_right(ends, offset)
            same = group is not None and (shard, section) == (group.shard, group.section)
            if group is None or not (same and self.pool.joins(group, offset, length or 0)):
                if group is not None:
                    yield group
                group = Group(shard, section)
            group.rows.append(row)
            group.keys.append(key)
            group.offsets.append(offset)
            group.lengths.append(length or 0)
        if group is not None:
            yield group

    def read(self, group: Group) -> list[bytes | Failure]:
        """Return the encoded image, or a `Failure`, for each row of a group."""
        try:
            return self.pool.read_images(self.root, group)
        except FileNotFoundError as error:
            failure = Failure(f"unreadable: {error}", retry=True)
        except LinkError as error:
            failure = Failure(str(error))
        except BAD_PARQUET as error:  # it was readable once, and may be again: OSError, or Arrow's for a cut file
            text = " ".join(str(error).split())[:300] or type(error).__name__
            failure = Failure(f"unreadable: {text}", isinstance(error, OSError | pa.ArrowInvalid))
        return [failure] * len(group.rows)
