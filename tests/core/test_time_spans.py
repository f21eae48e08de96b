"""Time spans and events in the words of answers."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.time_spans import events_of, seconds_text, span_text, spans_of

Span = tuple[float, float]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("from 00:01 to 00:02", [(1.0, 2.0)]),
        ("The man opens the door from 12.3 to 15.8.", [(12.3, 15.8)]),
        ("It happens between 1.5 and 2.5, I think.", [(1.5, 2.5)]),
        ("He sits 3.0 s -> 4.0 s, and stands 5 s --> 6 s \u2192 7 s", [(3.0, 4.0), (5.0, 6.0)]),
        ("00:00:18,000 --> 00:00:23,500", [(18.0, 23.5)]),
        ("3 s till 4 s; 5 through 6 seconds", [(3.0, 4.0), (5.0, 6.0)]),
        ("[12 - 34] seconds and (1-2) s", [(12.0, 34.0), (1.0, 2.0)]),
        ("12-34 (seconds)", [(12.0, 34.0)]),
        ("At around 5 seconds until about 10 seconds he sits", [(5.0, 10.0)]),
        ("seconds 12-34", [(12.0, 34.0)]),
        ("From second 12 to second 34 he sits", [(12.0, 34.0)]),
        ("1m05s - 1m20.5s, 1 min 5 s to 2 minutes 0 seconds", [(65.0, 80.5), (65.0, 120.0)]),
        ("45 s to 1m05s", [(45.0, 65.0)]),
        ("The start time is 3 seconds, and the end time is 12 seconds.", [(3.0, 12.0)]),
        ("It starts at 00:03 and ends at 00:12.", [(3.0, 12.0)]),
        ("He begins at 3 s, when the bell rings, and finishes around 12.5 s", [(3.0, 12.5)]),
        ("Starting at 1.5 and ending at 2.5", [(1.5, 2.5)]),
        ('{"start": 3, "end": 12}', [(3.0, 12.0)]),
        ('[{"start_time": 3.5,\n  "end_time": 12.0}, {"start": 20, "end": 21}]', [(3.5, 12.0), (20.0, 21.0)]),
        ("start=3 end=12", [(3.0, 12.0)]),
        ("1.0-2.0 s; it starts at 3 s and ends at 4 s; 5-6 s", [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)]),
        ("Starts at 1.0-2.0 s", [(1.0, 2.0)]),
    ],
)
def test_spans_in_words_are_read(text: str, spans: list[Span]) -> None:
    assert spans_of(text) == spans


@pytest.mark.parametrize(
    "text",
    [
        "It rose from 1.0 to 2.5 percent.",
        "from 1.0 to 2.5 m/s",
        "from 3 to 4.",
        "in the second 3-4 people",
        "the second 3 to 4",
        "It starts with 3 dogs and ends with 4 cats.",
        "start: 3 dogs, end: 4 cats",
        "It starts with 1.5 cups and ends with 2.5 cups",
        "starts at 12 s and ends at 3 s",
        "start at 3, stop at 12",
        "start: -3, end: 12",
        "1 m 5 to 2 m 6",
        "He starts. He ends.",
        "starts at 3 s",
        "1.0 -> 2.5 percent",
    ],
)
def test_words_and_numbers_that_are_no_spans_are_not_read(text: str) -> None:
    assert spans_of(text) == []


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("From 23 to 58, a man sits.", [(11.5, 29.0)]),
        ("00 and 15; 99 - 100", [(0.0, 7.5), (49.5, 50.0)]),
        ("23% to 58%", [(11.5, 29.0)]),
        ("from 3 to 58", []),
        ("from 58 to 23", []),
        ("1.0-2.0 s", []),
        ("10 to 20 s", []),
        ("in 2023 to 2024", []),
        ("00:10 to 00:20", []),
    ],
)
def test_percents_are_read_if_the_length_is_given(text: str, spans: list[Span]) -> None:
    assert spans_of(text, percent_of=50.0) == spans
    assert spans_of(text, percent_of=math.nan) == []


def test_percents_are_not_read_without_a_length() -> None:
    assert spans_of("From 23 to 58, a man sits.") == []


@pytest.mark.parametrize(
    "piece",
    [
        "start 1 ",
        "start ",
        "starts 1 s end",
        "start 1 end ",
        "1m",
        "1 m 1 s - ",
        "seconds 1 ",
        "from 1.0 to ",
        "12 to ",
    ],
)
def test_spans_in_long_texts_are_read_in_linear_time(piece: str) -> None:
    begin = time.process_time()
    spans_of("1" + piece * 20_000)
    spans_of("1" + piece * 20_000, percent_of=10.0)
    events_of(f"1-2 s {' ' * 20_000}{piece * 20_000}{' ' * 20_000}at")
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("1.0-2.0 s: A man sits.\n3.0-4.5 s: He stands.", [((1.0, 2.0), "A man sits"), ((3.0, 4.5), "He stands")]),
        ("12.0 - 34.5 seconds, stir the pot.", [((12.0, 34.5), "stir the pot")]),
        ("Here they are:\n1. From 1.0 to 2.0 s, a man sits.", [((1.0, 2.0), "a man sits")]),
        (
            "A man sits (1.0-2.0 s).\n- He stands, from 3 to 4 s",
            [((1.0, 2.0), "A man sits"), ((3.0, 4.0), "He stands")],
        ),
        ("1-2 s: he sits. 3-4 s: he stands.", [((1.0, 2.0), "he sits"), ((3.0, 4.0), "he stands")]),
        ("He sits (1-2 s). He stands (3-4 s)", [((1.0, 2.0), "He sits"), ((3.0, 4.0), "He stands")]),
        ("[00:01 - 00:02] 3 men sit", [((1.0, 2.0), "3 men sit")]),
        ("He sits <time>1-2 s</time>", [((1.0, 2.0), "He sits")]),
        ("1.0-2.0 s", [((1.0, 2.0), "")]),
        ("Nothing happens.", []),
        ("", []),
    ],
)
def test_events_have_the_caption_beside_their_span(text: str, events: list[tuple[Span, str]]) -> None:
    assert events_of(text) == events


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)).map(sorted), max_size=5))
def test_events_have_the_spans_of_their_text(drawn: list[list[float]]) -> None:
    text = "\n".join(f"{span_text([(start, end)])}: he jumps" for start, end in drawn)
    assert [span for span, _ in events_of(text)] == spans_of(text)
    assert {caption for _, caption in events_of(text)} <= {"he jumps"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0"), (0.00001, "0.001"), (0.004, "0.004"), (0.04, "0.04"), (0.06, "0.1"), (7.25, "7.2"), (60, "60.0")],
)
def test_length_above_zero_is_not_written_as_zero(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
