"""AVTime: a film and messages, whose answer is JSON with events in percents of the film, both ends included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, Event, event_of, timed_drafts
from model.training.data.importers.film_names import DURATIONS, length_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import list_of_turns, said_of, seconds_of, video


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film. Questions that ask for percents give way to templates."""
    entry = row.entry
    videos, said = entry.get("videos"), said_of(entry.get("messages"), "role", "content")
    if not isinstance(videos, list) or len(videos) != 1:
        raise BadSampleError(f"not one film: {videos!r:.80}")
    film = video(videos[0])
    length = seconds_of(entry, "duration") if "duration" in entry else length_of(options, film.path)
    if length is None:
        raise BadSampleError("percents of a film of unknown length: give --set durations=FILE, a CSV of id and length")
    yield from timed_drafts(
        film.model_copy(update={"duration": length}),
        _events(next((text for role, text in reversed(said) if role == "assistant"), "")),
        lambda event: _event(event, length),
        options,
        original_id=entry.get("id", film.path),
        transforms=("seconds_from_percent", "prompt_replaced"),
    )


def _events(text: str) -> list[Mapping[str, Any]]:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"an answer that is no JSON: {text!r:.80}") from error
    return list_of_turns(answer.get("events") if isinstance(answer, dict) else None)


def _event(event: Mapping[str, Any], length: float) -> Event:
    percents: list[Any] = [event.get("start_pct"), event.get("end_pct")]
    if not all(type(percent) is int and 0 <= percent <= 99 for percent in percents):
        raise BadSampleError(f"no percents from 0 to 99: {percents!r:.80}")
    start, end = percents[0] * length / 100, (percents[1] + 1) * length / 100
    return event_of([start, end], event.get("caption"), length)


def _fits(entry: Mapping[str, Any]) -> bool:
    messages = entry.get("messages")
    return "videos" in entry and isinstance(messages, list) and "start_pct" in str(messages[-1:])


FORMAT = Format(
    name="avtime",
    about="AVTime: events in percents",
    read=read,
    fits=_fits,
    profiles=(Profile("avtime", Licence()),),
    options=MAKE | DURATIONS,
)
