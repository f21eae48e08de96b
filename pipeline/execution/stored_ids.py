"""Ids of rows that were indexed before: a row of a list that has grown, or that was sorted anew, keeps its id."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from core.errors import UserError
from manifests.tables import Table
from pipeline.pools import Pool
from pipeline.pools.urls import with_occurrence


def keep_ids(rows: pa.Table, shards: pa.Table, pool: Pool, index: Table) -> pa.Table:
    """Give rows of shards that were indexed before the ids that they had.

    Two rows of a shard are the same if the columns `same_row` of the pool are. Of several such rows the first has the
    id that was stored first, and so on. Rows that newer ones have replaced count as well: facts about them are stored
    for good.

    Args:
        rows: The rows of the shards, with the columns of the index.
        shards: The shards (columns `SHARDS`). Those with a revision are compared with the index.
        pool: The pool.
        index: The index.

    Raises:
        UserError: The pool has ids of its own, and one of them has another URL, text or size than before.
    """
    again = pl.DataFrame(shards.select(["path", "revision"])).filter(pl.col("revision") != "")["path"]
    if not pool.same_row or again.is_empty():
        return rows
    known = index.every_row(["id", "shard", "error", *pool.same_row]).filter(pl.col("url").is_not_null())
    if column := pool.id_column():
        _refuse_others(known.filter(pl.col("error").is_null()), pl.DataFrame(rows), pool.same_row, column)
        return rows
    same_row = ["shard", *pool.same_row]
    before = known.filter(pl.col("shard").is_in(again.implode())).collect(engine="streaming")
    before = with_occurrence(before.unique("id", keep="first", maintain_order=True), same_row)
    now = with_occurrence(pl.DataFrame(rows.select(same_row)), same_row).with_row_index("row")
    on = [*same_row, "occurrence"]
    kept = now.filter(pl.col("url").is_not_null()).join(before.select(*on, "id"), on=on, nulls_equal=True)
    ids = rows["id"].to_numpy().copy()
    ids[kept["row"].to_numpy()] = kept["id"].to_numpy()
    return rows.set_column(rows.column_names.index("id"), rows.schema.field("id"), pa.array(ids))


def _refuse_others(known: pl.LazyFrame, rows: pl.DataFrame, same_row: Sequence[str], column: str) -> None:
    """Refuse ids of the pool that were another row's before."""
    before = known.join(rows.lazy().select("id"), on="id", how="semi").collect(engine="streaming")
    both = rows.join(before.unique("id", keep="last"), on="id", suffix=" before")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} before")) for name in same_row)
    others = both.filter(pl.col("error").is_null() & differs)
    if others.height:
        shard, id_, url, before_it = others.select("shard", "id", "url", "url before").row(0)
        what = f"{before_it} → {url}" if url != before_it else f"{url}, with another text or size"
        raise UserError(
            f"{shard}: {others.height:,} ids in {column!r} were those of other rows when the pool was indexed, such as "
            f"{id_} ({what}); facts stored under them would be about other rows: start a new run"
        )
