"""Rows of the index from the shards of a pool: one row per image, and one for each thing that should have been one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pool.img2dataset import read_img2dataset
from pipeline.pool.listing import Pool, Shard
from pipeline.pool.parquet import read_parquet
from pipeline.pool.rows import Row, image_file
from pipeline.pool.tars import read_tar


def index_rows(pool: Pool, root: Folder, shards: list[Shard]) -> pa.Table:
    """The index rows of whole shards, with the columns of `INDEX`. At least one row per shard."""
    rows: list[Row] = []
    for shard in shards:
        seen: set[int] = set()
        revised = f"{shard.path}\0{shard.revision}" if shard.revision else shard.path
        for number, row in enumerate(_shard_rows(pool, root, shard)):
            row["shard"] = shard.path
            row.setdefault("shard_bytes", shard.bytes)
            row.setdefault("retry", False)
            if "id" not in row:
                row["id"] = image_id(revised, row.pop("identity", row["key"]))
                if row["id"] in seen:  # a name that a tar holds twice: both rows stay, the later one says so
                    row["id"] = image_id(revised, f"{row['key']}\0{number}")
                    if row["key"] or "width" in row:  # else it tells how the shard is broken
                        row["error"] = f"duplicate name: an earlier image of this shard is called {row['key']!r} too"
                seen.add(row["id"])
            rows.append(row)
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in INDEX}, schema=INDEX)


def image_id(shard: str, key: str) -> int:
    """63 bits of BLAKE2b over shard and key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _shard_rows(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    if shard.problem:
        yield {"key": shard.path, "error": shard.problem}
        return
    try:
        rows = list(_read(pool, root, shard))
    except OSError as error:  # the disk or the network: none of the shard's rows counts, the next run reads it again
        key = shard.path if pool.kind == "images" else ""
        rows = [{"key": key, "error": f"unreadable: {' '.join(str(error).split())[:300]}", "retry": True}]
        if shard.revision:  # so that the next run sees the change again
            rows[0]["shard_bytes"] = 0
    yield from rows


def _read(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    if pool.kind == "tars":
        return read_tar(root, shard)
    if pool.kind == "parquet":
        return read_parquet(root, shard, pool.image, pool.id)
    if pool.kind == "img2dataset":
        return read_img2dataset(root, shard)
    return iter([image_file(root, shard)])
