"""COCO's form, also of Objects365: images and annotations with boxes, joined by ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from core.boxes import Box
from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.joined_files import LISTS, Joined, are_joined, json_files
from model.training.data.importers.regions import MASKS, Picture, box_of, choice_of, image_draft, located, picture_of
from model.training.data.importers.turns import assistant, image, text_of

CROWD = "boxes of crowds are left out"
CAPTION_QUESTION = "Describe the image in a sentence."


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the images of a file or folder, each with its annotations."""
    for file in json_files(source):
        with Joined(file) as joined:
            yield from joined.by_image()


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft records of an image: one for each caption; else one of all boxes, or one for each box."""
    entry = row.entry
    pictured, notes = Row(entry["image"]).entry, entry["annotations"]
    picture = picture_of(image(pictured.get("file_name")), pictured, options)
    make = choice_of(options, "make", "grounding", "region")
    draft = partial(image_draft, picture, pictured)
    if not notes:
        raise BadSampleError("an image without annotations: nothing to learn")
    if all("caption" in note for note in notes):
        yield from drafts_of(notes, lambda note: draft(CAPTION_QUESTION, assistant(text_of(note, "caption"))))
        return
    single = [note for note in notes if not note.get("iscrowd")]
    said = {"notes": [CROWD] * (len(single) < len(notes)) + [MASKS] * any("segmentation" in note for note in single)}
    names: Mapping[str, str] = entry["categories"]
    if make == "region":
        yield from drafts_of(single, lambda note: _region(picture, pictured, note, names, said))
        return
    things: dict[str, list[Box]] = {}
    for note in single:
        things.setdefault(_name(note, names), []).append(box_of(note.get("bbox")))
    if not things:
        raise BadSampleError("boxes of crowds alone: nothing to locate")
    answer = located(picture, list(things.items()), "pixel_xywh")
    yield draft(f"Find all objects of these kinds: {', '.join(things)}.", answer, task="grounding", **said)


def _region(
    picture: Picture, pictured: Mapping[str, Any], note: Any, names: Mapping[str, str], said: Mapping[str, Any]
) -> Draft:
    box = box_of(note.get("bbox"))
    region = picture.region(box, "pixel_xywh", label=_name(note, names))
    answer = assistant(region.label, regions=(region,))
    question = f"What is in {picture.text(box, 'pixel_xywh')}?"
    return image_draft(picture, pictured, question, answer, task="region_caption", **said)


def _name(note: Mapping[str, Any], names: Mapping[str, str]) -> str:
    try:
        return names[str(note.get("category_id"))]
    except KeyError as error:
        raise BadSampleError(f"an unknown category: {note.get('category_id')}") from error


def _is_of_objects365(source: Path) -> bool:
    """Return whether the file is named as Objects365's: zhiyuan_objv2_train.json."""
    return re.search("objects365|objv2", source.name.lower()) is not None


_MAKE = {"make": "grounding (default): all boxes of an image; region: a record for each box"}
FORMATS = tuple(
    Format(
        name,
        about,
        read,
        fits=lambda entry: False,
        profiles=(Profile(name),),
        options=_MAKE,
        rows=rows,
        recognises=recognises,
    )
    for name, about, recognises in (
        (
            "coco",
            "COCO's JSON: boxes of categories, or captions",
            lambda source: are_joined(source, LISTS) and not _is_of_objects365(source),
        ),
        (
            "objects365",
            "Objects365: COCO's form",
            lambda source: are_joined(source, LISTS) and _is_of_objects365(source),
        ),
    )
)
