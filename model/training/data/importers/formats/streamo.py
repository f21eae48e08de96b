"""Streamo-Instruct: questions and responses with their seconds, or the rendered form, a pair of turns each second."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Span, Turn
from model.training.data.importers.events import span_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import assistant, list_of_turns, said_of, seconds_of, text_of, user, video

_SECOND = re.compile(r"(.*?)\n?<([0-9]+(?:\.[0-9]+)?)s-([0-9]+(?:\.[0-9]+)?)s>\n?<stream>", re.DOTALL)
_STATE = re.compile(r"</(Silence|Standby|Response)>\s*(.*)", re.DOTALL)
NO_SYSTEM = "the system message, which explains the state tokens, is left out"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the stream of an entry. The second t of the original is the interval (t-1, t]: what it says is at t."""
    entry = row.entry
    if "messages" in entry:
        yield _rendered(entry)
        return
    asked = [
        user(text_of(one, "content"), time=seconds_of(one, "time")) for one in list_of_turns(entry.get("question"))
    ]
    answers = [_response(one) for one in list_of_turns(entry.get("response"))]
    turns = sorted([*asked, *answers], key=lambda turn: (turn.time or 0.0, turn.role == "assistant"))
    yield Draft(
        turns,
        [video(entry.get("video_path"))],
        original_id=entry.get("video_name", ""),
        subset=text_of(entry, "source", ""),
        task="stream",
        aspect=text_of(entry, "task_type", ""),
    )


def _response(one: Mapping[str, Any]) -> Turn:
    """Return a reply: at its `time`, or, where that is empty, at the end of the event."""
    given = {name: one[name] for name in ("st_time", "end_time", "time") if one.get(name) not in (None, "")}
    time = seconds_of(given, "time" if "time" in given else "end_time")
    spans: tuple[Span, ...] = ()
    if {"st_time", "end_time"} <= given.keys():
        start, end, _ = span_of([seconds_of(given, "st_time"), seconds_of(given, "end_time")])
        spans = (Span(media="v0", start=start, end=end),)
    return assistant(text_of(one, "content"), time=time, spans=spans)


def _rendered(entry: Mapping[str, Any]) -> Draft:
    videos, said = entry.get("videos"), said_of(entry.get("messages"), "role", "content")
    if not isinstance(videos, list) or len(videos) != 1:
        raise BadSampleError(f"not one film: {videos!r:.80}")
    has_system = bool(said) and said[0][0] == "system"
    said = said[has_system:]
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        raise BadSampleError("turns that are not a second and its state, in turns")
    turns: list[Turn] = []
    standby: float | None = None
    end = 0.0
    for (_, shown), (_, answer) in zip(said[::2], said[1::2], strict=True):
        second, state = _SECOND.fullmatch(shown), _STATE.fullmatch(answer)
        if second is None or state is None:
            raise BadSampleError(f"no second or no state token: {shown[:60]!r}, {answer[:60]!r}")
        start, end = float(second[2]), float(second[3])
        turns += [user(second[1], time=end)] if second[1].strip() else []
        if state[1] == "Standby":
            standby = start if standby is None else standby
            continue
        if state[1] == "Response":
            spans = () if standby is None else (Span(media="v0", start=standby, end=end),)
            turns.append(assistant(state[2], time=end, spans=spans))
        standby = None
    return Draft(
        turns,
        [video(videos[0], end=end)],
        task="stream",
        transforms=("times_from_seconds", "states_left_out", "spans_from_standby"),
        notes=(NO_SYSTEM,) if has_system else (),
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    if {"video_path", "question", "response"} <= entry.keys():
        return True
    return "videos" in entry and "<stream>" in str(entry.get("messages"))


FORMAT = Format(
    name="streamo",
    about="Streamo-Instruct: questions and responses by the second, and its rendered form",
    read=read,
    fits=_fits,
    profiles=(Profile("streamo-instruct", Licence()),),
)
