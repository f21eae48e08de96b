"""QVHighlights: several windows, in a cut that the id names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.qvhighlights import NO_SALIENCY, OTHER_CLIPS
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected

ROW: dict[str, Any] = {
    "qid": 1,
    "query": "A man cooks",
    "duration": 150,
    "vid": "a_YT_60.0_210.0",
    "relevant_windows": [[40, 44], [4, 8]],
    "relevant_clip_ids": [2, 3, 20, 21],
    "saliency_scores": [[4, 3, 2]] * 4,
}


def test_answer_has_all_windows_of_the_cut(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "qvhighlights", [ROW])
    (record,) = imported.records
    assert record.turns[1].text == "4.0-8.0 s, 40.0-44.0 s"
    assert [[span.start, span.end] for span in record.turns[1].spans] == sorted(ROW["relevant_windows"])
    film = record.media[0]
    assert (film.path, film.start, film.end, film.duration) == ("a_YT_60.0_210.0.mp4", 60.0, 210.0, 150.0)
    assert (film.is_cut, film.offset) == (True, 0.0)
    assert {*imported.report.notes.counted} == {NO_SALIENCY}


def test_windows_that_differ_from_the_clips_are_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "qvhighlights", [ROW | {"relevant_clip_ids": [2, 3]}])
    assert imported.report.notes.counted[OTHER_CLIPS].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({key: value for key, value in ROW.items() if key != "relevant_windows"}, "no windows: the test split"),
        (ROW | {"relevant_windows": [[4, 8], [140, 155]]}, "span outside of the film: 140-155 s of 150 s"),
        (ROW | {"relevant_windows": [[8, 4]]}, "a span ends before it starts"),
        (ROW | {"query": " "}, "an event without words"),
        (ROW | {"duration": None}, "no time in `duration`"),
        (ROW | {"vid": 7}, "no text in `vid`"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "qvhighlights", [broken, ROW])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
