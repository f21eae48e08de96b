"""Questions and answers about clips, to train on.

VideoLLaMA 3 (arXiv 2501.13106, section on stage 4) captions clips and asks a language model for questions about four
aspects; LLaVA-Video-178K (arXiv 2410.02713) asks for sixteen kinds. Neither prompt is used here: these are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from captioners.engine_stage import EngineStage
from captioners.engines.registry import AnyEngine
from captioners.engines.transformers import Transformers
from captioners.films.aspects import Aspects, read_aspects
from captioners.films.question_checks import DROPPED
from captioners.films.question_prompts import Asked
from captioners.films.question_writer import QuestionWriter
from captioners.prompts import check_prompts
from core.errors import UserError
from manifests.schemas import column

_TEXT_COLUMNS = ("id", "duration", "dense_caption", "events")
_FRAME_COLUMNS = ("id", "duration", "frames", "frame_times")

QUESTION = pa.struct(
    [
        pa.field("aspect", pa.string()),
        pa.field("form", pa.string()),
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("options", pa.list_(pa.string())),
        pa.field("answer_index", pa.int32()),
        pa.field("blind", pa.bool_()),
    ]
)
"""A question as it is stored: the fields of `captioners.films.question_checks.ClipQuestion`."""

_STORED = (
    "The questions, each with its aspect, form (`open` or `choice`), answer, options (in the order in which they are "
    "shown), the number of the right option from 0 (null: open), and whether a model gives the same answer without the "
    "clip (null: not checked)"
)


class Questions(EngineStage):
    """`questions`: questions and answers about a clip, by a model that reads its caption or sees its frames.

    Attributes:
        ask: `text`: a language model reads `dense_caption` and `events`. `frames`: a model sees the stored frames.
        aspects: What the questions are about: a built-in set (`videollama3`, `llava-video`), the path of a file, a
            mapping {name: description}, or a list of those.
        per_aspect: Most questions about one aspect. The model may leave out an aspect that does not fit.
        forms: `open`: with a free answer. `choice`: with four options, in an order that depends on the clip's id and
            the question. `both`: about half of each.
        blind: Whether each question is asked again without the clip: with a black frame (`ask: frames`), or without
            the caption (`text`). Questions that get the same answer are stored, but not published.
        language: Language of the questions (ISO 639-1).
        longest: With `ask: frames`: maximum longer side of a frame, in pixels; larger frames are scaled down.
        engine: The engine that runs the model. Changing it does not ask anything again.
        max_frames: With `ask: frames`: most frames in a question. Of more stored frames, evenly spaced ones are taken.
    """

    name: ClassVar = "questions"
    licences: ClassVar = {"Qwen/Qwen2-VL-72B-Instruct": "tongyi-qianwen", "Qwen/Qwen2-VL-7B-Instruct": "Apache-2.0"}
    writes: ClassVar = pa.schema(
        [
            column("question_count", pa.int32(), "Number of stored questions", 0),
            column("usable_questions", pa.int32(), "Number of stored questions that are not known to be blind", 0),
            column("questions", pa.list_(QUESTION), _STORED),
            column("blind_questions", pa.int32(), "Questions answered the same without the clip; null: not checked", 0),
            column(
                "unchecked_questions", pa.int32(), "Questions whose blind check got no answer; null: not checked", 0
            ),
            column("written_questions", pa.int32(), "Questions in the model's answer: stored and dropped ones", 0),
            *(column(name, pa.int32(), f"Number of dropped questions {why}", 0) for name, why in DROPPED.items()),
            column("questions_prompt", pa.string(), "The prompt without the clip: first 8 hex digits of its SHA-256"),
            column("questions_prompt_tokens", pa.int32(), "Tokens of all prompts of the clip; null if not reported", 0),
            column("questions_tokens", pa.int32(), "Tokens of all answers about the clip; null if not reported", 0),
        ]
    )

    ask: Literal["text", "frames"] = "text"
    aspects: Aspects = read_aspects("videollama3")
    per_aspect: int = Field(default=1, ge=1, le=3)
    forms: Literal["open", "choice", "both"] = "both"
    blind: bool = False
    model: str = "Qwen/Qwen2-VL-72B-Instruct"
    max_new_tokens: int = Field(default=2048, ge=1, le=8192)
    max_frames: int = Field(default=64, ge=1, le=1024)
    engine: AnyEngine = Transformers()

    @property
    def asked(self) -> Asked:
        """What the model is asked for."""
        aspects = {name: text for aspect in self.aspects for name, text in aspect.items()}
        return Asked(aspects, self.forms, self.per_aspect, self.language)

    @property
    def reads(self) -> Sequence[str]:
        return _FRAME_COLUMNS if self.ask == "frames" else _TEXT_COLUMNS

    @property
    def most_frames(self) -> int:
        return self.max_frames

    def remedy(self, column: str) -> str:
        """Say which stage writes a column that is missing."""
        writer = {"frames": "frames", "frame_times": "frames"}.get(column, "dense_caption")
        return f"put the stage {writer} before it" if column != "duration" else "it asks about clips, in a run of clips"

    @property
    def packages(self) -> Mapping[str, str]:
        return {"sacrebleu": "eval"} if self.blind and self.forms != "choice" else {}

    @property
    def token_column(self) -> str:
        return "questions_tokens"

    def check_settings(self) -> None:
        """Check the aspects and the engine.

        Raises:
            UserError: A description has a control token, or the engine takes neither frames nor texts alone.
        """
        check_prompts(tuple(self.asked.aspects.values()), "questions: aspects")
        if not self.engine.several_images:
            raise UserError(
                f"questions: the engine {self.engine.kind} takes one image per prompt, neither texts alone nor frames; "
                "use {kind: server, url: …} or {kind: transformers}"
            )

    def load(self) -> QuestionWriter:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        return QuestionWriter(
            self.load_engine(),
            self.asked,
            self.writes,
            sees=self.ask == "frames",
            blind=self.blind,
            max_frames=self.max_frames,
            longest=self.longest,
            image_input=self.engine.image_input,
            end_tokens=self.end_tokens,
            reasoning_tags=self.reasoning_tags,
        )


def default_rules() -> dict[str, float]:
    """Return the default rules for `keep`: a clip stays if it has a question that can be published."""
    return {"min_question_count": 1, "min_usable_questions": 1}
