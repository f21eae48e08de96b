"""Boxes and time spans as text, and back: how answers name places and times (docs/training-data.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.errors import BadSampleError
from core.time_spans import Span, events_of, span_text, spans_of

__all__ = ["GRID", "Box", "Span", "box_text", "boxes_of", "events_of", "grounding_text", "ocr_text", "span_text"]
__all__ += ["spans_of"]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_BOX = re.compile(r"\[\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\]")
GRID = 1000
"""Box coordinates are thousandths of the image's width and height, 0 to 1000."""


def box_text(boxes: Sequence[Box], width: int, height: int) -> str:
    """Write boxes as VideoLLaMA 3 does: `[[x0,y0,x1,y1],…]`, in thousandths of the image.

    In a question, a single box is written `[x0,y0,x1,y1]`.

    Args:
        boxes: (x0, y0, x1, y1) in pixels.
        width: Width of the image, in pixels.
        height: Height of the image, in pixels.

    Raises:
        BadSampleError: A box reaches outside its image, or has x0 > x1 or y0 > y1.
    """
    return "[" + ",".join(f"[{','.join(map(str, _thousandths(box, width, height)))}]" for box in boxes) + "]"


def _thousandths(box: Box, width: int, height: int) -> tuple[int, ...]:
    x0, y0, x1, y1 = box
    if not (width > 0 and height > 0 and 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
        raise BadSampleError(f"box {box} in an image of {width}x{height}: give x0 <= x1, y0 <= y1 within it")
    return tuple(round(v * GRID / side) for v, side in ((x0, width), (y0, height), (x1, width), (y1, height)))


def boxes_of(text: str, width: int, height: int) -> list[Box]:
    """Return all boxes in a text, in pixels.

    They are within half a thousandth of the image of what `box_text` was given. Four numbers that are not a box (above
    1000, or x0 > x1 or y0 > y1) are ignored.
    """
    boxes = [[int(number) for number in match] for match in _BOX.findall(text)]
    return [
        (x0 * width / GRID, y0 * height / GRID, x1 * width / GRID, y1 * height / GRID)
        for x0, y0, x1, y1 in boxes
        if x0 <= x1 <= GRID and y0 <= y1 <= GRID
    ]


def grounding_text(things: Sequence[tuple[str, Sequence[Box]]], width: int, height: int) -> str:
    """Return one line per object, as in the reference's image notebook: `<ref>cat</ref>[[12,30,405,998]]`."""
    return "\n".join(f"<ref>{thing}</ref>{box_text(boxes, width, height)}" for thing, boxes in things)


def ocr_text(words: Sequence[tuple[str, Box]], width: int, height: int) -> str:
    """Return one line per word, as in stage 2 (arXiv 2501.13106, section 4): `STOP <box>[12,30,405,98]</box>`."""
    return "\n".join(f"{word} <box>{box_text([box], width, height)[1:-1]}</box>" for word, box in words)
