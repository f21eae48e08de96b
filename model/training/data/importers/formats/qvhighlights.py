"""QVHighlights: a query, and its windows in a cut of a film. The cut's name has its place in the film."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import event_of, grounding_draft
from model.training.data.importers.film_names import PATH, path_of, split_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import seconds_of, text_of, video

_CUT = re.compile(r"(.+)_([0-9]+(?:\.[0-9]+)?)_([0-9]+(?:\.[0-9]+)?)")
CLIP = 2.0
NO_SALIENCY = "scores of saliency are not imported"
OTHER_CLIPS = "relevant_clip_ids differ from the windows; the windows are used"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the question of a query; its answer has all windows."""
    entry = row.entry
    windows, length, cut = entry.get("relevant_windows"), seconds_of(entry, "duration"), text_of(entry, "vid")
    if not isinstance(windows, list) or not windows:
        raise BadSampleError("no windows: the test split has none, its answers are not published")
    events = sorted((event_of(window, entry.get("query"), length) for window in windows), key=lambda event: event.start)
    name = _CUT.fullmatch(cut)
    place: dict[str, Any] = {"start": float(name[2]), "end": float(name[3]), "is_cut": True} if name else {}
    clips = [clip for event in events for clip in range(int(event.start / CLIP), round(event.end / CLIP))]
    yield grounding_draft(
        video(path_of(options, "{vid}.mp4", vid=cut, id=name[1] if name else cut), duration=length, **place),
        events[0].text,
        [(event.start, event.end) for event in events],
        original_id=entry.get("qid", ""),
        split=split_of(row.file),
        transforms=tuple(dict.fromkeys(name for event in events for name in event.transforms)),
        notes=[
            *([NO_SALIENCY] if "saliency_scores" in entry else []),
            *([OTHER_CLIPS] if _ids(entry.get("relevant_clip_ids"), clips) != clips else []),
        ],
    )


def _ids(given: Any, default: list[int]) -> list[int]:
    if given is None:
        return default
    if not isinstance(given, list) or not all(type(number) is int for number in given):
        raise BadSampleError(f"no list of numbers in `relevant_clip_ids`: {reprlib.repr(given)}")
    return sorted(given)


FORMAT = Format(
    name="qvhighlights",
    about="QVHighlights: windows of a query, often several",
    read=read,
    fits=lambda entry: {"qid", "query", "vid", "duration"} <= entry.keys(),
    profiles=(Profile("qvhighlights", Licence(name="unknown; the code's is MIT")),),
    options=PATH,
)
