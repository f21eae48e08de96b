"""The index job: store one row per image of the pool, shard by shard; stored shards are not read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import polars as pl
import pyarrow as pa

from core.errors import UserError
from manifests.storage import Folder
from manifests.tables import Table, writer_of
from pipeline.execution.part_writer import Store
from pipeline.pools import Listing, Pool, Shard, format_counts, list_pool
from pipeline.pools.first_shard import check_first_shard
from pipeline.pools.readers import image_id, index_rows
from pipeline.pools.texts import UNKNOWN

READER = 3
"""Version of the tar reader, in the provenance of the index. Without a number, texts were matched to images by the name
up to the first dot. Before 3, the last of several files of one name counted, and non-UTF-8 bytes became U+FFFD."""

_ENDINGS = 20  # suffixes of skipped members that are listed, the most frequent first
_SOME = 8  # rows of a shard that are enough to find its revision; the id of a duplicate name does not show it

_SHARDS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("problem", pa.string()), ("revision", pa.string())])


@dataclass(frozen=True)
class Todo:
    """The work of an index job.

    Attributes:
        shards: Shards to read: not stored yet, changed, misread, or with rows that can be retried.
        changed: Number of shards that have changed; their images count as new.
        misread: Number of shards that an earlier version read wrongly; their images keep their ids.
        vanished: Number of stored shards that the pool does not have any more; their rows stay.
    """

    shards: tuple[Shard, ...]
    changed: int
    misread: int
    vanished: int


def open_pool(pool: Pool, run: str) -> Listing:
    """List a pool, without the files in the run directory, and check its first shard, before anything is written.

    Raises:
        UserError: The pool has nothing to index, or its first shard lacks something that the pool's settings name.
    """
    listing = list_pool(pool, leave_out=Folder.at(run))
    return check_first_shard(pool, listing)


def unread(index: Table, listing: Listing, pool: Pool) -> Todo:
    """Compare a listing with the stored shards.

    A shard that could not be read is read again. So is a shard whose length has changed: its images get new ids, since
    facts stored under the old ids are about other bytes.

    Raises:
        UserError: A shard has changed in a pool that provides its own ids, so its images cannot get new ids.
    """
    stored = (
        index.scan(["shard", "shard_bytes", "retry"])
        .group_by("shard")
        .agg(pl.col("shard_bytes").first(), pl.col("retry").any())
        .collect(engine="streaming")
    )
    now = pl.DataFrame(
        {"shard": [s.path for s in listing.shards], "now": [s.bytes for s in listing.shards]},
        schema={"shard": pl.String, "now": pl.Int64},
    ).with_row_index("position")
    seen = now.join(stored, on="shard", how="left")
    changed = seen.filter(pl.col("now") != pl.col("shard_bytes"))
    if pool.id and changed.height:
        shard, before, after = changed.select("shard", "shard_bytes", "now").row(0)
        raise UserError(
            f"{changed.height:,} shards changed after they were indexed, such as {shard} "
            f"({before:,} → {after:,} bytes); facts stored under the ids in {pool.id!r} would be about other rows: "
            "start a new run"
        )
    shards = {p: replace(listing.shards[p], revision=str(listing.shards[p].bytes)) for p in changed["position"]}
    shards |= {p: listing.shards[p] for p in seen.filter(pl.col("shard_bytes").is_null())["position"]}
    again = [p for p in seen.filter("retry")["position"] if p not in shards]
    positions = {shard.path: p for p, shard in enumerate(listing.shards)}
    wrong = [positions[path] for path in misread(index, pool) if path in positions]
    wrong = [p for p in wrong if p not in shards and p not in again]
    if again or wrong:
        shards |= zip([*again, *wrong], _as_stored(index, [listing.shards[p] for p in [*again, *wrong]]), strict=True)
    vanished = stored.join(now, on="shard", how="anti").height
    return Todo(tuple(shards[p] for p in sorted(shards)), changed.height, len(wrong), vanished)


def misread(index: Table, pool: Pool) -> list[str]:
    """Return the tars that an earlier version may have read wrongly."""
    if pool.kind != "tars":
        return []
    readers = {writer: provenance.get("reader", 1) for writer, provenance in index.provenances().items()}
    dotted, others = (_written_by(index, [w for w, n in readers.items() if n in old]) for old in ((1,), (1, 2)))
    wrong = [] if dotted is None else [dotted.join(_mixed(index), on="shard", how="semi")]
    wrong += [] if others is None else [others.join(_changed_since(index), on="shard", how="semi")]
    return pl.concat(wrong).collect()["shard"].unique().sort().to_list() if wrong else []


def _written_by(index: Table, writers: Sequence[str]) -> pl.LazyFrame | None:
    """Return the shards with rows from these jobs: column `shard`; None if `writers` is empty."""
    if not writers:
        return None
    places, parts = index.locate()
    old = [number for number, part in enumerate(parts) if writer_of(part) in writers]
    places = index.scan(["id", "shard"]).join(places.filter(pl.col("part").is_in(old)), on="id", how="semi")
    return places.select("shard").unique()


def _mixed(index: Table) -> pl.LazyFrame:
    """Return the shards with names that are equal up to the first dot and differ up to the last one."""
    rows = index.scan(["shard", "key"])
    dotted = rows.filter(pl.col("key").str.contains(r"\.[^/]*\.[^/]*$")).select("shard").unique()
    shards = dotted.collect(engine="streaming")["shard"]
    first, full = (pl.col("key").str.replace(ending, "") for ending in (r"\.[^/]*$", r"\.[^./]*$"))
    groups = rows.filter(pl.col("shard").is_in(shards.implode())).group_by("shard", first.alias("first"))
    return groups.agg(full.n_unique().alias("names")).filter(pl.col("names") > 1).select("shard").unique()


def _changed_since(index: Table) -> pl.LazyFrame:
    """Return the shards with images of the same name, or with texts in which bytes became U+FFFD."""
    rows = index.scan(["shard", "alt_text", "error"])
    again = pl.col("error").str.starts_with("duplicate name") | pl.col("alt_text").str.contains("\ufffd", literal=True)
    return rows.filter(again).select("shard").unique()


def _as_stored(index: Table, shards: Sequence[Shard]) -> list[Shard]:
    """Return stored shards, each with the revision from which its ids were computed."""
    some = index.scan(["id", "shard", "key"]).filter(pl.col("shard").is_in([shard.path for shard in shards]))
    some = some.group_by("shard").agg(pl.col("id").head(_SOME), pl.col("key").head(_SOME))
    rows = {shard: list(zip(ids, keys, strict=True)) for shard, ids, keys in some.collect().iter_rows()}
    revised = [replace(shard, revision=str(shard.bytes)) for shard in shards]
    return [
        new if any(image_id(new.identity, key) == id_ for id_, key in rows[new.path]) else old
        for old, new in zip(shards, revised, strict=True)
    ]


def chunks(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    """Bundle shards into tasks of about a 64th of the work: at most 256 to 65,536 files, and 8 to 256 MiB."""
    count = min(max(len(shards) // 64, 256), 65_536)
    size = min(max(sum(s.bytes for s in shards) // 64, 8 << 20), 256 << 20)
    bundle: list[Shard] = []
    held = 0
    for shard in shards:
        if bundle and (len(bundle) == count or held + shard.bytes > size):
            yield _table(bundle)
            bundle, held = [], 0
        bundle.append(shard)
        held += shard.bytes
    if bundle:
        yield _table(bundle)


def read_chunk(chunk: pa.Table, pool: Pool, root: Folder, store: Store) -> pa.Table:
    """Store the index rows of one chunk of shards as one part; return its receipt."""
    passed_over = Counter[str]()
    rows = index_rows(pool, root, [Shard(**row) for row in chunk.to_pylist()], passed_over)
    return store.knowing({"passed_over": passed_over} if passed_over else {})(rows)


def account(index: Table, writer: str, pool: Pool) -> Iterator[str]:
    """Report an index job to the user as lines: which members it skipped, and how texts were decoded."""
    passed_over = Counter[str]()
    for provenance in index.provenances_of(writer) if pool.kind == "tars" else ():
        passed_over.update(provenance.get("passed_over", {}))  # type: ignore[call-overload]  # of JSON
    if passed_over:
        counts = format_counts(passed_over, _ENDINGS)
        yield f"passed over members of tars that are no images or texts by their ending: {counts}"
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
    both = rows.select(pl.concat_str("shard", pl.lit(" "), "key")).head(2).collect()
    what_to_do = (
        "start a new run without `id`, so that ids are made from shard and row"
        if pool.id
        else "two hashes met by chance; rename one of the two shards and start a new run"
    )
    raise UserError(
        f"{ids.len() - ids.n_unique():,} ids are used twice, such as {twice} by {' and '.join(both.to_series())}; "
        f"{what_to_do}"
    )


def _table(bundle: list[Shard]) -> pa.Table:
    return pa.Table.from_pylist([asdict(shard) for shard in bundle], schema=_SHARDS)
