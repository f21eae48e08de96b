"""Build the turns of a draft: short constructors, and texts with placeholders into parts."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import BadSampleError
from core.records import Medium, Part, Role, Turn
from model.training.data.conversations import ROLES

NO_MARK = "no placeholder, so the media were put before the first question"
FILM_MARK = "<image> meant the film"

_MARK = re.compile("(<image>|<video>)")


def user(*parts: str | Medium, **others: Any) -> Turn:
    """Return a question of texts and media. `others`: further fields of the turn, such as time or spans."""
    return Turn(role="user", parts=tuple(map(_part, parts)), **others)


def assistant(text: str, **others: Any) -> Turn:
    """Return an answer."""
    return Turn(role="assistant", parts=(Part(text=text),), **others)


def system(text: str) -> Turn:
    """Return a system message."""
    return Turn(role="system", parts=(Part(text=text),))


def image(path: object, number: int = 0, **others: Any) -> Medium:
    """Return an image with the key `i<number>`."""
    return Medium(key=f"i{number}", type="image", path=path_text(path), **others)


def video(path: object, number: int = 0, **others: Any) -> Medium:
    """Return a film with the key `v<number>`."""
    return Medium(key=f"v{number}", type="video", path=path_text(path), **others)


def text_of(entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a text of an entry.

    Raises:
        BadSampleError: It is missing, without a default, or something else than a text.
    """
    value = entry.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise BadSampleError(f"no text in `{key}`: {reprlib.repr(value)}")
    return value


def json_in(entry: Mapping[str, Any], key: str) -> Any:
    """Return a value of an entry that may stand there as the text of a JSON.

    Raises:
        BadSampleError: The text is no JSON.
    """
    value = entry.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"no JSON in `{key}`: {' '.join(str(error).split())[:200]}") from error


def texts_of(entry: Mapping[str, Any], key: str) -> list[str]:
    """Return the texts of an entry: a list of them, or one; none if the key is missing.

    Raises:
        BadSampleError: It is something else.
    """
    value = entry.get(key)
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in listed):
        raise BadSampleError(f"no texts in `{key}`: {reprlib.repr(value)}")
    return listed


