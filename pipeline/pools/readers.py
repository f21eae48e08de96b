"""Make index rows from the shards of a pool: one row per image, and an error row for everything that cannot be read."""

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
    """Return the index rows of whole shards, with the columns of `INDEX`; normally at least one row per shard.

    `passed_over` is filled with the number of tar members that are neither images nor texts that are read, by ending.
    """
    if pool.kind == "urls":  # a shard has millions of rows: no dict for each
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
                if row["id"] in seen:  # a tar has this name twice: both rows stay, the later one gets an error
                    row["id"] = image_id(shard.identity, f"{row['key']}\0{number}")
                    if row["key"] or "width" in row:  # other rows already say how the shard is broken
                        row["error"] = f"duplicate name: an earlier image of this shard is called {row['key']!r} too"
                seen.add(row["id"])
            rows.append(row)
    return _table(rows)


def unread_shards(pool: Pool, shards: list[Shard], error: str, retry: bool) -> pa.Table:
    """Return one index row with the error for each shard that cannot be read."""
    rows = []
    for shard in shards:
        row = _about(pool, shard, error)
        about = {"id": image_id(shard.identity, row["key"]), "shard": shard.path, "shard_bytes": shard.bytes}
        rows.append({**row, **about, "retry": retry})
    return _table(rows)


def image_id(shard: str, key: str) -> int:
    """Return the id of an image: 63 bits of BLAKE2b over shard and key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _table(rows: list[Row]) -> pa.Table:
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in INDEX}, schema=INDEX)


def _shard_of_urls(pool: Pool, root: Folder, shard: Shard) -> pa.Table:
    """Return the rows of a shard of URLs. A damaged shard gets a last row that says where it ends."""
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
    """Return the source's ids. A missing id is a hash of the row number, since URLs may repeat."""
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
    except LinkError as error:  # it became a link after the pool was listed
        rows = [{"key": shard.path, "error": str(error)}]
    except OSError as error:  # disk or network: the shard's rows are discarded, and the next run reads it again
        rows = [_unreadable(pool, shard, error)]
    yield from rows


def _unreadable(pool: Pool, shard: Shard, error: OSError) -> Row:
    row = _about(pool, shard, f"unreadable: {' '.join(str(error).split())[:300]}") | {"retry": True}
    return row | {"shard_bytes": 0} if shard.revision else row  # so that the next run detects the change again


def _about(pool: Pool, shard: Shard, error: str) -> Row:
    """Return the only row of a shard that cannot be read at all."""
    return {"key": shard.path if pool.kind == "images" else "", "error": error}


def _read(pool: Pool, root: Folder, shard: Shard, passed_over: Counter[str] | None) -> Iterator[Row]:
    if pool.kind == "tars":
        return read_tar(root, shard, pool.alt_text, passed_over)
    if pool.kind == "parquet":
        return read_parquet(root, shard, pool)
    if pool.kind == "img2dataset":
        return read_img2dataset(root, shard, pool)
    return iter([image_file(root, shard, pool.follow_links)])
