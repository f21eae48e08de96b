"""What a run would find in a pool: shards and rows that it has indexed, and those that it would add."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from manifests.run import Run
from manifests.schemas import INDEX
from manifests.tables import Table
from pipeline.execution.index import unread
from pipeline.execution.stored_ids import keep_ids
from pipeline.pools import Listing
from pipeline.recipe import Recipe

_FEW_SHARDS, _FEW_BYTES = 2_000, 256 << 20
"""Up to these limits, the headers of a pool's new shards are read to count its images."""


@dataclass(frozen=True)
class PoolPreview:
    """The pool.

    Attributes:
        kind, where: As the recipe names it.
        shards: Its shards.
        unread: Shards that are not indexed, or changed.
        indexed: Rows of the run's index.
        new: Rows that the unread shards would add; None: unknown until they are read.
        usable: Rows without an error, indexed and new; None: unknown.
        image_bytes: Bytes of the usable images; None: unknown, or there are only URLs.
    """

    kind: str
    where: str
    shards: int
    unread: int
    indexed: int
    new: int | None
    usable: int | None
    image_bytes: int | None


def preview_pool(recipe: Recipe, run: Run, listing: Listing) -> tuple[PoolPreview, pl.DataFrame]:
    """Return the pool, and the indexed rows (column `id`) that unread shards replace."""
    table = run.index
    shards = unread(table, listing, recipe.pool).shards
    fine = pl.col("error").is_null()
    again = pl.col("shard").is_in(shards["path"].to_pylist())
    stored = table.scan(["id", "shard", "error", "bytes"]).with_columns(again=again)
    counts = stored.select(
        pl.len(),
        (fine & ~pl.col("again")).sum(),
        pl.col("bytes").filter(fine & ~pl.col("again")).sum(),
    )
    rows, staying, staying_bytes = counts.collect(engine="streaming").row(0)
    replaced = stored.filter("again").select("id").collect(engine="streaming")
    read = _rows_of(recipe, listing, shards, table)
    new = usable = size = None
    if read is not None:
        new = read.join(replaced, on="id", how="anti").height
        usable, size = read.filter(fine).height, int(read.filter(fine)["bytes"].sum())
        replaced = replaced.join(read.filter(fine), on="id", how="anti")
    elif recipe.pool.shard_is_image:
        new, usable, size = shards.num_rows - replaced.height, shards.num_rows, sum(shards["bytes"].to_pylist())
    seen = PoolPreview(
        kind=recipe.pool.kind,
        where=recipe.pool.where,
        shards=listing.shards.num_rows,
        unread=shards.num_rows,
        indexed=rows,
        new=new,
        usable=None if usable is None else staying + usable,
        image_bytes=None if size is None or not recipe.pool.has_images else staying_bytes + size,
    )
    return seen, replaced


def _rows_of(recipe: Recipe, listing: Listing, shards: pa.Table, index: Table) -> pl.DataFrame | None:
    """Return `id`, `error` and `bytes` of the rows of few, small shards, with the ids that a run gives them."""
    if shards.num_rows > _FEW_SHARDS or sum(recipe.pool.work(shards)) > _FEW_BYTES:
        return None
    columns = ["id", "error", "bytes"]
    read = [INDEX.empty_table().select(columns)]
    together = recipe.pool.shard_is_image or not recipe.pool.bytes_are_work
    step = max(shards.num_rows, 1) if together else 1  # lists unpack to much more than their bytes
    for start in range(0, shards.num_rows, step):
        chunk = shards.slice(start, step)
        rows = keep_ids(recipe.pool.index(listing.root, chunk), chunk, recipe.pool, index)
        read.append(rows.select(columns))
    return pl.DataFrame(pa.concat_tables(read))
