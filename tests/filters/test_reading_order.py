"""Reading order: lines, columns, a headline above them, and what only looks like columns."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filters.reading_order import Box, reading_order


def line(left: float, top: float, width: float, height: float = 20) -> Box:
    return (left, top, left + width, top + height)


def shuffled(boxes: list[Box], seed: int) -> list[Box]:
    return random.Random(seed).sample(boxes, len(boxes))


def read(boxes: list[Box]) -> list[Box]:
    return [boxes[number] for number in reading_order(boxes)]


LEFT = [line(0, 100 + 40 * number, 300) for number in range(4)]
RIGHT = [line(340, 100 + 40 * number, 300) for number in range(4)]
THIRD = [line(680, 100 + 40 * number, 300) for number in range(4)]
HEADLINE, FOOTER = line(0, 20, 980, 50), line(200, 400, 600)


@pytest.mark.parametrize(
    "boxes",
    [
        pytest.param([*LEFT, *RIGHT], id="two columns"),
        pytest.param([*LEFT, *RIGHT, *THIRD], id="three columns"),
        pytest.param([HEADLINE, *LEFT, *RIGHT, FOOTER], id="headline and footer"),
        pytest.param([*LEFT[:2], *RIGHT], id="columns of two lengths"),
        pytest.param([line(0, 0, 60), line(80, 4, 60), line(160, -3, 60), line(0, 40, 60)], id="words of a line"),
        pytest.param(
            [line(x, 40 * y, 60) if not x else line(x, 40 * y, 40) for y in range(4) for x in (0, 300)], id="menu"
        ),
        pytest.param([line(0, 0, 300), line(400, 0, 300), line(0, 40, 700)], id="one row with a gap"),
        pytest.param([line(0, 0, 300), line(400, 0, 300), line(0, 40, 300)], id="one line beside two"),
    ],
)
def test_boxes_are_read_in_this_order(boxes: list[Box]) -> None:
    for seed in range(5):
        assert read(shuffled(boxes, seed)) == boxes


def test_slanted_line_is_read_before_the_next_one() -> None:
    boxes = [line(0, 0, 90), line(100, 7, 90), line(0, 30, 90), line(100, 37, 90)]
    assert read(shuffled(boxes, 1)) == boxes


def test_thousand_lines_are_ordered_without_trying_all_runs() -> None:
    boxes = [line(200 + 7 * (number % 50), 30 * number, 400 - 7 * (number % 50)) for number in range(1000)]
    assert read(shuffled(boxes, 3)) == boxes


COORDINATES = st.tuples(*[st.integers(0, 1000)] * 4)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(COORDINATES, max_size=25))
def test_every_box_is_read_once_whatever_their_order(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    assert sorted(reading_order(boxes)) == list(range(len(boxes)))
    assert read(boxes) == read(boxes[::-1])
