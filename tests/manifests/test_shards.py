"""Parquet shards, as files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.parquet_pages import Chunk, pages
from manifests.shards import IMAGE, write_parquet
from manifests.storage import Folder

LENGTH, IMAGES = 50_000, 256


def test_pages_of_a_row_group_have_a_part_of_its_images(tmp_path: Path) -> None:
    images = pa.array([{"bytes": bytes(LENGTH), "path": f"{number}.jpg"} for number in range(IMAGES)], IMAGE)
    group = pa.table([range(IMAGES), images], names=["id", "image"])
    write_parquet(Folder.at(tmp_path), "data/shard-00000.parquet", group.schema, iter([group]))
    file = tmp_path / "data" / "shard-00000.parquet"
    chunk = pq.read_metadata(file).row_group(0).column(1)
    assert chunk.path_in_schema == "image.bytes"
    start = chunk.data_page_offset
    with file.open("rb") as opened:
        found = list(pages(opened, Chunk(start, start + chunk.total_compressed_size, chunk.compression)))
    assert sum(page.values for page in found) == IMAGES
    assert max(page.stored for page in found) < 2 << 20, "a writer and a reader hold a page in memory, and a copy"
