"""Timed events of a film, checked, and made into records: temporal grounding, dense captions, streams.

Questions come from a few fixed templates. Which one is a function of the id, and is named in the transforms.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from core.errors import BadSampleError, UserError
from core.records import Medium, Span
from model.training.data.grounding import span_text
from model.training.data.importers.checks import SLACK
from model.training.data.importers.format import ROW_ERRORS, Draft, Options, reason_of
from model.training.data.importers.turns import assistant, user

T = TypeVar("T")

MAKE = {"make": "what becomes of a film's events: grounding, dense, stream, joined by commas (grounding,dense)"}
"""The option of formats whose rows have all events of a film."""

SHORTEST = 0.1
"""Shorter spans, in seconds, are mistakes: as text, start and end would be the same."""

LEFT_OUT = "a dense caption or stream without an event that was rejected"
_LONGEST = 1e9  # seconds
_KINDS = ("grounding", "dense", "stream")
_OUTPUT = "Please output the start and end timestamps in seconds."

TEMPLATES: Mapping[str, Sequence[str]] = {
    "grounding": (
        f'When does this happen in the video: "{{query}}"? {_OUTPUT}',
        f'Find this moment in the video: "{{query}}". {_OUTPUT}',
        f'During which part of the video can this be seen: "{{query}}"? {_OUTPUT}',
        f'Locate "{{query}}" in the video. {_OUTPUT}',
    ),
    "dense": (
        "Describe the events of the video, each with its start and end timestamps in seconds.",
        "List what happens in the video. Begin each line with the start and end timestamps in seconds.",
        "Which events does the video show? Give the start and end timestamps in seconds of each, and a description.",
    ),
    "stream": (
        "Watch the video, and tell me what happened as soon as an event is over.",
        "Describe each event when it ends.",
        "Comment on the video while it runs.",
    ),
}
"""Questions by the kind of record."""


@dataclass(frozen=True)
class Event:
    """What happens from `start` to `end`, in seconds of the clip; and what was done to the original."""

    start: float
    end: float
    text: str
    transforms: tuple[str, ...] = ()


def event_of(times: object, text: object, length: float | None = None, offset: float = 0.0) -> Event:
    """Return an event, checked.

    Args:
        times: Start and end in seconds.
        text: What happens. White space at the ends and line breaks go.
        length: Length of the clip; an end up to a second behind it becomes the clip's.
        offset: Where the clip starts on the clock of `times`.

    Raises:
        BadSampleError: No times, reversed, too short, outside of the clip; no text.
    """
    start, end, clipped = span_of(times, length, offset)
    if not isinstance(text, str) or not text.strip():
        raise BadSampleError(f"an event without words: {reprlib.repr(text)}")
    words = " ".join(text.split())
    return Event(start, end, words, (*clipped, *(("strip_text",) if words != text else ())))


def span_of(times: object, length: float | None = None, offset: float = 0.0) -> tuple[float, float, tuple[str, ...]]:
    """Return start and end on the clip's clock, and the transforms; as `event_of`."""
    if not isinstance(times, list | tuple) or len(times) != 2 or not all(map(is_time, times)):
        raise BadSampleError(f"no start and end: {reprlib.repr(times)}")
    start, end = (round(time - offset, 6) for time in times)
    where = f"{start:g}-{end:g} s" + ("" if length is None else f" of {length:g} s")
    if end < start:
        raise BadSampleError(f"a span ends before it starts: {where}")
    if start < 0 or (length is not None and (end > length + SLACK or start >= length)):
        raise BadSampleError(f"span outside of the film: {where}")
    clipped = length is not None and end > length
    end = length if clipped and length is not None else end
    if end - start < SHORTEST - 1e-9:
        raise BadSampleError(f"a span shorter than {SHORTEST} s: {where}")
    return start, end, ("end_clipped",) if clipped else ()


def is_time(time: object) -> bool:
    """Return whether a value is a number that can be a time; it may be negative."""
    return isinstance(time, int | float) and not isinstance(time, bool) and abs(time) < _LONGEST


