"""Parquet shards, as files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from manifests.shards import IMAGE, write_parquet
from manifests.storage import Folder

MIB = 1 << 20


def test_memory_of_writing_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    images = pa.array([{"bytes": bytes(MIB // 2), "path": f"{number}.jpg"} for number in range(128)], IMAGE)
    group = pa.table([range(128), images], names=["id", "image"])
    default, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        write_parquet(Folder.at(tmp_path), "data/shard-00000.parquet", group.schema, iter([group]))
    finally:
        pa.set_memory_pool(default)
    assert counted.max_memory() < 32 * MIB, "a page of all images of the row group has 64 MiB, and is copied"
