"""Marks of people: read from both kinds of files, counted once, with an interval that is right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from manifests.review_marks import FORM, Mark, count_marks, counting, parse_marks, review_columns, wilson


def saved(*marks: tuple[int, str, str], reviewer: str = "a", at: str = "2026-01-01") -> bytes:
    rows = [{"id": str(id_), "mark": mark, "note": note} for id_, mark, note in marks]
    return json.dumps({"form": FORM, "reviewer": reviewer, "saved": at, "rows": 9, "marks": rows}).encode()


def test_json_and_csv_of_a_page_give_the_same_marks() -> None:
    text = '\ufeffid,mark,note,reviewer,saved\r\n"-5","wrong","a ""hat"", no","a","2026-01-01"\r\n'
    assert parse_marks(text.encode(), "f") == parse_marks(saved((-5, "wrong", 'a "hat", no')), "f")
    assert parse_marks(text.encode(), "f") == [Mark(-5, "wrong", 'a "hat", no', "a", "2026-01-01")]


def test_text_that_is_no_unicode_is_made_some() -> None:
    """As half of an emoji: no table could hold it, and no later file of marks could be read."""
    assert parse_marks(saved((7, "good", "\ud83d hat"), reviewer="\udc00"), "f") == [
        Mark(7, "good", "\ufffd hat", "\ufffd", "2026-01-01")
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_may_have_any_line_ends(end: str) -> None:
    text = end.join(["id,mark,note", '7,good,"two\nlines"', ""])
    assert parse_marks(text.encode(), "f") == [Mark(7, "good", "two\nlines")]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00",
        b"{}",
        b'{"form": "other"}',
        b"{" * 100_000,
        b"<html>",
        b"id,mark\n7,great\n",
        b"id,mark\nseven,good\n",
        b"mark\ngood\n",
        saved((1 << 63, "good", "")),
        json.dumps({"form": FORM, "reviewer": "a", "saved": "b", "marks": 3}).encode(),
    ],
)
def test_file_without_marks_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^marks.json: no marks of a review page: ."):
        parse_marks(data, "marks.json")


def test_last_mark_of_a_person_counts_and_others_add_up() -> None:
    files = [
        saved((1, "good", ""), (2, "good", ""), at="2026-01-02"),
        saved((1, "wrong", "late"), at="2026-01-03"),
        saved((1, "unsure", ""), at="2026-01-01"),
        saved((1, "wrong", "hat"), reviewer="b"),
    ]
    marks = counting(mark for data in files for mark in parse_marks(data, "f"))
    assert review_columns(marks) == {
        "id": [1, 2],
        "review_wrong": [2, 0],
        "review_good": [0, 1],
        "review_unsure": [0, 0],
        "review_note": ["late | hat", None],
    }
    counted = count_marks(marks)
    assert (counted.images, counted.reviewers, counted.pairs, counted.agreeing) == (2, 2, 1, 1)
    assert (counted.shares["wrong"].images, counted.shares["good"].share) == (1, 0.5)


def test_marks_that_tie_are_unsure() -> None:
    counted = count_marks(counting([Mark(1, "good", reviewer="a"), Mark(1, "wrong", reviewer="b")]))
    assert (counted.shares["unsure"].images, counted.agreeing) == (1, 0)


@pytest.mark.parametrize(
    ("part", "whole", "interval"),
    [(8, 10, (0.4902, 0.9433)), (0, 20, (0.0, 0.1611)), (190, 200, (0.9104, 0.9726)), (0, 0, (0.0, 1.0))],
)
def test_wilson_interval_has_its_published_values(part: int, whole: int, interval: tuple[float, float]) -> None:
    assert wilson(part, whole) == pytest.approx(interval, abs=1e-4)


@given(st.data())
def test_wilson_interval_holds_the_share(data: Any) -> None:
    whole = data.draw(st.integers(1, 10_000))
    part = data.draw(st.integers(0, whole))
    low, high = wilson(part, whole)
    assert 0 <= low <= part / whole + 1e-12
    assert part / whole - 1e-12 <= high <= 1
