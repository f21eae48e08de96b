"""Ego4D NLQ and Goal-Step: two clocks, empty windows, steps of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.ego4d_spans import NESTED
from tests.model.training.data.importers.object_files import answers, assert_rejected, import_object

QUERY = {"query": "Where is the lid?", "clip_start_sec": 7.0, "clip_end_sec": 9.5, "video_start_sec": 107.0}
STEP = {"start_time": 12.0, "end_time": 20.0, "step_description": "boil water"}
GOAL = {"video_uid": "u", "start_time": 10.0, "end_time": 70.0, "goal_description": "Make tea", "segments": [STEP]}


def nlq(*queries: Any) -> dict[str, Any]:
    clip = {"clip_uid": "c", "video_start_sec": 100.0, "video_end_sec": 580.0}
    clips = [clip | {"annotations": [{"language_queries": [*queries]}]}]
    return {"version": "1", "videos": [{"video_uid": "u", "split": "train", "clips": clips}]}


def test_window_counts_from_the_clip_and_the_clip_from_the_film(tmp_path: Path) -> None:
    (record,) = import_object(tmp_path, "ego4d-nlq", nlq(QUERY)).records
    film, span = record.media[0], record.turns[1].spans[0]
    assert (film.path, film.start, film.end) == ("u.mp4", 100.0, 580.0)
    assert (span.start, span.end, span.start + film.offset) == (7.0, 9.5, QUERY["video_start_sec"])
    assert (record.source.split, record.source.original_id) == ("train", "u/c")
    assert '"Where is the lid?"' in record.turns[0].text


def test_pattern_with_clip_uid_names_files_that_are_cut(tmp_path: Path) -> None:
    (record,) = import_object(tmp_path, "ego4d-nlq", nlq(QUERY), path="clips/{clip_uid}.mp4").records
    assert (record.media[0].path, record.media[0].is_cut, record.media[0].offset) == ("clips/c.mp4", True, 0.0)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (QUERY | {"clip_end_sec": 7.05, "clip_start_sec": 7.0}, "a span shorter than 0.1 s: 7-7.05 s"),
        (QUERY | {"video_start_sec": 7.0}, "two clocks that differ: 7 s in the clip is 7 s in the film"),
        (QUERY | {"clip_end_sec": 600.0}, "span outside of the film: 7-600 s of 480 s"),
        (QUERY | {"query": None}, "an event without words: None"),
        (QUERY | {"clip_start_sec": None}, "no start and end"),
    ],
)
def test_broken_query_is_rejected_and_the_rest_imported(tmp_path: Path, query: Any, reason: str) -> None:
    imported = import_object(tmp_path, "ego4d-nlq", nlq(query, QUERY))
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)


def test_steps_count_from_the_annotated_part(tmp_path: Path) -> None:
    nested = STEP | {"segments": [{"start_time": 13.0, "end_time": 15.0, "step_description": "fill the pot"}]}
    imported = import_object(tmp_path, "goalstep", {"videos": [GOAL | {"segments": [nested]}]}, make="dense")
    assert answers(imported) == ["2.0-10.0 s: boil water\n3.0-5.0 s: fill the pot"]
    assert (imported.records[0].media[0].start, imported.records[0].media[0].end) == (10.0, 70.0)
    assert imported.report.notes.counted[NESTED].count == 1


@pytest.mark.parametrize(
    ("film", "reason", "left"),
    [
        (GOAL | {"end_time": 5.0}, "a span ends before it starts: 10-5 s", 0),
        (GOAL | {"segments": [STEP, STEP | {"start_time": 3.0}]}, "span outside of the film: -7-10 s", 2),
        (GOAL | {"segments": None}, "no conversation: None", 0),
    ],
)
def test_broken_step_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str, left: int) -> None:
    imported = import_object(tmp_path, "goalstep", {"videos": [film, GOAL]})
    assert len(imported.records) == left + 2
    assert_rejected(imported, 1, reason)
