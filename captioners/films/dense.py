"""`dense_caption`: what happens in a clip and when, and the whole clip in a paragraph, by a chat model.

VideoLLaMA 3 has its clips captioned by Qwen2-VL-72B before questions about them are written (arXiv 2501.13106); its
prompts are unpublished. Penguin-Recap-V likewise has events with times, a paragraph and a summary for each video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import pyarrow as pa
from pydantic import Field

from captioners.answer_rows import answer_row, failed, rows_table, why_no_text
from captioners.chat_stage import Prompts, text_columns
from captioners.engines.base import Answer, Engine, Question
from captioners.films.asking import ReadAnswer, ask_twice
from captioners.films.clip_stage import FRAMES, ClipStage, with_duration
from captioners.films.events import Description, parse_description
from captioners.films.remembered import RememberingEngine, RowQuestion
from captioners.prompts import choose, prompt_hash, read_prompts
from core.control_tokens import count_control_tokens
from core.errors import BadSampleError
from core.stages import ImageFacts
from manifests.schemas import column

EVENTS = pa.list_(pa.struct([("start", pa.float32()), ("end", pa.float32()), ("text", pa.string())]))
"""Events of a clip: seconds from the clip's start, inside the clip; starts do not decrease."""

_CAPTION, *_QUALITY = text_columns("dense", "dense_caption", "The clip in a paragraph", seen="clip")


class DenseCaption(ClipStage):
    """`dense_caption`: the events of a clip with their times, and a paragraph.

    The prompts must ask for a JSON object with `events` (`start` and `end` in seconds, `text`) and `paragraph`. An
    answer without a valid one is asked for once more, with the reason; then the row has an error.

    Attributes:
        prompts: As for other captions; `{duration}` stands for the clip's length in seconds.
    """

    name: ClassVar = "dense_caption"
    use: ClassVar = "dense"
    reads: ClassVar = (*FRAMES, "duration", "id")
    writes: ClassVar = pa.schema(
        [
            _CAPTION,
            column("events", EVENTS, "What happens in the clip: seconds from the clip's start, and a text"),
            column("event_count", pa.int32(), "Number of events", 1),
            *_QUALITY,
            column("dense_tries", pa.int8(), "2 if the model was asked again, as its answer was invalid; else 1", 1, 2),
        ]
    )

    prompts: Prompts = read_prompts("dense")
    max_new_tokens: int = Field(default=2048, ge=1, le=8192)

    @property
    def batch_size(self) -> int:
        """1: a clip has as many images as a batch of images, and each answer is stored at once."""
        return 1

    def load(self) -> DenseCaptioner:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        return DenseCaptioner(self, self.load_engine())


class ClipQuestion(NamedTuple):
    """A question about a clip, the hash of its prompt, and the clip's length in seconds."""

    asked: RowQuestion
    prompt_hash: str
    duration: float


class DenseCaptioner(ImageFacts):
    """`ImageFacts` of `dense_caption`.

    Attributes:
        calls: Number of calls that the engine accepts at the same time.
        provenance: What computes the captions, as reported by the engine.
    """

    def __init__(self, stage: DenseCaption, engine: Engine) -> None:
        self._stage, self._engine, self._asking = stage, engine, RememberingEngine(engine)
        self.calls = engine.calls
        self.provenance: Mapping[str, object] = engine.provenance

    def prepare(
        self, frames: Sequence[bytes] | None, times: Sequence[float] | None, duration: float, id_: int
    ) -> ClipQuestion:
        """Return the question about a clip, with the prompt that its id chooses.

        Raises:
            BadSampleError: The clip has no frames or no duration, or a frame cannot be decoded.
        """
        prompt = choose(self._stage.prompts, id_)
        question = Question(None, with_duration(prompt, duration), self._stage.frames(frames, times))
        asked = RowQuestion(id_, question, self._engine.prepare(question))
        return ClipQuestion(asked, prompt_hash(prompt), duration)

    def __call__(self, inputs: Sequence[ClipQuestion]) -> pa.Table:
        """Ask about each clip, and again where the answer is not valid."""

        def read(number: int, answer: Answer) -> Description:
            stripped = self._stage.strip_answer(answer.text, answer.reasoned)
            if error := why_no_text(answer, stripped):
                raise BadSampleError(str(error))
            return parse_description(stripped.text, inputs[number].duration)

        results = ask_twice(self._asking, self.memory, [clip.asked for clip in inputs], read)
        pairs = zip(inputs, results, strict=True)
        return rows_table(self._stage, [self._row(clip.prompt_hash, result) for clip, result in pairs])

    def _row(self, prompt_hash: str, result: ReadAnswer[Description]) -> dict[str, object]:
        answer, told = result.answer, result.value
        common = answer_row(self._stage, prompt_hash, answer) | {"dense_tries": result.tries}
        if told is None:
            return {**common, **failed(result.error, bool(answer.retry))}
        texts = "\n".join([told.paragraph, *(event.text for event in told.events)])
        return {
            **common,
            "dense_caption": told.paragraph,
            "events": [event._asdict() for event in told.events],
            "event_count": len(told.events),
            **self._stage.quality(told.paragraph, bool(answer.cut), bool(answer.refused)),
            "dense_control_tokens": count_control_tokens(texts),
            "error": None,
            "retry": False,
        }
