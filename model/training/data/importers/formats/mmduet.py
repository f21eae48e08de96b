"""MMDuetIT's three families: questions answered while a film runs, dense captions, and grounding of a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Medium, Span, Turn
from model.training.data.importers.events import event_of, grounding_draft, question_of, span_of
from model.training.data.importers.film_names import PATH, path_of, split_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.turns import (
    assistant,
    list_of_turns,
    plain,
    role_of,
    seconds_of,
    stream_time,
    text_of,
    user,
    video,
)


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a row, by its family."""
    entry = row.entry
    uid = row.key or text_of(entry, "video_uid")
    path = path_of(options, "{video_uid}.mp4", video_uid=uid)
    split = split_of(row.file)
    if "conversation" in entry:
        yield _dialog(entry, uid, path)
    elif "query" in entry:
        spans = entry.get("timestamps")
        if not isinstance(spans, list) or not spans:
            raise BadSampleError(f"no spans in `timestamps`: {spans!r:.80}")
        events = sorted((event_of(span, entry["query"]) for span in spans), key=lambda event: event.start)
        found = [(event.start, event.end) for event in events]
        transforms = events[0].transforms
        yield grounding_draft(
            video(path), events[0].text, found, row.line, original_id=uid, split=split, transforms=transforms
        )
    else:
        yield from drafts_of(entry.items(), lambda named: _captions(named, uid, path, split))


def _dialog(entry: Mapping[str, Any], uid: str, path: str) -> Draft:
    """Draft a dialog. Its times are on the film's clock; the stream begins at `video_start_time`."""
    start = seconds_of(entry, "video_start_time", 0.0)
    film = video(path, start=start) if start else video(path)
    turns = []
    for turn in list_of_turns(entry["conversation"]):
        learn = turn.get("learn") if turn.get("role") == "assistant" else None
        text, time = text_of(turn, "content"), stream_time(turn, start)
        spans = _span(turn, film, start)
        turns.append(plain(role_of(turn.get("role")), text, time=time, learn=learn, spans=spans))
    original = f"{uid}/{entry['question_id']}" if entry.get("question_id") is not None else uid
    transforms = ("times_from_start",) if start else ()
    return Draft(turns, [film], original_id=original, subset="magqa", task="stream", transforms=transforms)


def _captions(named: tuple[str, object], uid: str, path: str, split: str) -> Draft:
    film, (annotation, captions) = video(path), named
    question, template = question_of("stream", uid)
    answers: Sequence[Turn] = [
        assistant(text_of(one, "text"), time=stream_time(one), spans=_span(one, film, 0.0))
        for one in list_of_turns(captions)
    ]
    return Draft(
        [user(question, time=0.0), *answers],
        [film],
        original_id=f"{uid}/{annotation}",
        subset="dense_captions",
        split=split,
        task="stream",
        transforms=(template,),
    )


def _span(turn: Mapping[str, Any], film: Medium, offset: float) -> tuple[Span, ...]:
    if turn.get("timespan") is None:
        return ()
    start, end, _ = span_of(turn["timespan"], None, offset)
    return (Span(media=film.key, start=start, end=end),)


def _fits(entry: Mapping[str, Any]) -> bool:
    if "video_uid" in entry:
        return {"query", "timestamps"} <= entry.keys() or {"question_id", "conversation"} <= entry.keys()
    firsts = [listed[0] for listed in entry.values() if isinstance(listed, list) and listed]
    return bool(firsts) and all(isinstance(first, dict) and {"timespan", "text"} <= first.keys() for first in firsts)


FORMAT = Format(
    name="mmduet",
    about="MMDuetIT: MAGQA, dense captions, grounding",
    read=read,
    fits=_fits,
    profiles=(Profile("mmduetit", Licence(name="unknown; the code's is MIT")),),
    options=PATH,
)
