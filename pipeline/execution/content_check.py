"""Compare images with the lengths stored when they were first read; store those of new ones (manifests/contents.py)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence

import polars as pl
import pyarrow as pa

from manifests.contents import LENGTH, SHA256, content_rows
from manifests.journal import Journal
from manifests.part_files import generation_of, writer_of
from pipeline.execution.part_writer import Store
from pipeline.pools.images import Failure, Group
from pipeline.pools.reader import Images

Content = tuple[int, bytes]
"""Length and SHA-256."""


class ContentCheck:
    """The content check for the images of one block. `read` and `save_contents` may be called from any thread.

    Attributes:
        bytes_read: Bytes of the images that were read.
    """

    def __init__(self, store: Store, block: pa.Table, journaled: bool) -> None:
        """Load the known lengths.

        Args:
            store: Store of the table of contents.
            block: Columns `id` and `seen_bytes` (length in bytes, null if the image was not read before).
            journaled: Whether there is a journal for `save_contents`, so that the contents survive a killed worker.
        """
        self._store = store
        self.bytes_read = 0
        lengths = dict(zip(block["id"].to_pylist(), block[LENGTH].to_pylist(), strict=True))
        self._unseen = [id_ for id_, length in lengths.items() if length is None]
        self._lengths: dict[int, int] = {id_: length for id_, length in lengths.items() if length is not None}
        self._first: dict[int, Content] = {}
        self._new: dict[int, Content] = {}
        self._lock = threading.Lock()
        self._journal = Journal(store.table, block["id"], store.provenance) if journaled else None
        if self._journal:
            left = self._journal.left_behind
            for id_, length, digest in zip(*(left[n].to_pylist() for n in ("id", LENGTH, SHA256)), strict=True):
                self._first[id_], self._lengths[id_] = (length, digest), length

    def read(
        self, images: Images, group: Group, ids: Sequence[int], indexed: Sequence[int | None]
    ) -> list[bytes | Failure]:
        """Read the images of a group; return each, or a Failure. An image whose length differs from before has changed.

        Args:
            images: The images of the pool.
            group: The images to read; its rows are positions in the two lists.
            ids: The ids of the images of the block.
            indexed: Their lengths in bytes in the index, used for images that were not read before; None: unknown.
        """
        read = images.read(group)
        with self._lock:
            self.bytes_read += sum(len(data) for data in read if isinstance(data, bytes))
        return [self._checked(ids[row], indexed[row], data) for row, data in zip(group.rows, read, strict=True)]

    def _checked(self, id_: int, indexed: int | None, data: bytes | Failure) -> bytes | Failure:
        if isinstance(data, Failure):
            return data
        before = self._lengths.get(id_, indexed)
        if before is not None and len(data) != before:
            changed = f"changed: the pool has {len(data):,} bytes there now, and had {before:,}; index it again"
            return Failure(changed, retry=True)
        if id_ not in self._lengths:
            content = len(data), hashlib.sha256(data).digest()
            with self._lock:
                self._first[id_] = self._new[id_] = content
        return data

    def save_contents(self, ids: Iterable[int]) -> None:
        """Append the contents of these images to the journal, if there is one and it lacks them.

        Call it before the model, which may cost money. All images read so far are appended together.
        """
        if self._journal and not self._new.keys().isdisjoint(ids):
            with self._lock:
                new, self._new = self._new, {}
            self._journal.append(content_rows(list(new), list(new.values())))

    def store(self) -> None:
        """Store a part with all images of the block that were not read before; a retry stores the same ids."""
        if self._unseen:
            rows = content_rows(self._unseen, [self._first.get(id_) for id_ in self._unseen])
            self._store.table.append(rows, self._store.writer, self._store.provenance)

    def delete_journal(self) -> None:
        if self._journal:
            self._journal.delete()


def with_seen_lengths(blocks: Sequence[pa.Table], store: Store) -> list[pa.Table]:
    """Return the blocks with `seen_bytes` of images, too, that their job has read since they were planned.

    An earlier job may have read other bytes: those of another download (see `SeenLengths`).
    """
    before = [pl.DataFrame({name: pl.Series(block[name]) for name in ("id", LENGTH)}) for block in blocks]
    lost, began = pl.concat(before).select("id"), generation_of(store.writer)
    since = [part for part in store.table.parts() if generation_of(writer_of(part)) >= began]
    read = [pl.DataFrame(rows).join(lost, on="id") for _, rows in store.table.read_each(since, ["id", LENGTH])]
    seen = pl.concat([before[0].clear(), *read]).drop_nulls().unique("id").rename({LENGTH: "new"})
    after = [rows.join(seen, on="id", how="left", maintain_order="left") for rows in before]
    lengths = [rows.select(pl.coalesce(LENGTH, "new")).to_series().to_arrow() for rows in after]
    at = blocks[0].column_names.index(LENGTH)
    return [block.set_column(at, LENGTH, of_block) for block, of_block in zip(blocks, lengths, strict=True)]
