"""Boxes and time spans as text, and back: how answers name places and times (docs/training-data.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from core.errors import BadSampleError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_BOX = re.compile(r"\[\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\]")
_DASH = "\u2010-\u2015\u2212~"  # hyphen to horizontal bar, minus, tilde; besides "-"
_CLOCK = r"(?:[0-9]{1,2}:[0-5][0-9]|[0-9]{1,3}):[0-5][0-9](?:\.[0-9]+|,[0-9]{3}(?![0-9:]))?"
_TIME = rf"(?![12][0-9]{{2}}0s\b)(?:{_CLOCK}|[0-9]+(?:\.[0-9]+)?)"  # not the 1990s
_UNIT = r"\s*s(?:ec(?:ond)?s?)?\b"
# Not within a word, a date, a version or a negative number; not the decimals of "1,5".
_BEGIN = rf"(?<![A-Za-z0-9_-])(?<![0-9][:/.{_DASH}])(?:(?<![0-9],)|(?=[0-9]+\.[0-9]))"
_SPAN = re.compile(
    rf"(?P<between>\bbetween\s+)?{_BEGIN}(?P<start>{_TIME})(?:{_UNIT})?"
    rf"\s*(?(between)and\b|(?:[{_DASH}-]|to\b|until\b))\s*"
    rf"(?P<end>{_TIME})(?P<unit>{_UNIT})?(?![.:]?[0-9])(?!\s*[ap]\.?m\b)",
    re.IGNORECASE,
)
_BESIDE_SPANS = re.compile(r"(?:[\s,;.()\[\]]|and\b|from\b)*", re.IGNORECASE)
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


def span_text(spans: Sequence[tuple[float, float]]) -> str:
    """Write time spans in seconds, as in temporal grounding (arXiv 2501.13106, table 4): `1.0-2.0 s, 7.5-9.0 s`.

    Raises:
        BadSampleError: A span ends before it starts, starts before 0, or has no finite end.
    """
    for start, end in spans:
        if not 0 <= start <= end < math.inf:
            raise BadSampleError(f"span {start}-{end} s: give 0 <= start <= end")
    return ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in spans)


def spans_of(text: str) -> list[tuple[float, float]]:
    """Return all time spans in a text, in seconds, within 0.05 s of what `span_text` was given.

    A span is two times with a dash, `to` or `until` between them, or `between a and b`. It has a unit of seconds at its
    end (`1.0-2.5 s`, `from 1 to 2.5 seconds`), or both times are clocks (`00:18 - 00:23`, `1:02:03.5`). Without either,
    both need decimals, and the text nothing but spans (`1.0 - 2.5`). A span that ends before it starts is ignored.
    """
    is_answer = _BESIDE_SPANS.fullmatch(_SPAN.sub(" ", text)) is not None
    spans = [
        (_seconds(match["start"]), _seconds(match["end"]))
        for match in _SPAN.finditer(text)
        if _is_span(match["start"], match["end"], bool(match["unit"]), is_answer)
    ]
    return [(start, end) for start, end in spans if start <= end < math.inf]


def _is_span(start: str, end: str, has_unit: bool, is_answer: bool) -> bool:
    if ":" in start or ":" in end:
        return ":" in start and ":" in end
    return has_unit or (is_answer and "." in start and "." in end)


def _seconds(time: str) -> float:
    """Return the seconds of `2.5`, `m:ss` or `h:mm:ss`."""
    seconds = 0.0
    for part in time.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
