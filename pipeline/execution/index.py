"""What an index job reads and stores: one row per image, shard by shard; stored shards are not read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from core.errors import UserError
from manifests.part_files import writer_of
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.part_writer import Store
from pipeline.execution.stored_ids import keep_ids
from pipeline.pools import Listing, Pool, Shard, format_counts
from pipeline.pools.base import image_id
from pipeline.pools.listing import SHARDS
from pipeline.pools.texts import UNKNOWN

READER = 3
"""Version of the tar reader, in the provenance of the index. Without a number, texts were matched to images by the name
up to the first dot. Before 3, the last of several files of one name counted, and non-UTF-8 bytes became U+FFFD."""

_ENDINGS = 20  # suffixes of skipped members that are listed, the most frequent first
_FEW_SHARDS, _FEW_BYTES = 100_000, 16 << 30
_SOME = 8  # rows of a shard that are enough to find its revision; the id of a duplicate name does not show it


@dataclass(frozen=True)
class Todo:
    """The work of an index job.

    Attributes:
        shards: Shards to read (columns `SHARDS`): not stored yet, changed, misread, or with rows that can be retried.
        changed: Number of shards that have changed; their images count as new.
        misread: Number of shards that an earlier version read wrongly; their images keep their ids.
        vanished: Number of stored shards that the pool does not have any more; their rows stay.
    """

    shards: pa.Table
    changed: int
    misread: int
    vanished: int


def open_pool(pool: Pool, run: str) -> Listing:
    """List a pool, without the files in the run directory, and check its first shard, before anything is written.

    Raises:
        UserError: The pool has nothing to index, or its first shard lacks something that the pool's settings name.
    """
    listing = pool.listing(leave_out=Folder.at(run))
    return listing if listing.shards["problem"][0].is_valid else pool.check_first(listing)


def unread(index: Table, listing: Listing, pool: Pool) -> Todo:
    """Compare a listing with the stored shards.

    A shard that could not be read is read again. So is a shard whose length has changed: its images get new ids, since
    facts stored under the old ids are about other bytes. In a pool of URLs only rows that were not there before get
    new ids (`keep_ids`).

    Raises:
        UserError: A shard of images has changed in a pool that provides its own ids, so they cannot get new ids.
    """
    stored = (
        index.scan(["shard", "shard_bytes", "retry"])
        .group_by("shard")
        .agg(pl.col("shard_bytes").first(), pl.col("retry").any())
        .collect(engine="streaming")
    )
    now = pl.DataFrame(listing.shards)
    seen = now.join(stored, left_on="path", right_on="shard", how="left", maintain_order="left").with_columns(
        new=pl.col("shard_bytes").is_null(),
        changed=(pl.col("bytes") != pl.col("shard_bytes")).fill_null(False),
        misread=pl.col("path").is_in(pool.misread(index)),
    )
    changed = seen.filter("changed")
    if (column := pool.id_column()) and changed.height and not pool.same_row:
        shard, before, after = changed.select("path", "shard_bytes", "bytes").row(0)
        raise UserError(
            f"{changed.height:,} shards changed after they were indexed, such as {shard} "
            f"({before:,} → {after:,} bytes); facts stored under the ids in {column!r} would be about other rows: "
            "start a new run"
        )
    again = seen.filter(~pl.col("changed") & (pl.col("retry") | pl.col("misread")))
    wrong = again.filter(pl.col("misread") & ~pl.col("retry")).height
    revised = pl.concat([changed["path"], _revised(index, again) if not pool.same_row else again["path"]])
    if pool.same_row and pool.id_column() and stored.height:  # a new shard may have ids that are stored
        revised = seen["path"]
    todo = seen.filter(pl.any_horizontal("new", "changed", "retry", "misread")).with_columns(
        revision=pl.when(pl.col("path").is_in(revised.implode()))
        .then(pl.col("bytes").cast(pl.String))
        .otherwise(pl.lit(""))
    )
    vanished = stored.join(now, left_on="shard", right_on="path", how="anti").height
    shards = todo.select(SHARDS.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(SHARDS)
    return Todo(shards, changed.height, wrong, vanished)


def _revised(index: Table, shards: pl.DataFrame) -> pl.Series:
    """Return the paths of those stored shards whose ids were computed with a revision, their length.

    An id is a hash of the row's key or, in Parquet files with paths, of the row's number, which is its offset.
    """
    some = index.scan(["id", "shard", "key", "offset"]).filter(pl.col("shard").is_in(shards["path"].implode()))
    some = some.group_by("shard").agg(pl.col("id", "key", "offset").head(_SOME))
    lengths = dict(shards.select("path", "bytes").iter_rows())
    revised = []
    for path, ids, keys, offsets in some.collect().iter_rows() if shards.height else ():
        identity = Shard(path, 0, revision=str(lengths[path])).identity
        rows = zip(ids, keys, offsets, strict=True)
        if any(id_ in (image_id(identity, key), image_id(identity, str(offset))) for id_, key, offset in rows):
            revised.append(path)
    return pl.Series("path", revised, pl.String)


def chunks(shards: pa.Table, lengths: Sequence[int]) -> Iterator[pa.Table]:
    """Bundle shards into tasks of about a 64th of the work: at most 256 to 65,536 files, and 8 to 256 MiB.

    `lengths` is the work for each shard in bytes, from `Pool.work`.
    """
    count = min(max(len(lengths) // 64, 256), 65_536)
    size = min(max(sum(lengths) // 64, 8 << 20), 256 << 20)
    start = held = 0
    for number, length in enumerate(lengths):
        if number > start and (number - start == count or held + length > size):
            yield shards.slice(start, number - start)
            start, held = number, 0
        held += length
    if lengths:
        yield shards.slice(start)


def is_small(lengths: Sequence[int]) -> bool:
    """Return whether one machine reads shards with this work (`Pool.work`) in less than a minute or so."""
    return len(lengths) <= _FEW_SHARDS and sum(lengths) <= _FEW_BYTES


def read_chunk(chunk: pa.Table, pool: Pool, root: Folder, store: Store) -> pa.Table:
    """Store the index rows of one chunk of shards as one part; return its receipt."""
    passed_over = Counter[str]()
    rows = keep_ids(pool.index(root, chunk, passed_over), chunk, pool, store.table)
    return store.knowing({"passed_over": passed_over} if passed_over else {})(rows)


def account(index: Table, writer: str, pool: Pool) -> Iterator[str]:
    """Report an index job to the user as lines: which members it skipped, and how texts were decoded."""
    passed_over = Counter[str]()
    for part, provenance in index.provenances().items():
        counts = provenance.get("passed_over", {}) if writer_of(part) == writer else {}
        passed_over.update(counts)  # type: ignore[call-overload]  # of JSON
    if passed_over:
        counts = format_counts(passed_over, _ENDINGS)
        yield f"passed over members of {pool.kind} that are no {pool.noun}s or texts by their ending: {counts}"
    rows = index.scan(["text_encoding"]).drop_nulls().group_by("text_encoding").len()
    encodings = Counter(dict(rows.collect(engine="streaming").iter_rows()))
    if encodings:
        lost = " (bytes that are no UTF-8 became U+FFFD)" if UNKNOWN in encodings else ""
        yield (
            f"texts of {encodings.total():,} rows are not UTF-8, and were read as: {format_counts(encodings)}{lost}; "
            "if that is wrong, convert them to UTF-8 and index into a new run (the column text_encoding says which)"
        )


def check_ids(index: Table, pool: Pool) -> None:
    """Refuse an index in which two images have the same id.

    Raises:
        UserError: An id is used twice; the message names it and two of its images.
    """
    ids = index.scan(["id"]).collect(engine="streaming")["id"]
    if ids.n_unique() == ids.len():
        return
    twice = ids.filter(ids.is_duplicated())[0]
    rows = index.scan(["id", "shard", "key"]).filter(pl.col("id") == twice)
    both = rows.select("shard", row=pl.concat_str("shard", pl.lit(" "), "key")).head(2).collect()
    what_to_do = (
        "start a new run without `id`, so that ids are made from shard and row"
        if pool.id_column()
        else "two hashes met by chance; rename one of the two shards and start a new run"
    )
    if pool.id_column() and pool.same_row and both["shard"].n_unique() > 1:
        what_to_do += "; or, if one file replaces the other, leave an empty file in the place of the old one"
    raise UserError(
        f"{ids.len() - ids.n_unique():,} ids are used twice, such as {twice} by {' and '.join(both['row'])}; "
        f"{what_to_do}"
    )
