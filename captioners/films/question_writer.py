"""Ask a model for questions about clips, drop those that cannot be used, and check which can be answered blindly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from captioners.engines.base import Answer, Engine, Question
from captioners.engines.finish import count
from captioners.films.blind_check import blind_question, is_same_answer
from captioners.films.clip_stage import frames_to_show
from captioners.films.question_answer import read_questions
from captioners.films.question_checks import DROPPED, ClipQuestion, sound_questions
from captioners.films.question_prompts import Asked, Event, about_frames, about_text, again
from captioners.films.remembered import RememberingEngine, RowQuestion
from captioners.markup import is_blank, one_line, strip
from captioners.prompts import prompt_hash
from captioners.quality_checks import refused
from core.control_tokens import as_words  # a server would take an <image> in a caption for a picture
from core.errors import BadSampleError
from core.secrets import redact
from core.stages import ImageFacts
from manifests.schemas import ERROR, RETRY

_LONGEST_ERROR = 1000  # characters


class Clip(NamedTuple):
    """A clip that is asked about: its id, its length in seconds, and the first question of the model."""

    id: int
    duration: float
    first: RowQuestion


@dataclass
class Draft:
    """What is known of a clip while it is asked about.

    Attributes:
        clip: The clip.
        answers: All answers about it.
        questions: Its questions.
        dropped: Number of dropped questions, by column.
        fault: What is wrong with the last answer; empty if it could be used.
        error: Why the clip has no questions; None if there is no error.
        retry: Whether the clip can be tried again.
    """

    clip: Clip
    answers: list[Answer] = field(default_factory=list)
    questions: list[ClipQuestion] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    fault: str = ""
    error: str | None = None
    retry: bool = False

    def fail(self, answer: Answer, what: str = "") -> None:
        """End the clip with the error of an answer."""
        self.error, self.retry = f"{what}{answer.error}", bool(answer.retry)


class QuestionWriter(ImageFacts):
    """`ImageFacts` of `questions`.

    A clip takes up to three rounds: its questions; once more if that answer could not be used; each question without
    the clip. Each answer goes into the memory as soon as it is there. If the server fails in a later round, the clip
    gets an error that can be retried. Its next attempt, in this run or the next, takes from the memory what is answered
    and asks only for the rest.
    """

    def __init__(
        self,
        engine: Engine,
        asked: Asked,
        writes: pa.Schema,
        *,
        sees: bool,
        blind: bool,
        max_frames: int,
        longest: int,
        image_input: str,
        end_tokens: Sequence[str] = (),
        reasoning_tags: Sequence[str] = (),
    ) -> None:
        """Prepare the questions.

        Args:
            engine: The loaded engine.
            asked: What the model is asked for.
            writes: The stage's columns.
            sees: Whether the model sees frames; else it reads a caption.
            blind: Whether each question is asked again without the clip.
            max_frames: Most frames of a clip that are shown.
            longest: Maximum longer side of a frame, in pixels.
            image_input: The form of images that the engine takes.
            end_tokens: Further end tokens.
            reasoning_tags: Further names of tags around reasoning.
        """
        self._engine, self._asked, self._sees, self._blind = engine, asked, sees, blind
        self._asking = RememberingEngine(engine)
        self._image_input, self._end_tokens, self._reasoning_tags = image_input, end_tokens, reasoning_tags
        self._max_frames, self._longest = max_frames, longest
        self._row_type = pa.struct([*writes, ERROR, RETRY])
        self._prompt_hash = prompt_hash(about_frames(asked, 0) if sees else about_text(asked, 0, "", ()))
        self.calls = engine.calls
        self.provenance: Mapping[str, object] = engine.provenance

    def prepare(self, id_: int, duration: float | None, *read: Any) -> Clip:
        """Return a clip with its first question.

        Args:
            id_: Id of the clip.
            duration: Its length in seconds.
            read: Its frames (JPEGs) and their times, or its caption and events.

        Raises:
            BadSampleError: The clip has no length, no frames or no caption.
        """
        if duration is None:
            raise BadSampleError("the clip has no duration")
        question = self._about_frames(duration, *read) if self._sees else self._about_text(duration, *read)
        return Clip(id_, duration, RowQuestion(id_, question, self._engine.prepare(question)))

    def _about_frames(self, duration: float, frames: Sequence[bytes] | None, times: Sequence[float] | None) -> Question:
        shown = frames_to_show(frames, times, self._max_frames, self._longest, self._image_input)
        return Question(None, about_frames(self._asked, duration), shown)

    def _about_text(self, duration: float, caption: str | None, events: Sequence[Mapping[str, Any]] | None) -> Question:
        if not caption or is_blank(caption):
            raise BadSampleError("the clip has no dense_caption to ask about")
        known = [Event(event["start"], event["end"], as_words(event["text"])) for event in events or ()]
        return Question(None, about_text(self._asked, duration, as_words(caption), known))

    def __call__(self, inputs: Sequence[Clip]) -> pa.Table:
        """Return one row for each clip.

        Raises:
            OSError: The engine cannot continue.
        """
        drafts = [Draft(clip) for clip in inputs]
        self._write(drafts, [draft.clip.first for draft in drafts])
        once_more = [draft for draft in drafts if draft.fault]
        self._write(once_more, [_again(draft.clip, draft.fault) for draft in once_more])
        for draft in once_more:
            if draft.fault and not draft.error:
                draft.error = f"no answer that can be used, asked twice: {draft.fault}"
        if self._blind:
            self._check_blind([draft for draft in drafts if draft.error is None])
        rows = [self._row(draft) for draft in drafts]
        batch = pa.RecordBatch.from_struct_array(pa.array(rows, self._row_type))  # columns that a row lacks are null
        return pa.Table.from_batches([batch])

    def _write(self, drafts: Sequence[Draft], questions: Sequence[RowQuestion]) -> None:
        """Ask for the questions of each clip. An answer that cannot be used becomes the draft's fault."""
        for draft, answer in zip(drafts, self._asking.ask(self.memory, questions), strict=True):
            draft.answers.append(answer)
            if answer.error:
                draft.fail(answer)
                continue
            clip, said = draft.clip, self._stripped(answer)
            try:
                draft.questions, draft.dropped = sound_questions(
                    read_questions(said), self._asked, clip.id, clip.duration
                )
                draft.fault = ""
            except BadSampleError as error:
                draft.fault = _why(answer, str(error))

    def _check_blind(self, drafts: Sequence[Draft]) -> None:
        """Ask each question without its clip. A clip whose check can be retried gets an error."""
        asked = [
            RowQuestion(draft.clip.id, blind_question(question, self._sees, self._image_input))
            for draft in drafts
            for question in draft.questions
        ]
        answers = iter(self._asking.ask(self.memory, asked))
        for draft in drafts:
            checked = []
            for question in draft.questions:
                answer = next(answers)
                draft.answers.append(answer)
                if answer.error and answer.retry:
                    draft.fail(answer, "blind check: ")
                checked.append(question._replace(blind=self._is_blind(question, answer)))
            draft.questions = checked

    def _is_blind(self, question: ClipQuestion, answer: Answer) -> bool | None:
        """Return whether a model answers the question without the clip; None if its answer does not show it."""
        said = "" if answer.error else self._stripped(answer)
        if is_blank(said):  # such as after reasoning that took all tokens
            return None
        return is_same_answer(question, said) or (None if answer.cut else False)

    def _stripped(self, answer: Answer) -> str:
        return strip(answer.text, self._end_tokens, self._reasoning_tags, answer.reasoned).text

    def _row(self, draft: Draft) -> dict[str, object]:
        """Return the columns of a clip, by name. A clip without questions for a reason has an error."""
        common: dict[str, object] = {
            "questions_prompt": self._prompt_hash,
            "questions_prompt_tokens": _total(answer.prompt_tokens for answer in draft.answers),
            "questions_tokens": _total(answer.tokens for answer in draft.answers),
        }
        if draft.error is not None:
            error = redact(one_line(draft.error))[:_LONGEST_ERROR] or "the engine gives an error without words"
            return {**common, "error": error, "retry": draft.retry}
        kept = draft.questions
        blind = sum(question.blind is True for question in kept)
        unchecked = sum(question.blind is None for question in kept)
        return {
            **common,
            "question_count": len(kept),
            "usable_questions": len(kept) - blind,
            "questions": [question._asdict() for question in kept],
            "blind_questions": blind if self._blind else None,
            "unchecked_questions": unchecked if self._blind else None,
            "written_questions": len(kept) + draft.dropped.total(),
            **{name: draft.dropped[name] for name in DROPPED},
            "error": None,
            "retry": False,
        }


def _again(clip: Clip, fault: str) -> RowQuestion:
    """Return the first question of a clip, with what was wrong with the answer."""
    question = clip.first.question
    return RowQuestion(clip.id, question._replace(prompt=again(question.prompt, fault)))


def _why(answer: Answer, fault: str) -> str:
    if answer.cut:
        return "it is cut at its length limit (max_new_tokens)"
    if answer.refused or refused(answer.text):
        return "the model refuses"
    return fault


def _total(counts: Iterable[object]) -> int | None:
    """Return the sum of the numbers of tokens that are known; None if none is."""
    known = [tokens for tokens in map(count, counts) if tokens is not None]
    return min(sum(known), (1 << 31) - 1) if known else None
