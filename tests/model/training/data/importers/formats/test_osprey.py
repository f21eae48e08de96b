"""Osprey-724K: regions as polygons and run lengths, numbered from 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries

ENTRY: dict[str, Any] = {
    "id": "1",
    "file_name": "COCO_train2014_000000000123.jpg",
    "height": 200,
    "width": 400,
    "annotation": [
        {"segmentation": [[40, 20, 140, 20, 140, 80, 40, 80]]},
        {"segmentation": {"size": [200, 400], "counts": [0, 4000]}},
    ],
}
SAID = [("human", "What is <region1> beside <region2>?"), ("gpt", "<region1> is a kettle."), ("human", "Sure?")]
CHAT = ENTRY | {"conversations": [{"from": speaker, "value": value} for speaker, value in SAID[:2]]}


def test_marks_become_boxes_and_the_labels_say_which(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "osprey", [CHAT]).records
    question, answer = record.turns
    assert question.text == "What is [100,100,350,400] beside [0,0,50,1000]?"
    assert answer.text == "[100,100,350,400] is a kettle."
    assert [(region.box, region.label) for region in question.regions] == [
        ((40, 20, 140, 80), "region1"),
        ((0, 0, 20, 200), "region2"),
    ]
    assert (record.transforms, record.media[0].path) == (("region_marks_as_boxes",), ENTRY["file_name"])
    back = question.text.replace("[100,100,350,400]", "<region1>").replace("[0,0,50,1000]", "<region2>")
    assert back == SAID[0][1]


def test_descriptions_become_a_record_each(tmp_path: Path) -> None:
    entry = ENTRY | {"description": ["<region1>: a red kettle", "<region2>: wood", "no mark", "<region3>: none"]}
    imported = import_entries(tmp_path, "osprey", [entry], options={"names": "tail"})
    assert [[turn.text for turn in record.turns] for record in imported.records] == [
        ["Describe [100,100,350,400].", "a red kettle"],
        ["Describe [0,0,50,1000].", "wood"],
    ]
    assert imported.records[0].media[0].path == "000000000123.jpg"
    assert [reason.split(":")[0] for reason in imported.reasons] == [
        "a description of no region",
        "a region without a place",
    ]


def test_last_unpaired_message_is_noted(tmp_path: Path) -> None:
    entry = ENTRY | {"conversations": [{"from": speaker, "value": value} for speaker, value in SAID]}
    imported = import_entries(tmp_path, "osprey", [entry])
    assert "questions after the last answer, which a training leaves out" in imported.report.notes.counted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"annotation": ENTRY["annotation"][:1]}, "a region without a place: number 2 of 1"),
        ({"annotation": [{"segmentation": [[0, 0, 500, 500]]}] * 2}, "box [0.0, 0.0, 500.0, 500.0] (pixel_xyxy) reach"),
        ({"annotation": [{"segmentation": []}] * 2}, "no polygon: []"),
        ({"annotation": None}, "no conversation: None"),
        ({"width": None}, "no size of the picture"),
        ({"file_name": None}, "a medium without a path"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "unknown speaker: 'bot'"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, change: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "osprey", [CHAT, CHAT | change])
    assert len(imported.records) == 1
    assert [said.startswith(reason) for said in imported.reasons] == [True]
