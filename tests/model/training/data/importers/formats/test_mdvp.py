"""MDVP: boxes in x, y, width, height, and points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training import training_data
from tests.model.training.data.importers.importing import Imported, import_entries


def chat(question: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "<Region 1>: a pot"}]


BOXES = {"id": 3, "image": "/data/vg/a.png", "bbox": [[14, 0, 14, 28.0]], "conversations": chat("<image>\n<Region 1>?")}


def mdvp(folder: Path, *entries: Any) -> Imported:
    (folder / "vg").mkdir()
    (folder / "vg" / "a.png").write_bytes(training_data.picture(0))  # 56 x 56
    return import_entries(folder, "mdvp", list(entries), options={"prefix": "/data/", "pictures": str(folder)})


def test_boxes_stand_for_regions(tmp_path: Path) -> None:
    (record,) = mdvp(tmp_path, BOXES).records
    assert [turn.text for turn in record.turns] == ["\n[250,0,500,500]?", "[250,0,500,500]: a pot"]
    assert (record.turns[0].regions[0].box, record.turns[0].regions[0].system) == ((14, 0, 14, 28), "pixel_xywh")
    assert record.media[0].path == "vg/a.png"


def test_points_stand_for_marks(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "What is <Mark 2>?"}, {"from": "gpt", "value": "A lid."}]
    (record,) = mdvp(tmp_path, {"image": "vg/a.png", "points": [[0, 0], [14, 56]], "conversations": said}).records
    assert record.turns[0].text == "What is [250,1000]?"
    assert record.turns[0].regions[0].box == (14, 56, 14, 56)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [[50, 0, 14, 28]]}, "box [50.0, 0.0, 14.0, 28.0] (pixel_xywh) reaches outside"),
        ({"bbox": None}, "not one of `bbox` and `points`"),
        ({"points": [[1, 1]]}, "not one of `bbox` and `points`"),
        ({"bbox": None, "points": [[1]]}, "no point: [1]"),
        ({"bbox": None, "points": [[1, 57]]}, "point outside of the picture: [1, 57] in 56x56"),
        ({"image": "/data/vg/gone.png"}, "no size of the picture: [None, None] for vg/gone.png"),
        ({"image": "/other/a.png"}, "media unreadable: /other/a.png: lies outside of"),
        ({"conversations": chat("<image><image>")}, "placeholders do not match"),
        ({"conversations": chat("<Region 2>")}, "a region without a place: number 2 of 1"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, change: Any, reason: str) -> None:
    imported = mdvp(tmp_path, BOXES, BOXES | change)
    assert len(imported.records) == 1
    assert imported.reasons[0].startswith(reason), imported.reasons
