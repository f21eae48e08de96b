"""HiREST: zero bounds, films of a query, steps inside of the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.object_files import answers, assert_rejected, import_object

STEPS = [{"index": 0, "heading": "boil water", "absolute_bounds": [20, 41]}]
CLIP = {"relevant": True, "clip": True, "v_duration": 180.5, "bounds": [20, 95], "steps": STEPS}
WHOLE = {"relevant": True, "clip": False, "v_duration": 60.5, "bounds": [0, 0], "steps": []}


def test_query_and_steps_become_records(tmp_path: Path) -> None:
    imported = import_object(tmp_path, "hirest", {"Make tea": {"ID.mp4": CLIP}}, "all_data_val.json")
    query, step, dense = imported.records
    assert answers(imported) == ["20.0-95.0 s", "0.0-21.0 s", "0.0-21.0 s: boil water"]
    assert '"Make tea"' in query.turns[0].text
    assert (query.media[0].path, query.media[0].start, query.media[0].duration) == ("ID.mp4", None, 180.5)
    assert (step.media[0].start, step.media[0].end) == (20.0, 95.0)
    span = step.turns[1].spans[0]
    assert [span.start + step.media[0].offset, span.end + step.media[0].offset] == [20, 41]
    assert (dense.task, dense.source.original_id, dense.source.split) == ("dense_caption", "Make tea/ID.mp4", "val")


@pytest.mark.parametrize("change", [{}, {"clip": True}, {"bounds": None}])
def test_zero_bounds_or_no_clip_are_the_whole_film(tmp_path: Path, change: Any) -> None:
    (record,) = import_object(tmp_path, "hirest", {"Make tea": {"ID.mp4": WHOLE | change}}).records
    assert record.turns[1].text == "0.0-60.5 s"
    assert (record.media[0].start, record.media[0].end) == (None, None)
    assert "whole_film_from_zero_bounds" in record.transforms


@pytest.mark.parametrize(
    ("film", "reason", "left"),
    [
        (CLIP | {"relevant": False}, "a film that does not belong to its query: A.mp4", 0),
        (CLIP | {"v_duration": None}, "no time in `v_duration`", 0),
        (CLIP | {"bounds": [95, 20]}, "a span ends before it starts", 0),
        (CLIP | {"steps": [*STEPS, {"heading": "x", "absolute_bounds": [90, 99]}]}, "span outside of the film", 3),
        (CLIP | {"steps": 7}, "no conversation: 7", 1),
        (None, "no film: A.mp4", 0),
    ],
)
def test_broken_film_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str, left: int) -> None:
    imported = import_object(tmp_path, "hirest", {"Make tea": {"A.mp4": film, "B.mp4": WHOLE}})
    assert len(imported.records) == left + 1
    assert_rejected(imported, 1, reason)


def test_film_without_steps_gives_no_caption_and_says_so(tmp_path: Path) -> None:
    imported = import_object(tmp_path, "hirest", {"Make tea": {"A.mp4": WHOLE, "B.mp4": CLIP}}, make="dense")
    assert answers(imported) == ["0.0-21.0 s: boil water"]
    assert_rejected(imported, 1, "no steps: only grounding can be made of A.mp4")
