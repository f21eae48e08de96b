from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from model.training.data.importers.registry import sniff
from tests.model.training import training_data
from tests.model.training.data.importers.importing import import_source


def write_annotations(folder: Path, *annotations: Any) -> Path:
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": list(annotations)}))
    return folder / "filter_cap.json"


def test_annotations_name_images_by_their_ids(tmp_path: Path) -> None:
    kettle = {"image_id": "2", "caption": "A red kettle."}
    source = write_annotations(tmp_path, kettle, kettle | {"image_id": 2}, {"image_id": "3"}, kettle)
    assert sniff(source).name == "minigpt4"
    imported = import_source("minigpt4", source)
    assert [(each.media[0].path, each.turns[1].text) for each in imported.records] == [("2.jpg", "A red kettle.")] * 2
    assert imported.records[0].turns[0].text == "Describe the image."
    assert imported.reasons == ["a medium without a path: 2", "no text in `caption`: None"]


def test_tars_of_captioned_images_hold_their_bytes(tmp_path: Path) -> None:
    picture = training_data.picture(0)
    members = {
        "0.jpg": picture,
        "0.json": json.dumps({"caption": "A dog.", "url": "https://example.org/0"}).encode(),
        "1.txt": b"No image.",
        "2.jpg": picture,
        "2.json": b"[1]",
        "2.txt": b"A cat.",
    }
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert sniff(tmp_path / "00000.tar").name == "captioned-tars"
    imported = import_source("captioned-tars", tmp_path / "00000.tar")
    assert [each.turns[1].text for each in imported.records] == ["A dog.", "A cat."]
    assert imported.records[0].source.url == "https://example.org/0"
    medium = imported.records[0].media[0]
    assert (tmp_path / "00000.tar-imported" / medium.path).read_bytes() == picture
    assert imported.reasons == ["no image, or several: its members are txt"]