def seconds_of(entry: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Return a time of an entry: a number or a text with one, such as "7".

    Raises:
        BadSampleError: It is missing, without a default, or no time.
    """
    value = entry.get(key)
    if value is None and default is not None:
        return default
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise BadSampleError(f"no time in `{key}`: {reprlib.repr(value)}")
    return seconds


def path_text(path: object) -> str:
    """Return a path as it is written.

    Raises:
        BadSampleError: It is no text, or empty.
    """
    if not isinstance(path, str) or not path:
        raise BadSampleError(f"a medium without a path: {reprlib.repr(path)}")
    return path


def role_of(speaker: object) -> Role:
    """Return the role of a speaker: human, user, gpt, assistant, system.

    Raises:
        BadSampleError: It is another.
    """
    role: Any = ROLES.get(str(speaker))
    if role is None:
        raise BadSampleError(f"unknown speaker: {reprlib.repr(speaker)}")
    return role  # type: ignore[no-any-return]


def plain(role: Role, text: str, **others: Any) -> Turn:
    """Return a turn of text alone."""
    return Turn(role=role, parts=(Part(text=text),), **others)


def list_of_turns(turns: object) -> list[Mapping[str, Any]]:
    """Return a list of objects.

    Raises:
        BadSampleError: It is something else.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise BadSampleError(f"no conversation: {reprlib.repr(turns)}")
    return turns


def content_text(content: object) -> str:
    """Return the text of a message: a text, or a list of `{"type": "text", "text": …}`.

    Raises:
        BadSampleError: It is something else.
    """
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(content_text(part.get("text")) for part in content)
    if not isinstance(content, str):
        raise BadSampleError(f"no text: {reprlib.repr(content)}")
    return content


def said_of(turns: object, speaker: str = "from", text: str = "value") -> list[tuple[Role, str]]:
    """Return who says what in a list of turns, `{"from": "human", "value": "…"}`.

    Raises:
        BadSampleError: It is no list of turns, or a speaker is unknown.
    """
    return [(role_of(turn.get(speaker)), text_of(turn, text)) for turn in list_of_turns(turns)]


def stream_time(turn: Mapping[str, Any], start: float = 0.0) -> float:
    """Return the time of a turn, its key `time`, from the stream's start on.

    Raises:
        BadSampleError: There is none, or it is before the start.
    """
    time = round(seconds_of(turn, "time") - start, 6)
    if time < 0:
        raise BadSampleError(f"a time before the stream: {turn['time']} s, it starts at {start:g} s")
    return time


def timed_turns(turns: object, start: float = 0.0) -> list[Turn]:
    """Return the turns of a stream: `{"role": "user", "content": "…", "time": seconds}`, the time not in each.

    `start`: what the times count from is subtracted.

    Raises:
        BadSampleError: No turn has a time, one is before `start`, or a turn is none.
    """
    timed = []
    for turn, (role, text) in zip(list_of_turns(turns), said_of(turns, "role", "content"), strict=True):
        timed.append(plain(role, text, time=None if turn.get("time") is None else stream_time(turn, start)))
    if all(turn.time is None for turn in timed):
        raise BadSampleError("a stream without times: each turn needs one")
    return timed


def dialog_turns(dialog: Sequence[tuple[Role, str]], media: Sequence[Medium] = ()) -> tuple[list[Turn], list[str]]:
    """Return the turns of a dialog whose questions have `<image>` and `<video>` where media stand; and notes.

    A placeholder takes the next medium of its kind. If there are films only, `<image>` means a film, as in
    LLaVA-Video-178K. If no question has a placeholder, all media come before the first question.

    Raises:
        BadSampleError: The number of placeholders differs from the number of media.
    """
    waiting: dict[str, list[Medium]] = {"<image>": [], "<video>": []}
    for medium in media:
        waiting[f"<{medium.type}>"].append(medium)
    marks = {mark for role, text in dialog if role == "user" for mark in _MARK.findall(text)}
    notes = []
    if marks == {"<image>"} and not waiting["<image>"]:
        waiting["<image>"], notes = waiting["<video>"], [FILM_MARK]
    turns, put = [], bool(media) and not marks
    for role, text in dialog:
        parts = _parts(text, waiting) if role == "user" and marks else [Part(text=text)]
        if role == "user" and put:
            put, notes = False, [NO_MARK]
            parts = [*(Part(media=medium.key) for medium in media), *parts]
        turns.append(Turn(role=role, parts=tuple(parts)))
    if marks and (left := [medium for rest in waiting.values() for medium in rest]):
        raise BadSampleError(f"placeholders do not match: none is left for {left[0].path}")
    return turns, notes


def _parts(text: str, waiting: Mapping[str, list[Medium]]) -> list[Part]:
    parts = []
    for number, piece in enumerate(_MARK.split(text)):
        if number % 2 == 0:
            parts += [Part(text=piece)] if piece else []
        elif not waiting[piece]:
            raise BadSampleError(f"placeholders do not match: more {piece} than {piece.strip('<>')}s")
        else:
            parts.append(Part(media=waiting[piece].pop(0).key))
    return parts


def _part(part: str | Medium) -> Part:
    return Part(text=part) if isinstance(part, str) else Part(media=part.key)


def media_of_paths(images: Sequence[object] = (), videos: Sequence[object] = (), **others: Any) -> list[Medium]:
    """Return the media of paths: `i0`, `i1`, …, then `v0`, …. `others`: further fields of the films."""
    return [
        *(image(path, number) for number, path in enumerate(images)),
        *(video(path, number, **others) for number, path in enumerate(videos)),
    ]
