"""Engine for clips longer than a model's window: captions of their parts, then an answer out of these notes (LLoVi).

One engine sees the frames, part by part; a language model, which may be another engine, answers (core/film_notes.py).
A clip no longer than a part is asked about directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import BoundedSemaphore
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, WithJsonSchema

from captioners.engines.base import Answer, Engine, EngineConfig, Frame, Question, Sampling
from captioners.markup import is_blank, strip
from captioners.quality_checks import refused
from core.control_tokens import as_words
from core.errors import UserError
from core.film_notes import Note, fitting, question_over

DESCRIBE = "These are frames of a part of a film. Describe what happens. Name people, objects, actions and places."
"""What is asked about each part. Ours."""

_NOTHING = "the model says nothing of a part: raise max_new_tokens, or turn its reasoning off"

PartEngine = Annotated[
    SerializeAsAny[EngineConfig],
    WithJsonSchema({"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}),
]
"""One of the two engines. `captioners.engines.registry` reads it by its kind."""


class Notes(EngineConfig):
    """Two engines for long clips: one that sees frames, and one that answers out of what the first has said.

    Attributes:
        frames: The engine that sees frames, with the stage's model.
        answers: The engine that answers; default: that of `frames`.
        answers_model: Its model; default: the stage's.
        part: Longest part that is seen at once, in seconds.
        longest_text: Longest text that the answering model reads, in characters. Notes that are longer are summed up.
    """

    several_images: ClassVar = True

    kind: Literal["notes"] = "notes"
    frames: PartEngine
    answers: PartEngine | None = None
    answers_model: str | None = None
    part: float = Field(default=30.0, ge=1)
    longest_text: int = Field(default=60_000, ge=1000)

    @property
    def more_models(self) -> Sequence[str]:
        return (self.answers_model,) if self.answers_model else ()

    @property
    def loads_model(self) -> bool:
        return self.frames.loads_model

    @property
    def gpus(self) -> int:
        return self.frames.gpus + (self.answers.gpus if self.answers else 0)

    @property
    def actors(self) -> int | None:
        return self.frames.actors

    @property
    def batch_size(self) -> int:
        return self.frames.batch_size

    @property
    def image_input(self) -> str:
        return self.frames.image_input

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check both engines.

        Raises:
            UserError: One is not available, or takes one image only.
        """
        for engine in filter(None, (self.frames, self.answers)):
            if not engine.several_images:
                raise UserError(f"{what}: the engine {engine.kind} takes one image: use server or transformers")
        self.frames.check_available(model, what, revision)
        if self.answers:
            self.answers.check_available(self.answers_model or model, what, None if self.answers_model else revision)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> NotesEngine:
        """Load both engines.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        frames = self.frames.load(model, what, revision, sampling)
        answering, theirs = self.answers or self.frames, self.answers_model or model
        if self.answers is None and theirs == model:
            return NotesEngine(frames, frames, self)
        answers = answering.load(theirs, what, None if self.answers_model else revision, sampling)
        return NotesEngine(frames, answers, self, theirs)


@dataclass(frozen=True)
class Part:
    """A part of a clip: its times in seconds, and the question about it as the engine prepared it."""

    start: float
    end: float
    prepared: Any


@dataclass(frozen=True)
class Parts:
    """A question about a clip, and its parts. A single part: the question itself, about the whole clip."""

    question: Question
    parts: Sequence[Part]


class _FailedError(Exception):
    """An engine's answer that is an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.answer = answer


