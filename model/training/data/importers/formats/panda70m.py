"""Panda-70M's CSV: a line for each film, with parallel lists of clips, captions and scores as Python writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.captioned import CLIP_OPTIONS, caption_draft, clip, score_of
from model.training.data.importers.clocks import clock_seconds
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.literals import literal_list
from model.training.data.importers.turns import text_of

_LISTS = ("timestamp", "caption", "matching_score", "desirable_filtering")


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record for each clip of a film."""
    entry = row.entry
    lists = {key: literal_list(entry[key], key) for key in _LISTS if key in entry}
    count = len(lists.get("timestamp", ()))
    if uneven := [key for key, values in lists.items() if len(values) != count]:
        raise BadSampleError(f"lists of different lengths: {len(lists[uneven[0]])} in `{uneven[0]}`, {count} clips")
    least = score_of(options, "min_score") if "min_score" in options else None

    def draft(number: int) -> Draft:
        piece = {key: values[number] for key, values in lists.items()}
        start, end = span_of(piece["timestamp"])
        _check(piece, least, options.get("desirable") == "only")
        film = clip(entry.get("videoID"), start, end, number, options)
        name, url = text_of(entry, "videoID"), text_of(entry, "url", "")
        return caption_draft(film, text_of(piece, "caption"), options, original_id=name, url=url)

    yield from drafts_of(range(count), draft)


def span_of(pair: object) -> tuple[float, float]:
    """Return start and end of a clip, in seconds of its film, from two clock times.

    Raises:
        BadSampleError: It is something else.
    """
    if not isinstance(pair, list) or len(pair) != 2:
        raise BadSampleError("no clip: give the clock times of its start and end")
    return clock_seconds(pair[0]), clock_seconds(pair[1])


def _check(piece: Mapping[str, Any], least: float | None, is_desirable: bool) -> None:
    if least is not None and score_of(piece, "matching_score") < least:
        raise BadSampleError(f"below min_score: {piece['matching_score']}")
    if is_desirable and text_of(piece, "desirable_filtering") != "desirable":
        raise BadSampleError(f"not desirable: {piece['desirable_filtering']}")


FORMAT = Format(
    name="panda70m",
    about="Panda-70M's CSV: many clips of a film on one line",
    read=read,
    fits=lambda entry: {"videoID", "timestamp", "caption", "matching_score"} <= entry.keys(),
    profiles=(Profile("panda-70m", Licence(name="Panda-70M's own", non_commercial=True)),),
    options={
        **CLIP_OPTIONS,
        "min_score": "reject clips whose matching_score is lower",
        "desirable": "`only`: reject clips that desirable_filtering does not call desirable",
    },
)
