"""Flickr30k Entities: sentences with numbered phrases, and the phrases' boxes in an XML for each image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from core.boxes import Box
from core.errors import BadSampleError, UserError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.regions import choice_of, grounded, picture_of
from model.training.data.importers.turns import assistant, image, text_of, user
from model.training.data.importers.whole_files import row_of_texts
from model.training.data.importers.xml_files import whole_number, xml_root

CAPTION_QUESTION = "Describe the image in a sentence."
GROUNDED_QUESTION = "Describe the image in a sentence, with the boxes of what you name."

_PHRASE = re.compile(r"\[/EN#([0-9]+)(?:/[\w-]+)* ([^\]]*)\]")


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield an image of `Sentences/` with its file of `Annotations/`."""
    sentences = sorted((source / "Sentences").glob("*.txt"))
    if not sentences:
        raise UserError(f"{source}: no Sentences/*.txt in it: give the folder of Sentences and Annotations")
    for file in sentences:
        texts = {"sentences": file, "annotations": source / "Annotations" / f"{file.stem}.xml"}
        yield row_of_texts(texts, {}, f"Sentences/{file.name}", file.stem)


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record of each sentence."""
    entry = row.entry
    with_boxes = choice_of(options, "make", "grounded", "caption") == "grounded"
    root = xml_root(text_of(entry, "annotations"))
    size = {side: whole_number(root.findtext(f"size/{side}")) for side in ("width", "height")}
    picture = picture_of(image(root.findtext("filename") or f"{row.key}.jpg"), size, options)
    boxes = _boxes(root)

    def draft(line: str) -> Draft:
        sentence, phrases = _phrases(line, boxes)
        if not with_boxes:
            said = [user(picture.medium, f"\n{CAPTION_QUESTION}"), assistant(sentence)]
            return Draft(said, [picture.medium], original_id=row.key, task="caption")
        answer = grounded(picture, sentence, phrases, "pixel_xyxy")
        said = [user(picture.medium, f"\n{GROUNDED_QUESTION}"), answer]
        return Draft(said, [picture.medium], original_id=row.key, task="grounded_caption")

    yield from drafts_of([line.strip() for line in text_of(entry, "sentences").splitlines() if line.strip()], draft)


def _phrases(line: str, boxes: Mapping[str, list[Box]]) -> tuple[str, list[tuple[int, int, list[Box]]]]:
    """Return a sentence without marks, and its phrases that have boxes."""
    sentence, at, phrases = "", 0, []
    for match in _PHRASE.finditer(line):
        sentence += line[at : match.start()]
        if match[1] in boxes and match[2]:
            phrases.append((len(sentence), len(sentence) + len(match[2]), boxes[match[1]]))
        sentence, at = sentence + match[2], match.end()
    sentence += line[at:]
    if "[/EN#" in sentence:
        raise BadSampleError(f"a phrase that is not closed: {sentence[:100]}")
    return sentence, phrases


def _boxes(root: ElementTree.Element) -> dict[str, list[Box]]:
    """Return the boxes of each phrase, from edge to edge.

    The XML counts pixels from 1, and the last one belongs to the box: pixel 1 begins at 0, pixel 500 ends at 500.
    """
    boxes: dict[str, list[Box]] = {}
    for thing in root.iter("object"):
        if (frame := thing.find("bndbox")) is None:
            continue  # <scene> or <nobndbox>
        corners: Any = [whole_number(frame.findtext(edge)) for edge in ("xmin", "ymin", "xmax", "ymax")]
        if None in corners:
            raise BadSampleError(f"no box: {corners} of object {thing.findtext('name')}")
        x0, y0 = (first - (first > 0) for first in corners[:2])  # a 0, which some have, is the edge, too
        box = (float(x0), float(y0), float(corners[2]), float(corners[3]))
        for name in thing.iter("name"):
            boxes.setdefault(name.text or "", []).append(box)
    return boxes


FORMAT = Format(
    name="flickr30k-entities",
    about="Flickr30k Entities: sentences whose phrases have boxes",
    read=read,
    fits=lambda entry: False,
    rows=rows,
    recognises=lambda source: any(source.glob("Sentences/*.txt")) and any(source.glob("Annotations/*.xml")),
    profiles=(Profile("flickr30k-entities"),),
    options={"make": "grounded (default): sentences with boxes; caption: without"},
)
