"""What was removed is written down, read back, and damaged files are told."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from core.errors import UserError
from manifests.removals import Removals, Takedown, add_takedown, removals_in, takedowns_in, url_hash
from manifests.storage import Folder

REMOVALS = Removals(frozenset({3, -4}), frozenset({"ab"}), frozenset({str(url_hash("http://x.org/a"))}))


def test_takedowns_are_read_as_they_were_stored(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    first = add_takedown(folder, Takedown(REMOVALS, 2, ("data/shard-00000.parquet",), {"Ä": 1}))
    second = add_takedown(folder, Takedown(Removals(ids=frozenset({9})), finished=True))
    assert takedowns_in(folder) == [first, second]
    assert (first.generation, second.generation) == (2, 3)
    assert removals_in(folder).ids == {3, -4, 9}


def test_stored_takedown_has_no_url(tmp_path: Path) -> None:
    add_takedown(Folder.at(tmp_path), Takedown(REMOVALS))
    assert b"x.org" not in (tmp_path / "removed-000001.json").read_bytes()


def test_removed_rows_fit_by_id_bytes_or_url() -> None:
    rows = pl.LazyFrame(
        {
            "id": [3, 5, 6, 7, 8],
            "sha256": [None, "AB", "cd", None, "ef"],
            "url": [None, "http://x.org/b", "HTTP://X.ORG:80/a#z", "no url", None],
        }
    )
    assert REMOVALS.fitting(rows).collect()["id"].to_list() == [3, 5, 6]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ids": [1]', "null"])
def test_damaged_takedown_is_named(tmp_path: Path, text: str) -> None:
    add_takedown(Folder.at(tmp_path), Takedown(REMOVALS))
    (tmp_path / "removed-000001.json").write_text(text)
    with pytest.raises(UserError, match=rf"^{tmp_path}/removed-000001.json: the file is damaged \(.+\); copy it back"):
        takedowns_in(Folder.at(tmp_path))


def test_takedown_that_is_missing_is_named(tmp_path: Path) -> None:
    for number in range(2):
        add_takedown(Folder.at(tmp_path), Takedown(Removals(ids=frozenset({number}))))
    (tmp_path / "removed-000001.json").unlink()
    with pytest.raises(UserError, match=r"removed-000001.json: this file is missing, and what was removed; copy it"):
        takedowns_in(Folder.at(tmp_path))
