"""COCO's form, also of Objects365, TextOCR and COCO-Text: images and annotations with boxes, joined by ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from core.boxes import Box
from core.errors import BadSampleError
from model.training.data.grounding import ocr_text
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.joined_files import Joined, json_files, names_of
from model.training.data.importers.regions import Picture, box_of, choice_of, located, picture_of
from model.training.data.importers.turns import assistant, image, text_of, user

CROWD = "boxes of crowds are left out"
ILLEGIBLE = "illegible words are left out"
CAPTION_QUESTION = "Describe the image in a sentence."
OCR_QUESTION = "Read everything, with boxes."
MASKS = "masks are left out"


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the images of a file or folder, each with its annotations."""
    for file in json_files(source):
        with Joined(file) as joined:
            yield from joined.by_image(categories=names_of(file))


def text_rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the images of TextOCR and COCO-Text, whose parts have other keys."""
    for file in json_files(source):
        with Joined(file, "imgs", "anns") as joined:
            yield from joined.by_image()


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft records of an image: one for each caption; else one of all boxes, or one for each box."""
    entry = row.entry
    pictured, notes = Row(entry["image"]).entry, entry["annotations"]
    picture = picture_of(image(pictured.get("file_name")), pictured, options)
    make = choice_of(options, "make", "grounding", "region")
    draft = partial(_draft, picture, pictured)
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


def read_text(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the words of an image with their boxes."""
    pictured, notes = Row(row.entry["image"]).entry, row.entry["annotations"]
    picture = picture_of(image(pictured.get("file_name")), pictured, options)
    legible = [note for note in notes if note.get("utf8_string") not in (None, "", ".", "###")]
    if not legible:
        raise BadSampleError("an image without legible words: nothing to read")
    words = [(text_of(note, "utf8_string"), box_of(note.get("bbox"))) for note in legible]
    said = ocr_text([(word, picture.pixels(box, "pixel_xywh")) for word, box in words], picture.width, picture.height)
    regions = tuple(picture.region(box, "pixel_xywh", label=word) for word, box in words)
    left = {"notes": [ILLEGIBLE] if len(legible) < len(notes) else []}
    split = {"split": str(pictured.get("set") or "")}
    yield _draft(picture, pictured, OCR_QUESTION, assistant(said, regions=regions), task="ocr", **left, **split)


def _region(
    picture: Picture, pictured: Mapping[str, Any], note: Any, names: Mapping[str, str], said: Mapping[str, Any]
) -> Draft:
    box = box_of(note.get("bbox"))
    region = picture.region(box, "pixel_xywh", label=_name(note, names))
    answer = assistant(region.label, regions=(region,))
    question = f"What is in {picture.text(box, 'pixel_xywh')}?"
    return _draft(picture, pictured, question, answer, task="region_caption", **said)


def _name(note: Mapping[str, Any], names: Mapping[str, str]) -> str:
    try:
        return names[str(note.get("category_id"))]
    except KeyError as error:
        raise BadSampleError(f"an unknown category: {note.get('category_id')}") from error


def _draft(picture: Picture, pictured: Mapping[str, Any], question: str, answer: Any, **others: Any) -> Draft:
    asked = user(picture.medium, f"\n{question}")
    url = str(pictured.get("coco_url") or pictured.get("url") or "")
    others = {"task": "caption", "url": url, "original_id": pictured.get("id"), **others}
    return Draft([asked, answer], [picture.medium], **others)


_MAKE = {"make": "grounding (default): all boxes of an image; region: a record for each box"}


def _format(name: str, about: str, *, words: bool = False) -> Format:
    never: Any = {"fits": lambda entry: False, "profiles": (Profile(name),)}
    if words:
        return Format(name, about, read_text, rows=text_rows, **never)
    return Format(name, about, read, rows=rows, options=_MAKE, **never)


FORMATS = (
    _format("coco", "COCO's JSON: boxes of categories, or captions"),
    _format("objects365", "Objects365: COCO's form"),
    _format("textocr", "TextOCR and COCO-Text: words with boxes", words=True),
)
