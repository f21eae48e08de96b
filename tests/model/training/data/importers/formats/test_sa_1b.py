"""SA-1B: masks without names, in tars or folders of JSON."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.sa_1b import SMALLER
from tests.model.training import training_data
from tests.model.training.data.importers.importing import Imported, import_source


def mask(number: int, box: list[Any]) -> dict[str, Any]:
    runs = {"size": [56, 56], "counts": "YP1<"}
    return {"id": number, "bbox": box, "area": 3, "segmentation": runs, "predicted_iou": 0.9, "crop_box": [0, 0, 1, 1]}


SHOWN = {"image_id": 1, "width": 56, "height": 56, "file_name": "sa_1.jpg"}
MASKS = [mask(1, [0, 0, 14, 14]), mask(2, [28.0, 28.0, 28.0, 28.0]), mask(3, [14, 0, 14, 28])]


def tar(folder: Path, members: dict[str, bytes]) -> Imported:
    source = folder / "sa_000000.tar"
    with tarfile.open(source, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return import_source("sa-1b", source)


def test_tar_gives_boxes_and_the_image_beside(tmp_path: Path) -> None:
    picture = training_data.picture(0)
    entry = json.dumps({"image": SHOWN, "annotations": MASKS}).encode()
    imported = tar(tmp_path, {"./sa_1.jpg": picture, "./sa_1.json": entry, "./sa_2.jpg": picture, "sa_3.json": b"{"})
    (record,) = imported.records
    assert record.turns[1].text == "[[0,0,250,250],[500,500,1000,1000],[250,0,500,500]]"
    assert (record.task, record.media[0].root, record.media[0].present) == ("detection", "records", True)
    assert (tmp_path / "sa_000000.tar-imported" / record.media[0].path).read_bytes() == picture
    assert [reason.split(":")[0] for reason in imported.reasons] == ["an image without annotations", "no JSON"]


def folder_of(tmp_path: Path, *entries: Any) -> Path:
    source = tmp_path / "sa"
    source.mkdir()
    for number, entry in enumerate(entries, 1):
        (source / f"sa_{number}.json").write_text(json.dumps(entry))
    return source


def test_largest_keeps_the_largest_and_says_so(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"image": SHOWN, "annotations": MASKS})
    imported = import_source("sa-1b", source, options={"largest": "2"})
    (record,) = imported.records
    assert record.turns[1].text == "[[500,500,1000,1000],[250,0,500,500]]"
    assert (record.media[0].path, record.media[0].root) == ("sa_1.jpg", "media")
    assert imported.report.notes.counted[SMALLER].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"image": SHOWN, "annotations": [mask(1, [50, 0, 20, 10])]}, "box [50.0, 0.0, 20.0, 10.0] (pixel_xywh) reach"),
        ({"image": SHOWN, "annotations": [mask(1, [50, 0, 20])]}, "no box: "),
        ({"image": SHOWN, "annotations": []}, "an image without masks"),
        ({"image": SHOWN}, "no conversation: None"),
        ({"annotations": MASKS}, "not an object: NoneType"),
        ({"image": SHOWN | {"width": "56"}, "annotations": MASKS}, "no size of the picture"),
    ],
)
def test_broken_file_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_source("sa-1b", folder_of(tmp_path, broken, {"image": SHOWN, "annotations": MASKS}))
    assert len(imported.records) == 1
    assert [said.startswith(reason) for said in imported.reasons] == [True]
    assert imported.rejected[0]["file"] == "sa_1.json"
