"""Order boxes of text as a person reads them: line by line, and column by column where columns are plain.

Scripts are taken to run from left to right and from top to bottom. After the recursive X-Y cut (Nagy and Seth 1984),
with rows as its horizontal cuts:

1. Boxes are grouped into rows: a box joins a row if its middle is within half a height of the row's first box.
2. From the top, the longest run of rows that a gutter divides is sought. A gutter is a vertical strip between boxes of
   the run that none of them enters, at least as wide as the first row is high.
3. Such a run is a block of columns if each side has at least two rows and its boxes are, by their median, at least four
   times as wide as high. So the prices of a menu stay beside their dishes, and the paragraphs of a page stay whole.
   The columns are ordered by themselves, the left one first.
4. A row outside of a block is read from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_WIDE = 4  # width / height of the boxes of a column, by their median
_FEWEST = 2  # rows of a block of columns, on each side

_Numbered = tuple[int, Box]


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """Return the positions in `boxes`, in the order in which the boxes are read."""
    return [number for number, _ in _ordered(list(enumerate(boxes)))]


def _ordered(boxes: list[_Numbered]) -> list[_Numbered]:
    rows, ordered = _rows(boxes), []
    # Between these, and nowhere else, a strip can have boxes on both sides.
    middle = min((box[2] for _, box in boxes), default=0), max((box[0] for _, box in boxes), default=0)
    start = 0
    while start < len(rows):
        columns, end = _columns(rows, start, middle)
        for column in columns:
            ordered += _ordered(column)
        if not columns:
            ordered += rows[start]
        start = end
    return ordered


def _rows(boxes: list[_Numbered]) -> list[list[_Numbered]]:
    """Return the boxes as rows, top to bottom, each from left to right."""
    rows: list[list[_Numbered]] = []
    for number, box in sorted(boxes, key=lambda each: (_middle(each[1]), each[1], each[0])):
        first = rows[-1][0][1] if rows else box
        if rows and _middle(box) - _middle(first) < min(_height(box), _height(first)) / 2:
            rows[-1].append((number, box))
        else:
            rows.append([(number, box)])
    return [sorted(row, key=lambda each: (each[1], each[0])) for row in rows]


def _columns(rows: list[list[_Numbered]], start: int, middle: tuple[float, float]) -> tuple[list[list[_Numbered]], int]:
    """Return the two sides of the longest run of rows from `start` that a gutter divides, and the end of the run.

    If that is no block of columns: no columns, and the end of the row at `start`.
    """
    least = median(_height(box) for _, box in rows[start])
    gaps, gutters, end = [middle], [middle], start
    leftmost_end, rightmost_start = math.inf, -math.inf
    for number, row in enumerate(rows[start:], start + 1):
        gaps = _between(gaps, row, least)
        leftmost_end = min(leftmost_end, *(right for _, (_, _, right, _) in row))
        rightmost_start = max(rightmost_start, *(left for _, (left, _, _, _) in row))
        inner = [(low, high) for low, high in gaps if leftmost_end <= low and high <= rightmost_start]
        if inner:  # boxes of the run are on both sides
            gutters, end = inner, number
        elif not gaps or end > start:
            break
    run = [each for row in rows[start:end] for each in row]
    for low, high in gutters if run else ():
        sides = [each for each in run if each[1][2] <= low], [each for each in run if each[1][0] >= high]
        if all(map(_is_column, sides)):
            return list(sides), end
    return [], start + 1


def _between(gaps: list[tuple[float, float]], row: list[_Numbered], least: float) -> list[tuple[float, float]]:
    """Return what the boxes of a row leave of vertical strips, without strips narrower than `least`."""
    for _, (left, _, right, _) in row:
        gaps = [part for low, high in gaps for part in ((low, min(high, left)), (max(low, right), high))]
        gaps = [(low, high) for low, high in gaps if high - low >= least]
    return gaps


def _is_column(side: list[_Numbered]) -> bool:
    shapes = [(right - left) / max(bottom - top, 1e-9) for _, (left, top, right, bottom) in side]
    return bool(side) and median(shapes) >= _WIDE and len(_rows(side)) >= _FEWEST


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2


def _height(box: Box) -> float:
    return box[3] - box[1]
