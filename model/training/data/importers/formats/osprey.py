"""Osprey-724K: talk about regions `<region1>` that are polygons or masks of an image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.region_marks import AS_BOXES, Place, marked_turns
from model.training.data.importers.regions import MASKS, Picture, choice_of, picture_of
from model.training.data.importers.run_lengths import box_around
from model.training.data.importers.turns import image, list_of_turns, path_text, said_of

_MARK = re.compile(r"<region([0-9]{1,4})>")
_DESCRIPTION = re.compile(r"\s*(<region[0-9]{1,4}>)\s*:?\s*(.*)", re.DOTALL)


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the dialog of an entry; or a record of each description."""
    entry = row.entry
    name = path_text(entry.get("file_name"))
    if choice_of(options, "names", "whole", "tail") == "tail":
        name = name.rpartition("_")[2]
    picture = picture_of(image(name), entry, options)
    places = [_place(picture, f"region{n}", one) for n, one in enumerate(list_of_turns(entry.get("annotation")), 1)]

    def draft(dialog: Any) -> Draft:
        turns, notes = marked_turns(dialog, _MARK, places, picture)
        task = "region_caption" if "description" in entry else "region_chat"
        others: Mapping[str, Any] = {"notes": [MASKS, *notes], "transforms": [AS_BOXES]}
        return Draft(turns, [picture.medium], original_id=entry.get("id"), task=task, **others)

    if "conversations" in entry:
        yield draft(said_of(entry["conversations"]))
        return
    described = entry.get("description")
    if not isinstance(described, list):
        raise BadSampleError("no conversation: neither `conversations` nor a list in `description`")
    yield from drafts_of(described, lambda text: draft(_described(text)))


def _described(text: object) -> list[tuple[str, str]]:
    match = _DESCRIPTION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadSampleError(f"a description of no region: {str(text)[:100]}")
    return [("user", f"Describe {match[1]}."), ("assistant", match[2])]


def _place(picture: Picture, name: str, annotation: Mapping[str, Any]) -> Place:
    box = box_around(annotation.get("segmentation"))
    return Place(picture.text(box, "pixel_xyxy"), picture.region(box, "pixel_xyxy", label=name))


FORMAT = Format(
    name="osprey",
    about="Osprey-724K: regions of an image, described and talked about",
    read=read,
    fits=lambda entry: (
        {"file_name", "annotation"} <= entry.keys() and bool({"conversations", "description"} & entry.keys())
    ),
    profiles=(Profile("osprey-724k"),),
    options={"names": "whole (default), or tail: file names from their last _ on, as for COCO's later folders"},
)
