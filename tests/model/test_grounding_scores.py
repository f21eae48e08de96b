"""Temporal IoU, localisation and SODA, against values computed by hand."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import grounding_scores
from model.grounding_scores import (
    Event,
    Span,
    f1,
    grounding_iou,
    localisation,
    soda,
    temporal_iou,
    videollama3_iou,
    videollama3_spans,
)

NAN, INF = math.nan, math.inf
rouge_l = cache(grounding_scores.rouge_l)  # it imports NLTK
times = st.integers(0, 1000).map(lambda tenths: tenths / 10)
spans = st.tuples(times, times).map(lambda pair: (min(pair), max(pair)))
wild = st.tuples(st.floats(), st.floats())
captions = st.lists(st.sampled_from("a man sits down and then he stands up".split()), max_size=5).map(" ".join)
events = st.lists(st.tuples(spans, captions), max_size=5)


@pytest.mark.parametrize(
    ("ours", "theirs", "iou"),
    [
        ([(2.0, 6.0)], [(4.0, 10.0)], 2 / 8),  # shared 4-6, union 2-10
        ([(0.0, 10.0)], [(2.0, 4.0)], 2 / 10),
        ([(0.0, 1.0)], [(1.0, 2.0)], 0.0),  # they touch
        ([(3.0, 7.5)], [(3.0, 7.5)], 1.0),
        ([(0.0, 4.0), (2.0, 6.0)], [(0.0, 6.0)], 1.0),
        ([(0.0, 4.0), (2.0, 6.0)], [(0.0, 12.0)], 6 / 12),  # an overlap counts once
        ([(0.0, 2.0), (8.0, 10.0)], [(1.0, 9.0)], 2 / 10),  # shared 1-2 and 8-9, union 0-10
        ([], [(0.0, 1.0)], 0.0),
        ([(5.0, 5.0)], [(5.0, 5.0)], 0.0),  # no length
        ([(6.0, 2.0)], [(2.0, 6.0)], 0.0),  # reversed
        ([(NAN, 6.0)], [(2.0, 6.0)], 0.0),
        ([(2.0, INF)], [(2.0, 6.0)], 0.0),
        ([(2.0, 6.0)], [(NAN, NAN)], 0.0),
    ],
)
def test_iou_is_shared_length_over_length_of_the_union(ours: list[Span], theirs: list[Span], iou: float) -> None:
    assert temporal_iou(ours, theirs) == pytest.approx(iou)


@given(st.lists(spans, max_size=4), st.lists(spans, max_size=4))
def test_iou_is_symmetric_and_from_0_to_1(ours: list[Span], theirs: list[Span]) -> None:
    assert temporal_iou(ours, theirs) == pytest.approx(temporal_iou(theirs, ours))
    assert 0 <= temporal_iou(ours, theirs) <= 1


@given(spans, spans)
def test_iou_is_1_for_equal_spans_with_a_length_only(one: Span, other: Span) -> None:
    assert temporal_iou([one], [one]) == (1 if one[1] > one[0] else 0)
    assert (temporal_iou([one], [other]) == 1) == (one == other and one[1] > one[0])


@given(st.lists(wild, max_size=3), st.lists(wild, max_size=3))
def test_no_spans_raise_and_no_iou_is_nan(ours: list[Span], theirs: list[Span]) -> None:
    for iou in (temporal_iou, grounding_iou, videollama3_iou):
        assert iou(ours, theirs) >= 0
    precision, recall = localisation(ours, theirs, 0.5)
    assert 0 <= precision <= 1
    assert 0 <= recall <= 1
    assert 0 <= soda([(span, "a") for span in ours], [(span, "a") for span in theirs], lambda a, b: 1.0) <= 1


def test_one_reference_is_compared_with_the_first_span() -> None:
    answer = [(0.0, 4.0), (10.0, 20.0)]
    assert grounding_iou(answer, [(10.0, 20.0)]) == 0
    assert grounding_iou(answer, [(0.0, 4.0), (10.0, 20.0)]) == 1
    assert grounding_iou([], [(0.0, 4.0)]) == 0


def test_iou_of_videollama3_adds_overlaps_up_and_exceeds_1() -> None:
    """Reference 0-10 said k times: shared 10k, union 10 + 10k - 10k = 10."""
    reference = [(0.0, 10.0)]
    assert [videollama3_iou(reference * times, reference) for times in range(4)] == [0, 1, 2, 3]
    # 0-4 and 8-12 of 2-10: shared 2 + 2, union 8 + 4 + 4 - 4
    assert videollama3_iou([(0.0, 4.0), (8.0, 12.0)], [(2.0, 10.0)]) == pytest.approx(4 / 12)
    assert videollama3_iou([(4.0, 0.0)], [(2.0, 10.0)]) == pytest.approx(2 / 10)  # reversed spans are turned
    assert videollama3_iou([(0.0, 4.0)], [(2.0, 2.0)]) == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1.0-2.0 s, 7.5 to 9 s", [(1.0, 2.0), (7.5, 9.0)]),
        ("From 5 s until 9 s", [(5.0, 9.0)]),
        ("I saw 2 people; from 5 s until 9 s", [(5.0, 9.0)]),  # three numbers: the first is left out
        ("2-3 people; 5 s until 9 s", [(2.0, 3.0)]),
        ("00:00:18 - 00:00:23", [(18.0, 0.0)]),
        (".5-1.", [(0.5, 1.0)]),
        ("1-" + "9" * 400, []),
        ("never", []),
        ("at 3", []),
    ],
)
def test_spans_of_videollama3_are_read_as_its_evaluation_does(text: str, read: list[Span]) -> None:
    assert videollama3_spans(text) == read


def test_localisation_counts_spans_above_the_threshold() -> None:
    """0-10 has IoU 0.8 with 0-8 and 0 with 20-30; 40-50 has none with either."""
    found, references = [(0.0, 10.0), (40.0, 50.0), (0.0, 8.0)], [(0.0, 8.0), (20.0, 30.0)]
    assert localisation(found, references, 0.7) == (2 / 3, 1 / 2)
    assert localisation(found, references, 0.8) == (1 / 3, 1 / 2)  # 0.8 is not above 0.8
    assert localisation([], references, 0.3) == (0, 0)
    assert f1(2 / 3, 1 / 2) == pytest.approx(4 / 7)
    assert f1(0, 0) == 0


def test_soda_is_the_best_matching_that_keeps_the_order() -> None:
    """IoU is 1 for equal spans and 0 for others; captions are alike where they begin with the same letter.

    With the captions of a and b swapped, only c fits: one pair of three, P = R = 1/3.
    """

    def alike(reference: str, caption: str) -> float:
        return float(reference[0] == caption[0])

    references: list[Event] = [((0.0, 1.0), "a"), ((1.0, 2.0), "b"), ((2.0, 3.0), "c")]
    assert soda(references, references, alike) == 1
    assert soda(references[::-1], references, alike) == 1  # sorted by time first
    swapped: list[Event] = [((0.0, 1.0), "b"), ((1.0, 2.0), "a"), ((2.0, 3.0), "c")]
    assert soda(swapped, references, alike) == pytest.approx(1 / 3)
    # One of three events: precision 1, recall 1/3, F1 1/2.
    assert soda(references[:1], references, alike) == pytest.approx(1 / 2)
    # Two that cover all three references, 0-3: each pair is worth 1/3 at most, two pairs 2/3: P 1/3, R 2/9, F1 4/15.
    wide: list[Event] = [((0.0, 3.0), "a"), ((0.0, 3.0), "b")]
    assert soda(wide, references, alike) == pytest.approx(4 / 15)
    assert soda([], references, alike) == soda(references, [], alike) == 0


def test_soda_does_not_match_against_the_order() -> None:
    """Both pairs overlap by 1/3 crosswise, but a matching may take one only: sum 1, P = R = 1/2.

    0-2 comes first on one side, 1-3 with the same caption on the other: keeping the order pairs 0-2 with 0-2.
    """
    ours: list[Event] = [((0.0, 2.0), "x"), ((1.0, 3.0), "y")]
    theirs: list[Event] = [((0.0, 2.0), "y"), ((1.0, 3.0), "x")]
    # Pairs of equal captions: x 0-2 with 1-3, y 1-3 with 0-2, 1/3 each. They cross, so one of them counts.
    assert soda(ours, theirs, lambda a, b: float(a == b)) == pytest.approx((1 / 3) / 2)


@given(events, events)
def test_soda_is_symmetric_and_at_most_1(ours: list[Event], theirs: list[Event]) -> None:
    score = soda(ours, theirs, rouge_l())
    assert 0 <= score <= 1 + 1e-9
    assert soda(theirs, ours, rouge_l()) == pytest.approx(score)


def test_rouge_l_is_the_f1_of_the_longest_common_words() -> None:
    """Lin 2004, section 2: "police killed the gunman" and "police kill the gunman" share three words of four."""
    assert rouge_l()("police killed the gunman", "police kill the gunman") == pytest.approx(3 / 4)
    assert rouge_l()("police killed the gunman", "the gunman kill police") == pytest.approx(2 / 4)
