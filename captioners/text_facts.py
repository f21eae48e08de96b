"""`ImageFacts` of stages whose answer is the text itself: an image's caption, or a clip's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from captioners.answer_rows import rows_table, text_row
from captioners.chat_stage import ChatStage
from captioners.engines.base import Engine, Question
from captioners.prompts import prompt_hash
from core.stages import ImageFacts


class PromptedQuestion(NamedTuple):
    """A question as the engine prepared it, and the hash of its prompt."""

    question: Any
    prompt_hash: str


class TextFacts(ImageFacts):
    """Base class: a subclass defines `prepare`, which returns `prompted`.

    Attributes:
        calls: Number of calls that the engine accepts at the same time.
        provenance: What computes the texts, as reported by the engine.
    """

    def __init__(self, stage: ChatStage, engine: Engine) -> None:
        self._engine, self._chat_stage = engine, stage
        self.calls = engine.calls
        self.provenance: Mapping[str, object] = engine.provenance

    def prompted(self, question: Question, prompt: str) -> PromptedQuestion:
        """Return a prepared question. `prompt`: the stage's prompt that it was made from."""
        return PromptedQuestion(self._engine.prepare(question), prompt_hash(prompt))

    def __call__(self, inputs: Sequence[PromptedQuestion]) -> pa.Table:
        """Ask each question; return one row for each."""
        answers, stage = self._engine([asked.question for asked in inputs]), self._chat_stage
        pairs = zip(inputs, answers, strict=True)
        return rows_table(stage, [text_row(stage, asked.prompt_hash, answer) for asked, answer in pairs])
