"""Images held against what was first read of them, and what is read first written down (manifests/contents.py)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from manifests.contents import LENGTH, SHA256, content_rows
from manifests.journal import Journal
from manifests.tables import Table
from pipeline.execution.part_writer import Store
from pipeline.pools.images import Failure, Group, Images

Content = tuple[int, bytes]
"""Length and SHA-256."""


class ContentCheck:
    """Of the images of one block. `read` and `write_down` may be called from any thread."""

    def __init__(self, store: Store, block: pa.Table, journaled: bool) -> None:
        """Begin with what is known.

        Args:
            store: Of the table of contents.
            block: Columns `id` and `seen_bytes`, null where the image was not read before.
            journaled: Whether `write_down` is to be used, so that a killed worker leaves what it has read.
        """
        self._store = store
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
        """The images of a group, each or why it cannot be used. One of another length than before has changed.

        Args:
            images: Of the pool.
            group: What to read; its rows are places in the two lists.
            ids: Of the images.
            indexed: Their lengths in bytes as the index has them, which counts where an image was not read before.
        """
        read = images.read(group)
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

    def write_down(self) -> None:
        """Put what was read into the journal: before a model is paid for what it says of it."""
        if self._journal:
            with self._lock:
                new, self._new = self._new, {}
            self._journal.append(content_rows(list(new), list(new.values())))

    def store(self) -> None:
        """Store a part with all images of the block that were not read before: the same ids at every try."""
        if self._unseen:
            rows = content_rows(self._unseen, [self._first.get(id_) for id_ in self._unseen])
            self._store.table.append(rows, self._store.writer, self._store.provenance)

    def delete_journal(self) -> None:
        if self._journal:
            self._journal.delete()


def with_seen_lengths(block: pa.Table, contents: Table) -> pa.Table:
    """The block with what is in the table of contents by now."""
    ids = pl.DataFrame({"id": block["id"].to_numpy()})
    seen = ids.lazy().join(contents.scan(["id", LENGTH]), on="id", how="left", maintain_order="left").collect()
    return block.set_column(block.column_names.index(LENGTH), LENGTH, seen[LENGTH].to_arrow())
