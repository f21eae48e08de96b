"""One form for all that is learned: captions, questions, boxes, times, videos that are commented as they run.

Annotations have turns of `human` and `gpt`, in whose texts `<image>` and `<video>` say where media stand
(DAMO-NLP-SG/VideoLLaMA3's README); `model.Processor` takes messages of parts. Boxes and times are plain text.
"""

from __future__ import annotations

import math
import re
import reprlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core.errors import BadSampleError
from core.videos import LONGEST
from model.training.samples import Sample

Message = dict[str, Any]
Box = tuple[float, float, float, float]

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_MARK = re.compile("(<image>|<video>)\n?")
_BOX = re.compile(r"\[\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\]")
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*-\s*([0-9]+(?:\.[0-9]+)?)\s*s\b")
GRID = 1000
"""Coordinates of a box are thousandths of the image's width and height."""


def from_turns(
    turns: Sequence[Mapping[str, Any]], images: Sequence[Any] = (), videos: Sequence[Any] = ()
) -> list[Message]:
    """Messages out of turns, media put where their marks are; without any mark, before the first question.

    Args:
        turns: [{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "gpt", "value": "A cat."}, …]
        images: Bytes or paths, in the order of their marks.
        videos: Paths.

    Raises:
        BadSampleError: As many marks as media there are not, an unknown speaker, or no answer after a question.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise BadSampleError("no conversation: `conversations` must be a list of turns")
    media = {"<image>": [("image", image) for image in images], "<video>": [("video", video) for video in videos]}
    marks = [_mark(turn) for turn in turns]
    found = [mark for turn in marks for mark in turn]
    if videos and not images and "<video>" not in found:
        media["<image>"] = media["<video>"]  # LLaVA-Video writes <image> where a video stands
    messages = []
    for number, turn in enumerate(turns):
        role, text = _role(turn, number), turn["value"]
        if role == "user" and not found:
            text, found = "<image>" * len(images) + "<video>" * len(videos) + text, ["put"]
        messages.append({"role": role, "content": _parts(text, media) if role == "user" else text})
    if left := [mark for mark, rest in media.items() if rest]:
        raise BadSampleError(f"more {media[left[0]][0][0]}s than {left[0]} marks: make them equal")
    _check_turns(messages)
    return messages


def _mark(turn: Any) -> list[str]:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise BadSampleError('a turn must be {"from": "human" or "gpt", "value": text}')
    return _MARK.findall(turn["value"]) if _ROLES.get(str(turn.get("from"))) == "user" else []


def _role(turn: Mapping[str, Any], number: int) -> str:
    role = _ROLES.get(str(turn.get("from")))
    if role is None:
        raise BadSampleError(f"turn {number} is from {reprlib.repr(turn.get('from'))}: use human, gpt or system")
    return role


def _parts(text: str, media: Mapping[str, list[tuple[str, Any]]]) -> list[Any]:
    parts: list[Any] = []
    for number, piece in enumerate(_MARK.split(text)):
        if number % 2 == 0:
            if piece:
                parts.append(piece)
            continue
        if not media[piece]:
            raise BadSampleError(f"more {piece} marks than {piece.strip('<>')}s: make them equal")
        kind, what = media[piece].pop(0)
        parts.append({"type": kind, kind: what})
    return parts


def _check_turns(messages: Sequence[Message]) -> None:
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[0] == "system" else roles
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2) or "system" in spoken:
        raise BadSampleError(
            f"turns go {', '.join(roles)}: a question, its answer, and so on, with system first if at all"
        )


def streaming(video: str, turns: Sequence[Mapping[str, Any]], start: float = 0.0, **settings: Any) -> list[Message]:
    """A video that is commented as it runs: before each turn stand the frames up to its time.

    Args:
        video: The file.
        turns: [{"role": "user", "content": text, "time": seconds}, …]; times never fall, and a turn without one comes
            right behind the one before. An assistant may speak several times in a row: each comment answers the
            frames before it.
        start: Seconds of the first frame.
        settings: Of the video, such as fps.

    Raises:
        BadSampleError: Times that fall, unknown speakers, an answer to nothing, or a question without an answer.
    """
    if not isinstance(turns, list | tuple):
        raise BadSampleError("no conversation: `conversation` must be a list of turns")
    messages: list[Message] = []
    now, waiting = _seconds(start, "start_time"), list[Any]()
    for number, turn in enumerate(turns):
        role = _ROLES.get(str(turn.get("role"))) if isinstance(turn, Mapping) else None
        if role is None or not isinstance(turn.get("content"), str) or (role == "system" and number):
            raise BadSampleError(
                f'turn {number} must be {{"role": user or assistant, "content": text, "time": seconds}}; '
                "system comes first if at all"
            )
        time = _seconds(turn.get("time", now), f"time of turn {number}")
        if time < now:
            raise BadSampleError(f"turn {number} at {time:g} s comes before {now:g} s: sort turns by time")
        if time > now:
            waiting.append({"type": "video", "video": video, "start": now, "end": time, **settings})
            now = time
        if role == "system":
            messages.append({"role": role, "content": turn["content"]})
        elif role == "user":
            waiting.append(turn["content"])
        elif not waiting:
            raise BadSampleError(f"turn {number}: an answer at {time:g} s to nothing new: leave it out or join it")
        else:
            messages += [{"role": "user", "content": waiting}, {"role": "assistant", "content": turn["content"]}]
            waiting = []
    if waiting or len(messages) < 2:
        raise BadSampleError("the last to speak must be an assistant: what comes after cannot be learned")
    return messages


def _seconds(value: Any, what: str) -> float:
    # An integer of 400 digits cannot become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise BadSampleError(f"{what}: {reprlib.repr(value)}: give seconds, 0 or more")
    return float(value)


def box_text(boxes: Sequence[Box], width: int, height: int) -> str:
    """Boxes as VideoLLaMA 3 writes them: `[[x0,y0,x1,y1],…]`, thousandths of the image.

    A single one stands in a question as `[x0,y0,x1,y1]`.

    Args:
        boxes: (x0, y0, x1, y1), pixels.
        width: Of the image.
        height: Of it.

    Raises:
        BadSampleError: A box outside of its image, or turned inside out.
    """
    return "[" + ",".join(f"[{','.join(map(str, _thousandths(box, width, height)))}]" for box in boxes) + "]"


def _thousandths(box: Box, width: int, height: int) -> tuple[int, ...]:
    x0, y0, x1, y1 = box
    if not (width > 0 and height > 0 and 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
        raise BadSampleError(f"box {box} in an image of {width}x{height}: give x0 <= x1, y0 <= y1 within it")
    return tuple(round(v * GRID / side) for v, side in ((x0, width), (y0, height), (x1, width), (y1, height)))


def boxes_of(text: str, width: int, height: int) -> list[Box]:
    """All boxes in a text, in pixels; within half a thousandth of what `box_text` was given.

    Four numbers that are no box of an image (beyond 1000, inside out) are passed over.
    """
    found = [[int(number) for number in match] for match in _BOX.findall(text)]
    return [
        (x0 * width / GRID, y0 * height / GRID, x1 * width / GRID, y1 * height / GRID)
        for x0, y0, x1, y1 in found
        if x0 <= x1 <= GRID and y0 <= y1 <= GRID
    ]


def grounding_text(things: Sequence[tuple[str, Sequence[Box]]], width: int, height: int) -> str:
    """What is where, as in the reference's notebook on images: `<ref>cat</ref>[[12,30,405,998]]`, a line each."""
    return "\n".join(f"<ref>{thing}</ref>{box_text(boxes, width, height)}" for thing, boxes in things)


