"""Koala-36M's CSV: a line for each clip."""

from __future__ import annotations

from collections.abc import Iterator

from core.records import Licence
from model.training.data.importers.captioned import CLIP_OPTIONS, caption_draft, clip
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.formats.panda70m import span_of
from model.training.data.importers.literals import literal_list
from model.training.data.importers.turns import text_of


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line."""
    entry = row.entry
    start, end = span_of(literal_list(entry.get("timestamp"), "timestamp"))
    name, url = text_of(entry, "videoID"), text_of(entry, "url", "")
    film = clip(name, start, end, row.line, options)
    yield caption_draft(film, text_of(entry, "caption"), options, original_id=name, url=url)


FORMAT = Format(
    name="koala36m",
    about="Koala-36M's CSV: a clip a line",
    read=read,
    fits=lambda entry: {"videoID", "timestamp", "caption"} <= entry.keys() and "matching_score" not in entry,
    profiles=(Profile("koala-36m", Licence(name="Koala-36M's own", non_commercial=True)),),
    options=CLIP_OPTIONS,
)
