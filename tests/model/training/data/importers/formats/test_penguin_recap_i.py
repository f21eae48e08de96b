from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source


def image_entry(**others: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": "A kettle."}]
    return {
        "sample_key": "k1",
        "subset": "coco",
        "source": "web",
        "original_id": 17,
        "image": "coco/17.jpg",
        "image_refs": ["coco/17.jpg"],
        "image_name": "17.jpg",
        "url": "https://example.org/17.jpg",
        "conversations": turns,
        "prompt": "Describe it.",
        "response": "A kettle.",
        "annotation_metadata": {"model": "x"},
        **others,
    }


def test_images_of_packed_lines_keep_their_provenance(tmp_path: Path) -> None:
    rows = [image_entry(), image_entry(image=None), image_entry(image=None, image_name=None), image_entry()]
    with gzip.open(tmp_path / "part.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)) + "\n")
    assert sniff(tmp_path / "part.jsonl.gz").name == "penguin-recap-i"
    imported = import_source("penguin-recap-i", tmp_path / "part.jsonl.gz")
    assert [each.media[0].path for each in imported.records] == ["coco/17.jpg", "17.jpg", "coco/17.jpg"]
    source = imported.records[0].source
    assert (source.original_id, source.subset, source.url) == ("17", "coco", "https://example.org/17.jpg")
    assert imported.rendered("llava")[0]["conversations"] == rows[0]["conversations"]
    assert imported.reasons == ["placeholders do not match: more <image> than images"]
