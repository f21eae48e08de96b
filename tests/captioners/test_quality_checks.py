"""What is wrong with captions, by known answers: loops, refusals, other languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.quality_checks import check_language, language_share, refused, repetition, words
from captioners.recaption import default_rules

PROSE = [
    "A red bus on a street.",
    "Two dogs playing.",
    "A man riding a horse in a field. The man riding a horse wears a hat.",
    "A pizza with mozzarella, basilico and prosciutto.",
    "This image shows a vintage Volkswagen parked near Schloss Neuschwanstein.",
    "The image depicts a cosy living room. In the foreground, a brown leather sofa stands on a patterned rug. A floor "
    "lamp to the left of the sofa casts a warm light on the wall, where three framed pictures hang in a row. To the "
    "right of the sofa, a small wooden table holds a cup and an open book. In the background, a window shows a garden.",
]
LOOPS = [
    "red red red red red red",
    "a cat and a cat and a cat and a cat and a cat",
    "A man in a hat. A man in a hat. A man in a hat. A man in a hat.",
    "The image shows a tree. " * 6,
    "猫猫猫猫猫猫猫猫猫猫",
]
OTHERS = [
    "Ein Hund läuft auf der Wiese.",
    "Un chien court sur la plage.",
    "Un perro corre en la playa.",
    "Een rode bus op straat.",
    "Красный автобус на улице.",
    "一只猫坐在沙发上",
    "犬が草原を走っている",
    "كلب يجري على الشاطئ",
    "Czerwony autobus na ulicy.",
]


@pytest.mark.parametrize("text", PROSE)
def test_prose_passes_the_rules_for_captions(text: str) -> None:
    rules = default_rules("short")
    assert repetition(text) <= rules["max_short_repetition"]
    assert language_share(text, "en") >= rules["min_short_language"]
    assert not refused(text)


@pytest.mark.parametrize("text", LOOPS)
def test_repeated_phrases_exceed_the_repetition_limit(text: str) -> None:
    assert repetition(text) > default_rules("short")["max_short_repetition"]


@pytest.mark.parametrize("text", OTHERS)
def test_captions_in_other_languages_fail_the_rules(text: str) -> None:
    assert language_share(text, "en") < default_rules("short")["min_short_language"]


def test_each_language_is_recognised() -> None:
    assert language_share("Ein Hund läuft auf der Wiese.", "de") > 0.9
    assert language_share("一只猫坐在沙发上", "zh") > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, I cannot describe this image.",
        "As an AI language model, I am not able to view images.",
        "I am unable to see the picture you mention.",
        "No image was provided. Please upload an image.",
        "Unable to process the image.",
    ],
)
def test_refusals_are_recognised(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "A sign that says 'Sorry, we are closed'.",
        "A man who looks sorry stands at a window.",
        "A toy robot with the letters AI on its chest.",
        "A boat that cannot leave the harbour.",
    ],
)
def test_caption_that_resembles_a_refusal_is_not_one(text: str) -> None:
    assert not refused(text)


def test_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language 'english' is not known"):
        check_language("english")


@given(st.text(max_size=200))
def test_any_text_has_measures_within_their_ranges(text: str) -> None:
    assert 0 <= repetition(text) <= 1
    assert 0 <= language_share(text, "en") <= 1
    assert words(text) >= 0


@given(st.lists(st.sampled_from("abcdefgh"), min_size=8, max_size=30))
def test_text_written_twice_has_repetition_of_at_least_half(letters: list[str]) -> None:
    text = " ".join(letters)
    assert repetition(f"{text} {text}") >= 0.5
