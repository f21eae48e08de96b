"""Streamo: seconds as text, and the rendered form with state tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.streamo import NO_SYSTEM
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected

ASKED = [{"content": "Tell me when it boils.", "time": "7"}]
LATE = {"content": "It boils.", "st_time": 7.5, "end_time": 9.0, "time": ""}
NOW = {"content": "Yes.", "st_time": "", "end_time": "", "time": "8"}
RAW: dict[str, Any] = {
    "video_name": "x",
    "video_path": "a/x.mp4",
    "task_type": "QA",
    "source": "coin",
    "question": ASKED,
    "response": [LATE, NOW],
}


def messages(*said: str) -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)]
    return [{"role": "system", "content": "States."}, *turns]


SECONDS = [
    "Tell me when it boils\n<0s-1s>\n<stream>",
    "</Silence>",
    "<1s-2s>\n<stream>",
    "</Standby>",
    "<2s-3s>\n<stream>",
    "</Response> It boils.",
    "<3s-4s>\n<stream>",
    "</Silence>",
]
RENDERED = {"messages": messages(*SECONDS), "videos": ["x.mp4"]}


def test_seconds_as_text_become_times(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "streamo", [RAW])
    (entry,) = imported.rendered("videollama3")
    assert entry["conversation"] == [
        {"role": "user", "content": "Tell me when it boils.", "time": 7.0},
        {"role": "assistant", "content": "Yes.", "time": 8.0},
        {"role": "assistant", "content": "It boils.", "time": 9.0},
    ]
    (record,) = imported.records
    assert [(span.start, span.end) for span in record.turns[2].spans] == [(7.5, 9.0)]
    assert (record.source.original_id, record.source.subset, record.aspect) == ("x", "coin", "QA")


def test_rendered_form_becomes_times_and_spans(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "streamo", [RENDERED])
    (record,) = imported.records
    assert [(turn.role, turn.text, turn.time) for turn in record.turns] == [
        ("user", "Tell me when it boils", 1.0),
        ("assistant", "It boils.", 3.0),
    ]
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(1.0, 3.0)]
    assert record.media[0].end == 4.0
    assert imported.report.notes.counted[NO_SYSTEM].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (RAW | {"question": [{"content": "x", "time": "soon"}]}, "no time in `time`: 'soon'"),
        (RAW | {"response": [LATE | {"end_time": ""}]}, "no time in `end_time`: None"),
        (RAW | {"response": [LATE | {"st_time": 9.5}]}, "a span ends before it starts: 9.5-9 s"),
        (RAW | {"response": [LATE | {"content": None}]}, "no text in `content`: None"),
        (RAW | {"response": []}, "no answer: a stream in which nobody answers"),
        (RAW | {"video_path": None}, "a medium without a path: None"),
        (RENDERED | {"messages": messages("x\n<0s-1s>\n<stream>", "Hm.")}, "no second or no state token"),
        (RENDERED | {"messages": messages("x", "</Silence>")}, "no second or no state token"),
        (RENDERED | {"messages": messages("<0s-1s>\n<stream>")}, "turns that are not a second and its state"),
        (RENDERED | {"videos": []}, "not one film: []"),
        (RENDERED | {"messages": messages(*SECONDS[:2])}, "no answer: a stream in which nobody answers"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "streamo", [broken, RAW])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
