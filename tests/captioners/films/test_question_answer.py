"""Questions in a model's answer: JSON in prose, in fences, broken, hostile."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from captioners.films.question_answer import WrittenQuestion, read_questions
from core.errors import BadSampleError

OPEN = {"aspect": "count", "question": "How many?", "answer": "Two.", "options": []}
CHOICE = {"aspect": "count", "question": "Which?", "answer": "red", "options": ["red", "blue", "grey", "pink"]}
WHOLE = json.dumps({"questions": [OPEN, CHOICE]})


def one(entry: dict[str, Any]) -> WrittenQuestion:
    (question,) = read_questions(json.dumps([entry])).questions
    return question


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"```json\n{WHOLE}\n```",
        f"Sure! Here are [2] questions {{as asked}}:\n\n{WHOLE}\n\nI hope this helps {{}}.",
        json.dumps([OPEN, CHOICE], indent=2),
        WHOLE.replace("How many?", "How\nmany?"),  # a line end within a string
    ],
)
def test_questions_are_read_whatever_is_around_them(text: str) -> None:
    read = read_questions(text)
    assert [(q.form, q.question, q.answer) for q in read.questions] == [
        ("open", "How many?", "Two."),
        ("choice", "Which?", "red"),
    ]
    assert read.malformed == 0


def test_object_without_questions_means_that_none_fits() -> None:
    assert read_questions('{"questions": []}') == ((), 0)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"answer": 3}, ("open", "3", ())),
        ({"options": None}, ("open", "Two.", ())),
        ({"options": {"A": "x", "B": 4}}, ("choice", "Two.", ("x", "4"))),
        ({"form": "open"}, ("open", "Two.", ())),
        ({"form": "short answer", "more": 1}, ("open", "Two.", ())),
        ({"answer": "a\x00b\ud83d\n c"}, ("open", "ab c", ())),
    ],
)
def test_usual_variants_of_an_entry_are_read(changed: dict[str, Any], expected: tuple[Any, ...]) -> None:
    question = one(OPEN | changed)
    assert (question.form, question.answer, question.options) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"answer": None},
        {"answer": ["Two."]},
        {"question": {}},
        {"aspect": True},
        {"options": [None]},
        {"form": "choice"},
    ],
)
def test_entry_without_its_parts_is_counted(changed: dict[str, Any]) -> None:
    read = read_questions(json.dumps({"questions": [OPEN | changed, CHOICE, 7]}))
    assert [question.question for question in read.questions] == ["Which?"]
    assert read.malformed == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I'm sorry, I can't.", "there is no JSON object with questions in it"),
        (WHOLE[:-30], "there is no JSON object with questions in it"),
        ('{"answers": []}', "there is no JSON object with questions in it"),
        ("[] [1] {}", "there is no JSON object with questions in it"),
        ('{"questions": [{"aspect": "count"}]}', "no entry is a question: question: Field required"),
    ],
)
def test_answer_without_questions_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadSampleError) as error:
        read_questions(text)
    assert str(error.value) == said


@pytest.mark.parametrize("piece", ["[", "{", '{"a":', '{"questions": [', '"', '{"'])
def test_hostile_answer_takes_no_more_than_a_moment(piece: str) -> None:
    begin = time.process_time()
    with pytest.raises(BadSampleError):
        read_questions(piece * (4_000_000 // len(piece)))
    assert time.process_time() - begin < 5
