"""Notes on a film that is longer than a model's window, in order, and questions over them (LLoVi).

Zhang et al. 2023 (arXiv 2312.17235): a captioner sees short parts of a film, a language model answers out of the
captions with their times. Notes that are too long are summed up first, with the question in view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import UserError

_ANSWER = """These are notes about a film of {length:.0f} seconds, in order. Each line begins with its time in seconds.

{notes}

{question}"""

_SUM_UP = """These are notes about a part of a film, in order. Each line begins with its time in seconds.

{notes}

Sum them up in a few sentences. Keep what helps to answer this question: {question}"""

_GROUP = 4
"""Notes that are summed up in one."""


@dataclass(frozen=True)
class Note:
    """What was said about a part of a film, and the part's times in seconds of the film."""

    start: float
    end: float
    text: str

    def __str__(self) -> str:
        return f"{self.start:.1f}-{self.end:.1f} s: {' '.join(self.text.split())}"


def question_over(told: Sequence[Note], question: str) -> str:
    """Return the question as the language model reads it: the notes, and the question behind them."""
    length = max((note.end for note in told), default=0.0)
    return _ANSWER.format(length=length, notes="\n".join(map(str, told)), question=question)


def fitting(told: Sequence[Note], question: str, fits: Callable[[str], bool], ask: Callable[[str], str]) -> list[Note]:
    """Return notes that fit into the model's window with the question; while they do not, four are summed up in one.

    Args:
        told: The notes.
        question: The question.
        fits: Whether the model can read a text and answer it.
        ask: Returns the model's answer to a text.

    Raises:
        UserError: Four notes do not fit, or one note does not fit with the question.
    """
    left = list(told)
    while not fits(question_over(left, question)):
        if len(left) == 1:
            raise UserError("the question and a note of the film are longer than the model's window: ask less at once")
        left = [_summed_up(left[n : n + _GROUP], question, fits, ask) for n in range(0, len(left), _GROUP)]
    return left


def _summed_up(group: Sequence[Note], question: str, fits: Callable[[str], bool], ask: Callable[[str], str]) -> Note:
    if len(group) == 1:
        return group[0]
    prompt = _SUM_UP.format(notes="\n".join(map(str, group)), question=question)
    if not fits(prompt):
        raise UserError(f"{len(group)} notes of the film are longer than the model's window: choose shorter answers")
    return Note(group[0].start, group[-1].end, ask(prompt))
