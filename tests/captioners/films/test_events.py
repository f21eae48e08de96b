"""Descriptions of clips: what is read out of an answer, and what is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from captioners.films.events import Event, parse_description
from core.errors import BadSampleError


def answer(*events: tuple[Any, Any, Any], paragraph: Any = "A dog runs.") -> str:
    told = [{"start": start, "end": end, "text": text} for start, end, text in events]
    return json.dumps({"events": told, "paragraph": paragraph})


TWO = answer((0, 4.5, "A dog runs."), (4.5, 10, "It sleeps."))
EVENTS = (Event(0.0, 4.5, "A dog runs."), Event(4.5, 10.0, "It sleeps."))


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        f"Sure, here it is:\n\n{TWO}\n\nDo you need more?",
        f"```json\n{TWO}\n```",
        f"{{a remark in braces}} {TWO} {{another}}",
        f'{{"thought": "first"}}\n{TWO}',
        TWO.replace("A dog runs.", "A dog\\n  runs.", 1),
        TWO.replace("A dog runs.", "A dog\n runs.", 1),
        answer(("00:00", "00:04.5", "A dog runs."), ("0:04,50", "00:00:10", "It sleeps.")),
        answer(("0.0 s", "4.5 seconds", "A dog runs."), ("<4.5 seconds>", "10s", "It sleeps.")),
        answer((-0.4, 4.5, "A dog runs."), (4.5, 10.5, "It sleeps.")),
        TWO.replace('"end"', '"note": null, "end"'),
    ],
    ids=[
        "plain",
        "prose around",
        "fence",
        "braces around",
        "object before",
        "escaped line end",
        "line end",
        "clocks",
        "units",
        "rounded",
        "more keys",
    ],
)
def test_description_is_read_from_the_forms_of_models(text: str) -> None:
    assert parse_description(text, 10.0) == (EVENTS, "A dog runs.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object in the answer"),
        ("A dog runs.", "no JSON object in the answer"),
        ("{}", 'the JSON object has no "events"'),
        (TWO[:-5], "no valid JSON ("),
        (TWO.replace('"paragraph"', '"caption"'), "paragraph: is missing"),
        (answer((0, 1, "A."), paragraph=" \u200b"), "paragraph: is empty"),
        (answer((0, 1, "A."), paragraph=["A."]), "paragraph: is no text"),
        (answer(), "events: is empty"),
        ('{"events": {}, "paragraph": "A."}', "events: is no list"),
        ('{"events": ["A."], "paragraph": "A."}', "event 1: is no object"),
        (answer((0, 1, "A."), (1, 2, "")), "event 2: text: is empty"),
        (answer((True, 2, "A.")), "event 1: start: is no time in seconds, such as 3.5"),
        (answer((0, "soon", "A.")), "event 1: end: is no time in seconds"),
        (answer((0, None, "A.")), "event 1: end: is no time in seconds"),
        (answer((0, float("nan"), "A.")), "event 1: end: is no time in seconds"),
        (answer((0, 10**400, "A.")), "event 1: end: is no time in seconds"),
        (answer((0, 10.6, "A.")), "event 1: end 10.6 s is outside the clip, which is from 0 to 10.0 s"),
        (answer((-0.6, 2, "A.")), "event 1: start -0.6 s is outside the clip"),
        (answer((0, 250, "A.")), "event 1: end 250.0 s is outside the clip"),
        (answer((3, 3, "A.")), "event 1: its end (3.00 s) is not after its start (3.00 s)"),
        (answer((10.2, 10.4, "A.")), "event 1: its end (10.00 s) is not after its start (10.00 s)"),
        (answer((0, 3, "A."), (5, 2, "B.")), "event 2: its end (2.00 s) is not after its start (5.00 s)"),
        (answer((5, 6, "A."), (0, 3, "B.")), "event 2 starts before event 1 (0.0 s and 5.0 s)"),
        ('{"events":' * 90_000, "no valid JSON ("),
        ("{" * 300_000, "no valid JSON ("),
    ],
    ids=range(25),
)
def test_invalid_answer_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(BadSampleError) as refused:
        parse_description(text, 10.0)
    assert str(refused.value).startswith(reason)
    assert "\n" not in str(refused.value)


def test_events_may_begin_at_once_and_overlap() -> None:
    told = parse_description(answer((0, 5, "A."), (0, 3, "B."), (2, 9, "C.")), 9.0)
    assert [times for *times, _ in told.events] == [[0, 5], [0, 3], [2, 9]]


@pytest.mark.parametrize("duration", [0.1, 10.1, 59.4])
def test_end_of_the_clip_is_inside_it_in_32_bits_too(duration: float) -> None:
    assert float(np.float32(duration)) > duration, "rounded to 32 bits it would be outside"
    ((_, end, _),) = parse_description(answer((0, duration, "A dog runs.")), duration).events
    assert duration - 1e-5 < end == float(np.float32(end)) <= duration


def test_control_characters_are_removed_from_texts() -> None:
    told = parse_description(answer((0, 5, "A\x00 dog\x1b[31m.\ud800"), paragraph="A\x07 dog.\r\nIt runs."), 9.0)
    assert told == ((Event(0, 5, "A dog."),), "A dog.\nIt runs.")


PROSE = st.text(max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["00:03", "3 s"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["start", "end", "text"]), inner),
    max_leaves=12,
)
TIMES = st.floats(-2, 14) | st.integers(-1, 12) | VALUES
LIKELY = st.fixed_dictionaries({"start": TIMES, "end": TIMES, "text": st.text(max_size=5) | VALUES})
NEARLY_SOUND = st.builds(
    lambda times, text: {
        "events": [{"start": start, "end": start + length, "text": text} for start, length in sorted(times)],
        "paragraph": text,
    },
    st.lists(st.tuples(st.floats(-0.5, 9), st.floats(-0.1, 4)), min_size=1, max_size=4),
    st.sampled_from(["A dog {runs}.", "\u732b", '"quoted"']) | st.text(max_size=4),
)
ANSWERS = st.fixed_dictionaries({"events": st.lists(LIKELY | VALUES, max_size=3) | VALUES, "paragraph": VALUES})


@given(
    st.text()
    | st.tuples(st.text(max_size=9), (NEARLY_SOUND | ANSWERS | VALUES).map(json.dumps), st.text(max_size=9)).map(
        "".join
    ),
    st.floats(0.04, 12),
)
def test_any_answer_gives_sound_events_or_a_reason(text: str, duration: float) -> None:
    try:
        told = parse_description(text, duration)
    except BadSampleError:
        return
    event("sound")  # shown by --hypothesis-show-statistics: about one of ten
    assert told.paragraph.strip()
    assert told.events
    starts = [start for start, _, _ in told.events]
    assert starts == sorted(starts)
    for told_event in told.events:
        assert 0 <= told_event.start < told_event.end <= duration
        assert told_event.text.strip()
