"""Questions with options, `(A) a man`, and which of them an answer means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.errors import BadSampleError
from core.records import Choices, Medium, Turn
from model.training.data.importers.turns import assistant, user

PREFIX = re.compile(r"\s*(?:Answer|Best option):\s*(?=\()")
"""What VideoChat2 writes before the letter of an answer."""

_OPTIONS = re.compile(r"\bOptions:\s*(?=\(A\))")
_OPTION = re.compile(r"(?:^|\n)\s*\(([A-Z])\)")
_LETTER = re.compile(r"\s*\(([A-Z])\)")


def options_of(question: str) -> tuple[str, ...]:
    """Return the options behind `Options:` in a question, one a line, lettered from (A); none: an empty tuple."""
    start = _OPTIONS.search(question)
    if start is None:
        return ()
    _, *pieces = _OPTION.split(question[start.end() :])
    letters, texts = pieces[::2], [text.strip() for text in pieces[1::2]]
    return tuple(texts) if letters == [letter_of(number) for number in range(len(letters))] else ()


def choices_of(question: str, answer: str) -> Choices | None:
    """Return the options of a question, and the one that an answer names by its letter, else by its text.

    Raises:
        BadSampleError: It names a letter that no option has.
    """
    options = options_of(question)
    if not options:
        return None
    said = PREFIX.sub("", answer, count=1)
    named = _LETTER.match(said)
    if named is None:
        return Choices(options=options, answer_index=options.index(said.strip()) if said.strip() in options else None)
    index = ord(named[1]) - ord("A")
    if index >= len(options):
        raise BadSampleError(f"an answer outside of its options: ({named[1]}) of {len(options)}")
    return Choices(options=options, answer_index=index)


def choice_turns(medium: Medium, question: str, choices: Choices) -> list[Turn]:
    """Return a question with its options, a line each, and the right one as the answer: `(B) a boy`.

    Raises:
        BadSampleError: The right one is unknown.
    """
    if choices.answer_index is None:
        raise BadSampleError("no right option: a split whose answers are not published")
    lines = [f"({letter_of(number)}) {text}" for number, text in enumerate(choices.options)]
    return [user(medium, "\n".join([question, "Options:", *lines])), assistant(lines[choices.answer_index])]


def choices_from(options: Sequence[str], answer: object) -> Choices:
    """Return choices.

    Raises:
        BadSampleError: The answer is no number of one of them. None is allowed: nobody says it.
    """
    if answer is None:
        return Choices(options=tuple(options))
    if not isinstance(answer, int) or not 0 <= answer < len(options):
        raise BadSampleError(f"an answer outside of its options: {answer!r} of {len(options)}")
    return Choices(options=tuple(options), answer_index=answer)


def letter_of(number: int) -> str:
    """Return A for 0, B for 1, …."""
    return chr(ord("A") + number)
