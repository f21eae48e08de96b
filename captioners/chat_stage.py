"""The base of stages that ask a chat model for a text: its prompts, and the columns that say how good the text is."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import WithJsonSchema, field_validator

from captioners.engine_stage import EngineStage
from captioners.engines.lmdeploy import Lmdeploy
from captioners.engines.registry import AnyEngine
from captioners.markup import Stripped, printable, strip
from captioners.prompts import check_prompts, read_prompts
from captioners.quality_checks import language_share, refused, repetition, words
from core.control_tokens import MAX_COUNT, count_control_tokens
from core.errors import UserError
from manifests.schemas import column

_RAW_CHARACTERS = "Characters of the answer before reasoning and end tokens were removed; null in older rows"
_CONTROL_TOKENS = f"Number of control tokens in the {{}}, such as <image>; counted up to {MAX_COUNT}"

Prompts = Annotated[
    tuple[str, ...],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class ChatStage(EngineStage):
    """Base class of stages that ask a chat model for a text about an image or a clip.

    Attributes:
        use: The names of the columns about quality begin with it.
        text: The column with the text; by default `use` and `_caption`.
        prompts: A list of prompts, the path of a file, or a built-in name such as `short`. The row's id chooses one of
            several. The fingerprint depends on the texts only.
        strip: Whether to remove reasoning (`<think>…</think>` and variants) and end tokens (`<|im_end|>` and others)
            from the answer (captioners/markup.py). Control characters are always removed. The rest is the text.
    """

    added_settings: ClassVar = ("strip", "end_tokens", "reasoning_tags")
    use: ClassVar[str]
    writes: ClassVar[pa.Schema]

    prompts: Prompts
    strip: bool = True
    engine: AnyEngine = Lmdeploy()

    @field_validator("prompts", mode="before")
    @classmethod
    def _read_prompts(cls, prompts: Any) -> Any:
        return read_prompts(prompts) if isinstance(prompts, str) else prompts

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise UserError("give at least one prompt, and no empty ones")
        return prompts

    @property
    def text(self) -> str:
        return f"{self.use}_caption"

    @property
    def token_column(self) -> str:
        return f"{self.use}_tokens"

    def strip_answer(self, text: str, reasoned: bool = False) -> Stripped:
        """Return the text in an answer. `reasoned`: whether the engine returned reasoning separately."""
        if self.strip:
            return strip(text, self.end_tokens, self.reasoning_tags, reasoned)
        return Stripped(printable(text).strip())

    def check_settings(self) -> None:
        """Check the prompts.

        Raises:
            UserError: A prompt has a control token.
        """
        check_prompts(self.prompts, f"{self.text}: prompts")

    def quality(self, text: str, cut: bool, refusal: bool) -> dict[str, object]:
        """Return the columns about a text's quality, by name.

        Args:
            text: The text.
            cut: Whether it may be cut off.
            refusal: Whether the engine says that it is a refusal.
        """
        return {
            f"{self.use}_words": words(text),
            f"{self.use}_cut": int(cut),
            f"{self.use}_refused": int(refusal or refused(text)),
            f"{self.use}_repetition": repetition(text),
            f"{self.use}_language": language_share(text, self.language),
            f"{self.use}_control_tokens": count_control_tokens(text),
        }


def text_columns(use: str, text: str, doc: str, noun: str = "caption", seen: str = "image") -> tuple[pa.Field, ...]:
    """Return the columns of a text and of its quality.

    Args:
        use: How the names of the columns about quality begin.
        text: The column with the text.
        doc: Its meaning.
        noun: What the text is, for the meaning of the other columns.
        seen: What the text is about.
    """
    control_tokens = _CONTROL_TOKENS.format(noun)
    return (
        column(text, pa.string(), doc),
        column(f"{use}_prompt", pa.string(), "The prompt that was used: the first 8 hex digits of its SHA-256"),
        column(f"{use}_words", pa.int32(), f"Number of words in the {noun}, separated by white space", 0),
        column(f"{use}_cut", pa.int8(), f"1 if the {noun} may be cut off (length limit), else 0", 0, 1),
        column(f"{use}_refused", pa.int8(), f"1 if the model refused to describe the {seen}, else 0", 0, 1),
        column(f"{use}_repetition", pa.float32(), "Share of words in repeated sequences of 4 words", 0, 1),
        column(f"{use}_language", pa.float32(), f"Probability that the {noun} is in the expected language", 0, 1),
        column(f"{use}_prompt_tokens", pa.int32(), f"Tokens of prompt and {seen}; null if not reported", 0),
        column(f"{use}_tokens", pa.int32(), "Tokens of the answer; null if not reported", 0),
        column(f"{use}_raw_characters", pa.int32(), _RAW_CHARACTERS, 0),
        column(f"{use}_control_tokens", pa.int8(), control_tokens, 0, MAX_COUNT, control_tokens_of=text),
    )
