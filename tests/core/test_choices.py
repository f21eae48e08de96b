"""The option that an answer names, in the forms that models and data sets have."""

from __future__ import annotations

import pytest

from core.choices import choice_of, options_of

MVBENCH = "Question: Who sits?\nOptions:\n(A) a man\n(B) a boy\n(C) Iron Man\nAnswer with the option's letter."
VIDEO_MME = "Who sits?\nA. a man.\nB. a boy.\nC. Iron Man.\nD. vitamin C.\nThe best answer is:"
OPTIONS = {"A": "a man", "B": "a boy", "C": "Iron Man"}


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (MVBENCH, OPTIONS),
        (VIDEO_MME, {"A": "a man.", "B": "a boy.", "C": "Iron Man.", "D": "vitamin C."}),
        ("Which?\nA) red\n B: blue", {"A": "red", "B": "blue"}),
        ("(A) of an example\n(B) of it\nWhich?\n(A) red\n(B) blue", {"A": "red", "B": "blue"}),
        ("Which?\n(A) red\n(C) blue", {}),  # one option is none
        ("A. Who sits?", {}),
        ("Who sits?", {}),
        ("", {}),
    ],
)
def test_options_are_read_from_the_lines_of_a_question(question: str, options: dict[str, str]) -> None:
    assert options_of(question) == options


@pytest.mark.parametrize(
    "answer",
    [
        "B", "b", "(B)", "(b)", "B.", "B)", "B:", "**B**", '"B"', " B \n", "[B]",
        "(B) a boy", "B. a boy", "B a boy", "b) A boy.", "a boy", "A boy.", '"a boy"',
        "Answer: B", "Answer: (B) a boy", "answer is B", "The answer is (B).", "The best answer is: B",
        "Final answer: B.", "The correct option is B because he is small.", "Option B", "The answer is option B.",
        "The answer is a boy.", "**Answer:** B", "Best option:(B)", "My choice: B",
        "B. He sits, not the man.", "B, I think", "B is correct", "B because he is small", "B. Option A is wrong.",
        "(A) is too old, so the answer is (B).", "He is small, hence (B)",
    ],
)  # fmt: skip
def test_option_is_named_in_many_forms(answer: str) -> None:
    assert choice_of(answer, OPTIONS) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        "", " ", "?", "D", "(D)", "E. a girl", "A man is sitting there.", "A or B", "A, B", "(A) or (B)", "A and B",
        "A/B", "B, C and A.", "I do not know", "Both (A) and (B)", "a girl", "Because he is small", "Boy", "AB",
        "The answer is unclear.", "A's",
    ],
)  # fmt: skip
def test_answer_that_names_no_option_or_several_is_none(answer: str) -> None:
    assert choice_of(answer, OPTIONS) is None


def test_article_is_not_an_option() -> None:
    assert choice_of("A boy", OPTIONS) == "B"
    assert choice_of("A man", OPTIONS) == "A"


def test_option_is_named_by_the_text_of_one_option_only() -> None:
    assert choice_of("red", {"A": "red", "B": "Red."}) is None
    assert choice_of("vitamin C", options_of(VIDEO_MME)) == "D"
    assert choice_of("C", options_of(VIDEO_MME)) == "C"


@pytest.mark.parametrize("answer", ["B. Smith", "b. smith.", "The answer is B. Smith.", "A", "A: B. Smith"])
def test_whole_text_of_an_option_comes_before_its_first_letter(answer: str) -> None:
    assert choice_of(answer, {"A": "B. Smith", "B": "C. Jones"}) == "A"
    assert choice_of("B", {"A": "B", "B": "A"}) == "B"  # a letter alone is a letter


def test_any_letter_is_an_option_of_a_question_without_options() -> None:
    assert choice_of("Answer: F", {}) == "F"
    assert choice_of("a boy", {}) is None
