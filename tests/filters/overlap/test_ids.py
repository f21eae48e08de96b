"""Blocked ids are found in the names that media have, and not inside of other names."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from filters.overlap.ids import BlockedIds

IDS = BlockedIds(["aB3-_defghi", "3MSZA"])


@pytest.mark.parametrize(
    "name",
    [
        "aB3-_defghi",
        "videos/aB3-_defghi.mp4",
        "v_aB3-_defghi.mkv",
        "clips/aB3-_defghi_10.0_20.0.mp4",
        "frames/aB3-_defghi/000001.jpg",
        "https://www.youtube.com/watch?v=aB3-_defghi&t=3",
    ],
)
def test_id_is_found_in_names_of_films(name: str) -> None:
    assert IDS.search([name]) == ["aB3-_defghi"]


@pytest.mark.parametrize("name", ["aB3-_defghij.mp4", "xaB3-_defghi.mp4", "ab3-_defghi.mp4", "3MSZAB.mp4", ""])
def test_other_names_are_not_found(name: str) -> None:
    assert IDS.search([name]) == []


def test_ids_are_read_from_lines(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("# films of the test set\n3MSZA\n\n aB3-_defghi \n")
    ids = BlockedIds.read(str(tmp_path / "ids.txt"))
    assert len(ids) == 2
    assert ids.search(["3MSZA.mp4", "x/aB3-_defghi.mp4", "3MSZA.mp4"]) == ["3MSZA", "aB3-_defghi"]


@pytest.mark.parametrize(("content", "message"), [(b"", "no ids"), (b"abc\n", "'abc'"), (b"\xff\xfe", "UTF-8")])
def test_unusable_list_of_ids_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        BlockedIds.read(str(tmp_path / "ids.txt"))
