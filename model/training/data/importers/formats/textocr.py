"""TextOCR and COCO-Text: words with boxes, in COCO's form with other keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.joined_files import Joined, are_joined, json_files
from model.training.data.importers.regions import OCR_QUESTION, box_of, image_draft, picture_of, words_answer
from model.training.data.importers.turns import image, text_of

_KEYS = {"images": "imgs", "annotations": "anns"}
ILLEGIBLE = "illegible words are left out"


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the images of a file or folder, each with its words."""
    for file in json_files(source):
        with Joined(file, _KEYS, are_lists=False) as joined:
            yield from joined.by_image()


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the words of an image with their boxes."""
    pictured, notes = Row(row.entry["image"]).entry, row.entry["annotations"]
    picture = picture_of(image(pictured.get("file_name")), pictured, options)
    legible = [note for note in notes if note.get("utf8_string") not in (None, "", ".", "###")]
    if not legible:
        raise BadSampleError("an image without legible words: nothing to read")
    words = [(text_of(note, "utf8_string"), box_of(note.get("bbox"))) for note in legible]
    answer = words_answer(picture, words, "pixel_xywh")
    left = [ILLEGIBLE] if len(legible) < len(notes) else []
    split = str(pictured.get("set") or "")
    yield image_draft(picture, pictured, OCR_QUESTION, answer, task="ocr", notes=left, split=split)


FORMAT = Format(
    name="textocr",
    about="TextOCR and COCO-Text: words with boxes",
    read=read,
    fits=lambda entry: False,
    rows=rows,
    recognises=lambda source: are_joined(source, _KEYS),
    profiles=(Profile("textocr"), Profile("coco-text")),
)
