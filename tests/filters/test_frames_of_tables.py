"""Frames of clips whose films are in a Parquet file."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from filters.frames import Frames
from pipeline.pools.videos import Videos


def test_films_of_one_name_and_length_are_two_films(tmp_path: Path) -> None:
    """In a Parquet file paths may repeat, and films without compression have one length."""
    films = [
        b"YUV4MPEG2 W64 H64 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + bytes([luma]) * 4096 + bytes([128]) * 2048) * 10
        for luma in (50, 200)
    ]
    cells = [{"bytes": film, "path": "front.y4m"} for film in films]
    pq.write_table(pa.table({"video": cells}), tmp_path / "a.parquet")
    pool = Videos(kind="videos", where=str(tmp_path))
    index = pool.index(pool.root(), pool.listing().shards).sort_by("offset").to_pylist()
    reader = Frames(stored=1).load()
    clips = [pool.film(pool.root(), *(row[name] for name in ("shard", "key", "offset", "bytes"))) for row in index]
    pictures = [Image.open(io.BytesIO(reader.prepare(clip, 0, 1).frames[0])) for clip in clips]
    assert [picture.getpixel((9, 9)) for picture in pictures] == [(39, 39, 39), (214, 214, 214)]
