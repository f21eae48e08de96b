"""Events of films: what is checked, and the records made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError, UserError
from model.training.data.annotations import AnnotationSource
from model.training.data.grounding import events_of
from model.training.data.importers.events import (
    TEMPLATES,
    Event,
    event_of,
    kinds_of,
    question_of,
    span_of,
    timed_drafts,
)
from model.training.data.importers.format import Draft
from model.training.data.importers.turns import video
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import import_object

FILM = video("a.mp4", duration=60.0)
EVENTS = [([20.0, 60.5], " He stands."), ([0.5, 21.3], "A man sits.")]


def drafts(make: str, events: list[Any] = EVENTS) -> list[Draft | BadSampleError]:
    return list(timed_drafts(FILM, events, lambda each: event_of(*each, 60.0), {"make": make}, original_id="a"))


def test_end_within_a_second_behind_the_film_is_clipped() -> None:
    assert event_of([18.0, 60.9], " He\nstands ", 60.0) == Event(18.0, 60.0, "He stands", ("end_clipped", "strip_text"))


def test_times_count_from_the_clip() -> None:
    assert event_of([16.1, 19.0], "x", 56.0, 4.0) == Event(12.1, 15.0, "x")


@pytest.mark.parametrize(
    ("times", "text", "reason"),
    [
        ([5, 3], "x", "a span ends before it starts: 5-3 s"),
        ([5, 5], "x", "a span shorter than 0.1 s: 5-5 s"),
        ([-1, 5], "x", "span outside of the film: -1-5 s"),
        ([50, 62], "x", "span outside of the film: 50-62 s"),
        ([60, 60.5], "x", "span outside of the film: 60-60.5 s"),
        ([math.nan, 5], "x", "no start and end: "),
        ([1, math.inf], "x", "no start and end: "),
        ([1, 10**400], "x", "no start and end: "),
        ([1, True], "x", "no start and end: "),
        (["1", "2"], "x", "no start and end: "),
        ([1], "x", "no start and end: "),
        (None, "x", "no start and end: "),
        ([1, 2], " \n", "an event without words: "),
        ([1, 2], None, "an event without words: "),
    ],
)
def test_bad_event_is_rejected_with_its_reason(times: Any, text: Any, reason: str) -> None:
    with pytest.raises(BadSampleError) as error:
        event_of(times, text, 60.0)
    assert str(error.value).startswith(reason)


def test_dense_caption_has_the_events_by_time() -> None:
    (draft,) = drafts("dense")
    assert isinstance(draft, Draft)
    assert draft.turns[1].text == "0.5-21.3 s: A man sits.\n20.0-60.0 s: He stands."
    assert events_of(draft.turns[1].text) == [((0.5, 21.3), "A man sits"), ((20.0, 60.0), "He stands")]
    assert [(span.start, span.end) for span in draft.turns[1].spans] == [(0.5, 21.3), (20.0, 60.0)]
    assert {"end_clipped", "strip_text", "sorted_by_time"} <= {*draft.transforms}


def test_stream_speaks_when_an_event_ends() -> None:
    (draft,) = drafts("stream")
    assert isinstance(draft, Draft)
    assert [(turn.role, turn.time) for turn in draft.turns] == [("user", 0.0), ("assistant", 21.3), ("assistant", 60.0)]
    assert [turn.text for turn in draft.turns[1:]] == ["A man sits.", "He stands."]
    assert all(part.media is None for turn in draft.turns for part in turn.parts)


def test_bad_event_is_one_error_and_noted_beside_the_rest() -> None:
    error, first, second, dense = drafts("grounding, dense", [*EVENTS, ([9, 3], "x")])
    assert isinstance(error, BadSampleError)
    assert [draft.turns[1].text for draft in (first, second) if isinstance(draft, Draft)] == [
        "20.0-60.0 s",
        "0.5-21.3 s",
    ]
    assert isinstance(dense, Draft)
    assert dense.notes == ["a dense caption or stream without an event that was rejected"]


def test_records_are_samples_of_a_training(tmp_path: Path) -> None:
    entry = {"id": "a", "duration": 60.0, "timestamps": [[20, 60.5], [0.5, 21.3]], "sentences": ["He stands.", "Rain."]}
    options = {"make": "grounding,dense,stream"}
    imported = import_entries(tmp_path, "activitynet", [entry], options=options)
    lines = [json.dumps(line) for line in imported.rendered("videollama3")]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.mp4").touch()
    source = AnnotationSource("train", str(tmp_path / "train.jsonl"))
    samples = [source.sample(row).conversation for row in range(len(lines))]
    learned = [[turn["content"] for turn in sample if turn["role"] == "assistant"] for sample in samples]
    assert learned == [[turn.text for turn in record.turns if turn.role == "assistant"] for record in imported.records]
    untils = [part["until"] for turn in samples[3] for part in turn["content"] if isinstance(part, dict)]
    assert untils == [0.0, 21.3, 60.0]


def test_unknown_kind_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError, match="--set make: 'grounded' cannot be made"):
        kinds_of({"make": "dense,grounded"})


TIMES = st.floats(-10, 100) | st.integers(-10, 100)


@given(st.tuples(TIMES, TIMES), st.none() | st.floats(0, 60), st.floats(0, 30))
def test_span_that_is_taken_lies_in_the_clip(times: tuple[float, float], length: float | None, offset: float) -> None:
    try:
        start, end, transforms = span_of(times, length, offset)
    except BadSampleError:
        return
    assert 0 <= start < end <= (length if length is not None else 200)
    assert start + offset == pytest.approx(times[0], abs=1e-5)
    assert transforms or end + offset == pytest.approx(times[1], abs=1e-5)


@given(st.text(), st.integers())
def test_template_is_a_function_of_the_id(original_id: str, number: int) -> None:
    question, name = question_of("grounding", original_id, number)
    assert (question, name) == question_of("grounding", original_id, number)
    assert TEMPLATES["grounding"][int(name.removeprefix("question_from_template_grounding_"))] == question


def test_each_template_is_used() -> None:
    for kind, templates in TEMPLATES.items():
        assert {question_of(kind, number)[0] for number in range(100)} == {*templates}


PERCENTS = '{"events": [{"start_pct": 10, "end_pct": 19, "caption": "x"}]}'
NOTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "seconds": ("mmduet", {"video_uid": "a", "query": "x", "timestamps": [[5.0, 10.0]]}),
    "seconds as text": (
        "streamo",
        {
            "video_path": "a.mp4",
            "question": [{"content": "x", "time": "0"}],
            "response": [{"content": "x", "st_time": "5", "end_time": "10", "time": ""}],
        },
    ),
    "milliseconds": (
        "vitt",
        {"id": "a", "annotations": [{"timestamp": 5000, "tag": "x"}, {"timestamp": 10000, "tag": "y"}]},
    ),
    "percents": (
        "avtime",
        {"videos": ["a.mp4"], "duration": 50, "messages": [{"role": "assistant", "content": PERCENTS}]},
    ),
    "chunks": ("didemo", {"video": "a.mp4", "description": "x", "times": [[1, 1]], "num_segments": 6}),
    "frames": (
        "videollm-online",
        {
            "video_uid": "a",
            "conversation": [
                {"role": "stream", "num_frames": 10},
                {"role": "user", "content": "x"},
                {"role": "stream", "num_frames": 10},
                {"role": "assistant", "content": "x"},
            ],
        },
    ),
    "clocks": ("timeit", {"video": "a.mp4", "source": "x", "QA": [{"q": "When?", "a": "From 00:05 to 00:10, x."}]}),
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_each_notation_of_time_becomes_seconds(tmp_path: Path, notation: str) -> None:
    format_, entry = NOTATIONS[notation]
    record = import_entries(tmp_path, format_, [entry]).records[0]
    spans = [(span.start, span.end) for turn in record.turns for span in turn.spans]
    times = [turn.time for turn in record.turns if turn.time is not None]
    assert (spans or [tuple(times)])[0] == (5.0, 10.0)


def test_wrong_option_ends_the_import_in_one_line(tmp_path: Path) -> None:
    films = {"v_a": {"duration": 60.0, "timestamps": [[1.0, 2.0]], "sentences": ["He sits."]}}
    with pytest.raises(UserError, match="--set make: 'nonsense' cannot be made"):
        import_object(tmp_path, "activitynet", films, make="nonsense")
