"""ViTT: tags with their starts in milliseconds. A tag lasts to the next one, the last one to the film's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import MAKE, Event, event_of, timed_drafts
from model.training.data.importers.film_names import DURATIONS, PATH, column_of, length_of, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video

IDS = {"ids": "CSV with the columns id and video: the film of each YouTube-8M id"}


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of an annotation of a film. A film may have several annotations, each a row."""
    entry = row.entry
    original = text_of(entry, "id")
    tags = list_of_turns(entry.get("annotations"))
    if not tags:
        raise BadSampleError("no tags: `annotations` is empty")
    starts = [seconds_of(tag, "timestamp") / 1000 for tag in tags]
    if any(later < earlier for earlier, later in pairwise(starts)):
        raise BadSampleError("times go backwards: the timestamps of a film's tags must grow")
    name = column_of(options["ids"], ("video", "youtube_id")).get(original) if "ids" in options else original
    if name is None:
        raise BadSampleError(f"no film for an id: {original} is not in {options['ids']}")
    length = length_of(options, original)
    yield from timed_drafts(
        video(path_of(options, "{id}.mp4", id=name), duration=length),
        list(zip(starts, [*starts[1:], length], [tag.get("tag") for tag in tags], strict=True)),
        lambda tag: _event(tag, length),
        options,
        original_id=original,
        transforms=("seconds_from_milliseconds", "ends_from_next_starts"),
    )


def _event(tag: Sequence[Any], length: float | None) -> Event:
    start, end, text = tag
    if end is None:
        raise BadSampleError("the last tag has no end: give --set durations=FILE, a CSV of id and length")
    return event_of([start, end], text, length)


FORMAT = Format(
    name="vitt",
    about="ViTT: tags of instructional films, by their starts",
    read=read,
    fits=lambda entry: any("tag" in tag and "timestamp" in tag for tag in _objects(entry.get("annotations"))),
    profiles=(Profile("vitt", Licence()),),
    options=MAKE | PATH | DURATIONS | IDS,
)


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
