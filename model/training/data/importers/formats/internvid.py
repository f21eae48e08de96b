"""InternVid's JSON lines: a clip of a YouTube film with clock times, its caption and scores."""

from __future__ import annotations

from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.captioned import CLIP_OPTIONS, caption_draft, clip, score_of
from model.training.data.importers.clocks import clock_seconds
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import text_of

_SCORES = {"min_aesthetic": "Aesthetic_Score", "min_umt": "UMT_Score"}


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line."""
    entry = row.entry
    start, end = (clock_seconds(entry.get(f"{edge}_timestamp")) for edge in ("Start", "End"))
    for option, key in _SCORES.items():
        if option in options and score_of(entry, key) < score_of(options, option):
            raise BadSampleError(f"below {option}: {entry[key]}")
    name = text_of(entry, "YoutubeID")
    film = clip(name, start, end, row.line, options)
    yield caption_draft(film, text_of(entry, "Caption"), options, original_id=name)


FORMAT = Format(
    name="internvid",
    about="InternVid: a clip of a YouTube film and its caption",
    read=read,
    fits=lambda entry: {"YoutubeID", "Start_timestamp", "End_timestamp", "Caption"} <= entry.keys(),
    profiles=(Profile("internvid", Licence(name="CC-BY-NC-SA-4.0", non_commercial=True)),),
    options={**CLIP_OPTIONS, **{option: f"reject clips whose {key} is lower" for option, key in _SCORES.items()}},
)
