"""Ego4D's questions about moments (NLQ), and Ego4D Goal-Step. Both have times of the film, NLQ of the clip as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Medium
from model.training.data.importers.events import MAKE, event_of, grounding_draft, span_of, timed_drafts
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video

_CLOCKS = 0.5  # seconds by which both clocks may differ
_LICENCE = Licence(name="Ego4D licence", gated=True, terms_url="https://ego4ddataset.com/ego4d-license/")
NESTED = "steps of a step stand beside it"


def read_nlq(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the questions of a film's clips."""
    uid, split = text_of(row.entry, "video_uid"), text_of(row.entry, "split", "")
    asked = [
        (clip, query)
        for clip in list_of_turns(row.entry.get("clips"))
        for annotation in list_of_turns(clip.get("annotations"))
        for query in list_of_turns(annotation.get("language_queries"))
    ]

    def draft(piece: tuple[int, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Draft:
        number, (clip, query) = piece
        film = _clip(uid, clip, options)
        event = event_of([query.get("clip_start_sec"), query.get("clip_end_sec")], query.get("query"), film.length)
        _check_clocks(query, film, event.start)
        original = f"{uid}/{clip.get('clip_uid')}"
        span = (event.start, event.end)
        return grounding_draft(
            film, event.text, [span], number, original_id=original, split=split, transforms=event.transforms
        )

    yield from drafts_of(enumerate(asked), draft)


def _clip(uid: str, clip: Mapping[str, Any], options: Options) -> Medium:
    path = path_of(options, "{video_uid}.mp4", video_uid=uid, clip_uid=clip.get("clip_uid"))
    start, end = seconds_of(clip, "video_start_sec"), seconds_of(clip, "video_end_sec")
    return video(path, start=start, end=end, is_cut="{clip_uid}" in options.get("path", ""))


def _check_clocks(query: Mapping[str, Any], film: Medium, start: float) -> None:
    in_film = seconds_of(query, "video_start_sec", start + (film.start or 0.0))
    if abs(in_film - (film.start or 0.0) - start) > _CLOCKS:
        raise BadSampleError(f"two clocks that differ: {start:g} s in the clip is {in_film:g} s in the film")


def read_goalstep(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the records of a film's steps. The clip is what was annotated, and times count from its start."""
    entry = row.entry
    start, end = span_of([entry.get("start_time"), entry.get("end_time")])[:2]
    uid, steps = text_of(entry, "video_uid"), list_of_turns(entry.get("segments"))
    every = [*_nested(steps)]
    yield from timed_drafts(
        video(path_of(options, "{video_uid}.mp4", video_uid=uid), start=start, end=end),
        every,
        lambda step: event_of(
            [step.get("start_time"), step.get("end_time")], step.get("step_description"), end - start, start
        ),
        options,
        original_id=uid,
        split=text_of(entry, "split", ""),
        transforms=("times_from_region",) if start else (),
        notes=(NESTED,) if len(every) > len(steps) else (),
    )


def _nested(steps: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for step in steps:
        yield step
        yield from _nested(list_of_turns(step.get("segments") or []))


FORMATS = (
    Format(
        name="ego4d-nlq",
        about="Ego4D NLQ: where the answer to a question can be seen",
        read=read_nlq,
        fits=lambda entry: {"video_uid", "clips"} <= entry.keys(),
        profiles=(Profile("ego4d-nlq", _LICENCE),),
        options=PATH,
        inside=("videos",),
    ),
    Format(
        name="goalstep",
        about="Ego4D Goal-Step: steps of a task",
        read=read_goalstep,
        fits=lambda entry: {"video_uid", "segments", "start_time"} <= entry.keys(),
        profiles=(Profile("ego4d-goalstep", _LICENCE),),
        options=MAKE | PATH,
        inside=("videos",),
    ),
)
