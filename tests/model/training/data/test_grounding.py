"""Boxes and times are written as the paper does, and read in the ways of other data sets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.data.grounding import box_text, boxes_of, grounding_text, ocr_text, span_text, spans_of

sides = st.integers(1, 8000)


@st.composite
def images_with_boxes(draw: st.DrawFn) -> tuple[int, int, list[tuple[float, float, float, float]]]:
    width, height = draw(sides), draw(sides)
    shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
    result = []
    for _ in range(draw(st.integers(0, 5))):
        (x0, x1), (y0, y1) = draw(shares), draw(shares)
        result.append((x0 * width, y0 * height, x1 * width, y1 * height))
    return width, height, result


@given(images_with_boxes(), st.booleans())
def test_boxes_are_read_back_within_half_a_thousandth(
    drawn: tuple[int, int, list[tuple[float, float, float, float]]], spaced: bool
) -> None:
    width, height, boxes = drawn
    text = box_text(boxes, width, height)
    assert re.fullmatch(r"\[(\[\d+,\d+,\d+,\d+\],?)*\]", text)
    assert all(0 <= int(number) <= 1000 for number in re.findall(r"\d+", text))
    result = boxes_of(f"In 2020 {text.replace(',', ', ') if spaced else text} or [1, 2].", width, height)
    assert len(result) == len(boxes)
    for ours, theirs in zip(result, boxes, strict=True):
        for at, side in enumerate((width, height) * 2):
            assert abs(ours[at] - theirs[at]) <= side / 2000 * (1 + 1e-9)


@given(images_with_boxes(), st.lists(st.text(st.characters(exclude_characters="[]")), min_size=5, max_size=5))
def test_boxes_within_a_text_are_read_back(
    drawn: tuple[int, int, list[tuple[float, float, float, float]]], names: list[str]
) -> None:
    width, height, boxes = drawn
    expected = boxes_of(box_text(boxes, width, height), width, height)
    assert boxes_of(ocr_text(list(zip(names, boxes, strict=False)), width, height), width, height) == expected
    things = [(name, boxes[at : at + 2]) for name, at in zip(names, range(0, len(boxes), 2), strict=False)]
    assert boxes_of(grounding_text(things, width, height), width, height) == expected


def test_grounding_and_ocr_have_the_form_of_the_paper() -> None:
    boxes = [(0.0, 0.0, 100.0, 50.0), (25.0, 10.0, 75.0, 50.0)]
    assert grounding_text([("cats", boxes), ("lamp", [])], 100, 50) == (
        "<ref>cats</ref>[[0,0,1000,1000],[250,200,750,1000]]\n<ref>lamp</ref>[]"
    )
    assert ocr_text([("STOP", boxes[1])], 100, 50) == "STOP <box>[250,200,750,1000]</box>"


def test_four_numbers_that_are_not_a_box_are_ignored() -> None:
    assert boxes_of("[1,2,3] [0,0,1001,5] [5,0,4,9] [0,9,4,5] [1,2,3,4,5] [0,0,12345,1]", 10, 10) == []


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 11, 5), (6, 0, 5, 5), (0, 6, 5, 5), (0, 0, float("nan"), 5)])
def test_invalid_box_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="in an image of 10x10: give x0 <= x1, y0 <= y1 within it"):
        box_text([box], 10, 10)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)).map(sorted)))
def test_spans_are_read_back_within_a_twentieth_of_a_second(drawn: list[list[float]]) -> None:
    spans = [(start, end) for start, end in drawn]
    result = spans_of(f"At {span_text(spans)}, 3 to 4.")
    assert len(result) == len(spans)
    for ours, theirs in zip(result, spans, strict=True):
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 0.05 + 1e-6


def test_invalid_spans_are_refused_in_writing_ignored_in_reading() -> None:
    for span in [(2.0, 1.0), (-1.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)]:
        with pytest.raises(ValueError, match="give 0 <= start <= end"):
            span_text([span])
    assert span_text([(1.0, 2.0), (7.25, 9.0)]) == "1.0-2.0 s, 7.2-9.0 s"
    assert spans_of("5-3 s, 3-4 sheep, 10 - 12.5s") == [(10.0, 12.5)]
