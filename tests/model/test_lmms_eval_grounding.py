"""lmms-eval's reading of time spans: strings, with what lmms-eval 0.7.3 itself reads in them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.grounding_scores import Span, temporal_iou
from model.lmms_eval_grounding import lmms_eval_iou, lmms_eval_spans

times = st.integers(0, 1000).map(lambda tenths: tenths / 10)
spans = st.tuples(times, times).map(lambda pair: (min(pair), max(pair)))
READ: list[tuple[str, Span | None]] = [
    ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
    ("12.0-34.5 s", (12.0, 34.5)),
    ("From 12 to 34 seconds", (12.0, 34.0)),
    ("from 12 seconds to 34 seconds", None),  # a unit between the numbers that is more than "s"
    ("between 3 and 5 seconds", None),
    ("3s - 5s", (3.0, 5.0)),
    ("The start time is 3 seconds, and the end time is 12 seconds.", None),  # one sentence, one number
    ("Start time: 3 s\nEnd time: 12 s", (3.0, 12.0)),
    ("I see 2 cats!\nIt starts at 4 s\nand ends at 9 s", (4.0, 9.0)),
    ("starts at 00:00:18 and ends at 00:00:23.", (18.0, 23.0)),
    ("At 0:07 and then 0:09 and 0:20", (7.0, 9.0)),
    ("At 0:07 and 0:09, from 3 to 5", (3.0, 5.0)),
    ("0:05 - 0:10", (5.0, 10.0)),
    ("0:05 \u2013 1:02:03", (5.0, 3723.0)),
    ("2-3 people; 12.0 - 20.0 s", (2.0, 3.0)),
    ("A 3 - 4 m wall.\nThe event happens in 10.0 - 12.0", (10.0, 12.0)),
    ("5.0 - 2.0", (2.0, 5.0)),
    ("7 - 7", (7.0, 7.0)),
    ("3\u20145 s", None),
    ("A specific example is : 20.8 - 30.0 seconds", None),
    ("12", None),
    ("", None),
]


@pytest.mark.parametrize(("answer", "span"), READ)
def test_span_is_what_lmms_eval_reads(answer: str, span: Span | None) -> None:
    assert lmms_eval_spans(answer) == ([] if span is None else [span])


@given(st.text(alphabet="0123456789:.-\u2013 stoandhppe!?\n"))
def test_any_text_has_one_span_or_none(text: str) -> None:
    for start, end in lmms_eval_spans(text):
        assert 0 <= start <= end < math.inf


def test_number_too_large_for_a_float_is_no_time() -> None:
    assert lmms_eval_spans(f"1 - {'9' * 400}") == []


@pytest.mark.parametrize(
    ("ours", "theirs", "iou"),
    [
        ([(2.0, 6.0)], [(4.0, 10.0)], 2 / 8),
        ([(0.0, 1.0)], [(2.0, 3.0)], 0.0),
        ([(2.0, 6.0), (4.0, 10.0)], [(4.0, 10.0), (2.0, 6.0)], 2 / 8),  # the first of each
        ([], [(4.0, 10.0)], 0.0),
        ([(5.0, 5.0)], [(5.0, 5.0)], 0.0),
    ],
)
def test_iou_is_overlap_over_the_length_from_first_to_last(ours: list[Span], theirs: list[Span], iou: float) -> None:
    assert lmms_eval_iou(ours, theirs) == iou


@given(spans, spans)
def test_iou_of_one_span_each_is_the_standard_one(one: Span, other: Span) -> None:
    assert lmms_eval_iou([one], [other]) == pytest.approx(temporal_iou([one], [other]))
