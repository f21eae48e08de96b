"""Pools of Parquet files with image URLs and metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa

from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pools.base import image_id, index_table
from pipeline.pools.first_table import check_first_table
from pipeline.pools.listing import Listing, Shard, shard_table, shards_of
from pipeline.pools.rows import Row
from pipeline.pools.tables import TABLES, TablePool
from pipeline.pools.url_rows import UrlColumns, read_urls


class UrlTables(TablePool):
    """A glob of Parquet files with image URLs and metadata, such as COYO-700M; they contain no images."""

    has_images: ClassVar = False
    like_shards: ClassVar = (*TABLES, ".txt", ".csv", ".tsv", ".json", ".jsonl", ".txt.gz", ".csv.gz", ".jsonl.gz")

    def index(self, root: Folder, shards: pa.Table, passed_over: Counter[str] | None = None) -> pa.Table:
        """See `Pool.index`. A shard has millions of rows, so they stay in columns."""
        return pa.concat_tables([INDEX.empty_table(), *self._tables(root, shards)])

    def check_first(self, listing: Listing) -> Listing:
        return check_first_table(
            listing, self.kind, lambda _, schema: (UrlColumns.of(schema, self.id, self.alt_text).notes, "")
        )

    def _tables(self, root: Folder, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards_of(shards):
            if shard.problem:
                yield self.unread(shard_table([shard]), shard.problem, retry=False)
                continue
            try:
                urls, broken = read_urls(root, shard.path, self.id, self.alt_text)
            except OSError as error:
                yield _row_of(shard, self.unreadable_row(shard, error))
                continue
            columns = dict(zip(urls.column_names, urls.columns, strict=True))
            columns["id"] = _with_hashes(urls, shard.identity)
            for name, value in (("shard", shard.path), ("shard_bytes", shard.bytes), ("retry", False)):
                columns[name] = pa.repeat(pa.scalar(value, INDEX.field(name).type), urls.num_rows)
            whole = [columns.get(f.name, pa.nulls(urls.num_rows, f.type)) for f in INDEX]
            yield pa.table(whole, schema=INDEX)
            if broken:
                yield _row_of(shard, {"key": "", "error": broken})


def _row_of(shard: Shard, row: Row) -> pa.Table:
    """Return a row about a shard as a whole."""
    about = {"id": image_id(shard.identity, ""), "shard": shard.path, "shard_bytes": shard.bytes, "retry": False}
    return index_table([about | row])


def _with_hashes(urls: pa.Table, identity: str) -> pa.ChunkedArray | pa.Array:
    """Return the source's ids. A missing id is a hash of the row number, since URLs may repeat."""
    if not urls["id"].null_count:
        return urls["id"]
    ids = zip(urls["id"].to_pylist(), urls["offset"].to_pylist(), strict=True)
    return pa.array([image_id(identity, str(number)) if id_ is None else id_ for id_, number in ids], pa.int64())
