"""Pools of files with image URLs and metadata: Parquet, as COYO-700M, or lists in text form. They contain no images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from core.errors import BadSampleError
from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pools.base import image_id, index_table
from pipeline.pools.film_cells import film_columns
from pipeline.pools.list_columns import list_columns_at
from pipeline.pools.listing import Listing, Shard, shard_table, shards_of
from pipeline.pools.look import Look
from pipeline.pools.parquet import ParquetImages
from pipeline.pools.rows import Row
from pipeline.pools.tables import TABLES, TablePool, check_first_table, columns_at, first_table, schema_of_parquet
from pipeline.pools.text_lists import LISTS, form_of
from pipeline.pools.url_files import columns_of, read_urls, schema_of_list
from pipeline.pools.url_rows import UrlSettings, size_line, url_columns, urls_of

_LOOKED_AT = 8  # lists whose first rows are read to recognise a pool


class UrlTables(TablePool):
    """A glob of files with image URLs and metadata: Parquet, such as COYO-700M, CSV, TSV, JSON Lines or plain text.

    They contain no images. What is known of a URL stays true when its file grows, so its row keeps its id.

    Attributes:
        url: The column with the URLs, if it has none of the usual names (`rows.NOTES`).
    """

    has_images: ClassVar = False
    same_row: ClassVar = ("url", "alt_text", "sha256", "license", "width", "height")
    ending: ClassVar = (".parquet", *LISTS)
    like_shards: ClassVar = (*TABLES, *LISTS, ".json", ".json.gz")

    url: str | None = None

    @property
    def settings(self) -> UrlSettings:
        return UrlSettings(self.id, self.alt_text, self.url)

    def recognises(self, look: Look) -> str:
        texts = _no_side_files(look)
        forms = {form_of(name) for name in texts[:_LOOKED_AT] if self._has_urls(look, name)}
        lists = [name for name in texts if form_of(name) in forms]
        tables = look.ending(".parquet" if look.is_folder else TABLES)
        first = first_table(look, tables)
        if first and self._fits(None, first[1]):
            images = ParquetImages(kind="parquet", where=self.where, max_image_bytes=self.max_image_bytes)
            lists += [] if images.has_image(look, *first) or film_columns(first[1]) else tables
        return f"lists of image URLs ({look.summary(lists)})" if lists else ""

    def _has_urls(self, look: Look, name: str) -> bool:
        schema, rows = schema_of_list(look.root, name, self.id)
        return schema is not None and bool(rows) and self._fits(form_of(name), schema)

    def _fits(self, form: str | None, schema: pa.Schema) -> bool:
        try:
            columns_of(form, schema, self.settings)
        except BadSampleError:
            return False
        return True

    def index(self, root: Folder, shards: pa.Table, passed_over: Counter[str] | None = None) -> pa.Table:
        """See `Pool.index`. A shard has millions of rows, so they stay in columns."""
        return pa.concat_tables([INDEX.empty_table(), *self._tables(root, shards)])

    def check_first(self, listing: Listing) -> Listing:
        def schema_of(root: Folder, path: str) -> tuple[pa.Schema | None, int]:
            return schema_of_list(root, path, self.id) if form_of(path) else schema_of_parquet(root, path)

        def sources(path: str, schema: pa.Schema) -> tuple[dict[str, Sequence[str]], str]:
            columns = columns_of(form_of(path), schema, self.settings)
            return dict(columns.notes), size_line(schema, columns, path)

        # A folder of Parquet files may have other files with these endings: they are no reason to refuse it.
        tables = listing.shards.filter(pa.array([not form_of(path) for path in listing.shards["path"].to_pylist()]))
        first = replace(listing, shards=tables if tables.num_rows else listing.shards)
        return replace(check_first_table(first, self.kind, sources, schema_of=schema_of), shards=listing.shards)

    def columns(self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
        return self.columns_and_urls(root, shard, names, rows)[0]

    def columns_and_urls(
        self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]
    ) -> tuple[pa.Table, pa.Array | None]:
        if form_of(shard):
            return list_columns_at(root, shard, names, rows, self.settings)

        def url_columns_of(schema: pa.Schema) -> list[str]:  # none if there is nothing else to read
            return [] if set(names).isdisjoint(schema.names) else url_columns(schema, self.url)

        read = columns_at(root, shard, names, rows, url_columns_of)
        found = [column.combine_chunks() for column in read.columns[len(names) :]]
        theirs = read.column_names[len(names) :]
        urls = urls_of(pa.RecordBatch.from_arrays(found, theirs), theirs) if theirs else None
        return read.select(range(len(names))), urls

    def column_names(self, root: Folder, shard: str) -> Sequence[str] | None:
        if not (form := form_of(shard)):
            return super().column_names(root, shard)
        schema, _ = schema_of_list(root, shard, self.id) if form in ("CSV", "TSV") else (None, 0)
        return None if schema is None else schema.names

    def _tables(self, root: Folder, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards_of(shards):
            if shard.problem:
                yield self.error_rows(shard_table([shard]), shard.problem, retry=False)
                continue
            try:
                urls, broken = read_urls(root, shard.path, self.settings)
            except OSError as error:
                yield _row_of(shard, self.unreadable_row(shard, error))
                continue
            columns = dict(zip(urls.column_names, urls.columns, strict=True))
            columns["id"] = _with_hashes(urls, shard, self)
            for name, value in (("shard", shard.path), ("shard_bytes", shard.bytes), ("retry", False)):
                columns[name] = pa.repeat(pa.scalar(value, INDEX.field(name).type), urls.num_rows)
            whole = [columns.get(f.name, pa.nulls(urls.num_rows, f.type)) for f in INDEX]
            yield pa.table(whole, schema=INDEX)
            if broken:
                yield _row_of(shard, {"key": "", "error": broken})


def _no_side_files(look: Look) -> list[str]:
    """Return the names of lists in text form, without texts that belong to another file, as `a.txt` to `a.jpg`."""
    files = {name for name in look.names if not form_of(name)}
    files |= {name.rpartition(".")[0] for name in files}
    return [name for name in look.ending(LISTS) if name.rpartition(".")[0] not in files]


def _row_of(shard: Shard, row: Row) -> pa.Table:
    """Return a row about a shard as a whole."""
    about = {"id": image_id(shard.identity, ""), "shard": shard.path, "shard_bytes": shard.bytes, "retry": False}
    return index_table([about | row])


def _with_hashes(urls: pa.Table, shard: Shard, pool: UrlTables) -> pa.ChunkedArray | pa.Array:
    """Return the source's ids. A missing id is a hash of what makes the row, and of how often that came before.

    Of a Parquet file that is read for the first time it is a hash of the row's number, as in all earlier versions.
    """
    if not urls["id"].null_count:
        return urls["id"]
    if form_of(shard.path) or (shard.revision and pool.id is None):
        rows = with_occurrence(pl.DataFrame(urls.select(pool.same_row)), pool.same_row)
        names = [json.dumps(values) for values in rows.iter_rows()]
    else:
        names = [str(number) for number in urls["offset"].to_pylist()]
    ids = zip(urls["id"].to_pylist(), names, strict=True)
    return pa.array([image_id(shard.path, name) if id_ is None else id_ for id_, name in ids], pa.int64())


def with_occurrence(rows: pl.DataFrame, same_row: Sequence[str]) -> pl.DataFrame:
    """Add the column `occurrence`: how many of the earlier rows have the same values in the columns `same_row`."""
    return rows.with_columns(pl.int_range(pl.len()).over(same_row).alias("occurrence"))
