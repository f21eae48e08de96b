"""BLIP3-OCR-200M: JSON inside of a column, twelve granularities, images by address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.model.training.data.importers.importing import Imported, import_source

SAID = ["STOP Main St", "<ocr>STOP</ocr><bbox>0.1, 0.1, 0.3, 0.2</bbox>"]
CAPTIONS = [{"text": text, "granularity": n, "include_datacomp_raw_cap": False} for n, text in enumerate(SAID)]
ROW = {"uid": "ab12", "url": "https://a.example/1.jpg", "captions": json.dumps(CAPTIONS), "sha256": "x"}


def blip3(folder: Path, rows: list[dict[str, Any]], **options: str) -> Imported:
    pq.write_table(pa.Table.from_pylist(rows), folder / "001.parquet")
    return import_source("blip3-ocr", folder / "001.parquet", media=folder, options=options)


def test_default_is_the_first_granularity_and_media_are_missing(tmp_path: Path) -> None:
    imported = blip3(tmp_path, [ROW])
    (record,) = imported.records
    assert [turn.text for turn in record.turns] == ["\nRead all text in the image.", "STOP Main St"]
    assert (record.source.url, record.source.original_id) == (ROW["url"], "ab12")
    assert (record.media[0].path, record.media[0].present) == ("ab12.jpg", False)
    assert imported.report.notes.counted["image missing"].count == 1


def test_all_granularities_give_a_record_each_unchanged(tmp_path: Path) -> None:
    records = blip3(tmp_path, [ROW], granularity="all").records
    assert [record.turns[1].text for record in records] == SAID
    assert [record.turns[0].text for record in records][1] == "\nRead all text in the image, with its places."
    assert [record.aspect for record in records] == ["granularity 0", "granularity 1"]


RAW = {"text": "Buy signs in Ohio. STOP", "granularity": 0, "include_datacomp_raw_cap": True}
RAW_REASON = "a text with the web's alt text, which is not in the image"


def test_text_with_the_alt_text_is_rejected_and_counted(tmp_path: Path) -> None:
    plain = {"text": "Main St", "granularity": 0}
    imported = blip3(tmp_path, [ROW | {"captions": json.dumps([*CAPTIONS, RAW, plain])}])
    assert [record.turns[1].text for record in imported.records] == [SAID[0], "Main St"]
    assert imported.report.records_rejected == 1
    assert {kind: found.count for kind, found in imported.report.rejected.counted.items()} == {RAW_REASON: 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"captions": "[{"}, "no JSON in `captions`: "),
        ({"captions": "7"}, "no conversation: 7"),
        ({"captions": None}, "no conversation: None"),
        ({"captions": "[]"}, "no such granularity: 0; give --set granularity="),
        ({"captions": '[{"granularity": 0, "text": ""}]'}, "empty answer: turn 1"),
        ({"captions": '[{"granularity": 0}]'}, "no text in `text`: None"),
        ({"captions": json.dumps([RAW])}, RAW_REASON),
        ({"uid": None}, "no text in `uid`: None"),
    ],
)
def test_broken_row_is_rejected_and_the_rest_imported(tmp_path: Path, change: Any, reason: str) -> None:
    imported = blip3(tmp_path, [ROW, ROW | change])
    assert len(imported.records) == 1
    assert [said.startswith(reason) for said in imported.reasons] == [True]
    assert imported.rejected[0]["line"] == 2
