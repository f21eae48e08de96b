"""What a shard of the subset `ocr` holds: read as it was stored, and refused where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.publishing.ocr_rows import OcrRows, read_ocr_rows, store_ocr_rows


@pytest.mark.parametrize(("ids", "holds"), [([7, -3, 5], OcrRows(3, -3, 7)), ([], OcrRows(0, None, None))])
def test_rows_are_read_as_stored(tmp_path: Path, ids: list[int], holds: OcrRows) -> None:
    store_ocr_rows(Folder.at(tmp_path), 2, ids)
    assert read_ocr_rows(Folder.at(tmp_path), 2, "parquet") == holds


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_damaged_file_is_named_with_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "ocr-00002.json").write_text(text)
    with pytest.raises(UserError, match=r"ocr-00002.json: the file is damaged .*; delete ocr/shard-00002.tar and"):
        read_ocr_rows(Folder.at(tmp_path), 2, "webdataset")
