"""Boxes of published data in turns: as `Region`s beside the text, and as VideoLLaMA3's text of them.

A box that rounding put beyond an edge is put onto it; one that reaches farther outside, or has no area, rejects its
record: a list of boxes without it would teach that the object is not there.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.boxes import Box, BoxSystem, to_pixels, to_thousandths
from core.errors import BadSampleError
from core.record_media import Medium, Region
from core.records import Turn
from model.training.data.grounding import grounding_text, ocr_text
from model.training.data.importers.format import Draft, Options
from model.training.data.importers.media_state import MediaFolder
from model.training.data.importers.turns import assistant, user

PICTURES = {"pictures": "folder of the pictures, if the annotations lack their sizes"}
"""The option that `picture_of` reads."""


@dataclass(frozen=True)
class Picture:
    """An image and the size of the original, in pixels: boxes are converted with it."""

    medium: Medium
    width: int
    height: int

    def pixels(self, box: Sequence[float], system: BoxSystem) -> Box:
        """Return left, top, right and bottom in pixels.

        Raises:
            BadSampleError: The box has no area, or reaches outside of the picture.
        """
        x0, y0, x1, y1 = to_pixels(box, system, self.width, self.height)
        if x1 <= x0 or y1 <= y0:
            raise BadSampleError(f"box without an area: {list(box)} ({system})")
        return x0, y0, x1, y1

    def text(self, box: Sequence[float], system: BoxSystem) -> str:
        """Return a box as a question has it: `[x0,y0,x1,y1]`, in thousandths."""
        self.pixels(box, system)
        return f"[{','.join(map(str, to_thousandths(box, system, self.width, self.height)))}]"

    def region(self, box: Box, system: BoxSystem, **others: Any) -> Region:
        """Return the box as the original has it. `others`: label, phrase."""
        return Region(media=self.medium.key, box=box, system=system, **others)


MASKS = "masks are left out"
OCR_QUESTION = "Read everything, with boxes."

Things = Sequence[tuple[str, Sequence[Box]]]
"""Names, each with its boxes."""


def picture_of(medium: Medium, entry: Mapping[str, Any], options: Options) -> Picture:
    """Return a medium with its size: `width` and `height` of an entry, else those of the file in `--set pictures=DIR`.

    Raises:
        BadSampleError: The size is unknown, or none; or there is no such folder.
    """
    size = [entry.get("width"), entry.get("height")]
    if size == [None, None] and (folder := options.get("pictures")):
        looked = _pictures(folder).look(medium)
        size = [looked.width, looked.height]
    width, height = size
    if not (type(width) is int and type(height) is int and 0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise BadSampleError(f"no size of the picture: {reprlib.repr(size)} for {medium.path}; is it complete?")
    return Picture(medium.model_copy(update={"width": width, "height": height}), width, height)


def box_of(numbers: object) -> Box:
    """Return four numbers.

    Raises:
        BadSampleError: It is something else.
    """
    values = numbers if isinstance(numbers, list | tuple) else []
    if len(values) != 4 or not all(type(value) in (int, float) for value in values):
        raise BadSampleError(f"no box: {reprlib.repr(numbers)}")
    try:
        return tuple(map(float, values))  # type: ignore[return-value]  # four, checked above
    except OverflowError as error:  # whole numbers of hundreds of digits
        raise BadSampleError(f"no box: {reprlib.repr(numbers)}") from error


def located(picture: Picture, things: Things, system: BoxSystem) -> Turn:
    """Return the answer that locates things: a line for each name, `<ref>cup</ref>[[x0,y0,x1,y1],…]`."""
    pixels = [(name, [picture.pixels(box, system) for box in boxes]) for name, boxes in things]
    regions = tuple(picture.region(box, system, label=name) for name, boxes in things for box in boxes)
    return assistant(grounding_text(pixels, picture.width, picture.height), regions=regions)


def grounded(
    picture: Picture, sentence: str, phrases: Sequence[tuple[int, int, Sequence[Box]]], system: BoxSystem
) -> Turn:
    """Return a sentence whose phrases have boxes: `<ref>A man</ref>[[…]] sits`.

    Args:
        picture: The picture.
        sentence: The sentence.
        phrases: Begin and end of a phrase, in characters, and its boxes.
        system: The boxes' system.

    Raises:
        BadSampleError: Phrases overlap, or lie outside of the sentence.
    """
    text, at, regions = "", 0, list[Region]()
    for begin, end, boxes in sorted(phrases, key=lambda phrase: phrase[:2]):
        if not at <= begin < end <= len(sentence):
            raise BadSampleError(f"phrases overlap, or lie outside of the text: {begin}-{end} of {len(sentence)}")
        text += sentence[at:begin] + "<ref>"
        place = (len(text), len(text) + end - begin)
        pixels = [picture.pixels(box, system) for box in boxes]
        text += grounding_text([(sentence[begin:end], pixels)], picture.width, picture.height).removeprefix("<ref>")
        regions += [picture.region(box, system, phrase=place) for box in boxes]
        at = end
    return assistant(text + sentence[at:], regions=tuple(regions))


def words_answer(picture: Picture, words: Sequence[tuple[str, Box]], system: BoxSystem) -> Turn:
    """Return the answer that reads words with their boxes: a line for each, `STOP <box>[x0,y0,x1,y1]</box>`."""
    said = ocr_text([(word, picture.pixels(box, system)) for word, box in words], picture.width, picture.height)
    return assistant(said, regions=tuple(picture.region(box, system, label=word) for word, box in words))


def image_draft(picture: Picture, pictured: Mapping[str, Any], question: str, answer: Turn, **others: Any) -> Draft:
    """Return a draft of one question about an image. `pictured`: its entry, with `id` and perhaps an address."""
    url = str(pictured.get("coco_url") or pictured.get("url") or "")
    others = {"task": "caption", "url": url, "original_id": pictured.get("id"), **others}
    return Draft([user(picture.medium, f"\n{question}"), answer], [picture.medium], **others)


def choice_of(options: Options, key: str, *choices: str) -> str:
    """Return an option's value; the first choice is the default.

    Raises:
        BadSampleError: It is no choice.
    """
    value = options.get(key, choices[0])
    if value not in choices:
        raise BadSampleError(f"an unknown choice: --set {key}={value}; use one of {', '.join(choices)}")
    return value


@lru_cache(4)
def _pictures(folder: str) -> MediaFolder:
    if not Path(folder).is_dir():
        raise BadSampleError(f"no such folder: --set pictures={folder}")
    return MediaFolder(Path(folder))
