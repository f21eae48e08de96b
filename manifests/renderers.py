"""Records in the forms of trainers: VideoLLaMA3's JSON, LLaVA's, OpenAI's messages.

A form that cannot say what a record says refuses it. Spans, boxes, choices and provenance are beside the text of a
record; forms without a place for them have the text alone, and `left_beside` names what that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import BadSampleError
from core.records import Medium, Record, Turn

_MARK = re.compile("<image>|<video>")
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
_BESIDE = ("choices", "synth", "licence")
_DIGITS = 6  # of a second: sums of decimals become the decimals that they are


def to_videollama3(record: Record) -> dict[str, Any]:
    """Return a record as a line of VideoLLaMA3's annotations; of a stream in the stream's form.

    Raises:
        BadSampleError: The form cannot say it.
    """
    _check_learned(record)
    if record.is_stream:
        return _stream(record)
    videos = [medium for medium in _in_order(record) if medium.type == "video"]
    settings = [video_settings(medium) for medium in videos]
    if any(each != settings[0] for each in settings):
        raise BadSampleError("several films with other times or rates: the form has one set for all")
    turns = [{"from": _SPEAKERS[turn.role], "value": _marked(record, turn, ("user",))} for turn in record.turns]
    return {**_start(record), **_media(record), **(settings[0] if settings else {}), "conversations": turns}


def to_llava(record: Record) -> dict[str, Any]:
    """Return a record as an entry of LLaVA's JSON.

    Raises:
        BadSampleError: The form cannot say it: times, clips, system messages, turns that do not alternate.
    """
    _check_learned(record)
    _refuse_times(record)
    if [turn.role for turn in record.turns] != ["user", "assistant"] * (len(record.turns) // 2):
        raise BadSampleError("turns that are not question, answer, question, answer, …: the form has no others")
    turns = [{"from": _SPEAKERS[turn.role], "value": _marked(record, turn, tuple(_SPEAKERS))} for turn in record.turns]
    return {**_start(record), **_media(record), "conversations": turns}


def to_openai(record: Record) -> dict[str, Any]:
    """Return a record as OpenAI's messages. Paths stand as `url`; what is not learned has `weight` 0.

    Raises:
        BadSampleError: The form cannot say it: times, clips, questions that are learned.
    """
    _refuse_times(record)
    if any(turn.is_learned and turn.role != "assistant" for turn in record.turns):
        raise BadSampleError("a question that is learned: the form learns answers only")
    messages = []
    for turn in record.turns:
        content = [_openai_part(record, part.text, part.media) for part in turn.parts]
        plain = all(part.media is None for part in turn.parts)
        weight = {"weight": 0} if turn.role == "assistant" and not turn.is_learned else {}
        messages.append({"role": turn.role, "content": turn.text if plain else content, **weight})
    return {"messages": messages}


RENDERERS: Mapping[str, Callable[[Record], dict[str, Any]]] = {
    "videollama3": to_videollama3,
    "llava": to_llava,
    "openai": to_openai,
}
"""The forms by name."""


def left_beside(record: Record) -> list[str]:
    """Return the names of what a record has beside its text, which no form of `RENDERERS` writes."""
    defaults = {name: type(record).model_fields[name].default for name in _BESIDE}
    names = [name for name, default in defaults.items() if getattr(record, name) != default]
    return names + [name for name in ("spans", "regions") if any(getattr(turn, name) for turn in record.turns)]


def _start(record: Record) -> dict[str, Any]:
    references = {"references": list(record.references)} if record.references else {}
    return {"id": record.id, **references}


def _in_order(record: Record) -> list[Medium]:
    """Return the media in the order in which turns show them."""
    shown = [record.medium(part.media) for turn in record.turns for part in turn.parts if part.media is not None]
    if hidden := [medium.key for medium in record.media if medium not in shown]:
        raise BadSampleError(f"the medium {hidden[0]} is in no turn")
    return shown


def _media(record: Record) -> dict[str, Any]:
    shown = _in_order(record)
    paths = {kind: [medium.path for medium in shown if medium.type == kind] for kind in ("image", "video")}
    return {kind: listed if len(listed) > 1 else listed[0] for kind, listed in paths.items() if listed}


def _marked(record: Record, turn: Turn, parsed: Sequence[str]) -> str:
    """Return the text of a turn with marks for media. `parsed`: roles in whose text a mark stands for a medium."""
    pieces = []
    for part in turn.parts:
        if part.media is not None:
            if turn.role != "user":
                raise BadSampleError(f"a medium in a turn of {turn.role}: only questions have media")
            pieces.append(f"<{record.medium(part.media).type}>")
        elif part.text is not None:
            if turn.role in parsed and (mark := _MARK.search(part.text)):
                raise BadSampleError(f"{mark[0]} as text: in this form it stands for a medium")
            pieces.append(part.text)
    return "".join(pieces)


def video_settings(medium: Medium) -> dict[str, Any]:
    """Return what VideoLLaMA3's form says about a film: fps, max_frames, start, end, frames_fps, times_from_start."""
    settings: dict[str, Any] = _sampling(medium)
    if not medium.is_cut:
        settings |= {name: time for name in ("start", "end") if (time := getattr(medium, name)) is not None}
        if medium.offset:
            settings["times_from_start"] = True
    return settings


def _sampling(medium: Medium) -> dict[str, Any]:
    sampling = medium.sampling.model_dump(exclude_none=True) if medium.sampling else {}
    frames = {"frames_fps": medium.fps} if medium.is_frame_folder and medium.fps is not None else {}
    return {**sampling, **frames}


def _stream(record: Record) -> dict[str, Any]:
    if len(record.media) != 1 or record.media[0].type != "video":
        raise BadSampleError("a stream of other media than one film")
    (film,) = record.media
    turns = []
    for turn in record.turns:
        if turn.role == "stream" or any(part.media is not None for part in turn.parts):
            raise BadSampleError("a stretch of film as a turn of its own: the form has the film along the turns")
        time = {} if turn.time is None else {"time": round(turn.time + film.offset, _DIGITS)}
        turns.append({"role": turn.role, "content": turn.text, **time})
    limits = {} if film.is_cut else {"start_time": film.start, "end_time": film.end}
    given = {name: time for name, time in limits.items() if time is not None}
    return {**_start(record), "stream": True, "video": film.path, **given, **_sampling(film), "conversation": turns}


def _check_learned(record: Record) -> None:
    if wrong := next((turn for turn in record.turns if turn.is_learned != (turn.role == "assistant")), None):
        is_answer = wrong.role == "assistant"
        what = "an answer that is not learned" if is_answer else f"a turn of {wrong.role} that is learned"
        raise BadSampleError(f"{what}: the form learns answers, and all of them")


def _refuse_times(record: Record) -> None:
    if record.is_stream:
        raise BadSampleError("a stream: the form has no times of turns")
    if any(video_settings(medium) for medium in record.media):
        raise BadSampleError("a clip of a film, or its rate of frames: the form has whole films only")


def _openai_part(record: Record, text: str | None, key: str | None) -> dict[str, Any]:
    if key is None:
        return {"type": "text", "text": text}
    medium = record.medium(key)
    name = f"{medium.type}_url"
    return {"type": name, name: {"url": medium.path}}
