"""Ask a model for an answer in a given form, and once more where the first answer does not have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from captioners.engines.base import Answer
from captioners.films.remembered import RememberingEngine, RowQuestion
from captioners.markup import one_line
from core.errors import BadSampleError
from core.stages import Memory

_LONGEST_BEGINNING = 80  # characters of an answer that an error quotes

T = TypeVar("T")


class ReadAnswer(NamedTuple, Generic[T]):
    """What a model answered.

    Attributes:
        answer: The last answer. Its numbers of tokens are those of all answers; None if one of them is.
        value: What was read from it; None if there is an error.
        tries: How often the model was asked: 1 or 2.
        error: The engine's error, or what is wrong with the second answer; None if there is a value.
    """

    answer: Answer
    value: T | None
    tries: int
    error: str | None


def ask_twice(
    engine: RememberingEngine, memory: Memory | None, asked: Sequence[RowQuestion], read: Callable[[int, Answer], T]
) -> list[ReadAnswer[T]]:
    """Ask each question; ask it again, with the reason, if the answer cannot be read.

    An engine's error is not asked again here: the engine has retried it.

    Args:
        engine: The engine.
        memory: Has the answers that are known, and gets the new ones.
        asked: The questions.
        read: Reads the answer to the question with a number; it raises BadSampleError with what is wrong.
    """
    results = [_read(number, answer, read) for number, answer in enumerate(engine.ask(memory, asked))]
    invalid = [number for number, result in enumerate(results) if result.error and not result.answer.error]
    again = [_again(asked[number], results[number].error) for number in invalid]
    for number, answer in zip(invalid, engine.ask(memory, again), strict=True):
        results[number] = _second(results[number].answer, _read(number, answer, read))
    return results


def _read(number: int, answer: Answer, read: Callable[[int, Answer], T]) -> ReadAnswer[T]:
    if answer.error:
        return ReadAnswer(answer, None, 1, str(answer.error))
    try:
        return ReadAnswer(answer, read(number, answer), 1, None)
    except BadSampleError as error:
        cut = "cut off before its end; " if answer.cut else ""
        return ReadAnswer(answer, None, 1, f"{cut}{error}")


def _again(asked: RowQuestion, error: str | None) -> RowQuestion:
    note = f"Your last answer to this could not be used: {error}. Answer again, in the form that is asked for."
    return RowQuestion(asked.id, asked.question._replace(prompt=f"{asked.question.prompt}\n\n{note}"))


def _second(first: Answer, result: ReadAnswer[T]) -> ReadAnswer[T]:
    answer = result.answer
    total = answer._replace(
        prompt_tokens=_sum(first.prompt_tokens, answer.prompt_tokens), tokens=_sum(first.tokens, answer.tokens)
    )
    error = result.error
    if error and not answer.error:
        error = f"no valid answer in two tries: {error}; the last one begins {_beginning(answer.text)!r}"
    return ReadAnswer(total, result.value, 2, error)


def _sum(first: object, second: object) -> int | None:
    return first + second if isinstance(first, int) and isinstance(second, int) else None


def _beginning(text: str) -> str:
    return one_line(text[: 4 * _LONGEST_BEGINNING])[:_LONGEST_BEGINNING]
