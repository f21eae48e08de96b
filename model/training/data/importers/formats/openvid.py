"""OpenVid-1M's CSV: a clip that is a file, its caption, its length and rate."""

from __future__ import annotations

from collections.abc import Iterator

from core.records import Licence
from model.training.data.importers.captioned import QUESTION, caption_draft
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import path_text, seconds_of, text_of, video


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line."""
    entry = row.entry
    name = path_text(entry.get("video"))
    film = video(name, duration=seconds_of(entry, "seconds"), fps=seconds_of(entry, "fps"))
    yield caption_draft(film, text_of(entry, "caption"), options, original_id=name)


FORMAT = Format(
    name="openvid",
    about="OpenVid-1M's CSV",
    read=read,
    fits=lambda entry: {"video", "caption", "fps", "seconds"} <= entry.keys(),
    profiles=(Profile("openvid-1m", Licence(name="CC-BY-4.0")),),
    options={"question": QUESTION},
)
