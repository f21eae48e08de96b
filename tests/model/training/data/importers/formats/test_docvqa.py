"""DocVQA and InfographicVQA: all answers are references, the first is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import Imported, import_source

DOC = {
    "questionId": 337,
    "question": "What is the date?",
    "image": "documents/xnbl0037_1.png",
    "answers": ["1/8/93", "1/8/93", "Jan 8"],
    "ucsf_document_id": "xnbl0037",
    "ucsf_document_page_no": "1",
    "data_split": "train",
}
INFO = {"questionId": 5, "question": "How many?", "image_local_name": "20.jpeg", "answers": ["3"], "image_url": "u"}


def docvqa(folder: Path, entries: list[Any], format_: str = "docvqa") -> Imported:
    source = folder / "train_v1.0.json"
    source.write_text(json.dumps({"dataset_name": "docvqa", "dataset_split": "train", "data": entries}))
    return import_source(format_, source)


def test_first_answer_is_learned_and_all_are_references(tmp_path: Path) -> None:
    (record,) = docvqa(tmp_path, [DOC]).records
    assert [turn.text for turn in record.turns] == ["\nWhat is the date?", "1/8/93"]
    assert record.references == ("1/8/93", "Jan 8")
    assert (record.source.original_id, record.source.split) == ("337", "train")
    assert record.media[0].path == "documents/xnbl0037_1.png"
    assert sniff(tmp_path / "train_v1.0.json").name == "docvqa"


def test_infographics_have_a_local_name(tmp_path: Path) -> None:
    (record,) = docvqa(tmp_path, [INFO], "infovqa").records
    assert (record.media[0].path, record.source.url) == ("20.jpeg", "u")
    assert sniff(tmp_path / "train_v1.0.json").name == "infovqa"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answers": []}, "no answers: the test split has none"),
        ({"answers": None}, "no answers: the test split has none"),
        ({"answers": [3]}, "no text in `answers`: 3"),
        ({"answers": [""]}, "empty answer: turn 1"),
        ({"question": None}, "no text in `question`: None"),
        ({"image": None}, "a medium without a path: None"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, change: Any, reason: str) -> None:
    imported = docvqa(tmp_path, [DOC, DOC | change])
    assert len(imported.records) == 1
    assert imported.reasons == [reason]
    assert imported.rejected[0]["line"] == 2
