"""Rows of the index from the shards of a pool: one row per image, and one for each thing that should have been one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from manifests.schemas import INDEX
from manifests.storage import Folder, LinkError
from pipeline.pools.img2dataset import read_img2dataset
from pipeline.pools.listing import Pool, Shard
from pipeline.pools.parquet import read_parquet
from pipeline.pools.rows import Row, image_file
from pipeline.pools.tars import read_tar
from pipeline.pools.urls import read_urls


def index_rows(pool: Pool, root: Folder, shards: list[Shard], passed_over: Counter[str] | None = None) -> pa.Table:
    """The index rows of whole shards, with the columns of `INDEX`. At least one row per shard.

    `passed_over` is filled with how many members of tars are neither images nor texts that are read, by ending.
    """
    if pool.kind == "urls":  # whose shards have millions of rows
        return pa.concat_tables([_shard_of_urls(pool, root, shard) for shard in shards])
    rows: list[Row] = []
    for shard in shards:
        seen: set[int] = set()
        for number, row in enumerate(_shard_rows(pool, root, shard, passed_over)):
            row["shard"] = shard.path
            row.setdefault("shard_bytes", shard.bytes)
            row.setdefault("retry", False)
            if "id" not in row:
                row["id"] = image_id(shard.identity, row.pop("identity", row["key"]))
                if row["id"] in seen:  # a name that a tar holds twice: both rows stay, the later one says so
                    row["id"] = image_id(shard.identity, f"{row['key']}\0{number}")
                    if row["key"] or "width" in row:  # else it tells how the shard is broken
                        row["error"] = f"duplicate name: an earlier image of this shard is called {row['key']!r} too"
                seen.add(row["id"])
            rows.append(row)
    return _table(rows)


def unread_shards(pool: Pool, shards: list[Shard], error: str, retry: bool) -> pa.Table:
    """The index rows of shards that cannot be read: one each, with the error."""
    rows = []
    for shard in shards:
        row = _about(pool, shard, error)
        about = {"id": image_id(shard.identity, row["key"]), "shard": shard.path, "shard_bytes": shard.bytes}
        rows.append({**row, **about, "retry": retry})
    return _table(rows)


def image_id(shard: str, key: str) -> int:
    """63 bits of BLAKE2b over shard and key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _table(rows: list[Row]) -> pa.Table:
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in INDEX}, schema=INDEX)


def _shard_of_urls(pool: Pool, root: Folder, shard: Shard) -> pa.Table:
    """The rows of a shard of URLs, and a last one that says where it breaks off."""
    about = {"id": image_id(shard.identity, ""), "shard": shard.path, "shard_bytes": shard.bytes, "retry": False}
    try:
        urls, broken = read_urls(root, shard, pool)
    except OSError as error:
        return _table([about | _unreadable(pool, shard, error)])
    last = [about | {"key": "", "error": broken}] if broken else []
    columns = dict(zip(urls.column_names, urls.columns, strict=True))
    columns["id"] = _with_hashes(urls, shard.identity)
    for name in ("shard", "shard_bytes", "retry"):
        columns[name] = pa.repeat(pa.scalar(about[name], INDEX.field(name).type), urls.num_rows)
    whole = [columns.get(f.name, pa.nulls(urls.num_rows, f.type)) for f in INDEX]
    return pa.concat_tables([pa.table(whole, schema=INDEX), _table(last)])


def _with_hashes(urls: pa.Table, revised: str) -> pa.ChunkedArray | pa.Array:
    """The source's own ids, and hashes of the row number where there is none: URLs may repeat between rows."""
    if not urls["id"].null_count:
        return urls["id"]
    ids = zip(urls["id"].to_pylist(), urls["offset"].to_pylist(), strict=True)
    return pa.array([image_id(revised, str(number)) if id_ is None else id_ for id_, number in ids], pa.int64())


def _shard_rows(pool: Pool, root: Folder, shard: Shard, passed_over: Counter[str] | None) -> Iterator[Row]:
    if shard.problem:
        yield {"key": shard.path, "error": shard.problem}
        return
    try:
        rows = list(_read(pool, root, shard, passed_over))
    except LinkError as error:  # it was none when the pool was listed
        rows = [{"key": shard.path, "error": str(error)}]
    except OSError as error:  # the disk or the network: none of the shard's rows counts, the next run reads it again
        rows = [_unreadable(pool, shard, error)]
    yield from rows


def _unreadable(pool: Pool, shard: Shard, error: OSError) -> Row:
    row = _about(pool, shard, f"unreadable: {' '.join(str(error).split())[:300]}") | {"retry": True}
    return row | {"shard_bytes": 0} if shard.revision else row  # so that the next run sees the change again


def _about(pool: Pool, shard: Shard, error: str) -> Row:
    """The row that says why a whole shard has no others."""
    return {"key": shard.path if pool.kind == "images" else "", "error": error}


def _read(pool: Pool, root: Folder, shard: Shard, passed_over: Counter[str] | None) -> Iterator[Row]:
    if pool.kind == "tars":
        return read_tar(root, shard, pool.alt_text, passed_over)
    if pool.kind == "parquet":
        return read_parquet(root, shard, pool)
    if pool.kind == "img2dataset":
        return read_img2dataset(root, shard, pool)
    return iter([image_file(root, shard, pool.follow_links)])
