"""ANLS, relaxed accuracy and VQA accuracy, against values computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.vqa_scores import anls, normalised, relaxed_accuracy, vqa_accuracy

texts = st.text(max_size=12)


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Coca Cola", ["coca  cola "], 1.0),
        ("kitten", ["sitting"], 1 - 3 / 7),  # two replaced, one put in; the longer has 7
        ("kitten", ["sitting", "mitten"], 1 - 1 / 6),
        ("2019", ["2018"], 1 - 1 / 4),
        ("ab", ["ac"], 0.5),  # the cut itself counts
        ("abc", ["xyc"], 0.0),  # 1/3 is below the cut
        ("", ["cat"], 0.0),
        ("cat", [""], 0.0),
        ("", [""], 1.0),
        ("cat", [], 0.0),
    ],
)
def test_anls_is_the_similarity_to_the_nearest_reference(answer: str, references: list[str], score: float) -> None:
    assert anls(answer, references) == pytest.approx(score)


def test_anls_of_videollama3_has_no_cut() -> None:
    assert anls("abc", ["xyc"], cut=0) == pytest.approx(1 / 3)
    assert anls("abc", ["xyz"], cut=0) == 0


@given(texts, texts)
def test_anls_is_symmetric_and_1_for_equal_texts(one: str, other: str) -> None:
    assert anls(one, [one]) == 1
    assert anls(one, [other]) == anls(other, [one])
    assert 0 <= anls(one, [other]) <= anls(one, [other], cut=0) <= 1


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("105", "100", True),  # 5 % of 100
        ("105.1", "100", False),
        ("95", "100", True),
        ("94.9", "100", False),
        ("-95", "-100", True),
        ("95", "-100", False),
        ("0.12", "12%", True),
        ("12 %", "12%", True),
        ("12", "12%", False),
        ("1e2", "100", True),
        ("0.0", "0", True),
        ("0.01", "0", False),
        ("Yes", " yes", True),
        ("Yes.", "yes", False),
        ("2019 to 2020", "2019 to 2020", True),
        ("nan", "nan", True),
        ("nan", "3", False),
        ("inf", "3", False),
        ("9" * 400, "3", False),
        ("", "3", False),
    ],
)
def test_relaxed_accuracy_allows_numbers_5_percent(answer: str, reference: str, right: bool) -> None:
    assert relaxed_accuracy(answer, [reference]) == right


def test_relaxed_accuracy_takes_any_reference() -> None:
    assert relaxed_accuracy("blue", ["red", "Blue"]) == 1
    assert relaxed_accuracy("blue", []) == 0


@pytest.mark.parametrize(
    ("equal", "accuracy"),
    [
        (0, 0.0),
        (1, 9 / 10 * 1 / 3),  # left out once: 0, else 1 of 3
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10),  # 0.6, as VQA's page has it
        (3, (3 * 2 / 3 + 7 * 1) / 10),  # 0.9
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_vqa_accuracy_leaves_each_reference_out(equal: int, accuracy: float) -> None:
    references = ["red"] * equal + [f"other {number}" for number in range(10 - equal)]
    assert vqa_accuracy("Red.", references) == pytest.approx(accuracy)


def test_vqa_accuracy_needs_four_references() -> None:
    assert vqa_accuracy("red", ["red"] * 3) is None
    assert vqa_accuracy("red", ["red"] * 4) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat", "cat"),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("dont know", "don't know"),
        ("couldntve", "couldn't've"),
        ("its", "its"),  # a word of its own
        ("yes.", "yes"),
        ("3.5 m", "3.5 m"),
        ("1,000", "1000"),
        ("red, white", "red white"),
        ("red/white", "red white"),
        ("t-shirt", "t shirt"),
        ("a\nb\tc", "b c"),
        ("", ""),
        ("?", ""),
    ],
)
def test_answers_are_normalised_as_in_vqa(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


@given(texts)
def test_any_text_is_normalised(text: str) -> None:
    assert vqa_accuracy(text, [text] * 4) == 1
