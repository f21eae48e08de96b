"""Files beside the shards of a pool that its user may take for shards: they are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.pools import pool_of

NAMES = {
    "parquet": ("a.parquet", ["b.PARQUET", "c.pq", "d.parq", "e.parquet.gz", "f.arrow"]),
    "tars": ("a.tar", ["b.TAR", "c.zip", "d.tar.gz"]),
    "urls": ("a.parquet", ["b.TXT", "c.CSV.gz", "d.json", "e.parquet.gz"]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_skipped_files_that_resemble_shards_are_counted(tmp_path: Path, kind: str) -> None:
    shard, others = NAMES[kind]
    for name in (shard, *others, "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    listing = pool_of(**{kind: str(tmp_path)}).listing()
    assert listing.shards["path"].to_pylist() == [shard]
    assert listing.passed_over.total() == len(others)
    assert all(any(name in said for said in listing.passed_over) for name in others)