def ocr_text(words: Sequence[tuple[str, Box]], width: int, height: int) -> str:
    """Text with where it stands, a line each, as in stage 2 (arXiv 2501.13106, 4): `STOP <box>[12,30,405,98]</box>`."""
    return "\n".join(f"{word} <box>{box_text([box], width, height)[1:-1]}</box>" for word, box in words)


def span_text(spans: Sequence[tuple[float, float]]) -> str:
    """Seconds of a video, as in temporal grounding (arXiv 2501.13106, table 4): `1.0-2.0 s, 7.5-9.0 s`.

    Raises:
        BadSampleError: A span that ends before it begins, or begins before the video.
    """
    for start, end in spans:
        if not 0 <= start <= end < math.inf:
            raise BadSampleError(f"span {start}-{end} s: give 0 <= start <= end")
    return ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in spans)


def spans_of(text: str) -> list[tuple[float, float]]:
    """All spans in a text, seconds; within 0.05 s of what `span_text` was given."""
    found = [(float(start), float(end)) for start, end in _SPAN.findall(text)]
    return [span for span in found if span[0] <= span[1]]


def split(sample: Sample, fits: Callable[[Sample], bool]) -> list[Sample]:
    """Divide a conversation that is too long between its turns; never within one, nor within an image.

    A piece has the system's message, the media of all turns before it, and as many turns as fit.

    Args:
        sample: Questions and answers in turn.
        fits: Asked about few candidates only, since each may mean that a video is decoded: what fits with more turns is
            taken to fit with fewer. What is returned was asked about.

    Raises:
        BadSampleError: One turn with its media is too long.
    """
    head = [message for message in sample.conversation[:1] if message["role"] == "system"]
    turns = list(sample.conversation[len(head) :])
    pairs = [turns[number : number + 2] for number in range(0, len(turns), 2)]
    pieces: list[list[Mapping[str, Any]]] = []
    first = 0
    while first < len(pairs):
        seen = [part for pair in pairs[:first] for part in _media(pair[0])]
        build = partial(_piece, head, pairs, seen, first)
        ends = range(first + 1, len(pairs) + 1)
        most = bisect_left(ends, True, key=lambda end: not fits(replace(sample, conversation=build(end))))
        if not most:
            raise BadSampleError(f"{sample.name}: turn {first + 1} of {len(pairs)} is too long for a row")
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
    pairs: Sequence[Sequence[Mapping[str, Any]]],
    seen: Sequence[Any],
    first: int,
    end: int,
) -> list[Mapping[str, Any]]:
    """Some of the turns, with what was seen before them."""
    messages = [message for pair in pairs[first:end] for message in pair]
    if seen:
        content = messages[0]["content"]
        parts = [content] if isinstance(content, str) else list(content)
        messages[0] = {**messages[0], "content": [*seen, *parts]}
    return [*head, *messages]
