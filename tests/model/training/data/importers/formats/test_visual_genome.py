"""Visual Genome: regions and objects in x, y, width, height; sizes in a file of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.training import training_data
from tests.model.training.data.importers.importing import Imported, import_entries

REGION = {"region_id": 1, "x": 40, "y": 20, "width": 100, "height": 60, "image_id": 7, "phrase": " a blue cup "}
ADDRESS = "https://a.example/rak/VG_100K_2/7.jpg"
OBJECTS = [
    {"object_id": 1, "x": 40, "y": 20, "w": 100, "h": 60, "names": ["cup"], "synsets": ["cup.n.01"]},
    {"object_id": 2, "x": 0, "y": 0, "w": 400, "h": 200, "names": ["table", "desk"]},
    {"object_id": 3, "x": 200, "y": 100, "w": 200, "h": 100, "names": ["cup"]},
]


def genome(folder: Path, entries: list[Any], **options: str) -> Imported:
    sizes = folder / "image_data.json"
    sizes.write_text(json.dumps([{"image_id": 7, "width": 400, "height": 200, "url": ADDRESS, "coco_id": None}]))
    return import_entries(folder, "visual-genome", entries, options={"images": str(sizes), **options})


def test_regions_become_region_captions(tmp_path: Path) -> None:
    (record,) = genome(tmp_path, [{"id": 7, "regions": [REGION]}]).records
    assert [turn.text for turn in record.turns] == ["\nDescribe [100,100,350,400].", "a blue cup"]
    assert record.turns[1].regions[0].box == (40, 20, 100, 60)
    assert (record.media[0].path, record.source.url) == ("VG_100K_2/7.jpg", ADDRESS)


def test_make_grounding_locates_the_phrase(tmp_path: Path) -> None:
    (record,) = genome(tmp_path, [{"id": 7, "regions": [REGION]}], make="grounding").records
    assert record.turns[1].text == "<ref>a blue cup</ref>[[100,100,350,400]]"


def test_objects_of_one_name_are_in_one_line(tmp_path: Path) -> None:
    (record,) = genome(tmp_path, [{"image_id": 7, "objects": OBJECTS, "image_url": ADDRESS}]).records
    assert record.turns[1].text == "<ref>cup</ref>[[100,100,350,400],[500,500,1000,1000]]\n" + (
        "<ref>table</ref>[[0,0,1000,1000]]"
    )


def test_sizes_of_the_pictures_do_as_well(tmp_path: Path) -> None:
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "7.jpg").write_bytes(training_data.picture(0))  # 56 x 56
    entry = {"image_id": 7, "objects": [OBJECTS[0] | {"w": 14, "h": 14, "x": 28, "y": 0}], "image_url": ADDRESS}
    (record,) = import_entries(tmp_path, "visual-genome", [entry], options={"pictures": str(tmp_path)}).records
    assert record.turns[1].text == "<ref>cup</ref>[[500,0,750,250]]"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"id": 7, "regions": [REGION | {"x": 390}]}, "box [390.0, 20.0, 100.0, 60.0] (pixel_xywh) reaches outside"),
        ({"id": 7, "regions": [REGION | {"phrase": None}]}, "no text in `phrase`: None"),
        ({"id": 7, "regions": [REGION | {"height": None}]}, "no box: "),
        ({"id": 7, "regions": [REGION | {"phrase": " "}]}, "empty answer: turn 1"),
        ({"id": 8, "regions": [REGION]}, "no size of the picture: [None, None] for 8.jpg"),
        ({"image_id": 7, "objects": []}, "no objects: nothing to locate"),
        ({"image_id": 7, "objects": [OBJECTS[0] | {"names": []}]}, "an object without a name: object 1"),
        ({"image_id": 7}, "no conversation: None"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = genome(tmp_path, [{"id": 7, "regions": [REGION]}, broken])
    assert len(imported.records) == 1
    assert [said.startswith(reason) for said in imported.reasons] == [True]
    assert imported.rejected[0]["line"] == 2
