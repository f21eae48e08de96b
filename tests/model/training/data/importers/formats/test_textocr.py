"""TextOCR: COCO's form as objects of id → value; words that nobody could read are left out."""

from __future__ import annotations

import json
from pathlib import Path

from model.training.data.importers.formats.textocr import ILLEGIBLE
from tests.model.training.data.importers.importing import import_source


def test_words_of_textocr_become_text_with_boxes(tmp_path: Path) -> None:
    images = {
        "a1": {"id": "a1", "width": 400, "height": 200, "set": "train", "file_name": "train/a1.jpg"},
        "a2": {"id": "a2", "width": 400, "height": 200, "set": "train", "file_name": "train/a2.jpg"},
    }
    words = {"a1_1": ("STOP", [40, 20, 100, 60.0]), "a1_2": (".", [0, 0, 1, 1]), "a1_3": ("Main St", [0, 0, 40, 20])}
    words |= {"a2_1": ("###", [0, 0, 1, 1]), "a3_1": ("of no image", [0, 0, 1, 1])}
    notes = {
        key: {"id": key, "image_id": key[:2], "bbox": box, "utf8_string": word} for key, (word, box) in words.items()
    }
    source = tmp_path / "TextOCR_0.1_train.json"
    source.write_text(json.dumps({"info": {}, "imgs": images, "anns": notes, "imgToAnns": {"a1": list(notes)}}))
    imported = import_source("textocr", source)
    (record,) = imported.records
    assert record.turns[1].text == "STOP <box>[100,100,350,400]</box>\nMain St <box>[0,0,100,100]</box>"
    assert (record.task, record.source.split, record.media[0].path) == ("ocr", "train", "train/a1.jpg")
    assert imported.report.notes.counted[ILLEGIBLE].count == 1
    assert [reason.split(":")[0] for reason in imported.reasons] == [
        "an image without legible words",
        "no image of an annotation",
    ]
