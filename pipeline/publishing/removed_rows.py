"""Which images are removed: of the shards of a publication, and of a run that is to be published."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import polars as pl
from pyarrow import fs as pafs

from manifests.contents import SHA256, contents_table
from manifests.removals import Removals
from manifests.run import Run
from manifests.shard_copies import IDENTITY, identities
from manifests.storage import Folder
from pipeline.publishing.lists import listed_in
from pipeline.publishing.publication import Publication, Shards

_READERS = 16  # shards that are read at the same time


def identities_of_run(run: Run) -> pl.LazyFrame:
    """Return the columns `IDENTITY` of all images of a run."""
    index = run.index.scan(["id", "sha256", "url", "shard", "key"])
    seen = contents_table(run.folder).scan(["id", SHA256]).with_columns(pl.col(SHA256).bin.encode("hex"))
    rows = index.join(seen, on="id", how="left").with_columns(pl.coalesce(SHA256, "sha256").alias("sha256"))
    return rows.rename({"shard": "source_shard", "key": "source_key"}).select(list(IDENTITY))


def removed_of(run: Run, rows: pl.DataFrame, removals: Removals) -> Removals:
    """Return the ids of those `rows` (column `id`) of a run that are removed, whatever names them."""
    named = removals.fitting(identities_of_run(run).join(rows.lazy(), on="id", how="semi")).select("id")
    return Removals(ids=frozenset(named.collect(engine="streaming")["id"].to_list()))


def removed_from(out: Folder, shards: Shards, removals: Removals) -> pl.DataFrame:
    """Return the published images that are removed, as `IDENTITY`, with `name`, the shard that holds them."""
    found = look_up(out, shards, lambda rows: removals.fitting(rows).collect())
    named = [rows.with_columns(name=pl.lit(name)) for name, rows in zip(shards, found, strict=True)]
    return pl.concat([pl.DataFrame(schema={**IDENTITY, "name": pl.String()}), *named])


def look_up(out: Folder, shards: Shards, select: Callable[[pl.LazyFrame], pl.DataFrame]) -> list[pl.DataFrame]:
    """Return what `select` takes of the columns `IDENTITY` of each shard, in their order."""

    def of_shard(file: pafs.FileInfo) -> pl.DataFrame:
        return select(identities(out, file).lazy())

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(of_shard, shards.values()))


def without_removed(run: Run, alive: pl.DataFrame, publication: Publication, removals: Removals) -> pl.DataFrame:
    """Return the rows of `alive` that are not removed: column `id`. Of published ones the ids of removed are known."""
    if not removals:
        return alive
    new = alive.join(listed_in(publication.lists)[0], on="id", how="anti").lazy()
    removed = removals.fitting(identities_of_run(run).join(new, on="id", how="semi")).select("id")
    kept = alive.filter(~pl.col("id").is_in(sorted(removals.ids)))
    return kept.join(removed.collect(engine="streaming"), on="id", how="anti")
