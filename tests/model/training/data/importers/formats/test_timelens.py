"""TimeLens: keys that are told by their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.timelens import GUESSED
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import answers, assert_rejected, import_object

EVENTS = [{"query": "a man sits", "span": [[1.0, 2.0], [5.0, 6.5]]}, {"query": "he stands", "span": [3.0, 4.0]}]
ROW: dict[str, Any] = {"source": "cosmo_cap", "video_path": "cosmo_cap/x.mp4", "duration": 60, "events": EVENTS}


def test_events_with_one_or_several_spans(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "timelens", [ROW])
    assert answers(imported) == ["1.0-2.0 s, 5.0-6.5 s", "3.0-4.0 s"]
    record = imported.records[0]
    assert (record.media[0].path, record.media[0].duration) == ("cosmo_cap/x.mp4", 60.0)
    assert record.source.subset == "cosmo_cap"
    assert '"a man sits"' in record.turns[0].text
    assert imported.report.notes.counted[GUESSED].count == 2


def test_lists_side_by_side_by_film(tmp_path: Path) -> None:
    films = {"3MSZA": {"duration": 30.96, "spans": [[24.3, 30.4], [0, 2]], "queries": ["turn on the light", "x"]}}
    imported = import_object(tmp_path, "timelens", films)
    assert answers(imported) == ["24.3-30.4 s", "0.0-2.0 s"]
    assert imported.records[0].media[0].path == "3MSZA.mp4"


@pytest.mark.parametrize(
    ("broken", "reason", "left"),
    [
        (ROW | {"video": "y.mp4"}, "it is not clear which key has the film: video_path, video", 0),
        (
            ROW | {"events": [{"caption": "x", "query": "y", "span": [1, 2]}]},
            "it is not clear which key has the query",
            0,
        ),
        (ROW | {"events": [{"query": "y"}]}, "it is not clear which key has the span: query", 0),
        (ROW | {"events": [*EVENTS, {"query": "y", "span": [70, 80]}]}, "span outside of the film: 70-80 s", 2),
        (ROW | {"events": [*EVENTS, {"query": "y", "span": []}]}, "no start and end: []", 2),
        ({"video": "x", "queries": ["a"], "spans": [[1, 2], [3, 4]]}, "queries and spans do not match", 0),
    ],
)
def test_broken_part_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str, left: int) -> None:
    imported = import_entries(tmp_path, "timelens", [broken, ROW])
    assert len(imported.records) == left + 2
    assert_rejected(imported, 1, reason)
