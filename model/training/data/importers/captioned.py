"""Captions of images and of clips of films: the question before them, and how clips are named."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Medium
from model.training.data.importers.format import Draft, Options
from model.training.data.importers.turns import assistant, path_text, user, video

ADDED = "question_added"
"""Transform: the data set has captions only, and the question is ours."""

QUESTION = "question asked for each caption; default: Describe the video. (or image.)"
ENDING = "ending of the films, such as .mp4; default: the one that --media has"
CLIPS = "name of clips that are cut out already, such as {id}_{number}.mp4 or {id}_{start}.mp4; default: whole films"

CLIP_OPTIONS: Mapping[str, str] = {"question": QUESTION, "ending": ENDING, "clips": CLIPS}


def caption_draft(medium: Medium, caption: str, options: Options, **others: Any) -> Draft:
    """Return a draft of one medium and its caption.

    Raises:
        BadSampleError: The caption has no words.
    """
    if not caption.strip():
        raise BadSampleError("empty caption: the row has no words")
    question = options.get("question") or f"Describe the {medium.type}."
    return Draft(
        [user(medium, question), assistant(caption)], [medium], **{"task": "caption", **others}, transforms=(ADDED,)
    )


def score_of(entry: Mapping[str, Any], key: str) -> float:
    """Return a score: a number, or a text with one.

    Raises:
        BadSampleError: It is none.
    """
    value = entry.get(key)
    try:
        score = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise BadSampleError(f"no number in `{key}`: {reprlib.repr(value)}")
    return score


def clip(name: object, start: float, end: float, number: int, options: Options) -> Medium:
    """Return a clip of a film that is named by its id: part of the whole film, or a file of its own (`clips`).

    Args:
        name: The film's id.
        start: Start on the film's clock, in seconds.
        end: End on the film's clock, in seconds.
        number: Number of the clip in its film, from 0.
        options: `ending` and `clips`.

    Raises:
        BadSampleError: The id is no text, or `clips` does not tell the clips of a film apart.
    """
    start, end = round(start, 6), round(end, 6)
    if pattern := options.get("clips"):
        if "{number}" not in pattern and "{start}" not in pattern:
            raise BadSampleError("one name for all clips of a film: give --set clips a {number} or a {start}")
        values = {"{id}": path_text(name), "{number}": str(number), "{start}": f"{start:g}", "{end}": f"{end:g}"}
        for mark, value in values.items():
            pattern = pattern.replace(mark, value)
        return video(pattern, start=start, end=end, is_cut=True)
    return video(path_text(name) + options.get("ending", ""), start=start, end=end)
