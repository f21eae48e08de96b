"""`summary`: a clip in one or two sentences, by a chat model that reads its dense caption or sees its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from captioners.chat_stage import Prompts, text_columns
from captioners.engines.base import Engine, Question
from captioners.films.clip_stage import FRAMES, ClipStage, with_duration
from captioners.prompts import choose, read_prompts
from captioners.text_facts import PromptedQuestion, TextFacts
from core.control_tokens import as_words
from core.errors import BadSampleError


class Summary(ClipStage):
    """`summary`: a clip in one or two sentences.

    Attributes:
        prompts: As for other captions; `{duration}` stands for the clip's length in seconds. The dense caption and the
            events follow the prompt.
        source: `caption`: the model reads the dense caption and the events, and no images are sent. `frames`: it sees
            the stored frames.
    """

    name: ClassVar = "summary"
    use: ClassVar = "summary"
    text: ClassVar = "summary"
    writes: ClassVar = pa.schema(
        text_columns("summary", "summary", "The clip in one or two sentences", noun="summary", seen="clip")
    )

    prompts: Prompts = read_prompts("summary")
    max_new_tokens: int = Field(default=192, ge=1, le=8192)
    source: Literal["caption", "frames"] = "caption"

    @property
    def reads(self) -> Sequence[str]:
        return (*(FRAMES if self.source == "frames" else ("dense_caption", "events")), "duration", "id")

    @property
    def batch_size(self) -> int:
        """That of the engine for texts; 1 for frames, as a clip has as many images as a batch of images."""
        return 1 if self.source == "frames" else self.engine.batch_size

    def load(self) -> Summariser:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        return Summariser(self, self.load_engine())


class Summariser(TextFacts):
    """`ImageFacts` of `summary`."""

    def __init__(self, stage: Summary, engine: Engine) -> None:
        super().__init__(stage, engine)
        self._stage = stage

    def prepare(self, *read: Any) -> PromptedQuestion:
        """Return the question about a clip, with the prompt that its id chooses.

        Raises:
            BadSampleError: The clip has no dense caption, no frames or no duration, or a frame cannot be decoded.
        """
        first, second, duration, id_ = read
        prompt = choose(self._stage.prompts, id_)
        asked = with_duration(prompt, duration)
        if self._stage.source == "frames":
            return self.prompted(Question(None, asked, self._stage.frames(first, second)), prompt)
        return self.prompted(Question(None, f"{asked}\n\n{_material(first, second)}"), prompt)


def _material(caption: str | None, events: Sequence[Mapping[str, Any]] | None) -> str:
    """Return a dense caption and its events as text. Control tokens are spelled as words: a server reads them."""
    if not caption or not events:
        raise BadSampleError("no dense caption: the clip has none to summarise")
    lines = [f"{event['start']:.1f} to {event['end']:.1f} s: {event['text']}" for event in events]
    return as_words("\n".join(["Description:", caption, "", "Events:", *lines]))
