from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.sharegpt4video import NO_SPANS
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_entries


def entry(*contents: str, **others: Any) -> dict[str, Any]:
    captions = [{"idx": str(number), "content": text} for number, text in enumerate(contents)]
    return {
        "video_id": "x",
        "video_path": "panda/x.mp4",
        "timestamp": [0, 2.0, 7.5],
        "keyframe": [0, 60, 225],
        "captions": [*reversed(captions), {"idx": "-1", "content": "The whole."}],
        "zip_folder": "panda_0.zip",
        **others,
    }


def test_captions_of_key_frames_become_spans(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(entry("A man sits.", "He stands.")))
    assert sniff(tmp_path / "a.jsonl").name == "sharegpt4video"
    imported = import_entries(tmp_path, "sharegpt4video", [entry("A man sits.", "He stands.")])
    whole, dense = imported.records
    assert (whole.turns[1].text, whole.task, whole.media[0].path) == ("The whole.", "caption", "panda/x.mp4")
    assert dense.turns[1].text == "0.0-2.0 s: A man sits.\n2.0-7.5 s: He stands."
    assert [(span.start, span.end) for span in dense.turns[1].spans] == [(0.0, 2.0), (2.0, 7.5)]
    assert {record.source.subset for record in imported.records} == {"panda_0.zip"}


def test_as_many_captions_as_times_are_moments(tmp_path: Path) -> None:
    _, dense = import_entries(tmp_path, "sharegpt4video", [entry("A.", "B.", "C.")]).records
    assert [(span.start, span.end) for span in dense.turns[1].spans] == [(0.0, 0.0), (2.0, 2.0), (7.5, 7.5)]


def test_captions_that_fit_no_times_are_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "sharegpt4video", [entry("A.")])
    assert [record.task for record in imported.records] == ["caption"]
    assert imported.report.notes.counted[NO_SPANS].count == 1


@pytest.mark.parametrize(
    ("change", "reason", "records"),
    [
        ({"captions": []}, "no caption of the whole film", 0),
        ({"captions": [{"idx": "0", "content": "A."}], "timestamp": [0, 1]}, "no caption of the whole film", 1),
        ({"timestamp": [0, 7.0, 2.0]}, "span 7.0-2.0 s", 0),
        ({"timestamp": [0, "x", 2.0]}, "no time in `timestamp`", 0),
        ({"captions": [{"idx": 0}]}, "no text in `idx`: 0", 0),
        ({"video_path": None}, "no text in `video_path`: None", 0),
    ],
)
def test_broken_row_is_rejected_and_the_rest_imported(
    tmp_path: Path, change: dict[str, Any], reason: str, records: int
) -> None:
    rows = [entry("A.", "B."), entry("A.", "B.", **change), entry("A.", "B.")]
    imported = import_entries(tmp_path, "sharegpt4video", rows)
    assert len(imported.records) == 4 + records
    assert [each.startswith(reason) for each in imported.reasons] == [True]
