"""Captions to train on: short and detailed, by an image chat model such as InternVL2.

VL3-Syn7M has a short caption by InternVL2-8B and a detailed one by InternVL2-26B for every image (VideoLLaMA 3, arXiv
2501.13106, section 2.3). Its prompts and sampling settings are unpublished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import polars as pl
import pyarrow as pa
from PIL.Image import Image
from pydantic import Field, WithJsonSchema, field_validator

from captioners.engines.base import Answer, Engine, Question, Sampling
from captioners.engines.finish import count
from captioners.engines.lmdeploy import Lmdeploy
from captioners.engines.registry import AnyEngine
from captioners.markup import SUSPECT, Stripped, is_blank, one_line, printable, strip
from captioners.prompts import check_prompts, choose, prompt_hash, read_prompts
from captioners.quality_checks import check_language, language_share, refused, repetition, words
from core.control_tokens import MAX_COUNT, count_control_tokens
from core.errors import UserError
from core.secrets import redact
from core.stages import ImageFacts, ImageStage
from manifests.schemas import ERROR, RETRY, column

_LONGEST_ERROR = 1000  # characters
_RAW_CHARACTERS = "Characters of the answer before reasoning and end tokens were removed; null in older rows"
_CONTROL_TOKENS = f"Number of control tokens in the caption, such as <image>; counted up to {MAX_COUNT}"
_LICENCES = {"OpenGVLab/InternVL2-8B": "MIT", "OpenGVLab/InternVL2-26B": "MIT"}

Prompts = Annotated[
    tuple[str, ...],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class Recaption(ImageStage):
    """Base class of `short_caption` and `detailed_caption`.

    Attributes:
        use: `short` or `detailed`; the columns' names begin with it.
        model: A name on the hub or a folder; for a server, its name for the model.
        revision: Branch, tag or commit of the hub's repository.
        prompts: A list of prompts, the path of a file, or a built-in name (`short`, `detailed`). The image's id chooses
            one of several. The fingerprint depends on the texts only.
        max_new_tokens: Maximum length of an answer, in tokens.
        temperature: 0 takes the most probable token each time.
        top_p: Sample from the most probable tokens whose probabilities sum to this; used if temperature is above 0.
        seed: Seed of the sampling.
        language: Expected language of the captions (ISO 639-1).
        strip: Whether to remove reasoning (`<think>…</think>` and variants) and end tokens (`<|im_end|>` and others)
            from the answer (captioners/markup.py). Control characters are always removed. The rest is the caption.
        end_tokens: Further end tokens. The answer is cut at the first one.
        reasoning_tags: Further names of tags around reasoning, such as `musing` for `<musing>…</musing>`.
        longest: Maximum longer side of an image, in pixels; larger images are scaled down.
        engine: The engine that runs the model. Changing it does not recompute captions.
    """

    fingerprint_exclude: ClassVar = ("engine",)
    added_settings: ClassVar = ("strip", "end_tokens", "reasoning_tags")
    journaled: ClassVar = True
    use: ClassVar[str]
    writes: ClassVar[pa.Schema]

    model: str
    revision: str | None = None
    prompts: Prompts
    max_new_tokens: int = Field(ge=1, le=8192)
    temperature: float = Field(default=0, ge=0, le=2)
    top_p: float = Field(default=1, gt=0, le=1)
    seed: int = 0
    language: str = "en"
    strip: bool = True
    end_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    reasoning_tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    longest: int = Field(default=2048, ge=32)
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

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str) -> str:
        check_language(language)
        return language

    @property
    def reads(self) -> Sequence[str]:
        return (self.engine.image_input, "id")

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.model: self.engine.licences.get(self.model, _LICENCES.get(self.model))}

    @property
    def model_files(self) -> Mapping[str, str]:
        return {self.model: self.model} if self.engine.loads_model else {}

    @property
    def gpus(self) -> int:
        return self.engine.gpus

    @property
    def batch_size(self) -> int:
        return self.engine.batch_size

    @property
    def actors(self) -> int | None:
        return self.engine.actors

    def strip_answer(self, text: str, reasoned: bool = False) -> Stripped:
        """Return the caption in an answer. `reasoned`: whether the engine returned reasoning separately."""
        if self.strip:
            return strip(text, self.end_tokens, self.reasoning_tags, reasoned)
        return Stripped(printable(text).strip())

    def outdated(self, stored: pl.LazyFrame) -> pl.Series:
        """Return the ids of rows to compute again: rows of earlier versions with text that is removed today.

        Those versions removed nothing from an answer, and stored no `raw_characters`.

        Args:
            stored: The stage table.
        """
        caption = f"{self.use}_caption"
        suspect = pl.col(f"{self.use}_raw_characters").is_null() & pl.col(caption).str.contains(SUSPECT)
        rows = stored.filter(suspect).select("id", caption).collect(engine="streaming")
        changed = [self.strip_answer(text).text.split() != text.split() for text in rows[caption]]
        return rows.filter(pl.Series(changed, dtype=pl.Boolean))["id"]

    def check_settings(self) -> None:
        """Check the prompts.

        Raises:
            UserError: A prompt has a control token.
        """
        check_prompts(self.prompts, f"{self.use}_caption: prompts")

    def check_available(self) -> None:
        """Check that the model or the server is available.

        Raises:
            UserError: It is not.
        """
        self.engine.check_available(self.model, f"{self.use}_caption", self.revision)

    @property
    def token_column(self) -> str:
        return f"{self.use}_tokens"

    def load(self) -> Captioner:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        sampling = Sampling(self.max_new_tokens, self.temperature, self.top_p, self.seed)
        return Captioner(self, self.engine.load(self.model, f"{self.use}_caption", self.revision, sampling))


def _columns(use: str) -> pa.Schema:
    return pa.schema(
        [
            column(f"{use}_caption", pa.string(), f"The {use} caption, in the model's words"),
            column(f"{use}_prompt", pa.string(), "The prompt that was used: the first 8 hex digits of its SHA-256"),
            column(f"{use}_words", pa.int32(), "Number of words in the caption, separated by white space", 0),
            column(f"{use}_cut", pa.int8(), "1 if the caption may be cut off (length limit), else 0", 0, 1),
            column(f"{use}_refused", pa.int8(), "1 if the model refused to describe the image, else 0", 0, 1),
            column(f"{use}_repetition", pa.float32(), "Share of words in repeated sequences of 4 words", 0, 1),
            column(f"{use}_language", pa.float32(), "Probability that the caption is in the expected language", 0, 1),
            column(f"{use}_prompt_tokens", pa.int32(), "Tokens of prompt and image; null if not reported", 0),
            column(f"{use}_tokens", pa.int32(), "Tokens of the answer; null if not reported", 0),
            column(f"{use}_raw_characters", pa.int32(), _RAW_CHARACTERS, 0),
            column(
                f"{use}_control_tokens", pa.int8(), _CONTROL_TOKENS, 0, MAX_COUNT, control_tokens_of=f"{use}_caption"
            ),
        ]
    )


class ShortCaption(Recaption):
    """`short_caption`: one sentence."""

    name: ClassVar = "short_caption"
    use: ClassVar = "short"
    writes: ClassVar = _columns("short")

    model: str = "OpenGVLab/InternVL2-8B"
    prompts: Prompts = read_prompts("short")
    max_new_tokens: int = Field(default=96, ge=1, le=8192)


class DetailedCaption(Recaption):
    """`detailed_caption`: a paragraph."""

    name: ClassVar = "detailed_caption"
    use: ClassVar = "detailed"
    writes: ClassVar = _columns("detailed")

    model: str = "OpenGVLab/InternVL2-26B"
    prompts: Prompts = read_prompts("detailed")
    max_new_tokens: int = Field(default=768, ge=1, le=8192)


def default_rules(use: str) -> dict[str, float]:
    """Return the default rules for `keep`. They drop captions that are cut, refused, repetitive or in another language.

    They also drop captions with control tokens. tests/captioners/test_quality_checks.py checks the thresholds.
    """
    return {
        f"max_{use}_cut": 0,
        f"max_{use}_refused": 0,
        f"max_{use}_repetition": 0.3,
        f"min_{use}_language": 0.01,
        f"max_{use}_control_tokens": 0,
    }


class PromptedQuestion(NamedTuple):
    """A question as the engine prepared it, and the hash of its prompt."""

    question: Any
    prompt_hash: str


class Captioner(ImageFacts):
    """`ImageFacts` of `short_caption` and `detailed_caption`.

    Attributes:
        side: None: images are decoded at full resolution.
        longest: Maximum longer side of an image, in pixels.
        calls: Number of calls that the engine accepts at the same time.
        provenance: What computes the captions, as reported by the engine.
    """

    def __init__(self, stage: Recaption, engine: Engine) -> None:
        self._stage, self._engine = stage, engine
        self._row_type = pa.struct([*stage.writes, ERROR, RETRY])
        check_language(stage.language)  # loads the language model once, before threads use it
        self.longest, self.calls = stage.longest, engine.calls
        self.provenance: Mapping[str, object] = engine.provenance

    def prepare(self, image: Image | bytes, id_: int) -> PromptedQuestion:
        """Return the question about an image: scaled down if it is too large, with the prompt that its id chooses."""
        longest = self._stage.longest
        if isinstance(image, Image) and max(image.size) > longest:
            image.thumbnail((longest, longest))
        prompt = choose(self._stage.prompts, id_)
        return PromptedQuestion(self._engine.prepare(Question(image, prompt)), prompt_hash(prompt))

    def __call__(self, inputs: Sequence[PromptedQuestion]) -> pa.Table:
        answers = self._engine([prompted.question for prompted in inputs])
        rows = [self._row(prompted.prompt_hash, answer) for prompted, answer in zip(inputs, answers, strict=True)]
        batch = pa.RecordBatch.from_struct_array(pa.array(rows, self._row_type))  # columns that a row lacks are null
        return pa.Table.from_batches([batch])

    def _row(self, prompt_hash: str, answer: Answer) -> dict[str, object]:
        """Return the columns of an answer, by name. A row without a caption has an error."""
        use, stripped = self._stage.use, self._stage.strip_answer(answer.text, answer.reasoned)
        text, cut = stripped.text, bool(answer.cut) or stripped.thinking
        common: dict[str, object] = {
            f"{use}_prompt": prompt_hash,
            f"{use}_prompt_tokens": count(answer.prompt_tokens),
            f"{use}_tokens": count(answer.tokens),
            f"{use}_raw_characters": None if answer.error else len(answer.text),
        }
        if answer.error or is_blank(text):
            error = answer.error or _why_empty(cut, answer.reasoned or stripped.reasoned)
            return {**common, "error": _storable(error), "retry": bool(answer.retry)}
        return {
            **common,
            f"{use}_caption": text,
            f"{use}_words": words(text),
            f"{use}_cut": int(cut),
            f"{use}_refused": int(answer.refused or refused(text)),
            f"{use}_repetition": repetition(text),
            f"{use}_language": language_share(text, self._stage.language),
            f"{use}_control_tokens": count_control_tokens(text),
            "error": None,
            "retry": False,
        }


def _storable(error: object) -> str:
    """Return an engine's error in one line, without credentials. An engine of another package may contain them."""
    return redact(one_line(str(error)))[:_LONGEST_ERROR] or "the engine gives an error without words"


def _why_empty(cut: bool, reasoned: bool) -> str:
    if cut and reasoned:
        return "empty caption: cut while thinking; raise max_new_tokens, or have the model answer without reasoning"
    if reasoned:
        return "empty caption: the model ended it after its reasoning, before its first word"
    if cut:
        return "empty caption: cut before its first word"
    return "empty caption: the model ended it before its first word"
