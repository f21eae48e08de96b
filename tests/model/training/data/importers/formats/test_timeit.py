"""TimeIT: spans in the text only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.timeit import NO_SPAN
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected

ROW = {
    "video": "x.mp4",
    "QA": [{"q": "Localize the steps.", "a": "12.0 - 34.5 seconds, stir the pot. 40.0 - 45.0 seconds, serve it."}],
    "source": "youcook2",
}


def test_spans_of_the_text_are_beside_it(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "timeit", [ROW])
    (record,) = imported.records
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(12.0, 34.5), (40.0, 45.0)]
    assert (record.source.subset, record.transforms) == ("youcook2", ("spans_from_text",))
    (entry,) = imported.rendered("videollama3")
    assert entry["video"] == "x.mp4"
    assert [turn["value"] for turn in entry["conversations"]] == ["<video>\nLocalize the steps.", ROW["QA"][0]["a"]]  # type: ignore[index]


def test_answer_without_a_span_is_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "timeit", [ROW | {"QA": [{"q": "What?", "a": "A pot."}]}])
    assert imported.report.notes.counted[NO_SPAN].count == 1
    assert not imported.records[0].turns[1].spans


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ROW | {"QA": []}, "no question: `QA` is empty"),
        (ROW | {"QA": [{"q": "What?"}]}, "no text in `a`: None"),
        (ROW | {"QA": [{"q": "What?", "a": " "}]}, "empty answer: turn 1"),
        (ROW | {"video": ""}, "a medium without a path: ''"),
        (ROW | {"QA": "x"}, "no conversation: 'x'"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "timeit", [broken, ROW])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