def kinds_of(options: Options) -> list[str]:
    """Return which records are made of a film's events.

    Raises:
        UserError: There is no such kind.
    """
    kinds = [kind.strip() for kind in options.get("make", "grounding,dense").split(",")]
    if unknown := next((kind for kind in kinds if kind not in _KINDS), None):
        raise UserError(f"--set make: {unknown!r} cannot be made; give {', '.join(_KINDS)}, joined by commas")
    return kinds


def timed_drafts(
    film: Medium, pieces: Iterable[T], event: Callable[[T], Event], options: Options, **about: Any
) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film's events. An event that cannot be used is an error of its own.

    Args:
        film: The film, with key `v0`.
        pieces: The events as published.
        event: Makes an event of a piece.
        options: `make` decides what is made.
        about: Further fields of the drafts; `original_id` also decides the templates.
    """
    kinds, events, broken = kinds_of(options), [], False
    for piece in pieces:
        try:
            events.append(event(piece))
        except UserError:
            raise
        except ROW_ERRORS as error:
            broken = True
            yield BadSampleError(reason_of(error))
    notes = [*about.pop("notes", ()), *([LEFT_OUT] if broken else [])]
    if "grounding" in kinds:
        for number, one in enumerate(events):
            spans, transforms = [(one.start, one.end)], one.transforms
            yield grounding_draft(film, one.text, spans, number, **_with(about, transforms))
    if "dense" in kinds and events:
        yield _dense_draft(film, events, notes, about)
    if "stream" in kinds and events:
        yield _stream_draft(film, events, notes, about)


def grounding_draft(
    film: Medium, query: str, spans: Sequence[tuple[float, float]], number: int = 0, **about: Any
) -> Draft:
    """Draft a question for the spans of a query. `number`: of the question, among those of an id."""
    question, template = question_of("grounding", about.get("original_id"), number)
    return Draft(
        [
            user(film, f"\n{question.replace('{query}', query)}"),
            assistant(span_text(spans), spans=tuple(Span(media=film.key, start=a, end=b) for a, b in spans)),
        ],
        [film],
        task="grounding",
        **_with(about, (template,)),
    )


def _dense_draft(film: Medium, events: Sequence[Event], notes: Sequence[str], about: Mapping[str, Any]) -> Draft:
    ordered = sorted(events, key=lambda event: (event.start, event.end))
    question, template = question_of("dense", about.get("original_id"))
    text = "\n".join(f"{span_text([(event.start, event.end)])}: {event.text}" for event in ordered)
    spans = tuple(Span(media=film.key, start=event.start, end=event.end) for event in ordered)
    is_sorted = ("sorted_by_time",) if ordered != list(events) else ()
    return Draft(
        [user(film, f"\n{question}"), assistant(text, spans=spans)],
        [film],
        task="dense_caption",
        notes=notes,
        **_with(about, (*_all_transforms(events), *is_sorted, template)),
    )


def _stream_draft(film: Medium, events: Sequence[Event], notes: Sequence[str], about: Mapping[str, Any]) -> Draft:
    question, template = question_of("stream", about.get("original_id"))
    answers = [
        assistant(event.text, time=event.end, spans=(Span(media=film.key, start=event.start, end=event.end),))
        for event in sorted(events, key=lambda event: (event.end, event.start))
    ]
    transforms = (*_all_transforms(events), "said_at_the_end", template)
    turns = [user(question, time=0.0), *answers]
    return Draft(turns, [film], task="stream", notes=notes, **_with(about, transforms))


def question_of(kind: str, original_id: object, number: int = 0) -> tuple[str, str]:
    """Return the template for an id, and its name for the transforms."""
    digest = blake2b(f"{original_id}\0{number}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    chosen = int.from_bytes(digest, "big") % len(TEMPLATES[kind])
    return TEMPLATES[kind][chosen], f"question_from_template_{kind}_{chosen}"


def _all_transforms(events: Iterable[Event]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for event in events for name in event.transforms))


def _with(about: Mapping[str, Any], transforms: Sequence[str]) -> dict[str, Any]:
    return {**about, "transforms": (*about.get("transforms", ()), *transforms)}
