"""The box around a mask in COCO's run lengths, without unpacking the mask: it would be as large as the picture."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from core.boxes import Box
from core.errors import BadSampleError

_LONGEST = 1 << 22  # characters of one mask


def mask_box(mask: object) -> Box:
    """Return left, top, right and bottom of a mask in pixels: `{"size": [height, width], "counts": text or list}`.

    Runs go down the columns, and begin with one of the background.

    Raises:
        BadSampleError: It is no mask, empty, or larger than its picture.
    """
    height, width, counts = _parts(mask)
    ends = list(accumulate(counts))
    runs = [(start, end) for start, end in zip(ends[::2], ends[1::2], strict=False) if end > start]
    if any(count < 0 for count in counts) or (ends and ends[-1] > height * width):
        raise BadSampleError(f"mask larger than its picture of {width}x{height}: {reprlib.repr(mask)}")
    if not runs:
        raise BadSampleError("an empty mask: no pixel is in it")
    left, right = runs[0][0] // height, (runs[-1][1] - 1) // height + 1
    in_one_column = all(start // height == (end - 1) // height for start, end in runs)
    top = min(start % height for start, _ in runs) if in_one_column else 0
    bottom = max((end - 1) % height for _, end in runs) + 1 if in_one_column else height
    return float(left), float(top), float(right), float(bottom)


def mask_size(mask: object) -> tuple[int, int]:
    """Return width and height of a mask's picture."""
    height, width, _ = _parts(mask)
    return width, height


def polygon_box(polygons: object) -> Box:
    """Return the box around polygons `[[x, y, x, y, …], …]`, in pixels.

    Raises:
        BadSampleError: They are no polygons.
    """
    listed = polygons if isinstance(polygons, list) else []
    points = [number for polygon in listed for number in (polygon if isinstance(polygon, list) else [None])]
    lengths = all(len(polygon) % 2 == 0 for polygon in listed if isinstance(polygon, list))
    if not points or not lengths or not all(type(number) in (int, float) for number in points):
        raise BadSampleError(f"no polygon: {reprlib.repr(polygons)}")
    across = [x for polygon in listed for x in polygon[::2]]
    down = [y for polygon in listed for y in polygon[1::2]]
    try:
        return float(min(across)), float(min(down)), float(max(across)), float(max(down))
    except OverflowError as error:  # whole numbers of hundreds of digits
        raise BadSampleError(f"no polygon: {reprlib.repr(polygons)}") from error


def box_around(segmentation: object) -> Box:
    """Return the box around a segmentation of COCO: polygons, or run lengths."""
    return mask_box(segmentation) if isinstance(segmentation, Mapping) else polygon_box(segmentation)


def _parts(mask: object) -> tuple[int, int, list[int]]:
    entry: Mapping[str, Any] = mask if isinstance(mask, Mapping) else {}
    size, counts = entry.get("size"), entry.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise BadSampleError(f"no mask: {reprlib.repr(mask)}")
    if isinstance(counts, str) and len(counts) <= _LONGEST:
        counts = list(_decoded(counts))
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise BadSampleError(f"no run lengths: {reprlib.repr(counts)}")
    return size[0], size[1], counts


def _decoded(text: str) -> Iterator[int]:
    """Yield the run lengths of a text: 5 bits a character from "0" on, low bits first; from the fourth on, differences
    to the one before the last."""
    before: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadSampleError(f"no run lengths: {reprlib.repr(text)}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        value += before[-2] if len(before) > 2 else 0
        before.append(value)
        yield value
        value = shift = 0
    if shift:
        raise BadSampleError(f"no run lengths: {reprlib.repr(text)} breaks off")
