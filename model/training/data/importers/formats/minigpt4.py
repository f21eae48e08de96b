"""MiniGPT-4's 3,500 descriptions, and the tars of its and Video-LLaMA's pre-training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from model.training.data.importers.captioned import QUESTION, caption_draft
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import image, path_text, text_of

_IMAGES = ("jpg", "jpeg", "png", "webp")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an annotation. The image is `<image_id>.jpg`."""
    entry = row.entry
    name = path_text(entry.get("image_id"))
    yield caption_draft(image(f"{name}.jpg"), text_of(entry, "caption"), options, original_id=name)


def read_tar(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a tar's sample: an image, and its caption in JSON or text."""
    entry = row.entry
    kinds = [kind for kind in _IMAGES if isinstance(entry.get(kind), bytes)]
    if len(kinds) != 1:
        raise BadSampleError(f"no image, or several: its members are {', '.join(map(str, entry))}")
    said = entry.get("json")
    caption = text_of(said, "caption") if isinstance(said, Mapping) else text_of(entry, "txt")
    shown = image(f"{row.key}.{kinds[0]}", root="records")
    url = text_of(said, "url", "") if isinstance(said, Mapping) else ""
    yield caption_draft(shown, caption, options, original_id=row.key, url=url, embedded={shown.key: entry[kinds[0]]})


def _is_captioned(entry: Mapping[str, Any]) -> bool:
    said = entry.get("json")
    has_caption = isinstance(entry.get("txt"), str) or (isinstance(said, Mapping) and "caption" in said)
    return has_caption and any(isinstance(entry.get(kind), bytes) for kind in _IMAGES)


FORMATS = (
    Format(
        name="minigpt4",
        about="MiniGPT-4's descriptions (filter_cap.json)",
        read=read,
        fits=lambda entry: entry.keys() == {"image_id", "caption"} and isinstance(entry["image_id"], str),
        profiles=(Profile("minigpt4-3500"),),
        options={"question": QUESTION},
        inside=("annotations",),
    ),
    Format(
        name="captioned-tars",
        about="tars of images with `caption` in JSON or text beside each: CC3M, SBU, LAION",
        read=read_tar,
        fits=_is_captioned,
        options={"question": QUESTION},
    ),
)
