"""Notes on a long film: what the language model reads, and how notes become short enough for its window."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.film_notes import Note, fitting, question_over

NOTES = [Note(10.0 * n, 10.0 * n + 10, f"part {n} shows\n a dog") for n in range(6)]


def test_question_stands_behind_the_notes_with_their_times() -> None:
    text = question_over(NOTES[:2], "Where is {it}?")
    assert text.splitlines()[0].startswith("These are notes about a film of 20 seconds")
    assert "0.0-10.0 s: part 0 shows a dog\n10.0-20.0 s: part 1 shows a dog" in text
    assert text.endswith("\n\nWhere is {it}?")


def test_notes_that_fit_are_not_summed_up() -> None:
    def ask(_: str) -> str:
        raise AssertionError

    assert fitting(NOTES, "Why?", lambda text: True, ask) == NOTES


def test_long_notes_are_summed_up_with_the_question_in_view() -> None:
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return f"sum {len(asked)}"

    left = fitting(NOTES, "Why?", lambda text: text.count(" s: ") <= 4, ask)
    assert left == [Note(0.0, 40.0, "sum 1"), Note(40.0, 60.0, "sum 2")]
    assert all(text.endswith("answer this question: Why?") for text in asked)
    assert "30.0-40.0 s: part 3 shows a dog" in asked[0]


def test_question_longer_than_the_window_is_refused() -> None:
    with pytest.raises(UserError, match="window"):
        fitting(NOTES, "Why?", lambda text: False, lambda text: "short")


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(1, 8))
def test_notes_end_short_enough_and_cover_the_film(count: int, most: int) -> None:
    told = [Note(float(n), n + 1.0, "x") for n in range(count)]

    def fits(text: str) -> bool:
        return text.count(" s: ") <= max(most, 4 if "Sum them up" in text else 1)

    left = fitting(told, "?", fits, lambda text: "y")
    assert len(left) <= max(most, 1)
    assert (left[0].start, left[-1].end) == (0.0, float(count))
    assert all(a.end == b.start for a, b in itertools.pairwise(left))
