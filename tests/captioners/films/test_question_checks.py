"""Which questions are kept, which are dropped for which reason, and where right answers stand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioners.films.question_answer import WrittenQuestion, WrittenQuestions
from captioners.films.question_checks import DROPPED, ClipQuestion, shuffle, sound_questions
from captioners.films.question_prompts import Asked

ASKED = Asked({"count": "how many", "time_order": "what comes first"}, "both", 3, "en")
DURATION = 12.0
OPTIONS = ["He opens the door", "He sits down", "He drinks some water", "He leaves the room"]


def entry(**changed: Any) -> WrittenQuestion:
    written = {"aspect": "count", "question": "How many dogs run across the field?", "answer": "Three dogs."}
    return WrittenQuestion.model_validate(written | changed)


def choice(**changed: Any) -> WrittenQuestion:
    written = {"aspect": "time_order", "question": "What does the man do after he enters?", "options": OPTIONS}
    return entry(**written | {"answer": OPTIONS[2]} | changed)


def checked(*entries: WrittenQuestion, asked: Asked = ASKED) -> tuple[list[ClipQuestion], dict[str, int]]:
    kept, dropped = sound_questions(WrittenQuestions(entries, 0), asked, 7, DURATION)
    return kept, {name: number for name, number in dropped.items() if number}


def test_sound_questions_are_kept_as_they_are() -> None:
    kept, dropped = checked(entry(), choice())
    assert dropped == {}
    assert kept[0] == ClipQuestion("count", "open", "How many dogs run across the field?", "Three dogs.")
    assert sorted(kept[1].options) == sorted(OPTIONS)
    assert kept[1].answer_index is not None
    assert kept[1].options[kept[1].answer_index] == kept[1].answer == OPTIONS[2]


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"aspect": "mood"}, "malformed_questions"),
        ({"answer": ""}, "empty_questions"),
        ({"answer": " …"}, "empty_questions"),
        ({"question": "?"}, "empty_questions"),
        ({"answer": "Three <image> dogs."}, "control_token_questions"),
        ({"question": "Wie viele Hunde laufen über das Feld?", "answer": "Drei Hunde."}, "foreign_questions"),
        ({"question": "How many dogs are in the caption?"}, "leaking_questions"),
        ({"question": "According to the description, how many dogs run?"}, "leaking_questions"),
        ({"question": "How many dogs are visible in the frames?"}, "leaking_questions"),
        ({"answer": "Three dogs, as the last frame shows."}, "leaking_questions"),
        ({"question": "What is mentioned in the dense caption about dogs?"}, "leaking_questions"),
        ({"question": "Where do the three dogs run?"}, "leaking_questions"),
        ({"question": "What happens from 11.0-13.0 s?"}, "mistimed_questions"),
        ({"answer": "They run from 2 to 15 seconds."}, "mistimed_questions"),
    ],
)
def test_question_that_cannot_be_used_is_counted(changed: dict[str, Any], column: str) -> None:
    assert checked(entry(**changed)) == ([], {column: 1})


@pytest.mark.parametrize(
    "changed",
    [
        {"question": "What leaves the frame at the end?", "answer": "A white boat."},
        {"question": "What is written in the text on the sign?", "answer": "Closed today."},
        {"question": "Is there a dog, yes or no?", "answer": "Yes."},
        {"question": "When do they run?", "answer": "At 2.0-12.0 s."},
        {"question": "How many take part in the event?", "answer": "Five people."},
    ],
)
def test_ordinary_question_is_not_taken_for_a_bad_one(changed: dict[str, Any]) -> None:
    kept, dropped = checked(entry(**changed))
    assert (len(kept), dropped) == (1, {})


@pytest.mark.parametrize(
    "changed",
    [
        {"answer": "He sleeps"},
        {"options": OPTIONS[:3]},
        {"options": [*OPTIONS[:3], "he drinks some water."]},
        {"options": [*OPTIONS[1:3], "He runs", "he runs."]},
        {"options": [*OPTIONS[:3], " "]},
        {"answer": "A or B"},
    ],
)
def test_choice_without_four_options_or_its_answer_is_dropped(changed: dict[str, Any]) -> None:
    assert checked(choice(**changed)) == ([], {"unanswerable_questions": 1})


@pytest.mark.parametrize("answer", ["C", "(C)", "C. He drinks some water", "he drinks some water."])
@pytest.mark.parametrize("labels", [("", "", "", ""), ("A. ", "B. ", "C. ", "D. "), ("(A) ", "(B) ", "(C) ", "(D) ")])
def test_answer_may_be_a_letter_and_options_may_have_one(answer: str, labels: tuple[str, ...]) -> None:
    options = [label + option for label, option in zip(labels, OPTIONS, strict=True)]
    (kept,), _ = checked(choice(options=options, answer=answer))
    assert (kept.answer, sorted(kept.options)) == (OPTIONS[2], sorted(OPTIONS))


def test_number_that_is_an_option_is_its_text() -> None:
    (kept,), _ = checked(choice(question="How many cars pass?", options=[2, 3, 4, 5], answer=4))
    assert (kept.answer, kept.options.index("4")) == ("4", kept.answer_index)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["C", "D", "E", "G"], "D"),  # also the letter of the last
        (["B", "A", "D", "C"], "A"),
        (["C. Jones", "A. Brown", "B. Smith", "D. White"], "B. Smith"),
        (["C. Jones", "A. Brown", "B. Smith", "D. White"], "B. Smith."),
        (["A. C", "B. D", "C. E", "D. G"], "B. D"),
    ],
)
def test_text_of_an_option_comes_before_a_letter(options: list[str], answer: str) -> None:
    (kept,), dropped = checked(choice(question="Which note is on the card?", options=options, answer=answer))
    right = {"B. Smith.": "B. Smith", "B. D": "D"}.get(answer, answer)
    assert (kept.answer, kept.options.index(right), dropped) == (right, kept.answer_index, {})


@pytest.mark.parametrize("answer", ["(D)", "d", "D."])
def test_letter_that_may_be_a_text_or_an_option_is_dropped(answer: str) -> None:
    asked = choice(question="Which note is on the card?", options=["C", "D", "E", "G"], answer=answer)
    assert checked(asked) == ([], {"unanswerable_questions": 1})
    labelled = choice(question="Which note is on the card?", options=["A. C", "B. D", "C. E", "D. G"], answer=answer)
    assert checked(labelled) == ([], {"unanswerable_questions": 1})


@pytest.mark.parametrize(
    ("question", "is_duplicate"),
    [
        ("how many dogs  run across the field", True),
        ("How many dogs run across the big field?", True),  # 7 of 8 words
        ("How many cats run across the field?", False),  # 6 of 8 words
        ("Where do the dogs run?", False),
    ],
)
def test_near_duplicates_are_dropped(question: str, is_duplicate: bool) -> None:
    kept, dropped = checked(entry(), entry(question=question, answer="Four."))
    assert dropped == ({"duplicate_questions": 1} if is_duplicate else {})
    assert kept[0].question == "How many dogs run across the field?"


def test_questions_beyond_the_number_per_aspect_are_dropped() -> None:
    entries = [entry(question=f"How many {thing} are there?") for thing in ("red cars", "blue birds", "old men")]
    kept, dropped = checked(*entries, choice(), asked=ASKED._replace(per_aspect=2))
    assert [question.aspect for question in kept] == ["count", "count", "time_order"]
    assert dropped == {"surplus_questions": 1}


def test_other_forms_than_asked_for_are_dropped() -> None:
    for forms, kept_form in (("open", "open"), ("choice", "choice")):
        kept, dropped = checked(entry(), choice(), asked=ASKED._replace(forms=forms))
        assert ([question.form for question in kept], dropped) == ([kept_form], {"malformed_questions": 1})


def test_name_of_an_aspect_may_be_written_in_words() -> None:
    assert checked(choice(aspect="Time order"))[0][0].aspect == "time_order"


TEXTS = st.sampled_from(
    ["How many dogs run?", "In the caption?", "", "Was ist das?", "From 1-50 s?", "<image>", "Who sits?"]
)


@settings(max_examples=40)
@given(st.lists(st.builds(entry, aspect=st.sampled_from(["count", "mood"]), question=TEXTS, answer=TEXTS), max_size=9))
def test_each_written_question_is_kept_or_counted_once(entries: list[WrittenQuestion]) -> None:
    kept, dropped = sound_questions(WrittenQuestions(tuple(entries), 2), ASKED, 7, DURATION)
    assert len(kept) + dropped.total() == len(entries) + 2
    assert set(dropped) <= set(DROPPED)


@settings(max_examples=40)
@given(st.permutations(OPTIONS), st.integers(-(2**63), 2**63 - 1), st.text())
def test_order_of_options_does_not_depend_on_the_models(options: list[str], id_: int, question: str) -> None:
    assert shuffle(options, id_, question) == shuffle(OPTIONS, id_, question)
    assert sorted(shuffle(options, id_, question)) == sorted(OPTIONS)


def test_right_answers_are_balanced_over_the_letters() -> None:
    """4,000 answers that the model always puts first: each letter has 1,000 of them, give or take 4 sigma (110)."""
    places = Counter(shuffle(OPTIONS, id_, f"What does he do {id_ % 3}?").index(OPTIONS[0]) for id_ in range(4000))
    assert all(890 <= places[place] <= 1110 for place in range(4))
