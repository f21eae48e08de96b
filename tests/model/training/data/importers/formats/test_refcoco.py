"""RefCOCO as JSON: expressions whose boxes are in another file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import Imported, import_source

IMAGE = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 400, "height": 200}
BOX = {"id": 71, "image_id": 9, "category_id": 47, "bbox": [40, 20, 100, 60]}
OTHER = {"id": 72, "image_id": 10, "category_id": 47, "bbox": [0, 0, 1, 1]}
REF = {"ref_id": 5, "ann_id": 71, "image_id": 9, "file_name": "COCO_train2014_000000000009_0.jpg", "split": "testA"}
SAID = [{"sent_id": 1, "raw": "Left cup!", "sent": "left cup", "tokens": ["left", "cup"]}, {"sent": "the blue one"}]


def refcoco(folder: Path, refs: list[Any], **options: str) -> Imported:
    source = folder / "refcoco"
    source.mkdir()
    (source / "refs(unc).json").write_text(json.dumps(refs))
    (source / "instances.json").write_text(json.dumps({"images": [IMAGE], "annotations": [BOX, OTHER]}))
    return import_source("refcoco", source, options=options)


def test_each_sentence_becomes_a_record_with_the_box(tmp_path: Path) -> None:
    imported = refcoco(tmp_path, [REF | {"sentences": SAID}])
    assert [[turn.text for turn in record.turns] for record in imported.records] == [
        ["\nWhere is this: left cup?", "<ref>left cup</ref>[[100,100,350,400]]"],
        ["\nWhere is this: the blue one?", "<ref>the blue one</ref>[[100,100,350,400]]"],
    ]
    record = imported.records[0]
    assert record.turns[1].regions[0].box == (40, 20, 100, 60)
    assert record.media[0].path == "COCO_train2014_000000000009.jpg"  # of the image, not of the reference
    assert (record.source.original_id, record.source.split) == ("5", "testA")


def test_make_region_asks_for_the_sentence(tmp_path: Path) -> None:
    (record,) = refcoco(tmp_path, [REF | {"sentences": SAID[:1]}], make="region").records
    assert record.turns[0].text == "\nDescribe [100,100,350,400] so that it cannot be confused."
    assert record.turns[1].text == "left cup"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (REF | {"ann_id": 1, "sentences": SAID}, "no box of a reference: ann_id 1"),
        (REF | {"image_id": 1, "sentences": SAID}, "no box of a reference: ann_id 71, image_id 1"),
        (REF | {"ann_id": 72, "sentences": SAID}, "box of another image: ann_id 72 is in 10"),
        (REF | {"sentences": [{"sent": " "}]}, "a sentence without words"),
        (REF, "no conversation: None"),
        ([1], "not an object: list"),
    ],
)
def test_broken_reference_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = refcoco(tmp_path, [broken, REF | {"sentences": SAID[:1]}])
    assert len(imported.records) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 1


def test_rival_splits_in_a_folder_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "refcoco"
    refcoco(tmp_path, [REF | {"sentences": SAID}])
    (source / "refs(google).json").write_text(json.dumps([REF | {"split": "train", "sentences": SAID}]))
    both = r"refs\(google\)\.json, refs\(unc\)\.json are splits of the same references: give one of these files"
    with pytest.raises(UserError, match=both):
        import_source("refcoco", source, out=tmp_path / "both")
    one = import_source("refcoco", source / "refs(google).json", out=tmp_path / "one")
    assert [record.source.split for record in one.records] == ["train", "train"]


def test_published_pickle_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"a pickle can run code and is not read.*json\.dump"):
        import_source("refcoco", tmp_path / "refs(unc).p")
    with pytest.raises(UserError, match=r"no refs\*\.json in it: a pickle can run code"):
        import_source("refcoco", tmp_path)


def test_instances_that_are_missing_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).json").write_text("[]")
    with pytest.raises(UserError, match=r"it has the boxes; give --set instances=FILE"):
        import_source("refcoco", tmp_path / "refs(unc).json")
