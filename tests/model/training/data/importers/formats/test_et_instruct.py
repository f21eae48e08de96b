"""ET-Instruct: marks for times, and an image mark that means the film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.et_instruct import NOT_IN_TEXT
from model.training.data.importers.turns import FILM_MARK
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


VID: dict[str, Any] = {
    "task": "slc",
    "source": "hirest",
    "video": "x.mp4",
    "duration": 60.2,
    "src": [12.0],
    "tgt": [12.0, 20.5, 30.0, 33.3],
    "conversations": turns("<image>\nAfter <vid>, when?", "<vid> - <vid>, boil. <vid> to <vid> seconds, pour."),
}
TXT = VID | {"conversations": turns("<image>\nAfter 12.0 seconds, when?", "12.0 - 20.5 seconds, boil.")}


def test_marks_become_seconds_in_their_order(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "et-instruct", [VID])
    (record,) = imported.records
    assert [turn.text for turn in record.turns] == [
        "\nAfter 12.0 s, when?",
        "12.0 s - 20.5 s, boil. 30.0 s to 33.3 seconds, pour.",
    ]
    assert [time for span in record.turns[1].spans for time in (span.start, span.end)] == VID["tgt"]
    assert (record.media[0].type, record.media[0].duration, record.task) == ("video", 60.2, "slc")
    assert {*imported.report.notes.counted} == {FILM_MARK}


def test_variant_with_times_as_text_stays_as_it_is(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "et-instruct", [TXT])
    (entry,) = imported.rendered("videollama3")
    assert [turn["value"] for turn in entry["conversations"]] == [
        "<video>\nAfter 12.0 seconds, when?",
        "12.0 - 20.5 seconds, boil.",
    ]
    assert [(span.start, span.end) for span in imported.records[0].turns[1].spans] == [(12.0, 20.5)]
    assert imported.report.notes.counted[NOT_IN_TEXT].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (VID | {"tgt": [12.0]}, "marks do not match the times: more <vid> than times in turns of assistant"),
        (VID | {"src": [1.0, 2.0]}, "marks do not match the times: fewer <vid> than times in turns of user"),
        (VID | {"src": "12"}, "no list of times in `src`"),
        (VID | {"tgt": [12.0, "x", 1, 2]}, "no time in `tgt`: 'x'"),
        (VID | {"tgt": [12.0, 20.5, 70.0, 80.0]}, "span outside of the film: turn 1 has 70-80 s of 60.2 s"),
        (VID | {"duration": None}, "no time in `duration`"),
        (VID | {"conversations": turns("<image>After <vid>?", "Now.")}, "marks do not match the times: fewer"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "et-instruct", [broken, VID])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
