"""Captions to train on: short and detailed, by an image chat model such as InternVL2.

VL3-Syn7M has a short caption by InternVL2-8B and a detailed one by InternVL2-26B for every image (VideoLLaMA 3, arXiv
2501.13106, section 2.3). Its prompts and sampling settings are unpublished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl
import pyarrow as pa
from PIL.Image import Image
from pydantic import Field

from captioners.chat_stage import ChatStage, Prompts, text_columns
from captioners.engines.base import Engine, Question
from captioners.markup import SUSPECT
from captioners.prompts import choose, read_prompts
from captioners.text_facts import PromptedQuestion, TextFacts


class Recaption(ChatStage):
    """Base class of `short_caption` and `detailed_caption`."""

    licences: ClassVar = {"OpenGVLab/InternVL2-8B": "MIT", "OpenGVLab/InternVL2-26B": "MIT"}

    @property
    def reads(self) -> Sequence[str]:
        return (self.engine.image_input, "id")

    def outdated(self, stored: pl.LazyFrame) -> pl.Series:
        """Return the ids of rows to compute again: rows of earlier versions with text that is removed today.

        Those versions removed nothing from an answer, and stored no `raw_characters`.

        Args:
            stored: The stage table.
        """
        suspect = pl.col(f"{self.use}_raw_characters").is_null() & pl.col(self.text).str.contains(SUSPECT)
        rows = stored.filter(suspect).select("id", self.text).collect(engine="streaming")
        changed = [self.strip_answer(text).text.split() != text.split() for text in rows[self.text]]
        return rows.filter(pl.Series(changed, dtype=pl.Boolean))["id"]

    def load(self) -> Captioner:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        return Captioner(self, self.load_engine())


class ShortCaption(Recaption):
    """`short_caption`: one sentence."""

    name: ClassVar = "short_caption"
    use: ClassVar = "short"
    writes: ClassVar = pa.schema(text_columns("short", "short_caption", "The short caption, in the model's words"))

    model: str = "OpenGVLab/InternVL2-8B"
    prompts: Prompts = read_prompts("short")
    max_new_tokens: int = Field(default=96, ge=1, le=8192)


class DetailedCaption(Recaption):
    """`detailed_caption`: a paragraph."""

    name: ClassVar = "detailed_caption"
    use: ClassVar = "detailed"
    writes: ClassVar = pa.schema(
        text_columns("detailed", "detailed_caption", "The detailed caption, in the model's words")
    )

    model: str = "OpenGVLab/InternVL2-26B"
    prompts: Prompts = read_prompts("detailed")
    max_new_tokens: int = Field(default=768, ge=1, le=8192)


def default_rules(use: str) -> dict[str, float]:
    """Return the default rules for `keep`. They drop texts that are cut, refused, repetitive or in another language.

    They also drop texts with control tokens. tests/captioners/test_quality_checks.py checks the thresholds.
    """
    return {
        f"max_{use}_cut": 0,
        f"max_{use}_refused": 0,
        f"max_{use}_repetition": 0.3,
        f"min_{use}_language": 0.01,
        f"max_{use}_control_tokens": 0,
    }


class Captioner(TextFacts):
    """`ImageFacts` of `short_caption` and `detailed_caption`.

    Attributes:
        side: None: images are decoded at full resolution.
        longest: Maximum longer side of an image, in pixels.
    """

    def __init__(self, stage: Recaption, engine: Engine) -> None:
        super().__init__(stage, engine)
        self._stage, self.longest = stage, stage.longest

    def prepare(self, image: Image | bytes, id_: int) -> PromptedQuestion:
        """Return the question about an image: scaled down if it is too large, with the prompt that its id chooses."""
        if isinstance(image, Image) and max(image.size) > self.longest:
            image.thumbnail((self.longest, self.longest))
        prompt = choose(self._stage.prompts, id_)
        return self.prompted(Question(image, prompt), prompt)
