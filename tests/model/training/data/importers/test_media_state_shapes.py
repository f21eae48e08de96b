"""Boxes are scaled with the size that an annotation says: a picture of another shape rejects their record."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.boxes import to_thousandths
from model.training.data.importers.media_state import MediaFolder
from model.training.data.importers.registry import format_named
from model.training.data.importers.run import Job, run
from model.training.data.importers.writer import Writer
from tests.model.training.data.importers.importing import Imported, import_source

SHOWN = {"id": 1, "file_name": "a.png", "width": 640, "height": 480}
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 320, 480]}
LEFT_HALF = "<ref>cup</ref>[[0,0,500,1000]]"


def picture(size: tuple[int, int], orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.new("RGB", size).save(data, "PNG", exif=exif)
    return data.getvalue()


def coco(folder: Path, data: bytes, note: dict[str, Any] = BOX, shown: dict[str, Any] = SHOWN) -> Imported:
    (folder / "a.png").write_bytes(data)
    source = folder / "instances.json"
    categories = [{"id": 1, "name": "cup"}]
    source.write_text(json.dumps({"images": [shown], "annotations": [note], "categories": categories}))
    return import_source("coco", source, folder)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (picture((480, 640)), "480x640"),
        (picture((640, 480), orientation=6), "480x640"),  # a viewer turns it
        (picture((640, 470)), "640x470"),
        (picture((320, 236)), "320x236"),
    ],
)
def test_boxes_of_another_shape_are_rejected(tmp_path: Path, data: bytes, size: str) -> None:
    imported = coco(tmp_path, data)
    assert imported.reasons == [f"media of another shape: a.png is {size}, its boxes are of 640x480"]
    assert (imported.records, imported.report.records_rejected) == ([], 1)


@pytest.mark.parametrize(
    ("data", "annotated"),
    [
        (picture((640, 480)), (640, 480)),
        (picture((480, 640), orientation=6), (640, 480)),
        (picture((1280, 960)), (640, 480)),
        (picture((160, 120)), (640, 480)),
        (picture((640, 476)), (640, 480)),  # less than a hundredth
        (picture((53, 40)), (640, 480)),
        (picture((27, 19)), (640, 480)),  # 20.25 is a pixel more: sides are rounded
    ],
)
def test_boxes_of_another_scale_are_imported(tmp_path: Path, data: bytes, annotated: tuple[int, int]) -> None:
    (record,) = coco(tmp_path, data).records
    assert record.turns[1].text == LEFT_HALF
    assert (record.media[0].width, record.media[0].height, record.media[0].present) == (*annotated, True)


def test_record_without_boxes_may_have_another_shape(tmp_path: Path) -> None:
    (record,) = coco(tmp_path, picture((480, 640)), {"id": 1, "image_id": 1, "caption": "A cup."}).records
    assert record.turns[1].text == "A cup."
    assert record.media[0].present


def test_shape_is_not_known_without_a_header(tmp_path: Path) -> None:
    assert coco(tmp_path, picture((480, 640)), shown=SHOWN | {"file_name": "gone.png"}).records[0].turns[1].regions
    (tmp_path / "a.png").rename(tmp_path / "gone.png")
    (tmp_path / "out").mkdir()
    with Writer(tmp_path / "out") as writer:
        media = MediaFolder(tmp_path, "none")
        report = run(Job(format_named("coco"), tmp_path / "instances.json", "set", media=media), writer)
    assert report.records == 1


def embedded(folder: Path, size: tuple[int, int]) -> Imported:
    entry = {"image": {**SHOWN, "file_name": "sa_1.png"}, "annotations": [{"bbox": [320, 0, 320, 480]}]}
    with tarfile.open(folder / "sa.tar", "w") as archive:
        for name, data in (("sa_1.jpg", picture(size)), ("sa_1.json", json.dumps(entry).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return import_source("sa-1b", folder / "sa.tar")


def test_embedded_picture_of_another_shape_is_rejected(tmp_path: Path) -> None:
    reason = "media of another shape: sa_1.png is 480x640, its boxes are of 640x480"
    assert embedded(tmp_path, (480, 640)).reasons == [reason]


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (1280, 960)])
def test_embedded_picture_of_another_scale_is_imported(tmp_path: Path, size: tuple[int, int]) -> None:
    imported = embedded(tmp_path, size)
    assert imported.reasons == []
    (record,) = imported.records
    (region,) = record.turns[1].regions
    medium = record.media[0]
    assert record.turns[1].text == "[[500,0,1000,1000]]"
    assert to_thousandths(region.box, region.system, medium.width or 0, medium.height or 0) == (500, 0, 1000, 1000)