class NotesEngine(Engine):
    """`Engine` of `Notes`."""

    def __init__(self, frames: Engine, answers: Engine, settings: Notes, answers_model: str = "") -> None:
        """Join two engines.

        Args:
            frames: The engine that sees frames.
            answers: The engine that answers; may be the same.
            settings: The settings.
            answers_model: The model of `answers`; empty: that of `frames`.
        """
        self._frames, self._answers, self._settings = frames, answers, settings
        self.calls = frames.calls
        self._answering = BoundedSemaphore(answers.calls)  # one server may see frames, and one GPU answer
        named = {"model": answers_model} if answers_model else {}
        self.provenance: Mapping[str, object] = {**frames.provenance, "notes": {**answers.provenance, **named}}

    def prepare(self, question: Question) -> Parts:
        groups = list(_groups(question.frames, self._settings.part))
        if len(groups) < 2:
            return Parts(question, [Part(0.0, 0.0, self._frames.prepare(question))])
        starts = [group[0].time for group in groups]
        ends = [*starts[1:], groups[-1][-1].time]
        parts = [
            Part(start, end, self._frames.prepare(Question(None, DESCRIBE, tuple(group))))
            for start, end, group in zip(starts, ends, groups, strict=True)
        ]
        return Parts(question, parts)

    def __call__(self, questions: Sequence[Parts]) -> list[Answer]:
        every = iter(self._seen([part.prepared for asked in questions for part in asked.parts], len(questions)))
        said = [[next(every) for _ in asked.parts] for asked in questions]
        return [self._answer(asked, answers) for asked, answers in zip(questions, said, strict=True)]

    def _seen(self, parts: Sequence[Any], clips: int) -> Sequence[Answer]:
        """Return what is said of parts. An engine that makes a batch of a call gets the parts of clips one by one.

        A batch with all frames of a long clip is what its GPU has no memory for.
        """
        if self._frames.calls > 1 or len(parts) == clips:
            return self._frames(parts)
        return [answer for part in parts for answer in self._frames([part])]

    def _answer(self, asked: Parts, said: Sequence[Answer]) -> Answer:
        if len(said) == 1:
            return said[0]
        failed = next((answer for answer in said if answer.error), None)
        if failed:
            return failed
        notes = list(said)

        def sum_up(text: str) -> str:
            notes.append(self._ask(text))
            return _words(notes[-1])

        try:
            told = [Note(part.start, part.end, _words(answer)) for part, answer in zip(asked.parts, said, strict=True)]
            short = fitting(told, asked.question.prompt, self._fits, sum_up)
            return _out_of(notes, self._ask(question_over(short, asked.question.prompt)))
        except _FailedError as failure:
            return failure.answer
        except UserError as error:
            return Answer(error=f"too long: {error}")

    def _ask(self, text: str) -> Answer:
        """Return the answer to a text.

        Raises:
            _FailedError: It is an error.
        """
        prepared = self._answers.prepare(Question(None, text))
        with self._answering:
            (answer,) = self._answers([prepared])
        if answer.error:
            raise _FailedError(answer)
        return answer

    def _fits(self, text: str) -> bool:
        return len(text) <= self._settings.longest_text


def _groups(frames: Sequence[Frame], part: float) -> Iterator[list[Frame]]:
    """Yield the frames of each part of a clip."""
    for _, group in groupby(frames, lambda frame: int(frame.time // part)):
        yield list(group)


def _words(note: Answer) -> str:
    """Return what a note says, as the answering model reads it.

    Raises:
        _FailedError: It says nothing.
    """
    text = as_words(strip(note.text, reasoned=note.reasoned).text)
    if is_blank(text):
        raise _FailedError(Answer(error=_NOTHING))
    return text


def _out_of(notes: Sequence[Answer], last: Answer) -> Answer:
    """Return the last answer with the tokens of all. It is cut or refused if a note is: then it lacks a part."""
    said = [strip(note.text, reasoned=note.reasoned) for note in notes]
    cut = any(note.cut or text.thinking for note, text in zip(notes, said, strict=True))
    declined = any(note.refused or refused(text.text) for note, text in zip(notes, said, strict=True))
    spent = [*notes, last]
    return last._replace(
        cut=bool(last.cut or cut),
        refused=bool(last.refused or declined),
        prompt_tokens=_sum(spent, "prompt_tokens"),
        tokens=_sum(spent, "tokens"),
    )


def _sum(answers: Sequence[Answer], name: str) -> int | None:
    """Return the tokens of all answers; None if one does not say it."""
    counts = [getattr(answer, name) for answer in answers]
    return None if None in counts else sum(counts)
