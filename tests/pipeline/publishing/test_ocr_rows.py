"""What a shard of the subset `ocr` holds: read as it was stored, and refused where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.publishing.ocr_rows import read_ocr_rows, store_ocr_rows


def test_rows_are_read_as_stored(tmp_path: Path) -> None:
    for number, ids in ((2, [7, -3, 1 << 62]), (3, []), (4, [5])):
        store_ocr_rows(Folder.at(tmp_path), number, ids)
    rows = read_ocr_rows(Folder.at(tmp_path), [2, 3], "parquet")
    assert rows.to_dict(as_series=False) == {"id": [7, -3, 1 << 62], "number": [2, 2, 2]}
    assert read_ocr_rows(Folder.at(tmp_path), [3], "parquet").height == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"ids": ["7"]}', '{"ids": [7.5]}', '{"ids": 7}'])
def test_damaged_file_is_named_with_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "ocr-00002.json").write_text(text)
    with pytest.raises(
        UserError, match=r"ocr-00002.json: the file is damaged .*; copy it back, or delete ocr/shard-00002.tar and"
    ):
        read_ocr_rows(Folder.at(tmp_path), [2], "webdataset")
