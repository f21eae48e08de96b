"""DiDeMo: chunks with inclusive ends, and annotators who differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.didemo import agreed
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import answers, assert_rejected

ROW = {"annotation_id": 1, "video": "x.mp4", "description": "a dog runs", "times": [[3, 3]], "num_segments": 6}


def test_chunks_become_seconds_with_the_end_included(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "didemo", [ROW | {"download_link": "u"}]).records
    assert record.turns[1].text == "15.0-20.0 s"
    span = record.turns[1].spans[0]
    assert [int(span.start / 5), int(span.end / 5) - 1] == [3, 3]
    assert (record.media[0].path, record.media[0].end, record.media[0].start) == ("x.mp4", 30.0, None)
    assert (record.source.original_id, record.source.url) == ("1", "u")
    assert "seconds_from_chunks" in record.transforms


def test_most_annotators_decide(tmp_path: Path) -> None:
    rows = [ROW | {"times": [[0, 5], [2, 3], [2, 3], [3, 3]]}, ROW | {"times": [[0, 0], [2, 3], [3, 3]]}]
    imported = import_entries(tmp_path, "didemo", rows)
    assert answers(imported) == ["10.0-20.0 s", "10.0-20.0 s"]
    assert ["annotators_mode" in record.transforms for record in imported.records] == [True, False]


@pytest.mark.parametrize(
    ("pairs", "pair", "how"),
    [
        ([(1, 1), (1, 1), (0, 5)], (1, 1), "annotators_mode"),
        ([(0, 0), (3, 4), (2, 4)], (2, 4), "annotators_best_overlap"),
        ([(4, 4), (0, 0)], (0, 0), "annotators_best_overlap"),
    ],
)
def test_pair_that_annotators_agree_on(pairs: Any, pair: tuple[int, int], how: str) -> None:
    assert agreed(pairs) == (pair, how)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ROW | {"times": []}, "no pairs of chunks in `times`"),
        (ROW | {"times": [[1.5, 2]]}, "no pairs of chunks in `times`"),
        (ROW | {"times": [[3, 2]]}, "a pair of chunks ends before it starts: (3, 2)"),
        (ROW | {"times": [[5, 5]], "num_segments": 5}, "span outside of the film: 25-30 s of 25 s"),
        (ROW | {"num_segments": 9}, "no number of chunks in `num_segments`: 9"),
        (ROW | {"description": ""}, "an event without words"),
        (ROW | {"video": None}, "a medium without a path"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "didemo", [broken, ROW])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
