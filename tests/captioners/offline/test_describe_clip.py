"""Captions of clips from measurements: what is seen when, in words that the measurements support."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from captioners.offline.describe_clip import DescribeClip, motion_of
from core.errors import BadSampleError

GREEN, BLUE, DARK = (0, 160, 0), (60, 60, 255), (5, 5, 5)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (160, 90), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def described(colours: Sequence[tuple[int, int, int]], duration: float, change: float | None) -> dict[str, Any]:
    facts = DescribeClip().load()
    times = [duration * n / len(colours) for n in range(len(colours))]
    table = facts([facts.prepare([jpeg(colour) for colour in colours], times, duration, change)])
    assert table.schema.equals(DescribeClip.writes)
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def test_event_ends_half_way_between_frames_that_differ() -> None:
    row = described([GREEN, GREEN, BLUE, BLUE], 8.0, 2.0)
    spans = [(event["start"], event["end"]) for event in row["events"]]
    assert spans == [(0.0, 3.0), (3.0, 8.0)]
    assert "green" in row["events"][0]["text"]
    assert "blue" in row["events"][1]["text"]
    assert row["event_count"] == 2


def test_dense_caption_names_length_motion_and_times() -> None:
    row = described([GREEN, BLUE], 5.0, 2.0)
    assert row["dense_caption"].startswith("A wide clip of 5.0 s with little motion. From 0.0 to 1.2 s the picture is ")
    assert row["summary"] == "A wide clip of 5 s, nearly all blue, with little motion."


def test_events_cover_the_clip_without_gaps() -> None:
    row = described([GREEN, BLUE, GREEN, DARK, DARK], 7.5, None)
    events = row["events"]
    assert (events[0]["start"], events[-1]["end"]) == (0.0, 7.5)
    assert [event["end"] for event in events[:-1]] == [event["start"] for event in events[1:]]
    assert "dark" in events[-1]["text"]


def test_questions_are_about_order_only_if_something_changes() -> None:
    same, changed = described([GREEN, GREEN], 4.0, 30.0), described([GREEN, BLUE], 4.0, 30.0)
    assert [question["aspect"] for question in same["questions"]] == ["temporal"]
    assert same["questions"][0]["answer"] == "There is much motion."
    assert [question["aspect"] for question in changed["questions"]] == ["temporal", "time_order", "time_order"]
    assert "blue" in changed["questions"][2]["answer"]
    assert changed["question_count"] == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [(0.0, "hardly any motion"), (1.0, "little motion"), (4.0, "some motion"), (255.0, "much motion"), (None, "")],
)
def test_motion_in_words(change: float | None, words: str) -> None:
    assert motion_of(change) == words


def test_clip_without_frames_is_an_error() -> None:
    with pytest.raises(BadSampleError, match="no frames"):
        DescribeClip().load().prepare(None, None, 3.0, 1.0)
