"""Penguin-Recap-I: captions of images, with where each comes from."""

from __future__ import annotations

from collections.abc import Iterator

from model.training.data.forms import media_of
from model.training.data.importers.dialogs import dialog_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import dialog_turns, media_of_paths, said_of


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a row about an image."""
    entry = row.entry
    said = said_of(entry["conversations"]) if entry.get("conversations") else dialog_of(entry)
    media = media_of_paths(media_of({"image": entry.get("image") or entry.get("image_name")}, "image"))
    turns, notes = dialog_turns(said, media)
    yield Draft(
        turns,
        media,
        original_id=entry.get("original_id") or entry.get("sample_key"),
        subset=str(entry.get("subset") or entry.get("source") or ""),
        url=str(entry.get("url") or ""),
        task="caption",
        notes=notes,
    )


FORMAT = Format(
    name="penguin-recap-i",
    about="Penguin-Recap-I: captions of images, in packed JSON lines",
    read=read,
    fits=lambda entry: {"sample_key", "image", "conversations", "annotation_metadata"} <= entry.keys(),
    profiles=(Profile("penguin-recap-i"),),
    over=("llava",),
)
