"""Read the description of a clip out of a chat model's answer: events with times, and a paragraph, as JSON.

Models write prose or code fences around JSON, and times as seconds (`3`, `"3.0 s"`) or clocks (`"00:03"`): these are
read. What is wrong in substance is refused, with a reason that the model can be told: a time outside the clip, an end
before its start, events out of order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from captioners.markup import is_blank, one_line, printable
from core.errors import BadSampleError

ROUNDING = 0.5
"""Seconds by which a time may lie outside the clip, as models round. It is moved to the clip's start or end."""

_MOST_STARTS = 64  # of objects: a text of nothing but braces takes bounded time
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SECONDS = re.compile(rf"<?\s*({_NUMBER})\s*(?:s|sec|secs|second|seconds)?\s*>?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{2}(?:[.,]\d{1,6})?)")


class Event(NamedTuple):
    """Something that happens in a clip.

    Attributes:
        start: Seconds from the clip's start; at least 0. It is exact in 32 bits, like `end`.
        end: Likewise; above `start`, and at most the clip's duration.
        text: What happens.
    """

    start: float
    end: float
    text: str


class Description(NamedTuple):
    """What a model tells of a clip.

    Attributes:
        events: At least one. Their starts do not decrease.
        paragraph: The whole clip, in prose.
    """

    events: tuple[Event, ...]
    paragraph: str


def parse_description(text: str, duration: float) -> Description:
    """Read the description of a clip in an answer.

    Args:
        text: The answer, without reasoning and end tokens.
        duration: Length of the clip, in seconds.

    Raises:
        BadSampleError: There is none, or it is not valid; the text says what is wrong.
    """
    try:
        answer = _Answer.model_validate(_json_object(text))
    except ValidationError as error:
        raise BadSampleError(_first_problem(error)) from error
    events = tuple(_event(number, event, duration) for number, event in enumerate(answer.events, start=1))
    for number, (event, after) in enumerate(pairwise(events), start=1):
        if after.start < event.start:
            starts = f"{after.start:.1f} s and {event.start:.1f} s"
            raise BadSampleError(f"event {number + 1} starts before event {number} ({starts}); order them by start")
    return Description(events, answer.paragraph)


def _seconds(value: Any) -> Any:
    """Return a time in seconds: a number, `3.5 s`, or a clock such as `00:03` or `1:02:03.5`."""
    if isinstance(value, str):
        text = value.strip()
        if clock := _CLOCK.fullmatch(text):
            hours, minutes, seconds = clock.groups()
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
        value = float(number[1]) if (number := _SECONDS.fullmatch(text)) else None
    if type(value) not in (int, float) or not abs(value) < 1e9:  # not a bool, nor NaN
        raise BadSampleError("is no time in seconds, such as 3.5")
    return float(value)


def _prose(value: Any) -> Any:
    if not isinstance(value, str):
        raise BadSampleError("is no text")
    if is_blank(words := printable(value).strip()):
        raise BadSampleError("is empty")
    return words


_Seconds = Annotated[float, BeforeValidator(_seconds)]
_Prose = Annotated[str, BeforeValidator(_prose)]


class _AnswerEvent(BaseModel):
    start: _Seconds
    end: _Seconds
    text: _Prose


class _Answer(BaseModel):
    events: list[_AnswerEvent] = Field(min_length=1)
    paragraph: _Prose


def _event(number: int, event: _AnswerEvent, duration: float) -> Event:
    start, end = (_inside(f"event {number}: {name}", getattr(event, name), duration) for name in ("start", "end"))
    if start >= end:
        raise BadSampleError(f"event {number}: its end ({end:.2f} s) is not after its start ({start:.2f} s)")
    return Event(start, end, " ".join(event.text.split()))


def _inside(what: str, seconds: float, duration: float) -> float:
    """Return a time inside the clip that is exact in 32 bits."""
    if not -ROUNDING <= seconds <= duration + ROUNDING:
        raise BadSampleError(f"{what} {seconds:.1f} s is outside the clip, which is from 0 to {duration:.1f} s")
    time = np.float32(min(max(seconds, 0.0), duration))
    return float(time if float(time) <= duration else np.nextafter(time, np.float32(0)))


def _json_object(text: str) -> dict[str, Any]:
    """Return the first JSON object in a text that has `events`, with whatever stands around it."""
    problem = ""
    for value in _json_objects(text):
        if isinstance(value, str):
            problem = problem or value
        elif "events" in value:
            return value
        else:
            problem = problem or 'the JSON object has no "events"'
    raise BadSampleError(problem or "no JSON object in the answer")


def _json_objects(text: str) -> Iterator[dict[str, Any] | str]:
    """Yield the JSON objects in a text that stand in no other one; what is wrong where one cannot be read."""
    decoder, position = json.JSONDecoder(strict=False), text.find("{")
    for _ in range(_MOST_STARTS):
        if position < 0:
            return
        try:
            value, end = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError) as error:  # such as an integer of 5,000 digits; nested too deeply
            end = position + 1
            yield f"no valid JSON ({one_line(str(error))[:100]})"
        position = text.find("{", end)


def _first_problem(error: ValidationError) -> str:
    """Return the first problem in words that the model understands: `event 2: end: is no time in seconds`."""
    problem = error.errors(include_input=False, include_url=False)[0]
    reason = _REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{_where(problem['loc'])}: {reason}"


_REASONS = {"missing": "is missing", "list_type": "is no list", "model_type": "is no object", "too_short": "is empty"}


def _where(keys: Iterable[int | str]) -> str:
    names = [f"event {key + 1}" if isinstance(key, int) else key for key in keys]
    return ": ".join(names[1:] if len(names) > 1 and names[0] == "events" else names)
