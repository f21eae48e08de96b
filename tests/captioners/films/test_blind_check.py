"""Whether an answer without the clip is the same, and what is asked then."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from captioners.films.blind_check import blind_question, is_same_answer
from captioners.films.question_checks import ClipQuestion
from core.stages import IMAGE, PORTABLE

CHOICE = ClipQuestion("count", "choice", "How many run?", "Two", ("Four", "Two", "Six", "One"), 1)
OPEN = ClipQuestion("count", "open", "What runs?", "A red dog runs.")


@pytest.mark.parametrize(
    ("answer", "same"), [("B", True), ("(B) Two", True), ("Two.", True), ("A", False), ("?", False)]
)
def test_choice_is_the_same_if_it_is_the_same_option(answer: str, same: bool) -> None:
    assert is_same_answer(CHOICE, answer) is same


@pytest.mark.parametrize(("answer", "same"), [("B. Smith", True), ("A", True), ("B", False), ("C. Jones", False)])
def test_initial_of_an_option_is_not_a_letter_of_one(answer: str, same: bool) -> None:
    names = ("B. Smith", "C. Jones", "D. White", "A. Brown")
    assert is_same_answer(ClipQuestion("count", "choice", "Who runs?", names[0], names, 0), answer) is same


@pytest.mark.parametrize(
    ("answer", "same"),
    [("a red dog runs", True), ("A red dog ran.", True), ("A dog runs.", False), ("", False)],  # 100, 66, 56, 0
)
def test_open_answer_is_the_same_from_a_chrf_of_60(answer: str, same: bool) -> None:
    assert is_same_answer(OPEN, answer) is same


def test_reader_of_captions_gets_the_question_alone() -> None:
    asked = blind_question(CHOICE, sees=False, image_input=PORTABLE)
    assert (asked.image, asked.frames) == (None, ())
    assert "How many run?\n(A) Four\n(B) Two\n(C) Six\n(D) One\n" in asked.prompt


@pytest.mark.parametrize("image_input", [IMAGE, PORTABLE])
def test_watcher_of_frames_gets_one_black_frame(image_input: str) -> None:
    (frame,) = blind_question(OPEN, sees=True, image_input=image_input).frames
    picture = Image.open(io.BytesIO(frame.image)) if isinstance(frame.image, bytes) else frame.image
    assert (frame.time, picture.mode) == (0.0, "RGB")
    assert picture.convert("L").getextrema() == (0, 0)
