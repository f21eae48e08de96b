"""Boxes and times are written as the paper does, and read in the ways of other data sets."""

from __future__ import annotations

import re
import time

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


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("from 1.0 to 2.5 seconds", [(1.0, 2.5)]),
        ("From 12 to 34 sec.", [(12.0, 34.0)]),
        ("24.3 - 30.4 seconds", [(24.3, 30.4)]),
        ("24.3 \u2013 30.4 seconds, stir the pot.", [(24.3, 30.4)]),
        ("24.3\u00a0\u2014\u00a030.4\u2009s", [(24.3, 30.4)]),
        ("12.00s-15.50s and 5 s until 9 s", [(12.0, 15.5), (5.0, 9.0)]),
        ("Between 3 and 5.5 Seconds; between 3 to 5 secs", [(3.0, 5.5), (3.0, 5.0)]),
        ("<time>7 ~ 8 second</time>", [(7.0, 8.0)]),
        ("At 00:18 - 00:23 he sits, from 1:02:03.5 to 1:02:04,250 he stands", [(18.0, 23.0), (3723.5, 3724.25)]),
        ("00:00:18\u201300:00:23, 75:30-76:00", [(18.0, 23.0), (4530.0, 4560.0)]),
        ("1.0 - 2.5", [(1.0, 2.5)]),
        (" From 1.0 to 2.5.", [(1.0, 2.5)]),
        ("[1.0-2.5, 3.0\u20134.5 and 5.0-6.0 s]", [(1.0, 2.5), (3.0, 4.5), (5.0, 6.0)]),
        ("1.0-2.0 s,7.5-9.0 s", [(1.0, 2.0), (7.5, 9.0)]),
    ],
)
def test_spans_of_other_notations_are_read(text: str, spans: list[tuple[float, float]]) -> None:
    assert spans_of(text) == spans


@pytest.mark.parametrize(
    "text",
    [
        "3-4 people",
        "3 - 4",
        "from 3 to 4",
        "between 3 and 4 sheep",
        "on 2020-01-02",
        "12/05 - 13/05",
        "2020-01-02 s",
        "it rose by 1.0 - 2.5 percent",
        "1.5-2.0 m/s",
        "pages 3-4 state it",
        "John 3:16-18",
        "the 1980s-1990s",
        "1980-1990s",
        "9:00 - 10:30 am",
        "12:60 - 12:70",
        "0 - 0:23",
        "-3-4 s",
        "1,5-9 s",
        "1-2-3 s",
        "v1.0.1-2.0.3",
        "00:23 - 00:18",
        "0-" + "9" * 400 + " s",
        "1.0, 2.5",
        "2 and 3 s",
    ],
)
def test_numbers_that_are_no_spans_are_not_read(text: str) -> None:
    assert spans_of(text) == []


@given(st.lists(st.tuples(st.integers(0, 359999), st.integers(0, 359999)).map(sorted), max_size=4), st.booleans())
def test_spans_of_clocks_are_read_back(drawn: list[list[int]], hours: bool) -> None:
    def clock(seconds: int) -> str:
        minutes = seconds // 60
        if not hours and minutes < 1000:
            return f"{minutes:02}:{seconds % 60:02}"
        return f"{minutes // 60}:{minutes % 60:02}:{seconds % 60:02}"

    text = "; ".join(f"{clock(start)} - {clock(end)} he jumps" for start, end in drawn)
    assert spans_of(text) == [(start, end) for start, end in drawn]


@pytest.mark.parametrize(
    "piece", ["1", "1 ", "1.", "1-", "1:", "1 - ", "00:18 - ", "between 1 ", "between ", " ", "1.0-2.0,"]
)
def test_spans_of_long_texts_are_read_in_linear_time(piece: str) -> None:
    begin = time.process_time()
    spans_of("1" + piece * 50_000)
    assert time.process_time() - begin < 5


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
