"""COCO's form: annotations joined to images, boxes into grounding, regions, captions and words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.boxes import to_pixels
from core.errors import UserError
from model.training.data.grounding import boxes_of
from model.training.data.importers.formats.coco import CROWD
from model.training.data.importers.regions import MASKS
from tests.model.training.data.importers.importing import Imported, import_source

IMAGES = [
    {"id": 9, "file_name": "000000000009.jpg", "width": 400, "height": 200, "coco_url": "http://a.example/9.jpg"},
    {"id": 25, "file_name": "train2017/000000000025.jpg", "width": 100, "height": 100},
]
CUP = {"id": 1, "image_id": 9, "category_id": 47, "bbox": [40, 20, 100.0, 60.5], "iscrowd": 0, "segmentation": [[1, 2]]}
CUP2 = {"id": 2, "image_id": 9, "category_id": 47, "bbox": [200, 100, 200, 100], "iscrowd": 0}
CROWDED = {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 400, 200], "iscrowd": 1}
PERSON = {"id": 4, "image_id": 25, "category_id": 1, "bbox": [10, 10, 20, 80], "iscrowd": 0}
NAMES = [{"id": 1, "name": "person"}, {"id": 47, "name": "cup"}]


def coco(folder: Path, annotations: list[Any], images: list[Any] = IMAGES, **options: str) -> Imported:
    source = folder / "instances_train2017.json"
    # annotations may stand before the images
    whole = {"info": {}, "licenses": [], "annotations": annotations, "images": images, "categories": NAMES}
    source.write_text(json.dumps(whole))
    return import_source("coco", source, options=options)


def test_boxes_of_an_image_become_one_grounding_record(tmp_path: Path) -> None:
    imported = coco(tmp_path, [PERSON, CUP, CROWDED, CUP2])
    first, second = imported.records
    assert first.turns[0].text == "\nFind all objects of these kinds: cup."
    assert first.turns[1].text == "<ref>cup</ref>[[100,100,350,402],[500,500,1000,1000]]"
    assert [(region.box, region.system, region.label) for region in first.turns[1].regions] == [
        ((40, 20, 100, 60.5), "pixel_xywh", "cup"),
        ((200, 100, 200, 100), "pixel_xywh", "cup"),
    ]
    assert (first.media[0].width, first.media[0].height, first.task) == (400, 200, "grounding")
    assert (first.source.original_id, first.source.url, first.source.line) == ("9", "http://a.example/9.jpg", 1)
    assert second.turns[1].text == "<ref>person</ref>[[100,100,300,900]]"
    assert {note: counted.count for note, counted in imported.report.notes.counted.items()} == {CROWD: 1, MASKS: 1}


def test_boxes_in_text_come_back_within_a_thousandth(tmp_path: Path) -> None:
    turn = coco(tmp_path, [CUP, CUP2]).records[0].turns[1]
    for box, region in zip(boxes_of(turn.text, 400, 200), turn.regions, strict=True):
        assert box == pytest.approx(to_pixels(region.box, region.system, 400, 200), abs=0.2)


def test_make_region_gives_a_record_for_each_box(tmp_path: Path) -> None:
    imported = coco(tmp_path, [CUP, CUP2, PERSON], make="region")
    assert [(record.turns[0].text, record.turns[1].text) for record in imported.records] == [
        ("\nWhat is in [100,100,350,402]?", "cup"),
        ("\nWhat is in [500,500,1000,1000]?", "cup"),
        ("\nWhat is in [100,100,300,900]?", "person"),
    ]


def test_captions_become_a_record_each(tmp_path: Path) -> None:
    said = [{"id": n, "image_id": 9, "caption": text} for n, text in enumerate(("A cup.", "Two cups.", " "))]
    imported = coco(tmp_path, [*said, {"id": 8, "image_id": 25, "caption": 7}])
    assert [record.turns[1].text for record in imported.records] == ["A cup.", "Two cups."]
    assert imported.reasons == ["empty answer: turn 1", "no text in `caption`: 7"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (PERSON | {"bbox": [10, 10, 95, 80]}, "box [10.0, 10.0, 95.0, 80.0] (pixel_xywh) reaches outside of a picture"),
        (PERSON | {"bbox": [10, 10, 0, 80]}, "box without an area: "),
        (PERSON | {"bbox": [10, 10, -5, 80]}, "box [10.0, 10.0, -5.0, 80.0] (pixel_xywh) has its right"),
        (PERSON | {"bbox": [10, 10, "5", 80]}, "no box: "),
        (PERSON | {"bbox": [10, 10, 5]}, "no box: "),
        (PERSON | {"category_id": 7}, "an unknown category: 7"),
        (PERSON | {"iscrowd": 1}, "boxes of crowds alone: nothing to locate"),
    ],
)
def test_broken_box_rejects_its_image_alone(tmp_path: Path, broken: dict[str, Any], reason: str) -> None:
    imported = coco(tmp_path, [CUP, broken])
    assert [record.source.original_id for record in imported.records] == ["9"]
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 2


def test_box_just_over_the_edge_is_put_onto_it(tmp_path: Path) -> None:
    (record,) = coco(tmp_path, [PERSON | {"bbox": [60.5, 10, 40, 80]}], IMAGES[1:]).records
    assert record.turns[1].text == "<ref>person</ref>[[605,100,1000,900]]"


def test_orphans_and_empty_images_are_rejected(tmp_path: Path) -> None:
    images = [*IMAGES, {"id": 7, "file_name": "7.jpg", "width": 10, "height": 10}, {"id": 8, "file_name": "8.jpg"}]
    notes = [CUP, PERSON, PERSON | {"id": 5, "image_id": 99}, PERSON | {"id": 6, "image_id": 8}, [1]]
    imported = coco(tmp_path, notes, images)
    assert len(imported.records) == 2
    assert [reason.split(":")[0] for reason in imported.reasons] == [
        "an image without annotations",
        "no size of the picture",
        "no image of an annotation",
        "no image of an annotation",
    ]


def test_file_without_a_part_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "x.json"
    source.write_text(json.dumps({"images": IMAGES}))
    with pytest.raises(UserError, match="no `annotations` in it"):
        import_source("coco", source)


def test_file_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "x.json"
    source.write_text(json.dumps({"images": IMAGES, "annotations": [CUP, PERSON]})[:-20])
    with pytest.raises(UserError, match="no JSON behind entry"):
        import_source("coco", source)


def test_unknown_make_rejects_all_with_the_choices(tmp_path: Path) -> None:
    imported = coco(tmp_path, [CUP, PERSON], make="boxes")
    assert imported.reasons == ["an unknown choice: --set make=boxes; use one of grounding, region"] * 2
