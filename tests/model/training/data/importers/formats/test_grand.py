"""GranD and GranD-f: phrases by their offsets, masks into boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.grand import UNPLACED
from tests.model.training.data.importers.importing import import_entries, import_source

MASK = {"size": [10, 20], "counts": [20, 50]}  # columns 2 to 6 of 20, all of 10 rows
POT = {"phrase": "a pot", "id": 0, "tokens_positive": [0, 5]}
OBJECTS: dict[str, Any] = {
    "objects": [{"id": 0, "segmentation": MASK, "labels": ["pot"]}],
    "floating_objects": [{"id": 7, "segmentation": {"size": [10, 20], "counts": [0, 10]}}],
    "short_captions": [{"caption": "A pot on wood.", "details": [POT, {"phrase": "the sky", "id": 9}]}],
    "dense_caption": {"caption": "On wood a pot.", "details": [POT | {"ids": [0, 7], "tokens_positive": [8, 13]}]},
}
FINE = {"file_name": "a.jpg", "caption": "My pot", "groundings": {"pot": {"token_positives": [3, 6]}}}
FINE["groundings"]["pot"]["rle_masks"] = [MASK]  # type: ignore[index]


def test_captions_of_grand_have_boxes_at_their_phrases(tmp_path: Path) -> None:
    source = tmp_path / "sa_1.json"
    source.write_text(json.dumps({"sa_1.jpg": OBJECTS}))
    imported = import_source("grand", source)
    assert [record.turns[1].text for record in imported.records] == [
        "<ref>A pot</ref>[[100,0,350,1000]] on wood.",
        "On wood <ref>a pot</ref>[[100,0,350,1000],[0,0,50,1000]].",
    ]
    assert imported.records[0].media[0].path == "sa_1.jpg"  # no rstrip(".jpg"), which eats letters
    assert imported.report.notes.counted[UNPLACED].count == 1


def test_grand_f_has_token_positives(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "grand", [FINE]).records
    assert record.turns[1].text == "My <ref>pot</ref>[[100,0,350,1000]]"
    assert (record.media[0].width, record.media[0].height, record.media[0].path) == (20, 10, "a.jpg")


@pytest.mark.parametrize(
    ("groundings", "reason"),
    [
        ({"pot": {"token_positives": [2, 5], "rle_masks": [MASK]}}, "offsets do not match the phrase: 'pot'"),
        ({"pot": {"token_positives": [3, 6], "rle_masks": [{"size": [9]}]}}, "no mask: "),
        ({"pot": {"token_positives": [3, 6], "rle_masks": []}}, "no captions or no masks"),
        ({"pot": {"token_positives": [3, 6], "rle_masks": [{"size": [10, 20], "counts": [200]}]}}, "an empty mask"),
        ({}, "no captions or no masks"),
        ([], "not an object: list"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, groundings: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "grand", [FINE, FINE | {"groundings": groundings}])
    assert len(imported.records) == 1
    assert [said.startswith(reason) for said in imported.reasons] == [True]


def test_broken_caption_leaves_the_others(tmp_path: Path) -> None:
    source = tmp_path / "sa_1.json"
    source.write_text(json.dumps({"sa_1.jpg": OBJECTS | {"dense_caption": {"details": []}}}))
    imported = import_source("grand", source)
    assert (len(imported.records), imported.reasons) == (1, ["no text in `caption`: None"])
