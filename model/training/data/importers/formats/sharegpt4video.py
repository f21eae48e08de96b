"""ShareGPT4Video: a caption of a whole film, and captions of what changes between its key frames."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.captioned import QUESTION, caption_draft
from model.training.data.importers.dense_captions import WRITTEN, dense_turns
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import list_of_turns, seconds_of, text_of, video

NO_SPANS = "captions of key frames left out, as they are neither as many as the times, nor one fewer"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the caption of the whole film, and its dense captions if each has a time."""
    entry = row.entry
    texts = {text_of(caption, "idx"): text_of(caption, "content") for caption in list_of_turns(entry.get("captions"))}
    times = [seconds_of({"timestamp": time}, "timestamp") for time in _listed(entry.get("timestamp"))]
    whole = texts.pop("-1", None)
    if wrong := [key for key in texts if not key.isdecimal()]:
        raise BadSampleError(f"no number of a key frame in `idx`: {reprlib.repr(wrong[0])}")
    events = [texts[key] for key in sorted(texts, key=int)]
    edges = _edges(times, len(events))
    original, subset = entry.get("video_id", ""), text_of(entry, "zip_folder", "")
    film = video(text_of(entry, "video_path"))
    notes = [NO_SPANS] if events and edges is None else []
    if whole is None:
        yield BadSampleError("no caption of the whole film: idx -1")
    else:
        yield caption_draft(film, whole, options, original_id=original, subset=subset, notes=notes)
    if edges and events:
        turns = dense_turns(film, [(*edge, text) for edge, text in zip(edges, events, strict=True)])
        yield Draft(turns, [film], original_id=original, subset=subset, task="dense_caption", transforms=(WRITTEN,))


def _listed(times: object) -> list[object]:
    if times is not None and not isinstance(times, list):
        raise BadSampleError(f"no list in `timestamp`: {reprlib.repr(times)}")
    return times or []


def _edges(times: Sequence[float], count: int) -> list[tuple[float, float]] | None:
    """Return the span of each caption: from a key frame to the next; a moment each if there are as many as times."""
    if len(times) == count + 1:
        return list(pairwise(times))
    return [(time, time) for time in times] if len(times) == count else None


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"video_path", "captions", "keyframe"} <= entry.keys()


FORMAT = Format(
    name="sharegpt4video",
    about="ShareGPT4Video's captions of films and of their key frames (its mix of conversations is llava)",
    read=read,
    fits=_fits,
    profiles=(Profile("sharegpt4video", Licence(name="CC-BY-NC-4.0", non_commercial=True, generator="gpt-4v")),),
    options={"question": QUESTION},
)
