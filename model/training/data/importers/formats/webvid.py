"""WebVid's CSV, as Video-LLaMA's pre-training reads it: a caption for each film of stock footage."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.records import Licence
from model.training.data.importers.captioned import QUESTION, caption_draft
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import path_text, text_of, video

_DURATION = re.compile(r"PT(\d\d)H(\d\d)M(\d\d)S")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line. The film is `<page_dir>/<videoid>.mp4`."""
    entry = row.entry
    number = path_text(entry.get("videoid"))
    length = _DURATION.fullmatch(text_of(entry, "duration", ""))
    hours, minutes, seconds = map(float, length.groups()) if length else (0.0, 0.0, 0.0)
    duration = hours * 3600 + minutes * 60 + seconds
    folder = text_of(entry, "page_dir")
    film = video(f"{folder}/{number}.mp4" if folder else f"{number}.mp4", duration=duration or None)
    url = text_of(entry, "contentUrl", "")
    yield caption_draft(film, text_of(entry, "name"), options, original_id=number, url=url)


FORMAT = Format(
    name="webvid",
    about="WebVid's CSV (videoid, page_dir, name), as for Video-LLaMA's pre-training",
    read=read,
    fits=lambda entry: {"videoid", "page_dir", "name"} <= entry.keys(),
    profiles=(Profile("webvid", Licence(name="withdrawn by its publisher", non_commercial=True)),),
    options={"question": QUESTION},
)
