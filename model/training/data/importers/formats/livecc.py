"""LiveCC: a clip, and the words of its speech with their times. A line is a list of two messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Span
from model.training.data.importers.events import is_time
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import assistant, list_of_turns, seconds_of, text_of, user, video

Word = tuple[float, float, str]
NO_PLACE = "title and category are not imported"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the stream of a line: the words that end within a second are an answer at its end."""
    messages = list_of_turns(row.value)
    if [message.get("role") for message in messages] != ["user", "assistant"]:
        raise BadSampleError("not one question and one answer: another kind of line than a stream of words")
    film_part, question = _parts(messages[0], "video"), _parts(messages[0], "text")
    start, end = seconds_of(film_part, "video_start"), seconds_of(film_part, "video_end")
    words = [_word(word, start) for word in _stream(_parts(messages[1], "text_stream"))]
    film = video(film_part["video"], start=start, end=end)
    text = "\n".join(text for text in (text_of(question, "text", ""), text_of(question, "previous", "")) if text)
    answers = []
    for second, group in groupby(words, key=lambda word: max(1, math.ceil(word[1]))):
        said = list(group)
        spans = tuple(Span(media="v0", start=begin, end=finish) for begin, finish, _ in said)
        time = min(float(second), film.length or float(second))
        answers.append(assistant(" ".join(word for _, _, word in said), time=time, spans=spans))
    yield Draft(
        [user(text, time=0.0), *answers],
        [film],
        original_id=film.path,
        task="stream",
        transforms=(
            "times_from_start",
            "words_by_second",
            *(("previous_in_question",) if question.get("previous") else ()),
        ),
        notes=(NO_PLACE,) if question.get("title") or question.get("category") else (),
    )


def _parts(message: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    parts = [part for part in list_of_turns(message.get("content")) if part.get("type") == kind]
    if len(parts) != 1:
        raise BadSampleError(f"not one part of type {kind}: {len(parts)}")
    return parts[0]


def _stream(part: Mapping[str, Any]) -> list[Any]:
    if not isinstance(words := part.get("text_stream"), list) or not words:
        raise BadSampleError(f"no words in `text_stream`: {words!r:.80}")
    return words


def _word(word: object, clip: float) -> Word:
    if not isinstance(word, list) or len(word) != 3 or not isinstance(word[2], str) or not all(map(is_time, word[:2])):
        raise BadSampleError(f"no word with start and end: {word!r:.80}")
    start, end = round(word[0] - clip, 6), round(word[1] - clip, 6)
    if not 0 <= start <= end:
        raise BadSampleError(f"a word before the clip, or reversed: {word!r:.80}, it starts at {clip:g} s")
    return start, end, word[2].strip()


FORMAT = Format(
    name="livecc",
    about="LiveCC: Live-CC-5M, Live-WhisperX-526K",
    read=read,
    fits=lambda entry: False,  # its rows are lists
    profiles=(
        Profile("live-cc-5m", Licence()),
        Profile("live-whisperx-526k", Licence()),
    ),
)
