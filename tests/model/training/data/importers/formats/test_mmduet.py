"""MMDuetIT: its three families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected, import_object

ASKED = {"role": "user", "content": "What happens?", "time": 13.0}
TOLD = {"role": "assistant", "content": "Rain.", "time": 19.0, "timespan": [17.0, 19.5], "learn": True}
MAGQA: dict[str, Any] = {"video_uid": "x", "question_id": 7, "video_start_time": 10, "conversation": [ASKED, TOLD]}
QUERY = {"video_uid": "x", "query": "a dog runs", "timestamps": [[5.0, 9.0], [1.0, 2.0]]}
CAPTION = {"time": 9.0, "text": "Rain.", "timespan": [7.0, 9.5]}


def test_dialog_counts_from_the_start_of_the_stream(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "mmduet", [MAGQA])
    (record,) = imported.records
    assert [(turn.role, turn.time, turn.learn) for turn in record.turns] == [
        ("user", 3.0, None),
        ("assistant", 9.0, True),
    ]
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(7.0, 9.5)]
    assert (record.media[0].start, record.source.original_id, record.source.subset) == (10.0, "x/7", "magqa")
    (entry,) = imported.rendered("videollama3")
    assert entry["start_time"] == 10.0
    assert entry["conversation"] == [
        {key: turn[key] for key in ("role", "content", "time")} for turn in MAGQA["conversation"]
    ]


def test_dense_captions_are_told_at_their_times(tmp_path: Path) -> None:
    imported = import_object(tmp_path, "mmduet", {"uid": {"anno": [CAPTION, CAPTION | {"time": 12.0}], "b": [CAPTION]}})
    assert [[turn.time for turn in record.turns] for record in imported.records] == [[0.0, 9.0, 12.0], [0.0, 9.0]]
    record = imported.records[0]
    assert (record.turns[1].text, record.media[0].path) == ("Rain.", "uid.mp4")
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(7.0, 9.5)]
    assert [record.source.original_id for record in imported.records] == ["uid/anno", "uid/b"]


def test_query_is_answered_with_all_its_spans(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "mmduet", [QUERY]).records
    assert record.turns[1].text == "1.0-2.0 s, 5.0-9.0 s"
    assert (record.task, record.source.original_id) == ("grounding", "x")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (MAGQA | {"video_start_time": 15}, "a time before the stream: 13.0 s, it starts at 15 s"),
        (MAGQA | {"conversation": [ASKED, TOLD | {"timespan": [9, 7]}]}, "a span ends before it starts"),
        (MAGQA | {"conversation": [TOLD, ASKED]}, "times go backwards"),
        (MAGQA | {"conversation": [ASKED, TOLD | {"time": None}]}, "no time in `time`: None"),
        (QUERY | {"timestamps": []}, "no spans in `timestamps`: []"),
        (QUERY | {"query": ""}, "an event without words: ''"),
        ({"query": "x"}, "no text in `video_uid`"),
        ({"video_uid": "x", "anno": 7}, "no conversation: 'x'"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "mmduet", [broken, MAGQA])
    assert len(imported.records) == 1
    assert imported.rejected[0]["reason"].startswith(reason)
    assert {row["line"] for row in imported.rejected} == {1}


def test_broken_captions_are_rejected_and_the_rest_imported(tmp_path: Path) -> None:
    films = {"uid": {"a": [CAPTION | {"text": None}], "b": [CAPTION]}}
    imported = import_object(tmp_path, "mmduet", films)
    assert len(imported.records) == 1
    assert_rejected(imported, 1, "no text in `text`: None")
