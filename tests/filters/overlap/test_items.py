"""Rows of benchmarks in the forms in which they are published."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from core.errors import BadSampleError
from filters.overlap.items import Item, item_of
from tests.filters.overlap.pictures import jpeg, png, scene

DATA = png(scene(0, 40))

FORMS: dict[str, tuple[dict[str, Any], Item]] = {
    "options as a list, answer as a letter": (
        {"question_id": "q-1", "question": "Which one?", "options": ["A. red", "B. blue"], "answer": "B"},
        Item("q-1", (), "Which one?", ("A. red", "B. blue"), ("B",)),
    ),
    "options as columns": (
        {"index": 7, "question": "Which one?", "A": "red", "B": "blue", "image": base64.b64encode(DATA).decode()},
        Item("7", (DATA,), "Which one?", ("red", "blue"), ("red",)),
    ),
    "numbered options": (
        {"q_uid": "u", "question": "Why?", "option 0": "rain", "option 1": "sun"},
        Item("u", (), "Why?", ("rain", "sun")),
    ),
    "struct of bytes": (
        {"pid": "3", "question": "How long?", "decoded_image": {"bytes": DATA, "path": "3.jpg"}, "answer": "1.2"},
        Item("3", (DATA,), "How long?", (), ("1.2",)),
    ),
    "paths, and several answers": (
        {"id": 9, "question": "Total?", "image_1": "a/1.png", "image_2": "a/2.png", "answers": ["$5", "5 dollars"]},
        Item("9", ("a/1.png", "a/2.png"), "Total?", (), ("$5", "5 dollars")),
    ),
    "data URI": (
        {"image": "data:image/png;base64," + base64.b64encode(DATA).decode()},
        Item("f:1", (DATA,)),
    ),
    "images of another name, as `datasets` stores them": (
        {"question": "Who?", "page": [{"bytes": DATA, "path": None}], "audio": {"bytes": b"", "path": None, "rate": 1}},
        Item("f:1", (DATA,), "Who?"),
    ),
    "several captions": (
        {"image_id": 5, "image": "5.jpg", "caption": ["A quay.", "Cranes at a quay."]},
        Item("f:1", ("5.jpg",), "", (), ("A quay.", "Cranes at a quay.")),
    ),
    "conversation": (
        {
            "image": "1.jpg",
            "conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}],
        },
        Item("f:1", ("1.jpg",), "<image>\nWho?\nI"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_row_of_each_form_is_read(form: str) -> None:
    row, item = FORMS[form]
    assert item_of(row, "f:1") == item


def test_row_without_known_keys_is_none() -> None:
    assert item_of({"sha": "12", "size": 4}, "f:1") is None


def test_broken_base64_is_a_bad_sample() -> None:
    text = base64.b64encode(jpeg(scene(0, 60))).decode()
    with pytest.raises(BadSampleError, match="Base64"):
        item_of({"image": text[:90] + "!!" + text[90:]}, "f:1")


def test_variants_are_question_options_and_answer() -> None:
    item = Item("1", (), "Which?", ("red", "blue"), ("blue", "navy"))
    assert item.variants == ["Which?", "Which? red blue", "Which? blue", "Which? red blue blue"]
    assert Item("1", (), "", (), ("A caption", "Another")).variants == ["A caption", "Another"]


def test_id_and_texts_of_half_characters_are_harmless() -> None:
    item = item_of({"id": "a\ud83d", "question": "Which \ud83d one?"}, "f:1")
    assert item is not None
    assert item.id == "a\ufffd"
