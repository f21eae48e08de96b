"""Convert annotations to the messages that `model.Processor` reads: captions, questions, boxes, times, streaming video.

Annotations have turns of `human` and `gpt`. The placeholders `<image>` and `<video>` in their texts mark the media
(DAMO-NLP-SG/VideoLLaMA3's README). Messages have a list of parts instead. Boxes and times are plain text.
"""

from __future__ import annotations

import re
import reprlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core.control_tokens import MEDIA_TOKENS
from core.errors import BadSampleError
from core.frame_sampling import LONGEST
from model.training.data.samples import Sample

Message = dict[str, Any]

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Names of speakers in annotations, and their roles in messages."""
_MARK = re.compile("(<image>|<video>)")
# Other trainers' marks: <image1>, <image 1>, <IMAGE>, <|image_1|>, <ImageHere>, <|vision_start|>, [IMG].
_FOREIGN_MARK = re.compile(
    r"<\|?/?(?:image|img|video|vision|frame|media|picture)[\w -]{0,30}/?\|?>"
    r"|\[(?:image|img|video)(?:[ _-]?\w{1,12})?\]|" + "|".join(map(re.escape, MEDIA_TOKENS)),
    re.IGNORECASE,
)


def from_turns(
    turns: Sequence[Mapping[str, Any]], images: Sequence[Any] = (), videos: Sequence[Any] = ()
) -> list[Message]:
    """Convert turns to messages. Each placeholder is replaced by its image or video.

    A question's text before, between and after placeholders is stripped of white space, as in VideoLLaMA3's train.py:
    the template puts a line break after each image and video. Other text stays as it is. If no turn has a placeholder,
    all media go before the first question.

    Answers before the first question or system message are left out, as there; so are questions after the last answer,
    from which nothing is learned. Several questions or answers in a row are kept as they are.

    Args:
        turns: [{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A cat."}, …]
        images: Bytes or paths, in the order of their placeholders.
        videos: Paths, in the order of their placeholders.

    Raises:
        BadSampleError: The number of placeholders differs from the number of media, a speaker is unknown, no
            answer is left, an answer has no words, or media stand at another trainer's marks.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise BadSampleError("no conversation: `conversations` must be a list of turns")
    media = {"<image>": [("image", image) for image in images], "<video>": [("video", video) for video in videos]}
    marks = [_mark(turn) for turn in turns]
    marks_of_all = [mark for turn in marks for mark in turn]
    if videos and not images and "<video>" not in marks_of_all:
        media["<image>"] = media["<video>"]  # LLaVA-Video uses <image> for a video too
    if (images or videos) and not marks_of_all:
        _refuse_foreign_marks(turns)
    roles = [_role(turn, number) for number, turn in enumerate(turns)]
    first, end = learnable_range(roles)
    messages = []
    for role, turn in zip(roles[first:], turns[first:], strict=True):
        text = turn["value"]
        if role == "user" and not marks_of_all:
            text, marks_of_all = "<image>" * len(images) + "<video>" * len(videos) + text, ["put"]
        messages.append({"role": role, "content": _parts(text, media) if role == "user" else text})
    if left := [mark for mark, rest in media.items() if rest]:
        raise BadSampleError(f"more {media[left[0]][0][0]}s than {left[0]} marks: make them equal")
    messages = messages[: end - first]  # only now: the media of a last question have been counted
    check_answers(messages, first)
    return messages


def _mark(turn: Any) -> list[str]:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise BadSampleError('a turn must be {"from": "human" or "gpt", "value": text}')
    return _MARK.findall(turn["value"]) if ROLES.get(str(turn.get("from"))) == "user" else []


def _refuse_foreign_marks(turns: Sequence[Mapping[str, Any]]) -> None:
    for turn in turns:
        if ROLES.get(str(turn["from"])) == "user" and (mark := _FOREIGN_MARK.search(turn["value"])):
            raise BadSampleError(f"the mark {mark[0]} is not read: write <image> or <video> in its place")


def _role(turn: Mapping[str, Any], number: int) -> str:
    role = ROLES.get(str(turn.get("from")))
    if role is None:
        raise BadSampleError(f"turn {number} is from {reprlib.repr(turn.get('from'))}: use human, gpt or system")
    return role


def _parts(text: str, media: Mapping[str, list[tuple[str, Any]]]) -> list[Any]:
    parts: list[Any] = []
    for number, piece in enumerate(_MARK.split(text)):
        if number % 2 == 0:
            if text_between := piece.strip():
                parts.append(text_between)
            continue
        if not media[piece]:
            raise BadSampleError(f"more {piece} marks than {piece.strip('<>')}s: make them equal")
        kind, what = media[piece].pop(0)
        parts.append({"type": kind, kind: what})
    return parts


def learnable_range(roles: Sequence[str]) -> tuple[int, int]:
    """Return the first turn that is not an answer, and the end of the last answer."""
    first = next((number for number, role in enumerate(roles) if role != "assistant"), len(roles))
    end = max((number for number, role in enumerate(roles, 1) if role == "assistant"), default=0)
    if first >= end or "system" in roles[first + 1 :]:
        raise BadSampleError(
            f"turns go {', '.join(roles)}: a question, its answer, and so on, with system first if at all"
        )
    return first, end


def check_answers(messages: Sequence[Message], first: int = 0) -> None:
    """Refuse an answer without words: it would teach to say nothing. `first`: number of the first message."""
    for number, message in enumerate(messages, first):
        if message["role"] == "assistant" and not message["content"].strip():
            raise BadSampleError(f"message {number}: an answer without words: nothing to learn in it")


def streaming(
    video: str, turns: Sequence[Mapping[str, Any]], start: Any = 0.0, end: Any = None, **settings: Any
) -> list[Message]:
    """Return the messages of a streaming conversation: the frames up to each turn's time come before that turn.

    A frame at a turn's very time comes before it, as in VideoLLaMA3's train.py. The parts of the video form one stream
    for `Processor`. What follows the last answer is left out: nothing is learned from it.

    Args:
        video: Path of the video.
        turns: [{"role": "user", "content": text, "time": seconds}, …]. Times never decrease. A turn without a time
            follows directly after the previous turn. An assistant may speak several times in a row.
        start: Time of the first frame, in seconds.
        end: Time of the last frame; default: that of the last turn.
        settings: Settings of the video part, such as fps.

    Raises:
        BadSampleError: A time decreases, a speaker is unknown, or there is no answer.
    """
    if not isinstance(turns, list | tuple):
        raise BadSampleError("no conversation: `conversation` must be a list of turns")
    messages: list[Message] = []
    begin = now = _seconds(start, "start_time")
    parts, waiting = list[Any](), list[Any]()
    for number, turn in enumerate(turns):
        role = ROLES.get(str(turn.get("role"))) if isinstance(turn, Mapping) else None
        if role is None or not isinstance(turn.get("content"), str) or (role == "system" and number):
            raise BadSampleError(
                f'turn {number} must be {{"role": user or assistant, "content": text, "time": seconds}}; '
                "system comes first if at all"
            )
        time = _seconds(turn.get("time", now), f"time of turn {number}")
        if time < now:
            raise BadSampleError(f"turn {number} at {time:g} s comes before {now:g} s: sort turns by time")
        if waiting and waiting[-1] is parts[-1]:
            waiting[-1]["until"] = time
        elif time > now or not parts:
            parts.append({"type": "video", "video": video, "start": begin, "until": time, **settings})
            waiting.append(parts[-1])
        now = time
        if role == "user":
            waiting.append(turn["content"])
            continue
        if role == "assistant" and waiting:
            messages.append({"role": "user", "content": waiting})
            waiting = []
        messages.append({"role": role, "content": turn["content"]})
    if not any(message["role"] == "assistant" for message in messages):
        raise BadSampleError("a stream without an answer: nothing to learn in it")
    check_answers(messages)
    last = now if end is None else _seconds(end, "end_time")
    if last < begin:
        raise BadSampleError(f"end_time {last:g} s comes before start_time {begin:g} s: swap them")
    for part in parts:
        part["end"] = last
    return messages


def _seconds(value: Any, what: str) -> float:
    # Compare before float(): an integer of 400 digits cannot become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise BadSampleError(f"{what}: {reprlib.repr(value)}: give seconds, 0 or more")
    return float(value)


def split(sample: Sample, fits: Callable[[Sample], bool]) -> list[Sample]:
    """Split a conversation that is too long into pieces, between turns only.

    Each piece has the system message, the media of all earlier turns, and as many turns as fit.

    Args:
        sample: Questions and answers. All questions and answers in a row are one turn.
        fits: Whether a piece fits into a row. A call may decode a video, so a binary search calls it for few
            candidates: it assumes that a piece with fewer turns fits if one with more turns does. Every returned piece
            has been checked.

    Raises:
        BadSampleError: A single turn with its media is too long.
    """
    head = [message for message in sample.conversation[:1] if message["role"] == "system"]
    turns = list(sample.conversation[len(head) :])
    starts = [
        number
        for number, message in enumerate(turns)
        if not number or (message["role"] == "user" and turns[number - 1]["role"] != "user")
    ]
    exchanges = [turns[start:end] for start, end in zip(starts, [*starts[1:], len(turns)], strict=True)]
    pieces: list[list[Mapping[str, Any]]] = []
    first = 0
    while first < len(exchanges):
        seen = [part for exchange in exchanges[:first] for message in exchange for part in _media(message)]
        build = partial(_piece, head, exchanges, seen, first)
        ends = range(first + 1, len(exchanges) + 1)
        most = bisect_left(ends, True, key=lambda end: not fits(replace(sample, conversation=build(end))))
        if not most:
            raise BadSampleError(f"{sample.name}: turn {first + 1} of {len(exchanges)} is too long for a row")
        pieces.append(build(first + most))
        first += most
    count = len(pieces)
    return [Sample(f"{sample.name} part {number + 1}/{count}", piece) for number, piece in enumerate(pieces)]


def _media(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    return (
        []
        if isinstance(content, str)
        else [part for part in content if isinstance(part, Mapping) and part.get("type") != "text"]
    )


def _piece(
    head: Sequence[Mapping[str, Any]],
    exchanges: Sequence[Sequence[Mapping[str, Any]]],
    seen: Sequence[Any],
    first: int,
    end: int,
) -> list[Mapping[str, Any]]:
    """Return the messages of turns `first` to `end`, with the media of earlier turns put before the first question."""
    messages = [message for exchange in exchanges[first:end] for message in exchange]
    if seen:
        content = messages[0]["content"]
        parts = [content] if isinstance(content, str) else list(content)
        messages[0] = {**messages[0], "content": [*seen, *parts]}
    return [*head, *messages]
