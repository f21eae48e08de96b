"""TimeLens: films with queries and spans. Its keys are not documented, so they are told by how their values look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import event_of, grounding_draft
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video

GUESSED = "the keys were guessed"
_QUERIES = ("query", "queries", "caption", "sentence", "description")
_SPANS = ("span", "spans", "timestamps", "timestamp", "windows")
_PATHS = ("video_path", "video", "video_id", "vid")


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the queries of a row: of a list of events, of lists side by side, or the one that it is."""
    entry = row.entry
    length = seconds_of(entry, "duration") if "duration" in entry else None
    named = text_of(entry, _one(entry, _PATHS, "film")) if not row.key else f"{row.key}.mp4"
    film = video(path_of(options, "{path}", path=named, id=row.key or named), duration=length)
    split = text_of(entry, "split", "")

    def draft(piece: tuple[int, tuple[object, object]]) -> Draft:
        number, (query, spans) = piece
        listed = spans if isinstance(spans, list) and spans and isinstance(spans[0], list) else [spans]
        events = sorted((event_of(span, query, length) for span in listed), key=lambda event: event.start)
        transforms = dict.fromkeys(name for event in events for name in event.transforms)
        return grounding_draft(
            film,
            events[0].text,
            [(event.start, event.end) for event in events],
            number,
            original_id=row.key or named,
            subset=text_of(entry, "source", ""),
            split=split,
            transforms=tuple(transforms),
            notes=(GUESSED,),
        )

    yield from drafts_of(enumerate(_asked(entry)), draft)


def _asked(entry: Mapping[str, Any]) -> list[tuple[object, object]]:
    if "events" in entry:
        events = list_of_turns(entry["events"])
        return [(event[_one(event, _QUERIES, "query")], event[_one(event, _SPANS, "span")]) for event in events]
    queries, spans = entry[_one(entry, _QUERIES, "query")], entry[_one(entry, _SPANS, "span")]
    if isinstance(queries, str):
        return [(queries, spans)]
    if not isinstance(queries, list) or not isinstance(spans, list) or len(queries) != len(spans):
        raise BadSampleError("queries and spans do not match: give one span, or list of spans, for each query")
    return list(zip(queries, spans, strict=True))


def _one(entry: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    found = [name for name in names if name in entry]
    if len(found) != 1:
        raise BadSampleError(
            f"it is not clear which key has the {what}: {', '.join(found) or ', '.join(map(str, entry))}"
        )
    return found[0]


def _fits(entry: Mapping[str, Any]) -> bool:
    events = entry.get("events")
    first = events[0] if isinstance(events, list) and events and isinstance(events[0], dict) else entry
    return any(name in first for name in ("query", "queries")) and any(name in first for name in ("span", "spans"))


FORMAT = Format(
    name="timelens",
    about="TimeLens-100K, TimeLens-Bench and alike: queries and spans, keys guessed",
    read=read,
    fits=_fits,
    profiles=(Profile("timelens", Licence(generator="gemini-2.5-pro")),),
    options=PATH,
)
