"""Questions whose answer is known are not asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from captioners.engines.base import Answer, Engine, Question
from captioners.films.remembered import RememberingEngine, RowQuestion
from manifests.answer_memory import AnswerMemory
from manifests.storage import Folder


class Echo(Engine):
    """Answers each prompt with itself; `bad` with an error; `gone` ends the job."""

    def __init__(self, calls: int) -> None:
        self.calls, self.asked = calls, list[str]()

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += [question.prompt for question in questions]
        if any(question.prompt == "gone" for question in questions):
            raise ConnectionError("gone")
        return [
            Answer(error="bad", retry=True) if q.prompt == "bad" else Answer(q.prompt, tokens=3, reasoned=True)
            for q in questions
        ]


def questions(*prompts: str, row: int = 1) -> list[RowQuestion]:
    return [RowQuestion(row, Question(None, prompt)) for prompt in prompts]


@pytest.mark.parametrize("calls", [1, 4])
def test_only_what_has_no_answer_is_asked_again(calls: int, tmp_path: Path) -> None:
    engine, folder = Echo(calls), Folder.at(tmp_path)
    first = RememberingEngine(engine).ask(AnswerMemory(folder), questions("a", "bad", "b"))
    assert [(answer.text, answer.error) for answer in first] == [("a", None), ("", "bad"), ("b", None)]
    engine.asked.clear()
    again = RememberingEngine(engine).ask(AnswerMemory(folder), [*questions("b", "bad", "a"), *questions("a", row=2)])
    assert sorted(engine.asked) == ["a", "bad"]
    assert [again[0], again[2], again[3]] == [first[2], first[0], first[0]]


def test_answers_are_saved_although_the_server_goes(tmp_path: Path) -> None:
    engine, folder = Echo(4), Folder.at(tmp_path)
    with pytest.raises(ConnectionError):
        RememberingEngine(engine).ask(AnswerMemory(folder), questions("a", "gone"))
    engine.asked.clear()
    assert [answer.text for answer in RememberingEngine(engine).ask(AnswerMemory(folder), questions("a"))] == ["a"]
    assert engine.asked == []


def test_without_a_memory_each_question_is_asked() -> None:
    engine = Echo(4)
    assert [answer.text for answer in RememberingEngine(engine).ask(None, questions("a", "a"))] == ["a", "a"]
    assert engine.asked == ["a", "a"]
