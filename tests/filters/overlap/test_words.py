"""Words of a text, and which of them tell questions apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from filters.overlap.words import is_distinct, words_of


def test_case_punctuation_marks_and_option_letters_do_not_matter() -> None:
    plain = words_of("Which bridge crosses the Seine? A. Pont Neuf B. Tower Bridge")
    assert plain == "which bridge crosses the seine pont neuf tower bridge".split()
    assert words_of("<image>\nWHICH bridge crosses the Seine?\n(a) Pont-Neuf\n(b) Tower Bridge") == plain


def test_characters_of_scripts_without_spaces_are_words() -> None:
    assert words_of("图中有几只猫?") == list("图中有几只猫")
    assert words_of("ﬁve １２") == ["five", "12"]


@given(st.text())
def test_words_of_words_are_the_same_words(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words


def test_generic_questions_are_not_distinct() -> None:
    for text in (
        "What is in the image?",
        "Please describe this image in detail.",
        "Answer the question using a single word or phrase.",
        "Select the best answer and respond with the letter of the correct option directly.",
        "How many people are there in the picture, and what color are their clothes?",
    ):
        assert not is_distinct(words_of(text)), text
    assert is_distinct(words_of("Which vehicle is parked beside the lighthouse?"))
