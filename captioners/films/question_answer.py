"""Read questions from a model's answer: JSON, with or without prose and fences around it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from captioners.markup import one_line
from core.errors import BadSampleError

_LONGEST = 200_000  # characters of an answer that are read
_STARTS = 200  # brackets at which JSON may begin


class WrittenQuestion(BaseModel):
    """A question as a model wrote it. Its texts are one line each.

    Attributes:
        aspect: What it is about.
        form: `open` or `choice`.
        question: The question; may be empty.
        answer: The answer; for a choice, the text or the letter of an option.
        options: The options; empty for an open question.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    aspect: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    form: Literal["open", "choice"] = "open"

    @model_validator(mode="before")
    @classmethod
    def _infer_form(cls, written: Any) -> Any:
        """Take the form from the options; a form that is written must agree with them."""
        if not isinstance(written, dict):
            return written
        form = "choice" if written.get("options") else "open"
        if written.get("form") in ("open", "choice") and written["form"] != form:
            raise ValueError("its form and its options do not fit each other")
        return {**written, "form": form}

    @field_validator("options", mode="before")
    @classmethod
    def _read_options(cls, options: Any) -> Any:
        """Accept `{"A": …, "B": …}` and null, too."""
        return tuple(options.values()) if isinstance(options, dict) else options or ()

    @field_validator("aspect", "question", "answer")
    @classmethod
    def _clean(cls, text: str) -> str:
        return one_line(text)

    @field_validator("options")
    @classmethod
    def _clean_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(one_line, options))


class WrittenQuestions(NamedTuple):
    """The questions of an answer.

    Attributes:
        questions: Those that have all parts.
        malformed: Number of the others.
    """

    questions: tuple[WrittenQuestion, ...]
    malformed: int


def read_questions(text: str) -> WrittenQuestions:
    """Return the questions in a model's answer: the first `{"questions": […]}` or list of objects in it.

    Raises:
        BadSampleError: There is none, or no entry of it is a question; the text says what is wrong.
    """
    for value in _json_values(text[:_LONGEST]):
        entries = value.get("questions") if isinstance(value, Mapping) else value
        if isinstance(entries, list) and (isinstance(value, Mapping) or _is_of_objects(entries)):
            return _validated(entries)
    raise BadSampleError("there is no JSON object with questions in it")


def _is_of_objects(entries: list[Any]) -> bool:
    return bool(entries) and all(isinstance(entry, dict) for entry in entries)


def _validated(entries: list[Any]) -> WrittenQuestions:
    questions, fault = [], ""
    for entry in entries:
        try:
            questions.append(WrittenQuestion.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            fault = fault or one_line(f"{where}: {first['msg']}" if where else first["msg"])
    if entries and not questions:
        raise BadSampleError(f"no entry is a question: {fault[:200]}")
    return WrittenQuestions(tuple(questions), len(entries) - len(questions))


def _json_values(text: str) -> Iterator[Any]:
    """Yield the objects and arrays of JSON in a text, the outer ones."""
    decoder = json.JSONDecoder(strict=False)  # line ends within a string are a model's usual mistake
    at = 0
    for _ in range(_STARTS):
        starts = [start for bracket in "{[" if (start := text.find(bracket, at)) >= 0]
        if not starts:
            return
        try:
            value, at = decoder.raw_decode(text, min(starts))
        except (ValueError, RecursionError):
            at = min(starts) + 1
            continue
        yield value
