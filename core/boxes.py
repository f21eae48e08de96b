"""Boxes in the coordinate systems of published data, and their conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from core.errors import BadSampleError

BoxSystem = Literal[
    "norm1000_xyxy", "pixel_xyxy", "pixel_xywh", "fraction_xyxy", "fraction_xywh", "padded_fraction_xyxy"
]
"""`norm1000`: thousandths of width and height (VideoLLaMA3). `fraction`: 0 to 1 of them. `padded_fraction`: 0 to 1 of
the square that the image is padded to, centred (LLaVA 1.5, Shikra). `xyxy`: left, top, right, bottom. `xywh`: left,
top, width, height (COCO)."""

SYSTEMS: tuple[BoxSystem, ...] = get_args(BoxSystem)

_LIMITS = {"norm1000_xyxy": 1000.0, "fraction_xyxy": 1.0, "fraction_xywh": 1.0, "padded_fraction_xyxy": 1.0}
_SLACK = 1e-3  # of the side: published fractions are rounded

Box = tuple[float, float, float, float]


def check_box(box: Sequence[float], system: BoxSystem) -> str:
    """Return what is wrong with a box, as far as it shows without the size of its picture; empty if nothing is."""
    x0, y0, x1, y1 = _corners(box, system)
    if not all(map(math.isfinite, box)):
        return "box with a number that is not finite"
    if x1 < x0 or y1 < y0:
        return f"box {list(box)} ({system}) has its right or lower edge before the other"
    limit = _LIMITS.get(system, math.inf)
    if min(x0, y0) < -_SLACK * min(limit, 1000) or max(x1, y1) > limit * (1 + _SLACK):
        return f"box {list(box)} ({system}) reaches outside of its picture"
    return ""


def to_pixels(box: Sequence[float], system: BoxSystem, width: int, height: int) -> Box:
    """Return left, top, right and bottom in pixels. What rounding put beyond an edge is put onto it.

    Raises:
        BadSampleError: The box is invalid, or reaches outside of the picture.
    """
    if problem := check_box(box, system):
        raise BadSampleError(problem)
    x0, y0, x1, y1 = _corners(box, system)
    if system == "padded_fraction_xyxy":
        side = max(width, height)
        left, top = (side - width) / 2, (side - height) / 2
        x0, y0, x1, y1 = x0 * side - left, y0 * side - top, x1 * side - left, y1 * side - top
    else:
        limit = _LIMITS.get(system)
        across, down = (width / limit, height / limit) if limit else (1.0, 1.0)
        x0, y0, x1, y1 = x0 * across, y0 * down, x1 * across, y1 * down
    slack = max(_SLACK * max(width, height), 1.0)
    if min(x0, y0) < -slack or x1 > width + slack or y1 > height + slack:
        raise BadSampleError(f"box {list(box)} ({system}) reaches outside of a picture of {width}x{height}")
    return (_within(x0, width), _within(y0, height), _within(x1, width), _within(y1, height))


def to_thousandths(box: Sequence[float], system: BoxSystem, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box as VideoLLaMA3 writes it: whole thousandths of width and height.

    Raises:
        BadSampleError: As in `to_pixels`.
    """
    x0, y0, x1, y1 = to_pixels(box, system, width, height)
    return (round(x0 * 1000 / width), round(y0 * 1000 / height), round(x1 * 1000 / width), round(y1 * 1000 / height))


def _corners(box: Sequence[float], system: BoxSystem) -> Box:
    x, y, third, fourth = box
    return (x, y, x + third, y + fourth) if system.endswith("xywh") else (x, y, third, fourth)


def _within(value: float, limit: int) -> float:
    return min(max(value, 0.0), float(limit))
