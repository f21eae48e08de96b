"""Which column of a Parquet file holds the films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from pipeline.pools import pool_of


def errors(where: Path, settings: dict[str, str]) -> list[str]:
    """The kinds of errors of the rows."""
    pool = pool_of(videos=str(where), **settings)
    listing = pool.check_first(pool.listing())
    rows = pool.index(listing.root, listing.shards).to_pylist()
    return [row["error"].partition(":")[0] for row in rows]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"mp4": [b""], "image": [b""]}, {}, None),
        ({"bytes": [b""], "id": [1]}, {}, None),
        ({"a": [b""], "video": ["a.mp4"]}, {"video": "a"}, None),
        ({"video": [b""], "mp4": [b""]}, {}, r"2 columns \(video, mp4\) can hold the film; name one as `video`"),
        ({"caption": ["a"]}, {}, r"m.parquet: no column can hold the film \(caption: string\); .* a glob such as"),
        ({"video": ["a.mp4"]}, {}, r"no column can hold the film \(video: string\); accepted: bytes"),
        ({"video": [b""]}, {"video": "film"}, r"no column 'film' \(there are video\)"),
        ({"video": ["a.mp4"]}, {"video": "video"}, r"column 'video' is string; accepted: bytes"),
    ],
    ids=["named", "bytes", "setting", "two", "none", "path", "missing", "text"],
)
def test_column_of_films_is_found_or_asked_for(
    tmp_path: Path, columns: dict[str, list[Any]], settings: dict[str, str], message: str | None
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    if message is None:
        assert errors(tmp_path, settings) == ["cannot be read as a video"]
        return
    with pytest.raises(UserError, match=message):
        errors(tmp_path, settings)
