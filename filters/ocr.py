"""Text in images with its places, by PP-OCR from the wheel `rapidocr`: for scene-text sets, or to drop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL.Image import Image
from pydantic import Field

from core.language import language_identifier
from core.ocr import LICENCE, PACKAGES, SIDE, Line, Reader
from core.stages import ImageFacts, ImageStage
from filters.reading_order import reading_order
from manifests.schemas import column

GRID = 1000
"""Boxes are in thousandths of the image's width and height."""

_LETTERS = 12  # letters; of shorter texts the language is not told
_CERTAIN = 0.9  # probability of a language that is stored

IntBox = tuple[int, int, int, int]
"""Left, top, right, bottom, in thousandths of the image."""


class Ocr(ImageStage):
    """Lines of text in the image with their places, and the share of the image that they cover.

    Lines are in reading order: top to bottom, left to right within a line, and column by column where columns are plain
    (`filters/reading_order.py`). A box is the upright rectangle around a line, also around one that is slanted. Boxes
    and shares are those of the image as all stages see it, turned upright by its EXIF orientation.

    PP-OCRv6 small reads Latin scripts, Chinese and Japanese. It runs on the CPU, in float32.

    Attributes:
        min_confidence: Lines that are recognised with less confidence are left out: in photographs most of them are no
            text.
    """

    name: ClassVar = "ocr"
    preload: ClassVar = ("rapidocr",)
    writes: ClassVar = pa.schema(
        [
            column("text_share", pa.float32(), "Share of the image that boxes of text cover, overlaps once", 0, 1),
            column("text_lines", pa.int32(), "Number of lines of text in the image", 0),
            column("text_characters", pa.int32(), "Number of characters in these lines, with spaces", 0),
            column("text_confidence", pa.float32(), "Mean confidence of the lines; null: no text", 0, 1),
            column("text_language", pa.string(), "Language of the text (ISO 639-1), by py3langid; null: uncertain"),
            column("ocr_texts", pa.list_(pa.string()), "The lines of text, in reading order"),
            column(
                "ocr_boxes", pa.list_(pa.list_(pa.int16())), "Box of each line, x0 y0 x1 y1 in thousandths of the image"
            ),
            column("ocr_confidences", pa.list_(pa.float32()), "Confidence of each line, 0 to 1"),
        ]
    )
    models: ClassVar = {"PP-OCRv6 small": LICENCE}
    packages: ClassVar = dict.fromkeys(PACKAGES, "ocr")

    min_confidence: float = Field(default=0.7, ge=0.5, le=1)

    def load(self) -> _TextReader:
        self.check_available()
        return _TextReader(Reader(self.name), self.min_confidence)


class _TextReader(ImageFacts):
    """`ImageFacts` of `ocr`: one image at a time, since RapidOCR takes no batches."""

    side = SIDE

    def __init__(self, reader: Reader, min_confidence: float) -> None:
        self._reader = reader
        self._min_confidence = min_confidence
        self.provenance = reader.provenance

    def prepare(self, image: Image) -> Image:
        return image

    def __call__(self, inputs: Sequence[Image]) -> pa.Table:
        return pa.Table.from_pylist([self._row(image) for image in inputs], schema=Ocr.writes)

    def _row(self, image: Image) -> dict[str, object]:
        lines = [line for line in self._reader.lines(image) if line.confidence >= self._min_confidence]
        lines = [lines[number] for number in reading_order([line.box for line in lines])]
        return _columns(lines, [thousandths(line.box, image.size) for line in lines])


def _columns(lines: Sequence[Line], boxes: Sequence[IntBox]) -> dict[str, object]:
    texts, confidences = [line.text for line in lines], [line.confidence for line in lines]
    return {
        "text_share": covered(boxes),
        "text_lines": len(lines),
        "text_characters": sum(map(len, texts)),
        "text_confidence": sum(confidences) / len(lines) if lines else None,
        "text_language": language_of(" ".join(texts)),
        "ocr_texts": texts,
        "ocr_boxes": boxes,
        "ocr_confidences": confidences,
    }


def thousandths(box: tuple[float, float, float, float], size: tuple[int, int]) -> IntBox:
    """Return a box in pixels, within an image of this width and height, in thousandths of it."""
    x0, y0, x1, y1 = (round(value * GRID / side) for value, side in zip(box, (*size, *size), strict=True))
    return x0, y0, x1, y1


def covered(boxes: Sequence[IntBox]) -> float:
    """Return the share of the image that boxes cover together, 0 to 1; where they overlap counts once."""
    grid: Any = np.zeros((GRID, GRID), bool)
    for x0, y0, x1, y1 in boxes:
        grid[y0:y1, x0:x1] = True
    return float(grid.mean())


def language_of(text: str) -> str | None:
    """Return the language of a text (ISO 639-1), or None if it is too short or py3langid is not certain."""
    if sum(map(str.isalpha, text)) < _LETTERS:
        return None
    language, probability = language_identifier().classify(text.lower())
    return str(language) if probability >= _CERTAIN else None
