"""Ask an engine several questions per row, and none twice whose answer is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from captioners.engines.base import Answer, Engine, Question
from core.stages import Memory

_MOST_THREADS = 32  # they only wait; the engine limits its requests itself


class RowQuestion(NamedTuple):
    """A question about a row.

    Attributes:
        id: The row.
        question: The question.
        prepared: The question as the engine prepared it; None: it is prepared when it is asked.
    """

    id: int
    question: Question
    prepared: Any = None

    @property
    def key(self) -> str:
        """What is asked, apart from pictures: those of a row do not change, and a black one comes with other words."""
        return hashlib.blake2b(self.question.prompt.encode(), digest_size=16).hexdigest()


class RememberingEngine:
    """An engine that is asked several questions per row, from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = BoundedSemaphore(engine.calls)  # of an answer, until it is saved: a kill loses no more than these

    def ask(self, memory: Memory | None, questions: Sequence[RowQuestion]) -> list[Answer]:
        """Return the answers to questions, in order. Each new one without an error is put into the memory at once.

        An engine that makes batches itself gets each question in a call of its own: else all would wait for the last
        answer before the first is saved.

        Raises:
            OSError: The engine cannot continue.
        """
        answers = [_recall(memory, question) for question in questions]
        missing = [number for number, answer in enumerate(answers) if answer is None]
        asked = [questions[number] for number in missing]
        if self._engine.calls > 1 and len(asked) > 1:
            with ThreadPoolExecutor(min(len(asked), _MOST_THREADS), "ask") as threads:
                new = [answer for (answer,) in threads.map(lambda question: self._ask(memory, [question]), asked)]
        else:
            new = self._ask(memory, asked)
        for number, answer in zip(missing, new, strict=True):
            answers[number] = answer
        return [answer for answer in answers if answer is not None]

    def _ask(self, memory: Memory | None, questions: Sequence[RowQuestion]) -> list[Answer]:
        prepared = [self._engine.prepare(q.question) if q.prepared is None else q.prepared for q in questions]
        if not prepared:
            return []
        with self._slots:
            answers = self._engine(prepared)
            for question, answer in zip(questions, answers, strict=True):
                if memory is not None and not answer.error:
                    memory.put(question.id, question.key, json.dumps(answer._asdict()))
        return answers


def _recall(memory: Memory | None, question: RowQuestion) -> Answer | None:
    text = memory.get(question.id, question.key) if memory else None
    if text is None:
        return None
    stored = json.loads(text)
    return Answer(**{name: stored[name] for name in Answer._fields if name in stored})  # another version has others
